"""What a generator was asked, and how, is noted beside what it gave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from matlib.augmentations.diffusion import GUIDANCE
from matlib.augmentations.generators import PROMPT, InstructRewriter
from matlib.data.pairs import OneToMany
from matlib.study.made.pairs import BY_MODEL, CAPTIONS, _as_they_came, _Counting, generated
from matlib.study.profile.profile import Profile, load_profile
from matlib.study.profile.rows import Run
from matlib.study.store.store import Artefact
from matlib.study.study import Study
from tests.toys import generator

NAMED = {"rewriter": "an-instruct-model", "image_to_image": "a-diffusion-model", "top_p": 0.8}


@pytest.fixture(scope="module")
def profile() -> Profile:
    plain = load_profile("smoke").model_dump()
    plain["generators"] = {**plain["generators"], **NAMED}
    return Profile(**plain)


def made_here(study: Study, technique: str, folder: Path) -> tuple[OneToMany, dict[str, Any]]:
    """What a generator adds, its artefact made in a folder, and the notes that it made."""
    node = generated(study, Run(defence="mat+", augmentation=cast(Any, technique)), 0)
    assert node is not None
    notes = dict(node.make(folder) or {})
    outputs = {path.name: {} for path in folder.iterdir()}
    return node.load(Artefact(folder, {"notes": notes, "outputs": outputs})), notes


def test_a_rewriters_prompt_sampling_and_refusals_are_noted(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    class Stubborn(InstructRewriter):
        """At first it only repeats what it is told."""

        def __call__(self, captions: Any, n: int, generator: Any, **_: Any) -> list[list[str]]:
            calls.append(len(captions))
            if len(calls) == 1:
                return [[caption] * n for caption in captions]
            return [[f"{caption}, version {i}" for i in range(n)] for caption in captions]

    def load(source: str, device: str, **sampling: Any) -> InstructRewriter:
        return Stubborn(None, None, **sampling)

    monkeypatch.setattr(InstructRewriter, "load", load)
    study = Study(profile, tmp_path / "results")
    found, notes = made_here(study, "rewritten", tmp_path)
    n = profile.dataset.n_train
    assert calls == [n, n] and (tmp_path / CAPTIONS).is_file()
    assert all(len(own) == profile.n_variants for own in found.captions)
    added = profile.n_variants - 1
    assert notes == {
        "prompt": PROMPT, "temperature": 1.0, "top_p": 0.8, "max_new_tokens": 40, "tries": 3,
        "n_asked": added * n, "n_empty": 0, "n_identical": added * n, "n_left_out": 0,
        "n_retried": n,
    }  # fmt: skip


def test_steps_and_guidance_of_diffusion_are_noted(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass
    class Inverting:
        n_steps: int = 30
        size: int = 512

        def draw(self, captions: Any, generator: Any, images: Any, strength: float) -> Any:
            return 255 - images

    monkeypatch.setattr(
        "matlib.study.made.pairs.Diffusion.load", lambda source, what, device: Inverting()
    )
    study = Study(profile, tmp_path)
    run, pairs = Run(defence="mat+", augmentation="restyled"), study.source.pairs("train")
    found, notes = BY_MODEL["image_to_image"](study, run, pairs, 1, generator(0))
    assert notes == {
        "diffusion_steps": 30, "guidance": GUIDANCE, "size": 512, "diffusion_strength": 0.5
    }  # fmt: skip
    assert torch.equal(found.all_images()[:, 1], 255 - found.all_images()[:, 0])


def test_pairs_that_are_asked_about_again_are_counted() -> None:
    writer = _Counting(lambda rows, n, generator: [["a"] * n for _ in rows])
    writer([0, 1, 2], 2, generator(0))
    assert writer.n_retried == 0
    writer([1, 2], 1, generator(0))
    assert writer([2], 1, generator(0)) == [["a"]]
    assert writer.n_retried == 3


def test_unsorted_captions_are_counted_as_they_came() -> None:
    images = torch.zeros(2, 1, 3, 4, 4, dtype=torch.uint8)
    made = OneToMany("rewritten", (("a", "a", "b", "b"), ("c", "d", "e", "f")), images)
    assert _as_they_came(made) == {"n_asked": 6, "n_equal_original": 1, "n_repeats": 1}
