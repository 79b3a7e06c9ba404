"""What changes numbers changes identities: local models by content, arithmetic, never places."""

from __future__ import annotations

from pathlib import Path

import torch

from matlib.study.arithmetic import arithmetic, one_thread
from matlib.study.context import identified
from matlib.study.profile.profile import load_profile
from matlib.study.store.provenance import named_weights
from matlib.study.study import Study

SMOKE = load_profile("smoke")


def test_a_local_model_is_its_content_wherever_it_lies(tmp_path: Path) -> None:
    found = []
    for place in ("a", "b"):
        (tmp_path / place / "deep").mkdir(parents=True)
        (tmp_path / place / "deep" / "weights").write_text("1")
        found.append(named_weights(str(tmp_path / place)))
    assert found[0] == found[1]
    (tmp_path / "b" / "deep" / "weights").write_text("2")
    assert named_weights(str(tmp_path / "b")) != found[0]
    one = named_weights(str(tmp_path / "a" / "deep" / "weights"))
    assert one != named_weights(str(tmp_path / "b" / "deep" / "weights"))
    assert named_weights("Salesforce/blip-image-captioning-base").startswith("Salesforce/")


def test_identities_hold_no_path_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("1")
    here = str(tmp_path / "w")
    named = {"kind": "open_clip", "name": "x", "pretrained": here, "rest": here}
    model = SMOKE.model.model_copy(update=named)
    words = SMOKE.masked_lm.model_copy(update={"kind": "pretrained", "name": here})
    captioner = SMOKE.generators.model_copy(update={"captioner": here, "translators": (here, here)})
    sentences = SMOKE.evaluation.model_copy(update={"sentence_encoder": here})
    profile = SMOKE.model_copy(
        update={
            "model": model,
            "masked_lm": words,
            "generators": captioner,
            "evaluation": sentences,
            "architectures": {"other": model},
        }
    )
    text = identified(profile).model_dump_json()
    assert str(tmp_path) not in text and text.count(named_weights(here)) == 9
    assert identified(SMOKE) == SMOKE


def test_variables_that_cost_digits_are_a_part_of_the_identity() -> None:
    assert arithmetic("cpu", {"OMP_NUM_THREADS": "8"}) == "cpu"
    named = arithmetic("cuda", {"NVIDIA_TF32_OVERRIDE": "1"})
    assert named == "cuda, NVIDIA_TF32_OVERRIDE=1"


def test_small_models_are_made_on_one_thread_whatever_the_cores(base_study: Study) -> None:
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(3)

        def make(folder: Path) -> None:
            seen.append(torch.get_num_threads())
            (folder / "file").write_text("x")

        node = base_study.node("masked-lm", "threads", 0, {}, {}, make, lambda artefact: None)
        base_study.get(node)
        assert seen == [1] and torch.get_num_threads() == 3
        with one_thread(False):
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
