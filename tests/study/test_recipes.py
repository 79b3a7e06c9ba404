from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from matlib.augmentations.table import TECHNIQUES
from matlib.defences.defence import Contrastive
from matlib.defences.table import defence
from matlib.study.made.models import defended, training_tables
from matlib.study.profile.profile import load_profile
from matlib.study.profile.rows import Run
from matlib.study.recipes import (
    defence_of,
    inside_rows_of,
    row_name,
    schedule_of,
    train_attack_of,
    undefended_rows,
)
from matlib.study.study import Study

SMOKE = load_profile("smoke")


def test_a_run_without_choices_is_the_defence_itself() -> None:
    run = Run(defence="mat")
    assert defence_of(run) is defence("mat")
    assert train_attack_of(SMOKE, run) == SMOKE.train_attack
    assert SMOKE.finetune is not None
    assert schedule_of(SMOKE.finetune, run).lr == SMOKE.finetune.lr


def test_a_row_on_true_words_has_the_defence_that_it_is_named_after() -> None:
    how = defence_of(Run(defence="mat-valid"))
    assert how == replace(defence("mat"), name="mat-valid")
    with pytest.raises(ValueError, match="unknown defence 'nothing-valid'; known: clean"):
        Run(defence="nothing-valid")


def test_choices_reach_the_defence_its_schedule_and_its_attack() -> None:
    run = Run(
        defence="mat-valid", label="x", threats=("typo",), lr=1e-4, order="independent",
        mixed_pairs=0.5, clean_pairs=0.25, pgd_steps=3, ema_decay=0.9,
    )  # fmt: skip
    how = defence_of(run)
    assert isinstance(how, Contrastive) and how.order == "independent"
    assert how.pairs.by_versions() == {
        (True, True): 0.25, (True, False): 0.25, (False, True): 0.25, (False, False): 0.25,
    }  # fmt: skip
    assert SMOKE.finetune is not None
    schedule = schedule_of(SMOKE.finetune, run)
    assert (schedule.lr, schedule.ema_decay) == (1e-4, 0.9)
    attack = train_attack_of(SMOKE, run)
    assert (attack.threats, attack.pgd_steps) == (("typo",), 3)
    assert row_name(run) == "mat-valid.x"


def test_shares_of_pairs_are_refused_where_the_loss_is_not_on_pairs() -> None:
    with pytest.raises(ValueError, match="not on pairs"):
        defence_of(Run(defence="fare", clean_pairs=0.5))
    with pytest.raises(ValueError, match="shares of 1"):
        Run(defence="mat", clean_pairs=0.7, mixed_pairs=0.7)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(SMOKE, tmp_path_factory.mktemp("results"))


@pytest.mark.parametrize(
    "choice",
    [{"lr": 1e-4}, {"order": "independent"}, {"clean_pairs": 0.5}, {"pgd_steps": 7},
     {"ema_decay": 0.5}],
)  # fmt: skip
def test_each_choice_is_another_model(smoke: Study, choice: dict[str, object]) -> None:
    plain = defended(smoke, Run(defence="mat"), 0)
    other = defended(smoke, Run(**{"defence": "mat", **choice}), 0)  # type: ignore[arg-type]
    assert plain.hash != other.hash


def test_words_of_the_same_captions_are_shared_over_seeds_but_typos_are_not(smoke: Study) -> None:
    of = partial(training_tables, smoke)
    words, typos = Run(defence="mat", threats=("bert_free",)), Run(defence="mat", threats=("typo",))
    assert of(words, 0).hash == of(words, 3).hash
    assert of(typos, 0).hash != of(typos, 3).hash
    varied = Run(defence="mat+", augmentation="captions", threats=("bert_free",))
    assert of(varied, 0).hash != of(varied, 3).hash


def test_models_without_augmentation_do_not_depend_on_its_code(smoke: Study) -> None:
    plain = defended(smoke, Run(defence="mat"), 0)
    varied = defended(smoke, Run(defence="mat+", augmentation="drop-swap"), 0)
    assert set(plain.spec.chosen) & set(TECHNIQUES) == {"none"}
    assert (
        set(varied.spec.chosen) & set(TECHNIQUES) == {"drop-swap"}
        and varied.spec.code != plain.spec.code
    )


def test_choosing_on_validation_is_another_model_and_depends_on_its_words(
    smoke: Study, tmp_path: Path
) -> None:
    assert SMOKE.finetune is not None
    phase = SMOKE.finetune.model_copy(update={"validate_every": 1})
    study = Study(SMOKE.model_copy(update={"finetune": phase}), tmp_path)
    chosen = defended(study, Run(defence="mat"), 0)
    assert chosen.hash != defended(smoke, Run(defence="mat"), 0).hash
    assert "validation" in chosen.inputs


def test_variations_may_have_fewer_seeds() -> None:
    varied = load_profile("smoke").model_copy(update={"seeds": (0, 1, 2)})
    assert [seed for _, seed in inside_rows_of(varied)] == [0, 1, 2]
    fewer = varied.model_copy(update={"inside_seeds": (0, 2)})
    assert inside_rows_of(fewer) == [("mat.independent", 0), ("mat.independent", 2)]


def test_undefended_models_are_clean_fine_tunings_where_there_are_enough() -> None:
    smoke = load_profile("smoke")
    assert undefended_rows(smoke) == [("base", 0)]
    many = smoke.model_copy(update={"seeds": (0, 3, 4)})
    assert undefended_rows(many) == [("clean", 0), ("clean", 3), ("clean", 4)]
    without = tuple(run for run in smoke.runs if run.defence != "clean")
    assert undefended_rows(many.model_copy(update={"runs": without})) == [("base", 0)]


def test_the_image_step_is_a_choice_of_defences_that_ascend_clips_loss() -> None:
    run = Run(defence="mat+", augmentation="captions", label="x", image_step="caption_set")
    how = defence_of(run)
    assert how.image == "caption_set" and row_name(run) == "mat+.captions.x"
    assert defence_of(Run(defence="mat")).image == "symmetric"
    with pytest.raises(ValueError, match="not CLIP's loss"):
        defence_of(Run(defence="fare", image_step="caption_set"))
