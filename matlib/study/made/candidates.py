"""Candidate tables: what each text threat may replace, made once and shared by all attacks.

Which edits of a caption keep the truth, in a world that knows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from matlib.attacks.attackable import RELEASED, pieces, tokens
from matlib.attacks.edits import (
    Cut,
    Edit,
    EncodesSentences,
    Table,
    apply_edit,
    free_edits,
    keep_similar,
    suggested,
)
from matlib.data.wordnet import open_wordnet, wordnet_identity
from matlib.models.masked_lm import MaskedLM
from matlib.models.sentence_encoder import SentenceEncoder
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.made.base import masked_lm, open_masked_lm
from matlib.study.made.protocols import GalleryName
from matlib.study.profile.parts import TRUE_THREATS
from matlib.study.sources.karpathy import KarpathySource
from matlib.study.sources.scenes import ScenesSource
from matlib.study.store.provenance import named_weights
from matlib.study.store.store import Artefact


def true_edits(
    captions: Sequence[str],
    words: list[list[list[str]]],
    stop_words: frozenset[str],
    is_valid: Callable[[int, str], bool],
    k: int,
    cut: Cut = pieces,
) -> Table:
    """Threat `bert_true`: of the masked LM's first `k` words, those that keep the truth."""
    free = free_edits(captions, words, stop_words, k, cut)
    return [
        [edit for edit in row if is_valid(i, apply_edit(captions[i], edit))]
        for i, row in enumerate(free)
    ]


class TypoMaker(Protocol):
    """`Source.typos`."""

    def __call__(
        self, caption: str, seed: int, n_per_word: int, held_out: bool = False
    ) -> list[tuple[int, str]]: ...


def typo_table(
    captions: Sequence[str], per_word: int, seed: int, typos: TypoMaker, held_out: bool
) -> Table:
    """Threat `typo`: one-letter edits of content words that never form another word.

    Args:
        held_out: by the rule that no defence trains on, or by all others.
    """
    return [
        [Edit(*edit) for edit in typos(caption, seed * 1_000_003 + i, per_word, held_out)]
        for i, caption in enumerate(captions)
    ]


@dataclass(frozen=True)
class Similar:
    """What threat `bert_similar` compares with.

    Attributes:
        encoder: embeds sentences; neither the attacked model nor the attacker's.
        others: per caption, lower-case words of the image's other captions, none of its own.
        is_near: (word, replacement) -> whether it means the same or something wider.
    """

    encoder: EncodesSentences
    others: Sequence[Collection[str]]
    is_near: Callable[[str, str], bool]


def similar_edits(
    captions: Sequence[str],
    words: list[list[list[str]]],
    stop_words: frozenset[str],
    similar: Similar,
    minimum: float,
    k: int,
    cut: Cut = pieces,
) -> Table:
    """Threat `bert_similar`: of the masked LM's first `k` words, those that keep the meaning.

    Each is near the word that it replaces, or another human caption of the same image uses it;
    and the edited sentence keeps the cosine `minimum`.
    """
    near = [
        [
            [w for w in found[:k] if w.lower() in known or similar.is_near(piece.text, w)]
            for piece, found in zip(cut(caption), per_piece, strict=True)
        ]
        for caption, per_piece, known in zip(captions, words, similar.others, strict=True)
    ]
    free = free_edits(captions, near, stop_words, k, cut)
    return keep_similar(captions, free, similar.encoder, minimum)


def similar_in(
    study: Context, threats: Sequence[str], split: str, captions: list[str], own: Sequence[int]
) -> Similar | None:
    """What `bert_similar` needs to know of these captions; None where it is no threat.

    Args:
        own: the image of each caption, by its number in the split.

    Raises:
        FileNotFoundError: no WordNet on this machine.
        OSError: no such sentence encoder.
    """
    if "bert_similar" not in threats:
        return None
    known = study.source.human_words(split)
    others = [
        known[i] - {piece.text.lower() for piece in pieces(caption)}
        for i, caption in zip(own, captions, strict=True)
    ]
    name = study.profile.evaluation.sentence_encoder
    return Similar(SentenceEncoder.load(name, study.device), others, open_wordnet().is_near)


def about_similar(study: Context, threats: Sequence[str]) -> dict[str, Any]:
    """What `bert_similar` adds to the identity of a table; nothing where it is no threat."""
    if "bert_similar" not in threats:
        return {}
    encoder = study.identified.evaluation.sentence_encoder
    return {"similar": {"encoder": encoder, "wordnet": wordnet_identity()}}


def _only(table: Table, words: Collection[str], *, among: bool) -> Table:
    """The edits whose replacement is among the words, or is not."""
    return [[edit for edit in row if (edit.replacement in words) == among] for row in table]


class Sizes(Protocol):
    """How large the tables are (`matlib.study.profile.Candidates`)."""

    @property
    def k_free(self) -> int: ...
    @property
    def k_true(self) -> int: ...
    @property
    def typos_per_word(self) -> int: ...
    @property
    def similar_cosine(self) -> float: ...


def make_tables(
    captions: Sequence[str],
    threats: Sequence[str],
    masked_lm: MaskedLM,
    sizes: Sizes,
    *,
    stop_words: frozenset[str],
    typos: TypoMaker,
    seed: int,
    is_valid: Callable[[int, str], bool] | None,
    conventions: Literal["matlib", "released"] = "matlib",
    held_out_words: Collection[str] = (),
    for_training: bool = False,
    similar: Similar | None = None,
) -> dict[str, Table]:
    """One table per threat.

    `typo` and `typo_held_out` have no rule in common; `true_held_out` is the part of
    `bert_true` whose replacements are the held-out words, `true_known` the rest.

    Args:
        typos: (caption, seed, edits per word) -> edits, from `Source.typos`.
        is_valid: (caption index, edited caption) -> the edit keeps the truth.
        stop_words: neither attacked nor used; `released` has the field's own list instead.
        conventions: `released`: candidates as in the field's code, one token beside the word.
        held_out_words: a family of synonyms that no defence trains on.
        for_training: leave these words out of all tables.
        similar: what `bert_similar` compares with.

    Raises:
        ValueError: true words without a truth check, similar ones without what they are compared
            with, or held-out words where there are none.
    """
    tables: dict[str, Table] = {}
    filters = not {*TRUE_THREATS, "bert_similar"}.isdisjoint(threats)
    k = max(sizes.k_true if filters else 1, sizes.k_free)
    words: list[list[list[str]]] = []
    asks_words = any(not threat.startswith("typo") for threat in threats)
    is_released = conventions == "released"
    stop, cut = (RELEASED, tokens) if is_released else (stop_words, pieces)
    if asks_words:
        words = suggested(captions, masked_lm, k, released=is_released)
    for threat in threats:
        if threat in ("typo", "typo_held_out"):
            held_out = threat == "typo_held_out"
            tables[threat] = typo_table(captions, sizes.typos_per_word, seed, typos, held_out)
        elif threat == "bert_free":
            tables[threat] = free_edits(captions, words, stop, sizes.k_free, cut)
        elif threat == "bert_similar":
            if similar is None:
                raise ValueError("threat bert_similar needs a sentence encoder and other captions")
            tables[threat] = similar_edits(
                captions, words, stop, similar, sizes.similar_cosine, sizes.k_true, cut
            )
        elif is_valid is None:
            raise ValueError(f"threat {threat} needs the truth, which only scenes has")
        else:
            tables[threat] = true_edits(captions, words, stop, is_valid, sizes.k_true, cut)
            if threat != "bert_true":
                among = threat == "true_held_out"
                tables[threat] = _only(tables[threat], held_out_words, among=among)
    if for_training and held_out_words:
        tables = {k: _only(table, held_out_words, among=False) for k, table in tables.items()}
    return tables


def save_tables(tables: dict[str, Table], path: Path) -> None:
    """JSON: threat -> caption -> [position, replacement]."""
    path.write_text(json.dumps(tables, ensure_ascii=False), encoding="utf-8")


@makes("tables")
def tables(
    study: Context, gallery: GalleryName, threats: tuple[str, ...]
) -> Node[dict[str, Table]]:
    """Per text threat the allowed edits of every caption of a gallery."""
    profile = study.identified

    def make(folder: Path) -> dict[str, Any]:
        pairs = study.pairs(gallery)
        captions, own = list(pairs.captions), pairs.image_of.tolist()
        split = gallery.removesuffix("-1")
        found = make_tables(
            captions, threats, open_masked_lm(study), study.profile.candidates,
            stop_words=study.source.stop_words, typos=study.source.typos, seed=0,
            conventions=profile.evaluation.conventions,
            is_valid=validity(study.source, split, captions, own),
            held_out_words=study.source.held_out_words,
            similar=similar_in(study, threats, split, captions, own),
        )  # fmt: skip
        save_tables(found, folder / "tables.json")
        return about_tables(found)

    config = {
        "gallery": gallery,
        "threats": threats,
        "candidates": profile.candidates.model_dump(),
        "masked_lm": named_weights(profile.masked_lm.name),
        "conventions": profile.evaluation.conventions,
        **about_similar(study, threats),
    }
    inputs = {"masked_lm": masked_lm(study)}
    return study.node("candidates", gallery, 0, config, inputs, make, tables_in, maker="tables")


def tables_in(artefact: Artefact) -> dict[str, Table]:
    """What a maker of tables has saved."""
    return load_tables(artefact.file("tables.json"))


def about_tables(tables: dict[str, Table]) -> dict[str, Any]:
    """Size of candidate tables, for their provenance."""
    return {
        threat: {
            "edits_per_caption": sum(map(len, table)) / len(table),
            "captions_without": sum(not row for row in table),
        }
        for threat, table in tables.items()
    }


def load_tables(path: Path) -> dict[str, Table]:
    """What `save_tables` wrote."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    return {
        threat: [[Edit(position, word) for position, word in row] for row in table]
        for threat, table in raw.items()
    }


def validity(
    source: ScenesSource | KarpathySource, split: str, captions: list[str], own: Sequence[int]
) -> Callable[[int, str], bool] | None:
    """The truth check of edits, where the truth is known.

    A caption that is false of its image (a captioner's mistake, a mismatched pair) has no edit
    that keeps it true. In training it is attacked by edits that leave what it says as it is:
    otherwise wrong captions would be trained on without an attack, and alignment would be
    confounded with the share of attacked captions.
    """
    if not isinstance(source, ScenesSource):
        return None
    keeps_truth = source.valid_edit(split, captions, own)
    if split != "train":
        return keeps_truth
    is_false = [not source.is_true(split, i, c) for i, c in zip(own, captions, strict=True)]

    def is_valid(i: int, edited: str) -> bool:
        if is_false[i]:
            return source.means_the_same(captions[i], edited)
        return keeps_truth(i, edited)

    return is_valid
