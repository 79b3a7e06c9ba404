"""The heat map of transferred attacks shows every number once, at its place."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from matlib.analysis.figures.maps import subject_label, transfer_map

NAMES = ["base", "convnet:base", "mat"]


@pytest.fixture(autouse=True)
def no_screen() -> Iterator[None]:
    mpl.use("Agg")
    yield
    plt.close("all")


def exchanged() -> pd.DataFrame:
    rows = [("none", name, "clean", 0.9, 0.85, 0.95) for name in NAMES]
    rows += [
        (source, target, attack, 0.1 * i + 0.03 * j + shift, 0.0, 1.0)
        for attack, shift in (("sga", 0.0), ("pgd", 0.5))
        for i, source in enumerate(NAMES)
        for j, target in enumerate(NAMES)
    ]
    return pd.DataFrame(rows, columns=["source", "target", "attack", "value", "low", "high"])


def test_cells_stand_where_source_and_target_cross() -> None:
    figure = transfer_map(exchanged(), attack="sga", gallery="9 images", title="Left")
    axis = figure.axes[0]
    image = axis.images[0].get_array()
    assert image is not None and image.shape == (4, 3)  # recall without attack comes first
    assert image[0].tolist() == [90, 90, 90]
    assert image[1:].round().tolist() == [[0, 3, 6], [10, 13, 16], [20, 23, 26]]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["no attack", "undefended", "undefended (convnet)", "MAT"]
    assert "9 images" in axis.get_xlabel()
    written = {(t.get_position()[0], round(t.get_position()[1])): t.get_text() for t in axis.texts
               if "–" not in t.get_text()}  # fmt: skip
    assert written[1, 3] == "23"


def test_only_attacks_on_the_judged_model_itself_are_framed() -> None:
    figure = transfer_map(exchanged(), attack="pgd", gallery="", title="")
    frames = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    centres = {(round(p.get_x() + p.get_width() / 2), round(p.get_y() + p.get_height() / 2))
               for p in frames}  # fmt: skip
    assert centres == {(0, 1), (1, 2), (2, 3)}


def test_an_attack_that_was_not_made_is_not_drawn() -> None:
    clean = exchanged().query("source == 'none'")
    figure = transfer_map(clean, attack="joint", gallery="", title="")
    assert not figure.axes and "no attack joint" in figure.texts[0].get_text()


def test_a_subject_is_named_with_its_architecture() -> None:
    assert subject_label("convnet:mat-valid") == "MAT, true words (convnet)"
    assert subject_label("mat-valid") == "MAT, true words"
