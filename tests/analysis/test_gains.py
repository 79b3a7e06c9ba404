"""Gains of techniques, their coordinates, and the figures of both."""

from __future__ import annotations

import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from matlib.analysis import figures
from matlib.analysis.diversity import vendi_score
from matlib.analysis.embeddings import HeldOutEmbeddings, VariantEmbeddings
from matlib.analysis.figures.effects import with_true_names
from matlib.analysis.figures.sentences import effect_sentence
from matlib.analysis.figures.style import place_names
from matlib.analysis.gains import best_on_validation, gains_of_techniques
from matlib.analysis.technique import technique_coordinates
from tests.toys import generator

mpl.use("Agg")


def runs(n_seeds: int) -> pd.DataFrame:
    rows = []
    for name, technique, augmentation, modality, gain in (
        ("mat", "none", "none", "", 0.0),
        ("mat+.eda", "eda", "eda", "text", 0.02),
        ("mat+.eda.x0.5", "eda.x0.5", "eda", "text", 0.05),
        ("mat+.restated", "restated", "restated", "text", 0.09),
        ("mat+.characters", "characters", "characters", "text", 0.08),
        ("mat+.augmix", "augmix", "augmix", "image", -0.01),
    ):
        for seed in range(n_seeds):
            rows.append(
                {"row": name, "technique": technique, "augmentation": augmentation,
                 "modality": modality, "seed": seed, "n_train": 100, "n_variants": 4,
                 "worst": 0.2 + gain, "sga": 0.3, "clean": 0.8 - gain, "gain": gain + 0.01 * seed,
                 "gain_low": gain - 0.02, "gain_high": gain + 0.02, "sga_gain": gain - 0.02 * seed,
                 "gap": 0.1 - 0.02 * seed,
                 "seconds": 3.0, "validation": 0.2 + gain, "similarity": 0.5, "vendi": 1.5,
                 "mmd2": 0.0, "true_fraction": math.nan}
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_gains_are_means_over_seeds_with_intervals_and_ordered() -> None:
    found = gains_of_techniques(runs(3), "mat").set_index("row")
    assert list(found.index) == [
        "mat+.restated", "mat+.characters", "mat+.eda.x0.5", "mat+.eda", "mat+.augmix",
    ]  # fmt: skip
    eda = found.loc["mat+.eda"]
    assert eda["gain"] == pytest.approx(0.03) and eda["n_seeds"] == 3
    half = 4.302653 * 0.01 / math.sqrt(3)  # Student's t, two degrees of freedom
    assert (eda["low"], eda["high"]) == pytest.approx((0.03 - half, 0.03 + half), abs=1e-6)
    assert eda["clean_gain"] == pytest.approx(-0.02)
    sga = (eda["sga_gain"], eda["sga_low"], eda["sga_high"])
    assert sga == pytest.approx((0.0, -2 * half, 2 * half), abs=1e-6)
    gap = (eda["gap"], eda["gap_low"], eda["gap_high"])
    assert gap == pytest.approx((0.08, 0.08 - 2 * half, 0.08 + 2 * half), abs=1e-6)


def test_below_three_seeds_the_first_ones_interval_over_images_stands() -> None:
    eda = gains_of_techniques(runs(2), "mat").set_index("row").loc["mat+.eda"]
    assert (eda["gain"], eda["low"], eda["high"], eda["n_seeds"]) == (0.02, 0.0, 0.04, 1)
    assert eda["sga_gain"] == 0.02 and math.isnan(eda["sga_low"]) and math.isnan(eda["gap_high"])


def test_the_best_on_validation_is_a_plain_technique_and_no_control() -> None:
    assert best_on_validation(runs(2), "text") == "mat+.eda"
    assert best_on_validation(runs(2), "image") == "mat+.augmix"
    assert best_on_validation(runs(2), "both") is None


def rows(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=generator(1)), dim=-1)


def test_coordinates_against_plain_loops() -> None:
    captions, images = rows(6, 4, 8), rows(6, 1, 8)
    test = HeldOutEmbeddings(rows(20, 8), rows(20, 8))
    found = technique_coordinates(VariantEmbeddings("x", tuple(captions), images), test)
    similar = [float(captions[i, j] @ images[i, 0]) for i in range(6) for j in (1, 2, 3)]
    assert found["similarity"] == pytest.approx(sum(similar) / len(similar), abs=1e-6)
    vendi = [vendi_score(own[1:]) for own in captions]
    assert found["vendi"] == pytest.approx(sum(vendi) / 6, abs=1e-6)


def test_copies_are_not_diverse_and_other_pictures_are_shifted() -> None:
    originals, test = rows(30, 1, 8), HeldOutEmbeddings(rows(40, 8), rows(40, 8))
    copies = originals.expand(30, 3, 8)
    text = tuple(rows(30, 1, 8))
    near = technique_coordinates(VariantEmbeddings("x", text, copies), test)
    assert near["vendi"] == pytest.approx(1.0)
    far = F.normalize(copies + 3.0, dim=-1)
    far = torch.cat([originals, far[:, 1:]], 1)
    assert technique_coordinates(VariantEmbeddings("x", text, far), test)["mmd2"] > 0.2
    nothing = technique_coordinates(VariantEmbeddings("x", text, originals), test)
    assert nothing["vendi"] == 1.0


def test_the_figure_names_every_technique_in_words() -> None:
    figure = figures.technique_gains(gains_of_techniques(runs(3), "mat"), gain_label="gain, points")
    figure.draw_without_rendering()
    words = "\n".join(t.get_text() for t in figure.findobj(mpl.text.Text))
    assert "EDA\n(strength 0.5)" in words and "AugMix" in words and "gain, points" in words
    assert "adds captions" in words and "adds images" in words
    plt.close(figure)


def test_rows_are_said_in_words() -> None:
    assert figures.row_words("mat.regularised", "none") == "MAT (regularised)"
    assert figures.row_words("mat.t500", "none.t500") == "MAT (500 pairs)"
    wanted = "captions by a captioner (cosine at least 0.6, Vendi 1.35)"
    assert figures.row_words("mat+.captioned.a0.6.v1.35", "captioned.a0.6.v1.35") == wanted


def test_sweeps_have_a_panel_for_each_technique_and_a_line_for_each_attack() -> None:
    points = [
        {"augmentation": name, "dial": "amount", "unit": "variants per pair", "level": level,
         "attack": attack, "value": 0.1 * level, "low": 0.1 * level - 0.05,
         "high": 0.1 * level + 0.05, "row": "r"}
        for name in ("eda", "captioned") for level in (1, 2, 4) for attack in ("clean", "worst")
    ]  # fmt: skip
    figure = figures.sweep_curves(pd.DataFrame(points), "amount", reference="1: MAT itself")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["EDA", "captions by a captioner"]
    assert [len(axis.containers) for axis in figure.axes[:2]] == [2, 2]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["1", "2", "4"]
    plt.close(figure)
    assert not figures.sweep_curves(pd.DataFrame(points), "strength", reference="").axes


def strength_points(n_seeds: int) -> pd.DataFrame:
    """Of EDA MAT is level 0; of restyled images it is a line."""
    points = [
        {"augmentation": name, "dial": "strength", "unit": "strength", "level": level,
         "attack": attack, "value": 0.3, "low": 0.2, "high": 0.4, "row": "r",
         "n_seeds": n_seeds if level == 1 else 1}
        for name, least in (("eda", 0.0), ("restyled", math.nan)) for level in (least, 0.5, 1.0)
        for attack in ("clean", "sga", "worst")
    ]  # fmt: skip
    return pd.DataFrame(points)


def test_where_no_strength_is_mat_itself_it_is_a_line_with_a_name() -> None:
    figure = figures.sweep_curves(strength_points(5), "strength", reference="0: MAT itself")
    eda, restyled = figure.axes[:2]
    assert [t.get_text() for t in eda.get_xticklabels()] == ["0", "0.5", "1"]
    assert [t.get_text() for t in restyled.get_xticklabels()] == ["0.5", "1"]
    words = "\n".join(t.get_text() for t in figure.findobj(mpl.text.Text))
    assert "MAT itself, no attack" in words and "MAT itself, worst of all" in words
    plt.close(figure)


@pytest.mark.parametrize(
    ("n_seeds", "said"),
    [(1, "one seed, intervals over images"), (5, "5 seeds, interval over seeds; hollow: one seed")],
)
def test_the_caption_of_a_sweep_says_which_points_have_one_seed(n_seeds: int, said: str) -> None:
    figure = figures.sweep_curves(strength_points(n_seeds), "strength", reference="")
    assert said in figure.get_supxlabel()
    filled = [line for line in figure.axes[0].lines if line.get_markerfacecolor() != "white"]
    assert sum(len(line.get_xdata()) for line in filled if line.get_marker() == "o") == (
        2 if n_seeds == 5 else 0
    )
    plt.close(figure)


def test_on_photographs_no_rendering_is_named() -> None:
    rows = ["mat+.captions+renderings.t500", "mat", "mat+.captions", "captions"]
    table = pd.DataFrame({"row": rows, "gain": 0})
    assert with_true_names(table, "scenes") is table
    named = with_true_names(table, "flickr8k")["row"].tolist()
    assert named == ["mat+.captions and RandAugment.t500", "mat", "mat+.people's captions",
                     "people's captions"]  # fmt: skip
    assert figures.label_of(named[2]) == "MAT+ people's captions"
    assert figures.label_of("mat+.captions and RandAugment") == "MAT+ captions and RandAugment"


def test_effects_are_told_by_their_interval() -> None:
    assert effect_sentence("alignment", 0.05, 0.01, 0.09).startswith("more alignment helps: +5.0")
    assert "hurts" in effect_sentence("shift", -0.05, -0.09, -0.01)
    assert "no difference" in effect_sentence("diversity", 0.0, -0.01, 0.01)
    apart = effect_sentence("diversity", -0.02, -0.03, -0.01, modality="image")
    assert apart.startswith("added images: more diversity hurts: -2.0")


def test_names_of_points_that_lie_close_do_not_cover_each_other() -> None:
    """As on the map of the demo, where two names once lay on one another."""
    figure, axis = plt.subplots(figsize=(8, 4.6))
    points = np.array([[1.06, 0.75], [1.25, 0.72], [1.68, 0.74], [3.6, 0.0]])
    axis.scatter(points[:, 0], points[:, 1], s=300)
    axis.set(xlim=(0.5, 4.2), ylim=(-0.2, 0.95))
    axis.axhline(0.748, ls="--")
    names = ["true renderings", "drop and swap", "true captions", "mismatched"]
    place_names(figure, axis, points, names)
    figure.draw_without_rendering()
    boxes = [text.get_tightbbox() for text in axis.texts]
    covered = [a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert len(covered) == 6 and not any(covered)
    plt.close(figure)
