"""A study of the undefended model alone, made once for the tests that only read it."""

from __future__ import annotations

import pytest

from matlib.study.profile.profile import load_profile
from matlib.study.study import Study
from tests.study.smoke_parts import NO_PAIRS


@pytest.fixture(scope="session")
def base_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The smoke profile without defences."""
    profile = load_profile("smoke").model_copy(update={"runs": (), "name": "base-only", **NO_PAIRS})
    return Study(profile, tmp_path_factory.mktemp("results"))
