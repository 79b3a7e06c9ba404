"""A CLIP, a BLIP and an ALBEF of a few steps as rows of one study: trained, judged, tabulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from matlib.evaluation.robustness import worst_under
from matlib.models.albef import Albef
from matlib.models.fusion import Blip
from matlib.study.profile.parts import Model
from matlib.study.profile.profile import Profile, load_profile
from matlib.study.profile.rows import Run
from matlib.study.run.records import accept_records, write_records
from matlib.study.run.tasks import Task, all_rows, is_done, make_rows, tasks_of
from matlib.study.study import Study
from matlib.study.tables.endpoints import ranking_table
from matlib.study.tables.other_tasks import other_tasks_table
from tests.study.smoke_parts import NO_PAIRS

ROW, FAMILIES = "mat", {"blip": Blip, "albef": Albef}


def profile() -> Profile:
    smoke = load_profile("smoke")
    options = smoke.other_tasks
    assert options is not None
    shape = smoke.model.model_dump() | {"image_width": 16, "head_width": 8}
    quick = smoke.evaluation.model_copy(
        update={"held_out": (), "curve_eps_255": (), "threats": ("bert_true",), "rerank": 4}
    )
    changes = {
        "name": "tiny-families", "runs": (Run(defence=ROW),), **NO_PAIRS, "transfer_rows": (ROW,),
        "architectures": {family: Model(**{**shape, "family": family}) for family in FAMILIES},
        "evaluation": quick,
        "other_tasks": options.model_copy(
            update={"rows": (ROW,), "architectures": (*FAMILIES,)}),
    }  # fmt: skip
    return smoke.model_copy(update=changes)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(profile(), tmp_path_factory.mktemp("families"))


def test_every_family_is_trained_judged_and_tabulated(study: Study) -> None:
    tasks = tasks_of(study.profile, all_rows(study.profile))
    for family, kind in FAMILIES.items():
        own = study.of_architecture(family)
        assert isinstance(own.model(ROW, 0), kind)
        found = own.outcomes(ROW, 0, own.inside_protocol())
        assert {("match", ""), ("fused", "bert_true")} <= set(found)
        worst = found["worst", "bert_true"]
        assert worst.ir_rank.equal(worst_under(found, "bert_true").ir_rank)
        assert bool((worst.tr_rank >= found["fused", "bert_true"].tr_rank).all())
        for what in ("captioning", "grounding"):
            assert Task(what, ROW, 0, family) in tasks  # type: ignore[arg-type]
            assert Task(what, "base", 0, family) in tasks  # type: ignore[arg-type]
    assert not {"match", "fused"} & {
        attack for attack, _ in study.outcomes(ROW, 0, study.main_protocol("test"))
    }
    ranking = ranking_table(study).set_index(["architecture", "row"])["value"]
    assert set(ranking.index) == {(a, r) for a in ("", *FAMILIES) for r in ("base", ROW)}
    table = other_tasks_table(study)
    assert set(table["architecture"]) == {"", *FAMILIES}
    assert table.groupby(["architecture", "task", "row"]).ngroups == 3 * 2 * 2


@pytest.mark.full
def test_every_task_of_every_family_is_made_and_its_records_travel(
    study: Study, tmp_path: Path
) -> None:
    make_rows(study, None, all_rows(study.profile), 1, lambda _: None)
    assert all(is_done(study, task) for task in tasks_of(study.profile, all_rows(study.profile)))
    write_records(study, tmp_path / "published")
    other = Study(study.profile, tmp_path / "other")
    assert accept_records(other, tmp_path / "published", whole=True) > 0
    assert ranking_table(other).equals(ranking_table(study))
    assert other_tasks_table(other).equals(other_tasks_table(study))
