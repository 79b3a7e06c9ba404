"""Transfer between models of a study, and the ranking of techniques on each architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from matlib.evaluation.retrieval import worst_of
from matlib.evaluation.robustness import evaluate
from matlib.evaluation.statistics import primary_endpoint
from matlib.study.made.base import base, masked_lm
from matlib.study.made.protocols import INSIDE_ATTACKS, between_models
from matlib.study.made.transfer import (
    Subject,
    architecture_rows,
    sources,
    subjects,
    transferred,
)
from matlib.study.profile.parts import Model
from matlib.study.profile.profile import Profile, load_profile
from matlib.study.profile.rows import Run
from matlib.study.run.records import accept_records, write_records
from matlib.study.run.tasks import Rows, Task, is_done, make_rows, tasks_of
from matlib.study.study import Study
from matlib.study.tables.contrasts import transfer_of_ranking
from matlib.study.tables.endpoints import TRANSFER_COLUMNS, ranking_table, transfer_table
from matlib.study.tables.ledger import ledger
from tests.study.smoke_parts import NO_PAIRS

ROWS = ("clean", "text-at", "mat")
SMOKE = load_profile("smoke")
WIDER = SMOKE.model.model_copy(update={"image_width": 48})


def profile(**more: object) -> Profile:
    changes = {
        "runs": tuple(Run(defence=name) for name in ROWS),
        **NO_PAIRS,
        "architectures": {"wider": WIDER},
        "transfer_rows": ROWS,
    }
    held = SMOKE.evaluation.model_copy(update={"held_out": (), "curve_eps_255": ()})
    return SMOKE.model_copy(update={**changes, "evaluation": held, **more})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(profile(), tmp_path_factory.mktemp("transfer"))


def test_every_source_meets_every_target_and_itself(study: Study) -> None:
    names = [str(each) for each in subjects(study.profile)]
    assert names == ["base", "wider:base", "clean", "text-at", "mat"]
    table = transfer_table(study)
    assert list(table.columns) == list(TRANSFER_COLUMNS)
    attacked = table[table["source"] != "none"]
    assert len(attacked) == 5 * 5 * 3 and len(table) == len(attacked) + 5
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    white = attacked[attacked["source"] == attacked["target"]].set_index(["target", "attack"])
    threat = study.profile.evaluation.primary_threat
    for name in ("base", *ROWS):
        found = study.evaluated(name).outcomes
        assert white.loc[(name, "sga"), "value"] == primary_endpoint(found["sga", threat])
    wider = study.of_architecture("wider")
    found = wider.evaluated("base", 0, wider.inside_protocol()).outcomes["joint", threat]
    assert white.loc[("wider:base", "joint"), "value"] == primary_endpoint(found)


def test_what_is_stored_equals_the_plain_evaluation_with_a_source(study: Study) -> None:
    how, wider = between_models(study.profile.evaluation), Subject("wider")
    found = study.get(transferred(study, wider))
    plain = evaluate(
        study.model("mat"), study.pairs("test"), study.tables("test", how.threats),
        study.suite(how), seed=0, source=study.of_architecture("wider").model("base"),
    ).outcomes  # fmt: skip
    for key, outcomes in found["mat"].items():
        assert torch.equal(outcomes.tr_rank, plain[key].tr_rank)
        assert torch.equal(outcomes.ir_rank, plain[key].ir_rank)


def test_an_architecture_has_models_of_its_own_in_the_same_store(study: Study) -> None:
    wider = study.of_architecture("wider")
    assert wider.root == study.root and wider.used is study.used
    bases, words = (
        [base(each) for each in (wider, study)],
        [masked_lm(each) for each in (wider, study)],
    )
    assert bases[0] and bases[1] and bases[0].hash != bases[1].hash
    assert words[0] and words[1] and words[0].hash == words[1].hash
    sizes = [sum(p.numel() for p in each.model("mat").parameters()) for each in (study, wider)]
    assert sizes[0] < sizes[1]
    with pytest.raises(ValueError, match="no architecture 'deeper'; it has: wider"):
        study.of_architecture("deeper")


def test_the_ranking_is_of_the_worst_of_the_same_attacks_everywhere(study: Study) -> None:
    table = ranking_table(study).set_index(["architecture", "row"])
    threat = study.profile.evaluation.primary_threat
    wider = study.of_architecture("wider")
    for name, evaluated in (
        ("", study.evaluated("mat")),
        ("wider", wider.evaluated("mat", 0, wider.inside_protocol())),
    ):
        keys = [key for key in evaluated.outcomes
                if key[0] in INSIDE_ATTACKS and key[1] in ("", threat)]  # fmt: skip
        assert len(keys) == len(INSIDE_ATTACKS) - 2  # it reads image and text apart
        worst = primary_endpoint(worst_of([evaluated.outcomes[key] for key in keys]))
        assert table.loc[(name, "mat"), "value"] == worst
    assert len(table) == 2 * 4


def test_c8a_is_decided_for_these_weights_only_or_at_the_floor(study: Study) -> None:
    (contrast,) = transfer_of_ranking(study)
    assert contrast.unit == "query" and contrast.n_seeds == 1
    assert "3 techniques between 2 architectures of the 5" in contrast.name
    assert contrast.estimate.p_below == 1  # too few architectures to speak of models
    claims = {entry["id"]: entry for entry in ledger(study)}
    assert claims["C8a"]["estimate"] == round(contrast.estimate.value, 4)
    assert claims["C8a"]["verdict"].startswith("inconclusive")  # 3 of 3 agree by chance


def test_without_architectures_or_techniques_there_is_nothing_to_say(tmp_path: Path) -> None:
    alone = Study(profile(architectures={}), tmp_path)
    assert transfer_of_ranking(alone) == [] and ranking_table(alone).empty
    assert transfer_of_ranking(Study(profile(transfer_rows=("clean", "mat")), tmp_path)) == []
    only_base = Study(profile(runs=(), architectures={}, transfer_rows=()), tmp_path)
    assert sources(only_base.profile) == [] and transfer_table(only_base).empty


def test_many_rows_are_named_or_left_out(tmp_path: Path) -> None:
    many = tuple(Run(defence="mat", label=f"v{i}") for i in range(10))
    study = Study(profile(runs=many, transfer_rows=()), tmp_path)
    assert [str(each) for each in subjects(study.profile)] == ["base", "wider:base"]
    named = tuple(run.row for run in many[:6])
    study = Study(profile(runs=many, transfer_rows=named), tmp_path)
    assert subjects(study.profile) == sources(study.profile)
    assert sources(study.profile.model_copy(update={"transfer": "none"})) == []
    assert len(subjects(study.profile)) == 2 + 6
    assert len(architecture_rows(study.profile)) == 1 + 6


def test_tasks_make_it_and_records_carry_it(study: Study, tmp_path: Path) -> None:
    others = Rows(elsewhere=architecture_rows(study.profile), sources=sources(study.profile))
    tasks = tasks_of(study.profile, others)
    assert Task("base", architecture="wider") in tasks
    assert Task("inside", "mat", 0, "wider") in tasks
    assert Task("transfer", "base", 0, "wider") in tasks
    said: list[str] = []
    make_rows(study, None, others, 1, said.append)
    assert all(is_done(study, task) for task in tasks)
    write_records(study, tmp_path / "published")
    other = Study(study.profile, tmp_path / "other")
    assert accept_records(other, tmp_path / "published") > 0
    for source in sources(study.profile):
        here, there = (each.get(transferred(each, source)) for each in (study, other))
        assert here.keys() == there.keys()
        for target, found in here.items():
            for key, outcomes in found.items():
                assert torch.equal(there[target][key].tr_rank, outcomes.tr_rank)
    assert not list(other.root.glob("runs/model-*")), "nothing was trained"
    assert transfer_of_ranking(study)


def test_an_architecture_with_a_shape_of_another_hash_is_another_artefact(tmp_path: Path) -> None:
    one, two = (
        Study(profile(architectures={"wider": shape}), tmp_path)
        for shape in (WIDER, Model(**{**WIDER.model_dump(), "text_width": 48}))
    )
    bases = [base(each.of_architecture("wider")) for each in (one, two)]
    assert bases[0] and bases[1] and bases[0].hash != bases[1].hash
