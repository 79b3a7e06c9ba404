"""Word changes that a reader labels: a fair sample, and the share that is false."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from matlib.attacks.edits import Edit
from matlib.cli import main
from matlib.data.pairs import ImageTensor, ImageTextPairs
from matlib.study.made import substitutions
from matlib.study.made.substitutions import (
    SUBSTITUTION_COLUMNS,
    false_shares,
    labelled_share,
    labelled_shares,
    read_substitutions,
    sampled,
)

CAPTIONS = ("a dog runs", "two dogs", "the sea", "a red ball")
TABLE = [[Edit(1, "puppy"), Edit(2, "walks")], [], [Edit(1, "ocean")], [Edit(1, "blue")]]


def pairs() -> ImageTextPairs:
    images = ImageTensor(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    return ImageTextPairs("toy", "test", images, CAPTIONS, torch.arange(4), tuple("abcd"))


def test_each_caption_that_may_change_stands_once_with_an_allowed_change() -> None:
    found = sampled(pairs(), TABLE, "near", 60)
    assert tuple(found.columns) == SUBSTITUTION_COLUMNS and set(found["label"]) == {""}
    assert sorted(found["caption"]) == ["a dog runs", "a red ball", "the sea"]
    changed = {row.caption: (row.word, row.replacement, row.changed) for row in found.itertuples()}
    assert changed["a red ball"] == ("red", "blue", "a blue ball")
    assert len(sampled(pairs(), TABLE, "near", 2)) == 2
    pd.testing.assert_frame_equal(found, sampled(pairs(), TABLE, "near", 60))


def labelled(labels: list[str], threat: str = "near") -> pd.DataFrame:
    rows = [(threat, "a dog", "a cat", "dog", "cat", label) for label in labels]
    return pd.DataFrame(rows, columns=list(SUBSTITUTION_COLUMNS))


def test_the_share_is_of_what_could_be_told_with_wilsons_interval() -> None:
    table = pd.concat([labelled(["false", "true", "true", "true", "unclear"]),
                       labelled(["unclear"], "typo")])  # fmt: skip
    near, typo = false_shares(table).to_dict("records")
    assert (near["n"], near["n_false"], near["n_unclear"], near["share"]) == (4, 1, 1, 0.25)
    z, p, n = 1.959964, 0.25, 4  # Wilson (1927)
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert near["low"] == pytest.approx((middle - half) / (1 + z**2 / n), abs=1e-6)
    assert near["high"] == pytest.approx((middle + half) / (1 + z**2 / n), abs=1e-6)
    assert typo["n"] == 0 and pd.isna(typo["share"]) and (typo["low"], typo["high"]) == (0, 1)


def test_other_labels_and_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    labelled(["true", "perhaps"]).to_csv(path, index=False)
    with pytest.raises(ValueError, match="one of true, false, unclear; got 'perhaps'"):
        read_substitutions(path)
    path.write_text("threat,label\n")
    with pytest.raises(ValueError, match="expected the columns threat, caption"):
        read_substitutions(path)


def test_a_profiles_labels_are_found_and_others_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "published" / "mine"
    folder.mkdir(parents=True)
    labelled(["false", "true"]).to_csv(folder / "substitutions.csv", index=False)
    monkeypatch.setattr(substitutions, "PACKAGE_ROOT", tmp_path)
    found = labelled_share("mine", "near")
    assert found is not None and (found.value, found.n) == (0.5, 2)
    assert labelled_share("mine", "typo") is None and labelled_shares("other").empty


def test_a_sample_is_drawn_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "drawn.csv"
    typed = [
        "substitutions",
        str(out),
        "--profile",
        "smoke",
        "--results",
        str(tmp_path),
        "--n",
        "3",
    ]
    assert main(typed) == 0 and "label each true, false or unclear" in capsys.readouterr().out
    table = pd.read_csv(out, keep_default_na=False)
    assert tuple(table.columns) == SUBSTITUTION_COLUMNS
    assert (
        table.groupby("threat").size().max() <= 3 and (table["caption"] != table["changed"]).all()
    )
