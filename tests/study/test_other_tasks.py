"""Captioning and grounding as parts of a study: tables, claim C8b, pictures, records."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from matlib.evaluation.grounding import per_image
from matlib.study.made.other_tasks import OTHER_TASKS, phrase_edits, phrases_of
from matlib.study.profile.profile import Profile, load_profile
from matlib.study.profile.rows import Run
from matlib.study.run.records import accept_records, write_records
from matlib.study.run.tasks import Task, all_rows, is_done, make_rows, tasks_of
from matlib.study.sources.scenes import ScenesSource
from matlib.study.study import Study
from matlib.study.tables.ledger import ledger
from matlib.study.tables.other_tasks import (
    OTHER_TASK_COLUMNS,
    other_tasks_table,
    task_pictures,
    transfer_to_tasks,
)
from tests.study.smoke_parts import NO_PAIRS

ROWS = ("clean", "text-at", "mat")


def profile(**more: object) -> Profile:
    smoke = load_profile("smoke")
    options = smoke.other_tasks
    assert options is not None
    quick = smoke.evaluation.model_copy(
        update={"held_out": (), "curve_eps_255": (), "threats": ("bert_true",)}
    )
    changes = {
        "runs": tuple(Run(defence=name) for name in ROWS), **NO_PAIRS, "architectures": {},
        "transfer_rows": (), "evaluation": quick,
        "other_tasks": options.model_copy(update={"rows": ROWS}),
    }  # fmt: skip
    return smoke.model_copy(update={**changes, **more})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(profile(), tmp_path_factory.mktemp("tasks"))


def test_every_measure_of_every_row_stands_in_the_table(study: Study) -> None:
    table = other_tasks_table(study)
    assert tuple(table.columns) == OTHER_TASK_COLUMNS
    assert set(table["row"]) == {"base", *ROWS} and set(table["task"]) == set(OTHER_TASKS)
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    cell = table.set_index(["task", "row", "attack", "measure"])["value"].sort_index()
    for task, measure in (("captioning", "truth"), ("grounding", "pointing")):
        own = cell[task, "mat"]
        worst = own["worst", measure]
        assert all(worst <= own[a, measure] for a in own.index.get_level_values(0)
                   if a != "shuffled")  # fmt: skip
    pictures = task_pictures(study, "grounding")
    assert [*pictures] == ["clean", "attacked", "attacked,\nmat"]
    assert all(p.heat is not None and p.box is not None for p in pictures["attacked"])
    assert all(p.heat is None for p in task_pictures(study, "captioning")["clean"])


def test_phrases_name_one_thing_each_and_edits_leave_what_they_say(study: Study) -> None:
    source = study.source
    assert isinstance(source, ScenesSource)
    found = phrases_of(source, "test")
    for i in range(len(study.pairs("test"))):
        own = [p for p, image in zip(found.phrases, found.image_of.tolist(), strict=True)
               if image == i]  # fmt: skip
        assert len(set(own)) == len(own) == len(found.candidates[i])
        assert all(source.is_true("test", i, phrase) for phrase in own)
    (table,) = study.get(phrase_edits(study)).values()
    edits = [(p, e) for p, own in zip(found.phrases, table, strict=True) for e in own]
    assert edits, "some word has a synonym that the masked LM proposes"
    for phrase, edit in edits:
        words = phrase.split(" ")
        words[edit.position] = edit.replacement
        assert source.means_the_same(phrase, " ".join(words))


def test_c8b_is_decided_for_these_weights_only_or_at_the_floor(study: Study) -> None:
    (contrast,) = transfer_to_tasks(study)
    assert "3 techniques between retrieval, captioning and grounding" in contrast.name
    claims = {entry["id"]: entry for entry in ledger(study, {"C8b": [contrast]})}
    assert claims["C8b"]["estimate"] == round(contrast.estimate.value, 4)
    assert claims["C8b"]["verdict"].startswith("inconclusive")  # 3 agree easily by chance
    two = profile(other_tasks=study.profile.other_tasks.model_copy(update={"rows": ROWS[:2]}))  # type: ignore[union-attr]
    assert transfer_to_tasks(Study(two, study.root.parent)) == []
    none = Study(profile(other_tasks=None), study.root.parent)
    assert transfer_to_tasks(none) == [] and other_tasks_table(none).empty


def test_tasks_make_them_and_records_carry_them_without_weights(
    study: Study, tmp_path: Path
) -> None:
    tasks = [t for t in tasks_of(study.profile, all_rows(study.profile)) if t.what in OTHER_TASKS]
    assert Task("captioning", "mat", 0) in tasks and Task("grounding") in tasks
    make_rows(study, None, all_rows(study.profile), 1, lambda _: None)
    assert all(is_done(study, task) for task in tasks)
    write_records(study, tmp_path / "published")
    other = Study(study.profile, tmp_path / "other")
    assert accept_records(other, tmp_path / "published", whole=True) > 0
    for make in OTHER_TASKS.values():
        assert other.get(make(other, "mat", 0)) == study.get(make(study, "mat", 0))
    assert not list(other.root.glob("runs/captioner-*")), "nothing was trained"


def test_photographs_and_unknown_rows_are_refused_with_the_reason(tmp_path: Path) -> None:
    text = Path("profiles/smoke.yaml").read_text(encoding="utf-8")
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace("{rows: [clean,", "{rows: [cleaner,"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"other_tasks\.rows names rows .*cleaner"):
        load_profile(path)


def test_values_of_an_image_are_means_over_its_phrases() -> None:
    found = per_image(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1]))
    assert found.tolist() == [0.5, 1.0]
