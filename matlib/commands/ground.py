"""`python -m matlib ground --refs … --images …`: any model's grounding of phrases under attack."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd
import torch
from torch import Tensor

from matlib.attacks.pgd import PGD
from matlib.commands.allowed_words import allowed_edits
from matlib.commands.attack import check_threat
from matlib.commands.models import open_any
from matlib.commands.options import GroundOptions
from matlib.data.referring import ReferringImages, read_refcoco
from matlib.evaluation.grounding import ground_under_attack, per_image, worst_scores
from matlib.evaluation.robustness import WORST
from matlib.evaluation.statistics import bootstrap_mean, in_percent
from matlib.files import write_durably
from matlib.progress import Progress

IMAGES_AT_ONCE = 16


def run_ground(options: GroundOptions) -> pd.DataFrame:
    """Judge a model on RefCOCO's phrases, and write the table where one is asked for.

    Phrases are attacked where a source of words is given; all measures are means over images.

    Returns:
        one row per attack (`worst`: per phrase the least of all) and measure, in [0, 1] with 95 %
        intervals over images: `attack`, `measure`, `value`, `low`, `high`, `n_images`, `n_phrases`.

    Raises:
        ValueError, OSError: before any long work.
    """
    check_threat(options, needs_words=False)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoder = open_any(options.model, options.checkpoint, device, rest=options.rest)
    data = read_refcoco(
        options.refs, options.images, options.split, encoder.image_size,
        split_by=options.split_by, limit=options.limit,
        interpolation=encoder.settings.interpolation,
    )  # fmt: skip
    phrases = data.referring.phrases
    words = allowed_edits(options, phrases, device) if options.sources_of_words else None
    attack = PGD(options.eps_255, options.n_steps, options.step_255)
    parts = torch.arange(len(data.names)).split(IMAGES_AT_ONCE)
    scores: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    with Progress("ground phrases", len(parts)) as progress:
        for number, rows in enumerate(parts):
            own = torch.isin(data.referring.image_of, rows).nonzero().flatten().tolist()
            asked = data.referring.of_images(rows)
            found = ground_under_attack(
                encoder, data.images.load(rows) / 255, asked, attack,
                None if words is None else [words[i] for i in own],
                seed=options.seed * 1_000_003 + number,
            )  # fmt: skip
            for name, measures in {**found.scores, WORST: worst_scores(found)}.items():
                for measure, values in measures.items():
                    scores[name][measure].append(per_image(values, asked.image_of))
            progress.advance(1, f"{len(data.names)} images")
    table = _table(scores, data)
    if options.out is not None:
        text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
        write_durably(options.out, text)
    return table


def _table(scores: dict[str, dict[str, list[Tensor]]], data: ReferringImages) -> pd.DataFrame:
    rows = []
    for name, measures in scores.items():
        for measure, parts in measures.items():
            e = bootstrap_mean(torch.cat(parts))
            rows.append({
                "attack": name, "measure": measure, "value": e.value, "low": e.low, "high": e.high,
                "n_images": len(data.names), "n_phrases": len(data.referring.phrases),
            })  # fmt: skip
    return pd.DataFrame(rows)


def ground_text(table: pd.DataFrame) -> str:
    """The table for people, in percent."""
    cells = [in_percent(v, lo, hi)
             for v, lo, hi in table[["value", "low", "high"]].itertuples(index=False)]  # fmt: skip
    wide = table.assign(cell=cells).pivot(index="attack", columns="measure", values="cell")
    wide = wide.loc[table["attack"].unique(), table["measure"].unique()]
    first = table.iloc[0]
    return "\n".join([
        wide.rename_axis(index=None, columns=None).to_string(),
        f"{first['n_images']:,} images, {first['n_phrases']:,} phrases; in %, with 95 % intervals "
        "over images; pointing: the hottest place lies in the thing's box; choice: the right one "
        "of the image's things; overlap: of the box around the hot region",
    ])  # fmt: skip
