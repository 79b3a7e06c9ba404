"""What an attack achieved: ranks of every query over all finished batches, and a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch

from matlib.commands.batches import AttackFolder, Batch
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.retrieval import (
    Direction,
    Outcomes,
    chance_recall,
    conditional_attack_success,
    difference_attack_success,
    retrieve,
)

DIRECTIONS: tuple[Direction, Direction] = ("TR", "IR")
KS = (1, 5, 10)


def write_outcomes(
    folder: AttackFolder,
    pairs: ImageTextPairs,
    made: Sequence[tuple[Batch, Sequence[Any]]],
    settings: Mapping[str, Any],
    words: Mapping[str, Any],
) -> dict[str, Any]:
    """Judge all pairs from the finished batches and write `pairs.json`.

    All adversarial images stand against all adversarial captions, as in the literature.

    Args:
        made: every batch, with the places of its adversarial images.
        words: of the summary, how much of the captions the attack may change (`attackable`);
            0 where no text is attacked.

    Returns:
        the summary.
    """
    found, places = [batch for batch, _ in made], [place for _, own in made for place in own]
    outcomes = judge(found, pairs)
    captions = [caption for batch in found for caption in batch.captions]
    as_stored = "8bit" if settings["format"] == "png" else "float"
    summary = {
        "n_images": len(pairs),
        "n_captions": pairs.n_captions,
        "stored_as": as_stored,
        **(words if settings["words"] else dict.fromkeys(words, 0)),
        "n_changed_captions": sum(a != b for a, b in zip(pairs.captions, captions, strict=True)),
        "gradients": {key: sum(b.counts[key] for b in found) for key in found[0].counts},
        **_recalls(outcomes, pairs, as_stored),
        "notes": list(pairs.notes),
    }
    content = {
        "summary": summary,
        "settings": dict(settings),
        "pairs": _records(pairs, captions, places, outcomes, as_stored),
    }
    folder.finish(content)
    return summary


def judge(found: Sequence[Batch], pairs: ImageTextPairs) -> dict[str, Outcomes]:
    """Outcomes of `clean` pairs, and of adversarial ones as `float` and as `8bit` images."""

    def all_of(name: str) -> torch.Tensor:
        return torch.cat([batch.tensors[name] for batch in found])

    relevant, text = pairs.relevance(), all_of("text")
    return {
        "clean": retrieve(all_of("image_clean"), all_of("text_clean"), relevant),
        "float": retrieve(all_of("image_float"), text, relevant),
        "8bit": retrieve(all_of("image_8bit"), text, relevant),
    }


def _recalls(
    outcomes: Mapping[str, Outcomes], pairs: ImageTextPairs, as_stored: str
) -> dict[str, Any]:
    clean, attacked, relevant = outcomes["clean"], outcomes[as_stored], pairs.relevance()
    recall = {
        name: {f"{d}@{k}": found.recall(d, k) for d, k in product(DIRECTIONS, KS)}
        for name, found in outcomes.items()
    }
    success = {
        f"{d}@{k}": {
            "conditional": _or_none(
                conditional_attack_success(clean.hits(d, k), attacked.hits(d, k))
            ),
            "difference": difference_attack_success(clean.hits(d, k), attacked.hits(d, k)),
        }
        for d, k in product(DIRECTIONS, KS)
    }
    gained = {key: recall["8bit"][key] - value for key, value in recall["float"].items()}
    chance = {f"{d}@{k}": chance_recall(relevant, d, k) for d, k in product(DIRECTIONS, KS)}
    return {
        "recall": {**recall, "chance": chance},
        "attack_success": success,
        "recall_gained_by_quantisation": gained,
    }


def _or_none(value: float) -> float | None:
    """JSON has no NaN: None where no clean query was right."""
    return None if value != value else value


def _records(
    pairs: ImageTextPairs,
    captions: Sequence[str],
    places: Sequence[Any],
    outcomes: Mapping[str, Outcomes],
    as_stored: str,
) -> list[dict[str, Any]]:
    names = {"clean": "clean", "adversarial": as_stored, "adversarial_float": "float"}
    tr = {name: outcomes[key].tr_rank.tolist() for name, key in names.items()}
    ir = {name: outcomes[key].ir_rank.tolist() for name, key in names.items()}
    records: list[dict[str, Any]] = [
        {
            "image": image_id,
            "adversarial_image": places[i],
            "tr_rank": {name: ranks[i] for name, ranks in tr.items()},
            "captions": [],
        }
        for i, image_id in enumerate(pairs.image_ids)
    ]
    for m, (image, edited) in enumerate(zip(pairs.image_of.tolist(), captions, strict=True)):
        records[image]["captions"].append(
            {
                "original": pairs.captions[m],
                "adversarial": edited,
                "changed": changed_words(pairs.captions[m], edited),
                "ir_rank": {name: ranks[m] for name, ranks in ir.items()},
            }
        )
    return records


def changed_words(before: str, after: str) -> list[dict[str, Any]]:
    """Position, word before and word after of every changed word."""
    both = zip(before.split(" "), after.split(" "), strict=True)
    return [
        {"position": i, "before": old, "after": new}
        for i, (old, new) in enumerate(both)
        if old != new
    ]


def summary_text(summary: Mapping[str, Any]) -> str:
    """The summary as a table for people; recalls in percent."""
    recall = summary["recall"]
    keys = [f"{d}@{k}" for d in DIRECTIONS for k in KS]
    labels = {
        "clean": "clean",
        "float": "attacked, float images",
        "8bit": "attacked, 8-bit images",
        "chance": "chance",
    }
    lines = [" " * 24 + "".join(f"{key:>8}" for key in keys)]
    for name, label in labels.items():
        lines.append(f"{label:<24}" + "".join(f"{100 * recall[name][key]:8.1f}" for key in keys))
    gradients = summary["gradients"]
    n_vanished = gradients["n_zero"] + gradients["n_non_finite"]
    lines += [
        f"{summary['n_images']:,} images, {summary['n_captions']:,} captions; "
        f"{summary['n_changed_captions']:,} captions changed, "
        f"{summary['n_unattackable_captions']:,} have no word that may be changed, "
        f"{summary['attackable_words_per_caption']:.2f} words per caption may",
        f"{n_vanished:,} of {gradients['n_gradients']:,} gradients vanished",
        *summary["notes"],
    ]
    return "\n".join(lines)
