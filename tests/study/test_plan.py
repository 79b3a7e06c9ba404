"""The plan: passes counted exactly, what is finished found, hours and sizes that add up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from matlib.cli import main
from matlib.models.small import build_small
from matlib.study.made.protocols import EvaluationProtocol
from matlib.study.profile.parts import TrainAttack
from matlib.study.profile.profile import load_profile, profile_names
from matlib.study.profile.rows import Run
from matlib.study.recipes import inside_rows_of
from matlib.study.run import plan as module
from matlib.study.run.plan import Plan, plan
from matlib.study.run.probe import (
    COUNTING,
    KINDS,
    Timed,
    captioning_seconds,
    counted,
    counting_encoder,
    edits_for,
    grounding_seconds,
    judging,
    made_pairs,
    sanity_rows,
    training_steps,
)
from matlib.study.run.tasks import Task, all_rows
from matlib.study.study import Study
from tests.toys import random_pixels, tiny_encoder

SMOKE = load_profile("smoke")
K = 3
ATTACK = TrainAttack(eps_255=2, pgd_steps=K, threats=("typo",), search="exhaustive", max_edits=2)


def rows_of(defence: str) -> dict[str, float]:
    profile = SMOKE.model_copy(update={"train_attack": ATTACK})
    _, rows = training_steps(counting_encoder(), profile, Run(defence=defence), 4, 1)
    return {kind: n for kind, n in rows.items() if n}


def test_passes_of_a_step_are_those_of_its_definition() -> None:
    assert rows_of("clean") == {"image_train": 1, "text_train": 1}
    # K passes to the pixels; the captions that they are ascended against are embedded once
    assert rows_of("image-at") == {
        "image_attack": K, "image_train": 1, "text_forward": 1, "text_train": 1,
    }  # fmt: skip
    # only the image tower learns, against captions without gradient
    assert rows_of("tecoa") == {"image_attack": K, "image_train": 1, "text_forward": 2}
    # the clean caption and two edits, of which one is what K passes see, and the image once
    assert rows_of("mat") == {
        "image_forward": 1, "image_attack": K, "image_train": 1,
        "text_forward": 1 + 2, "text_train": 1,
    }  # fmt: skip


def test_passes_of_a_judging_are_those_of_its_attacks() -> None:
    how = EvaluationProtocol("test-1", ("typo",), 4.0, ("clean", "pgd"))
    _, rows = judging(counting_encoder(), SMOKE, how, 3)
    n_captions = SMOKE.dataset.captions_per_image
    assert rows["image_attack"] == SMOKE.evaluation.pgd_steps
    assert rows["image_train"] == rows["text_train"] == 0
    assert rows["text_forward"] >= n_captions and rows["image_forward"] >= 2


def test_passes_of_the_sanity_battery_are_counted() -> None:
    rows = sanity_rows(counting_encoder(), SMOKE, 4)
    n, apgd = SMOKE.evaluation.pgd_steps, 50
    assert rows["image_attack"] >= 14 * n + apgd  # as `sanity` says of itself
    assert rows["text_forward"] > 0 and rows["image_train"] == rows["text_train"] == 0


@pytest.mark.usefixtures("quick")
def test_what_takes_too_long_is_predicted_from_its_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, tried = counting_encoder(), list[object]()
    slow = {kind: Timed(1000.0, 0.1) for kind in KINDS}

    def steps(encoder: object, *_: object) -> tuple[Timed, dict[str, float]]:
        tried.append(encoder)
        return Timed(2.0, 0.1), dict.fromkeys(KINDS, 1.0)

    def judged(encoder: object, *_: object) -> tuple[float, dict[str, float]]:
        tried.append(encoder)
        return 1.0, dict.fromkeys(KINDS, 2.0)

    monkeypatch.setattr(module, "counting_encoder", lambda: counting)
    monkeypatch.setattr(module, "pass_seconds", lambda *_, **__: slow)
    monkeypatch.setattr(module, "training_steps", steps)
    monkeypatch.setattr(module, "judging", judged)
    found = plan(load_profile("flickr30k"), tmp_path)
    assert tried and {*map(id, tried)} == {id(counting)}
    assert any("steps take too long" in note for note in found.notes)
    assert found.error > module.UNMEASURED / 2


def test_counting_leaves_the_model_as_it_was() -> None:
    encoder = tiny_encoder()
    with counted(encoder) as rows, torch.no_grad():
        encoder.encode_image(random_pixels(3))
        encoder.encode_text(["a", "b"])
    assert dict(rows) == {"image_forward": 3, "text_forward": 2}
    assert "image_features" not in vars(encoder)
    encoder.encode_image(random_pixels(3))
    assert rows["image_forward"] == 3


def test_as_many_edits_as_the_threats_allow() -> None:
    captions = made_pairs(2, 1, 16).captions
    sizes = SMOKE.candidates
    free, both = (edits_for(captions, SMOKE, t) for t in (["bert_free"], ["bert_free", "typo"]))
    n_words = len({edit.position for edit in free[0]})
    assert len(free[0]) == sizes.k_free * n_words
    assert len(both[0]) == (sizes.k_free + sizes.typos_per_word) * n_words


def test_a_spread_is_half_the_range_over_the_median() -> None:
    assert Timed.of([1.0, 2.0, 4.0]) == Timed(2.0, 0.75)
    assert Timed.of([3.0]) == Timed(3.0, 0.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model tiny, every row and image the same second."""
    one = {kind: Timed(1.0, 0.1) for kind in KINDS}
    monkeypatch.setattr(module, "_encoder", lambda *_: build_small(COUNTING, 0))
    monkeypatch.setattr(module, "pass_seconds", lambda *_, **__: one)
    monkeypatch.setattr(
        module, "training_steps", lambda *_: (Timed(2.0, 0.1), dict.fromkeys(KINDS, 1.0))
    )
    monkeypatch.setattr(module, "judging", lambda *_: (1.0, dict.fromkeys(KINDS, 2.0)))
    monkeypatch.setattr(module, "captioning_seconds", lambda *_: (Timed(0.5, 0.1), 3.0))
    monkeypatch.setattr(module, "grounding_seconds", lambda *_: 2.0)
    monkeypatch.setattr(module, "sanity_rows", lambda *_: dict.fromkeys(KINDS, 2.0))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", profile_names())
def test_every_profile_can_be_planned_without_its_data(name: str, tmp_path: Path) -> None:
    profile = load_profile(name)
    found = plan(profile, tmp_path)
    n_trained = len(profile.runs) * len(profile.seeds) + len(inside_rows_of(profile))
    n_elsewhere = len(profile.architectures) * (1 + len(profile.transfer_rows) * len(profile.seeds))
    n_trained += len(all_rows(profile).of_pairs)
    n_worlds = 1 + len(profile.worlds)
    assert found.n_models == found.n_left == n_worlds * (1 + n_trained + n_elsewhere)
    assert found.hours == pytest.approx(found.hours_left)
    assert found.hours * 3600 * found.n_workers == pytest.approx(sum(found.seconds.values()))
    assert found.hours > 0 and 0 < found.error < 2
    assert all(size > 0 for size in found.memory_gib.values())
    assert list(tmp_path.iterdir()) == []  # a plan writes nothing
    made_up = any("made up" in note for note in found.notes)
    assert made_up == (profile.dataset.name != "scenes")
    if profile.finetune is not None:
        n_bases = n_worlds * (1 + len(profile.architectures))
        phases = [profile.finetune] * (found.n_models - n_bases)
        phases += [profile.base] * n_bases if profile.base else []
        pairs = sum(phase.n_steps * phase.batch_size for phase in phases)
        assert found.training_rows == (dict.fromkeys(KINDS, float(pairs)) if pairs else {})


@pytest.mark.usefixtures("quick")
def test_captioning_and_grounding_are_in_the_hours(tmp_path: Path) -> None:
    options, n_test = SMOKE.other_tasks, SMOKE.dataset.n_test
    assert options is not None
    n_models = 1 + len(options.rows)  # one seed, and the base
    found = plan(SMOKE, tmp_path).seconds
    assert found["captioning"] == n_models * (options.captioner_steps * 0.5 + n_test * 3)
    assert found["grounding"] == n_models * n_test * 2
    without = plan(SMOKE.model_copy(update={"other_tasks": None}), tmp_path).seconds
    assert "captioning" not in without and "grounding" not in without


def test_a_step_of_a_writer_and_an_image_of_each_task_are_timed() -> None:
    step, image = captioning_seconds(counting_encoder(), SMOKE, 2)
    assert step.seconds > 0 and image > 0 and grounding_seconds(counting_encoder(), SMOKE, 2) > 0


@pytest.mark.usefixtures("quick")
def test_what_is_finished_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = plan(SMOKE, tmp_path)
    Study(SMOKE, tmp_path)  # its folder is there
    finished = {Task("judged", "mat"), Task("base")}
    monkeypatch.setattr(module, "is_done", lambda _, task: task in finished)
    some = plan(SMOKE, tmp_path)
    assert some.n_left == whole.n_left - 1 and some.hours == pytest.approx(whole.hours)
    assert SMOKE.finetune is not None and SMOKE.base is not None
    # 5 rows of a second per pair, and a probe of 2 pairs took 2 s where 10 s were predicted
    steps = sum(p.n_steps * p.batch_size * 5 * 2 / 10 for p in (SMOKE.finetune, SMOKE.base))
    evaluated = SMOKE.dataset.n_test * 5 * 2  # 2 rows of each of 5 kinds per image
    measured = SMOKE.dataset.n_val * (SMOKE.finetune.n_steps // SMOKE.finetune.validate_every)
    evaluated += measured * 5 * 2
    saved = (whole.hours - some.hours_left) * 3600 * whole.n_workers
    assert saved == pytest.approx(steps + evaluated + 2 * module.TASK_SECONDS)
    monkeypatch.setattr(module, "is_done", lambda *_: True)
    assert plan(SMOKE, tmp_path).hours_left == 0


def test_the_plan_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Plan("smoke", "cpu", 2, {"image": 1000, "text": 2}, 7, 3, {"image_train": 5e6})
    made = replace(made, hours=3.0, hours_left=0.5, error=0.25, memory_gib={"RAM": 1.5})
    monkeypatch.setattr("matlib.study.run.plan.plan", lambda *_: made)
    assert main(["plan", "smoke", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for text in ("7, of which 3 are left", "3.0 h ± 25 %", "30.0 min ± 25 %", "5e+06 images"):
        assert text in shown
    assert main(["plan", "smok"]) == 1
    assert "no profile 'smok'" in capsys.readouterr().err


def test_a_plan_says_what_it_does_before_it_opens_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    said: list[str] = []
    monkeypatch.setattr(module, "_encoder", stop)
    with pytest.raises(KeyboardInterrupt):
        plan(SMOKE, tmp_path, workers=3, say=said.append)
    assert len(said) == 1 and said[0].startswith("smoke: ") and "3 at a time" in said[0]


def test_a_small_study_is_planned_by_measuring(tmp_path: Path) -> None:
    said: list[str] = []
    found = plan(SMOKE, tmp_path, say=said.append)
    for what in ("timing passes", "timing steps of mat with", "timing pgd", "what is finished"):
        assert any(what in line for line in said)
    assert 0 < found.hours < 1 and set(found.seconds) == {
        "training", "validation", "judging", "inside", "held-out", "sanity", "gap", "storing",
        "captioning", "grounding", "transfer", "unimodal", "technique", "sweep", "dialled",
    }  # fmt: skip
