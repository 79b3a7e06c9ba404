"""Figures show the numbers they are given, with their labels."""

from __future__ import annotations

import io
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure

from matlib.analysis import figures
from matlib.analysis.figures.maps import map_points
from matlib.analysis.figures.pictures import amplification, tile_side
from matlib.analysis.figures.style import MAX_WORDS, STYLE, Note
from tests.toys import generator

ROWS = ["base", "tecoa", "mat", "mat+.captions"]


@pytest.fixture(autouse=True)
def no_screen() -> Iterator[None]:
    mpl.use("Agg")
    yield
    plt.close("all")


def texts(figure: Figure) -> str:
    """Everything written on a figure."""
    figure.draw_without_rendering()
    found = figure.findobj(mpl.text.Text)
    return "\n".join(text.get_text() for text in found)


def robustness() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"row": row, "text_threat": threat, "attack": "worst", "value": value, "low": value / 2,
             "high": value * 1.5}
            for threat, scale in (("bert_true", 1.0), ("typo", 0.5))
            for row, value in zip(ROWS, [0.02 * scale, 0.1, 0.3, 0.4], strict=True)
        ]
    )  # fmt: skip


def pictures(n: int, seed: int = 0, side: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=generator(seed))


def test_bars_are_as_long_as_the_recalls_and_say_what_was_searched() -> None:
    figure = figures.robustness_bars(
        robustness(), panel="text_threat", chance=0.01, gallery="250 images", title="Left",
        clean=dict.fromkeys(ROWS, 0.8),
    )  # fmt: skip
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == pytest.approx([2, 10, 30, 40])
    assert [bar.get_width() for bar in second.patches] == pytest.approx([1, 10, 30, 40])
    written = texts(figure)
    for label in ("undefended", "TeCoA", "MAT", "a true word", "a typo", "250 images", "%"):
        assert label in written
    assert "2.0 (80)" in written and "40 (80)" in written


def test_bars_fill_the_axis_however_small_the_recalls_are() -> None:
    small = robustness().assign(**{c: robustness()[c] / 50 for c in ("value", "low", "high")})
    for table in (robustness(), small):
        figure = figures.robustness_bars(
            table, panel="text_threat", chance=0.001, gallery="g", title="t",
            clean=dict.fromkeys(ROWS, 0.8),
        )  # fmt: skip
        reach = figure.axes[0].get_xlim()[1]
        assert 100 * table["high"].max() < reach < 200 * table["high"].max()


def test_a_figure_has_words_for_who_does_not_see_it() -> None:
    figure = figures.robustness_bars(
        robustness(), panel="text_threat", chance=0.01, gallery="g", title="Recall left"
    )
    shown = figures.show(figure)
    assert shown.alt.startswith("Recall left; ") and "a true word; a typo. " in shown.alt
    assert "undefended" in shown.alt and "40" in shown.alt
    assert len(shown.alt.split()) <= MAX_WORDS + 1
    told, about = DisplayFormatter().format(shown)  # as a notebook shows it
    assert b64decode(told["image/png"]) == shown.data and about["image/png"]["alt"] == shown.alt
    assert told["text/plain"] == f"<figure: {shown.alt}>"


def test_bars_of_attacks_take_the_attacks_as_rows() -> None:
    table = pd.DataFrame(
        {
            "attack": ["clean", "pgd", "worst"],
            "text_threat": "typo",
            "value": [0.9, 0.5, 0.1],
            "low": [0.8, 0.4, 0.0],
            "high": [1.0, 0.6, 0.2],
        }
    )
    figure = figures.robustness_bars(
        table, panel="text_threat", bars="attack", chance=0.01, gallery="g", title="t"
    )
    assert "image (PGD)" in texts(figure) and "worst of all" in texts(figure)


def test_whiskers_end_where_the_intervals_end() -> None:
    figure = figures.robustness_bars(
        robustness(), panel="text_threat", chance=0.01, gallery="g", title="t"
    )
    whiskers = figure.axes[0].collections[0].get_segments()  # type: ignore[attr-defined]
    assert [segment[:, 0].tolist() for segment in whiskers] == [
        pytest.approx([1, 3]),
        pytest.approx([5, 15]),
        pytest.approx([15, 45]),
        pytest.approx([20, 60]),
    ]


def test_strength_curves_pass_through_the_points_and_show_chance() -> None:
    table = pd.DataFrame(
        {
            "row": ["base"] * 3 + ["mat"] * 3,
            "eps_255": [0.0, 2.0, 8.0] * 2,
            "value": [0.9, 0.3, 0.0, 0.8, 0.6, 0.2],
        }
    )
    table = table.assign(low=table["value"] - 0.05, high=table["value"] + 0.05)
    figure = figures.strength_curves(
        table, chance=0.004, gallery="g", budgets={"training": 2.0, "evaluation": 2.0}
    )
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert np.allclose(np.asarray(lines["MAT"].get_ydata()), [80, 60, 20])
    assert np.allclose(np.asarray(lines["undefended"].get_xdata()), [0, 2, 8])
    assert "1/255" in texts(figure) and "training and evaluation" in texts(figure)
    assert any(np.allclose(np.asarray(line.get_ydata()), 0.4) for line in figure.axes[0].lines)


def test_learning_curves_are_running_means() -> None:
    history = pd.DataFrame({"step": [0, 1, 2, 3], "loss": [4.0, 2.0, 2.0, 0.0]})
    figure = figures.learning_curves({"mat": history}, smooth=2)
    assert list(np.asarray(figure.axes[0].lines[0].get_ydata())) == [4, 3, 2, 1]
    assert list(np.asarray(figure.axes[0].lines[0].get_xdata())) == [1, 2, 3, 4]
    assert len(figure.axes) == 1 and "loss in nats" in texts(figure)


def test_losses_that_are_distances_have_a_panel_of_their_own() -> None:
    history = pd.DataFrame({"step": [0, 1], "loss": [4.0, 2.0]})
    figure = figures.learning_curves({"mat": history, "fare": history}, distances=["fare"])
    losses, distances = figure.axes
    assert losses.get_ylabel().startswith("loss in nats") and len(losses.lines) == 1
    assert distances.get_ylabel().startswith("squared distance") and len(distances.lines) == 1
    alone = figures.learning_curves({"fare": history}, distances=["fare"])
    assert "nats" not in texts(alone)


def measured() -> pd.DataFrame:
    rows = [("none", "similarity", "pair", 0.6)]
    for name, modality, similarity, vendi, accuracy in (
        ("captions", "text", 0.58, 2.5, 0.55),
        ("randaugment", "image", 0.4, 3.0, 0.9),
        ("mismatched", "text", 0.1, 4.0, 0.5),
    ):
        rows += [
            (name, "similarity", "pair", similarity),
            (name, "vendi", modality, vendi),
            (name, "accuracy", modality, accuracy),
        ]
    table = pd.DataFrame(rows, columns=["technique", "measure", "modality", "value"])
    return table.assign(low=table["value"] - 0.05, high=table["value"] + 0.05)


def test_map_puts_each_technique_at_its_diversity_and_alignment() -> None:
    points = map_points(measured()).set_index("technique")
    assert points.loc["captions", ["diversity", "alignment", "shift"]].tolist() == [2.5, 0.58, 0.55]
    figure = figures.augmentation_map(measured(), model="undefended")
    offsets = [
        tuple(offset)
        for dots in figure.axes[0].collections
        if hasattr(dots, "get_array") and dots.get_array() is not None
        for offset in dots.get_offsets()  # type: ignore[union-attr]
    ]
    assert sorted(offsets) == [(2.5, 0.58), (3.0, 0.4), (4.0, 0.1)]
    for label in ("true captions", "RandAugment", "mismatched", "original pairs", "undefended"):
        assert label in texts(figure)


def test_names_on_the_map_do_not_cover_each_other() -> None:
    figure = figures.augmentation_map(measured(), model="undefended")
    figure.draw_without_rendering()
    names = {"true captions", "RandAugment", "mismatched"}
    boxes = [t.get_window_extent() for t in figure.axes[0].texts if t.get_text() in names]
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_dots_show_values_and_say_what_is_not_touched() -> None:
    keys = {("similarity", "pair"): "cosine", ("vendi", "text"): "Vendi score"}
    table = measured()
    figure = figures.interval_dots(
        table, panels_by=list(keys), x_labels=keys, lines={("similarity", "pair"): 0.6},
        line_label="originals",
    )  # fmt: skip
    assert np.allclose(np.asarray(figure.axes[0].lines[0].get_xdata()), [0.6, 0.58, 0.4, 0.1])
    assert texts(figure).count("not touched") == 2  # originals, RandAugment
    assert figure.axes[1].get_xlabel() == "Vendi score"


def test_violations_are_dots_beside_the_tolerance() -> None:
    table = pd.DataFrame(
        {
            "model": ["mat", "mat", "tecoa", "mat+.eda s0", "mat+.eda s1"],
            "check": ["more_steps", "apgd", "apgd", "apgd", "apgd"],
            "estimate_points": [-1.0, 3.0, 0.5, 0.0, 0.0],
            "lower_points": [-4.0, 1.0, -2.0, -1.0, -1.0],
            "upper_points": [1.0, 4.0, 1.5, 1.0, 1.0],
        }
    )
    figure = figures.violation_dots(table, tolerance=2.0)
    written = texts(figure)
    assert "more steps" in written and "counts from 2 points on" in written
    assert {"MAT", "TeCoA", "MAT+ EDA s0", "MAT+ EDA s1"} <= {*written.splitlines()}
    xs = [x for line in figure.axes[0].lines for x in np.asarray(line.get_xdata(), float)]
    assert {-1.0, 3.0, 0.5, 2.0} <= set(xs)


def test_adversarial_pictures_amplify_the_difference_around_grey() -> None:
    clean = pictures(3) * 0.8 + 0.1
    adversarial = clean.clone()
    adversarial[0, 0, 0, 0] += 4 / 255
    figure = figures.adversarial_pictures(clean, adversarial, eps_255=4, attack="pgd")
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    assert len(shown) == 9
    assert np.allclose(shown[0], clean[0].permute(1, 2, 0))
    difference = shown[6]
    assert difference[0, 0, 0] == pytest.approx(0.5 + 31 * 4 / 255)
    assert np.allclose(difference[1:], 0.5)
    assert "× 31" in texts(figure) and "4/255" in texts(figure)
    with pytest.raises(ValueError, match="one size"):
        figures.adversarial_pictures(clean, adversarial[:2], eps_255=4, attack="pgd")


@pytest.mark.parametrize(("eps", "factor"), [(0, 1), (1, 127), (4, 31), (200, 1)])
def test_amplification_keeps_the_largest_change_in_range(eps: float, factor: int) -> None:
    assert amplification(eps) == factor


def test_small_images_are_enlarged_by_whole_factors() -> None:
    assert tile_side(pictures(1, side=64), 148) == 128
    assert tile_side(pictures(1, side=16), 100) == 96
    assert tile_side(pictures(1, side=224), 148) == 148


def test_strip_frames_right_images_only_and_marks_the_changed_word() -> None:
    shelf = figures.Shelf(
        "a red star", "a crimson star", pictures(5), pictures(5, 1),
        (True, False, False, False, False), (False, False, True, False, False),
    )  # fmt: skip
    figure = figures.retrieval_strip([shelf], n_gallery=250)
    framed = [axis.spines["left"].get_visible() for axis in figure.axes]
    assert framed == [True, False, False, False, False, False, False, True, False, False]
    assert "a [red→crimson] star" in texts(figure) and "250" in texts(figure)


def test_captions_stand_below_their_images() -> None:
    figure = figures.captioned_pictures(pictures(7), [f"caption number {i}" for i in range(7)])
    assert len(figure.axes) == 7
    assert "caption\nnumber 6" in texts(figure) or "caption number 6" in texts(figure)
    with pytest.raises(ValueError, match="7 images need as many captions; got 1"):
        figures.captioned_pictures(pictures(7), ["one"])


def test_one_to_many_pictures_show_every_image_and_caption() -> None:
    figure = figures.one_to_many_pictures(pictures(3), ["first words", "other words"])
    assert len(figure.axes) == 3
    assert "original" in texts(figure) and "other words" in texts(figure)


NO_ROW = pd.DataFrame(columns=["term", "dial", "augmentation", "measure", "attack", "source",
                               "target"])  # fmt: skip
BARS: dict[str, Any] = {"panel": "attack", "chance": 0.1, "gallery": "", "title": ""}
EMPTY: list[tuple[Callable[..., Figure], tuple[Any, ...], dict[str, Any], str]] = [
    (figures.robustness_bars, (NO_ROW,), BARS, "no recall"),
    (figures.interval_dots, (NO_ROW,), {"panels_by": [], "x_labels": {}}, "no technique"),
    (figures.choice_dots, (NO_ROW,), {"panels_by": {}}, "no variation"),
    (figures.known_and_held_out, (NO_ROW,), {"pairs": {}, "gallery": ""}, "held out"),
    (figures.held_out_curves, ({},), {}, "nothing was measured"),
    (figures.violation_dots, (NO_ROW,), {"tolerance": 2.0}, "no check"),
    (figures.strength_curves, (NO_ROW,), {"chance": 0.1, "gallery": ""}, "curve_eps_255"),
    (figures.learning_curves, ({},), {}, "nothing was trained"),
    (figures.dose_curves, (NO_ROW,), {}, "no draws"),
    (figures.size_curves, (NO_ROW,), {}, "no draws"),
    (figures.dose_response, (NO_ROW,), {"gain_label": ""}, "no dial"),
    (figures.effect_dots, (NO_ROW,), {"gain_label": ""}, "no dial"),
    (figures.predicted_gains, (NO_ROW,), {"gain_label": ""}, "too few techniques"),
    (figures.achieved_curves, (NO_ROW,), {"labels": {}}, "no dial"),
    (figures.technique_gains, (NO_ROW,), {"gain_label": ""}, "no technique was compared"),
    (figures.sweep_curves, (NO_ROW, "strength"), {"reference": ""}, "no sweep over strength"),
    (figures.augmentation_map, (NO_ROW.assign(technique="", modality=""),), {"model": ""},
     "no technique"),
    (figures.calibration_curve, (NO_ROW,), {"score_label": ""}, "know no truth"),
    (figures.agreement_matrix, (NO_ROW,), {}, "no agreement"),
    (figures.transfer_map, (NO_ROW,), {"attack": "sga", "gallery": "", "title": ""}, "sga"),
    (figures.task_strip, ({},), {}, "no pictures"),
    (figures.retrieval_strip, ([],), {"n_gallery": 2}, "no query"),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "table", "options", "said"), EMPTY)
def test_of_nothing_a_sentence_is_shown_and_no_file_is_written(
    draw: Callable[..., Figure], table: tuple[Any, ...], options: dict[str, Any], said: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    figure = draw(*table, **options)
    assert figure.axes == [] and plt.get_fignums() == []
    note = figures.save_figure(figure, tmp_path / "nothing.png")
    assert isinstance(note, Note) and said in note.text and not list(tmp_path.iterdir())
    assert figures.show(figure) == note and note._repr_markdown_() == repr(note) == note.text


def test_every_figure_says_when_it_is_empty() -> None:
    """But pictures, which are of images that every study has."""
    pictured = {"adversarial_pictures", "captioned_pictures", "one_to_many_pictures"}
    draws = {name for name in figures.__all__
             if hasattr(getattr(figures, name), "__wrapped__")}  # fmt: skip
    assert draws == {draw.__name__ for draw, *_ in EMPTY} | pictured


def test_a_table_without_rows_is_shown_as_its_note() -> None:
    table = pd.DataFrame({"row": ["mat"]})
    assert figures.table_or_note(table, "none") is table
    assert figures.table_or_note(table[:0], "none") == Note("none")
    assert "no rows of this kind here" in repr(figures.table_or_note(NO_ROW))


def test_shown_figures_are_small_png_and_closed(tmp_path: Path) -> None:
    figure = figures.captioned_pictures(pictures(4), ["a"] * 4)
    before = plt.get_fignums()
    image = figures.save_figure(figure, tmp_path / "new" / "figure.png")
    assert len(plt.get_fignums()) == len(before) - 1
    with PIL.Image.open(io.BytesIO(image.data)) as shown:
        assert shown.format == "PNG" and shown.mode == "P" and shown.width == 800
    with PIL.Image.open(tmp_path / "new" / "figure.png") as saved:
        assert saved.width == 1600
        assert "Software" not in saved.info


def test_style_of_the_caller_is_left_alone() -> None:
    before = mpl.rcParams["font.size"]
    figures.captioned_pictures(pictures(1), ["a"])
    assert mpl.rcParams["font.size"] == before != STYLE["font.size"]


def test_every_defence_has_its_own_colour_and_words() -> None:
    rows = [
        "base",
        "clean",
        "image-at",
        "text-at",
        "tecoa",
        "mat",
        "mat+.captions",
        "mat+.renderings",
    ]
    assert len({figures.colour_of(row, rows) for row in rows}) == len(rows)
    assert figures.label_of("mat+.captions") == "MAT+ true captions"
    assert figures.label_of("sga", "attack") == "both, SGA"
    assert figures.label_of("something else") == "something else"


def test_choices_are_grouped_and_a_missing_interval_is_left_out() -> None:
    table = pd.DataFrame(
        {
            "choice": ["order", "order", "steps"],
            "value": ["image first", "independent", "4"],
            "default": ["text first", "text first", "1"],
            "attack": "worst",
            "difference": [0.02, -0.01, 0.03],
            "difference_low": [0.01, -0.03, np.nan],
            "difference_high": [0.03, 0.01, np.nan],
        }
    )
    figure = figures.choice_dots(table, panels_by={"worst": "under attack"})
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == [
        "order\n(else text first)",
        "image first",
        "independent",
        "steps\n(else 1)",
        "4",
    ]
    assert len(figure.axes[0].containers) == 3


def test_known_and_held_out_kinds_are_two_marks_per_model() -> None:
    table = pd.DataFrame(
        {
            "row": ["base", "base", "mat", "mat"],
            "text_threat": ["typo", "typo_held_out"] * 2,
            "recall": [0.2, 0.1, 0.5, 0.4],
            "low": [0.1, 0.0, 0.4, 0.3],
            "high": [0.3, 0.2, 0.6, 0.5],
        }
    )
    pairs = {"typo_held_out": "typo"}
    figure = figures.known_and_held_out(table, pairs=pairs, gallery="10 images")
    assert len(figure.axes[0].containers) == 4


def test_the_kept_measurement_has_a_ring_in_both_panels() -> None:
    history = pd.DataFrame({"step": [9, 19, 29], "clean": [0.7, 0.8, 0.9],
                            "held_out": [0.1, 0.3, 0.2]})  # fmt: skip
    figure = figures.held_out_curves({"mat": history})
    rings = [line for axis in figure.axes for line in axis.lines if len(line.get_xdata()) == 1]
    assert [ring.get_xdata()[0] for ring in rings] == [20, 20]
