"""A study of several worlds: each with data and a base of its own, judged by the same rows."""

from __future__ import annotations

import pytest

from matlib.study.made.base import base
from matlib.study.profile.profile import Profile, ProfileError, load_profile
from matlib.study.profile.rows import Run
from matlib.study.recipes import profile_of_architecture
from matlib.study.run.tasks import (
    TRAINED,
    Task,
    all_rows,
    artefacts_of,
    is_done,
    make_rows,
    tasks_of,
)
from matlib.study.study import Study
from matlib.study.tables.endpoints import endpoint_table
from matlib.study.tables.recalls import Recalls
from tests.study.smoke_parts import NO_PAIRS

WORLDS = (7, 8, 9)


@pytest.fixture(scope="module")
def profile() -> Profile:
    smoke = load_profile("smoke")
    e = smoke.evaluation.model_copy(update={"held_out": (), "threats": ("bert_true",)})
    changes = {"runs": (Run(defence="clean"),), "worlds": WORLDS[1:], "evaluation": e,
               "transfer_rows": (), "architectures": {}}  # fmt: skip
    return smoke.model_copy(update={**changes, **NO_PAIRS})


@pytest.fixture(scope="module")
def study(profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(profile, tmp_path_factory.mktemp("worlds"))


def test_every_world_has_pairs_and_a_base_of_its_own_in_one_store(study: Study) -> None:
    worlds = study.worlds()
    assert [each.profile.dataset.world_seed for each in worlds] == list(WORLDS)
    assert len({each.pairs("test").captions for each in worlds}) == len(WORLDS)
    nodes = [base(each) for each in worlds]
    assert len({node.hash for node in nodes if node is not None}) == len(WORLDS)
    assert all(each.store is study.store for each in worlds)
    assert study.of_world(8) is worlds[1] and study.of_world(None) is study
    with pytest.raises(ValueError, match="no further world 3; it has: 8, 9"):
        study.of_world(3)


def test_each_row_is_a_task_in_each_world_and_its_numbers_are_averaged(study: Study) -> None:
    rows = all_rows(study.profile)
    tasks = tasks_of(study.profile, rows)
    judged = [(task.world, task.name) for task in tasks if task.what == "judged"]
    assert sorted(judged, key=str) == sorted(
        ((world, name) for world in (None, *WORLDS[1:]) for name in ("base", "clean")), key=str
    )
    assert str(Task("judged", "clean", 0, world=8)) == "world 8, clean s0"
    make_rows(study, None, rows, 1, say=lambda line: None)
    assert all(is_done(study, task) for task in tasks if task.what == "judged")
    one = next(task for task in tasks if task.what == "judged" and task.world == 9)
    [artefact] = artefacts_of(study, one)
    assert artefact.hash in {
        node.hash for task in tasks if task.what == "judged" for node in artefacts_of(study, task)
    }
    table = endpoint_table(study, ["clean"]).set_index("attack")
    levels = [here.level("clean", "pgd") for here in Recalls(study).everywhere]
    assert table.loc["pgd", "value"] == pytest.approx(sum(levels) / len(WORLDS))
    assert table.loc["pgd", "n_seeds"] == len(WORLDS)


def test_tables_ask_in_further_worlds_for_nothing_that_no_task_makes(profile: Profile) -> None:
    smoke = load_profile("smoke").model_copy(update={"worlds": (8,)})
    tasks = tasks_of(smoke, all_rows(smoke))
    for what in TRAINED:
        own, further = ({(t.name, t.seed) for t in tasks if t.what == what and t.world == world
                         and not t.architecture} for world in (None, 8))  # fmt: skip
        assert own == further and own
    assert profile_of_architecture(smoke, "other").worlds == ()


def test_worlds_are_of_the_embedded_world_and_named_once() -> None:
    smoke = load_profile("smoke").model_dump()
    for changes in ({"worlds": [7]}, {"worlds": [8, 8]}):
        with pytest.raises(ValueError, match="once"):
            Profile.model_validate({**smoke, **changes})
    with pytest.raises((ValueError, ProfileError), match="scenes is expected"):
        load = load_profile("flickr8k").model_dump()
        Profile.model_validate({**load, "worlds": [3]})
