"""The common wish in one call: what any model's retrieval keeps under each attack, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from torch import nn

from matlib.attacks.budgets import check_count, check_positive
from matlib.attacks.edits import (
    CandidateTable,
    check_table,
    from_masked_lm,
    from_synonyms,
    n_attackable_words,
    normalise_caption,
)
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import ImageTextPairs
from matlib.evaluation.reranking import RERANKED
from matlib.evaluation.retrieval import DIRECTIONS, Outcomes
from matlib.evaluation.robustness import WORST, evaluate, worst_under
from matlib.evaluation.statistics import primary_difference, recall_estimate
from matlib.evaluation.suite import ATTACKS, CLEAN, Key, Suite
from matlib.models.door import open as open_model
from matlib.models.dual_encoder import DualEncoder
from matlib.models.masked_lm import MaskedLM

ROWS = (CLEAN, "pgd", "bert", "words", "sep", "co-attack", "sga", "gallery")
"""The attacks of a benchmark; `worst` follows from them."""

FUSION_ROWS = ("match", "fused")
"""Further ones, where the model reads image and text together."""

ASKED = (*ROWS, *FUSION_ROWS)

THREAT = "words"
"""The one text threat: the user's own edits."""

BenchmarkedModel = DualEncoder | tuple[str, str | None] | tuple[nn.Module, Callable[..., Any]]
"""A model; a name of open_clip's and its weights (`matlib.models.open`); or a model of open_clip's
and its tokenizer, both in memory."""


@dataclass(frozen=True, kw_only=True)
class Threat:
    """What an attacker may do to an image and to a caption.

    Attributes:
        eps_255: L-infinity budget of an image in 1/255 of the pixel range.
        n_steps: of the image attacks.
        step_255: in 1/255; `PGD` says what it is by default.
        n_words: words that may change per caption.
        words: what may replace what: synonyms (word -> words), a masked language model or its
            name on the hub, or the edits of every caption of the gallery in its order
            (`matlib.attacks.Edit`). None: captions are not attacked.
        k: replacements per word that are taken from synonyms or from a masked LM.
        rerank: candidates of each query that a fusion model orders by `match` (see `Suite`).
        released: conventions of the field's code, to compare with published numbers (see
            `Suite`, `normalise_caption`, and `MaskedLM.candidates`).
    """

    eps_255: float = 2.0
    n_steps: int = 10
    step_255: float | None = None
    n_words: int = 1
    words: Mapping[str, Sequence[str]] | MaskedLM | str | CandidateTable | None = (
        "bert-base-uncased"
    )
    k: int = 10
    rerank: int = RERANKED
    released: bool = False

    def __post_init__(self) -> None:
        """Refuse attacks of size zero, which would be told as robustness.

        Raises:
            ValueError: a budget or a number of steps or words that is not above 0.
        """
        check_positive("eps_255", self.eps_255, " in 1/255 (leave attacks on images out by name)")
        check_count("n_steps", self.n_steps, 1)
        if self.words is not None:
            check_count("n_words", self.n_words, 1)

    def suite(self, attacks: Sequence[str] = ASKED) -> Suite:
        """The attacks in this budget.

        Raises:
            ValueError: an unknown attack, or a budget in another unit.
        """
        image = PGD(self.eps_255, self.n_steps, self.step_255)
        text = WordSubstitution(self.n_words)
        return Suite(
            image, text, attacks=tuple(attacks), rerank=self.rerank, released=self.released
        )

    def edits(self, captions: Sequence[str], device: str = "cpu") -> CandidateTable:
        """What each caption may become.

        Raises:
            ValueError: not one edit for all the captions; synonyms that are no lists of words.
            FileNotFoundError: a masked LM that is neither here nor reachable.
        """
        words = MaskedLM.load(self.words) if isinstance(self.words, str) else self.words
        table: CandidateTable
        if isinstance(words, MaskedLM):
            words.model.to(device)
            table = from_masked_lm(captions, words, self.k, released=self.released)
        elif isinstance(words, Mapping):
            table = from_synonyms(captions, words, k=self.k)
        else:
            table = words or []
        check_table(captions, table)
        if not any(map(n_attackable_words, captions, table)):
            raise ValueError(
                f"`words` changes no word of the {len(captions):,} captions, so no text would be "
                "attacked: its words must occur in them, and stop words are left alone; "
                "words=None attacks images alone"
            )
        return table


def benchmark(
    model: BenchmarkedModel,
    pairs: ImageTextPairs,
    threat: Threat | None = None,
    *,
    attacks: Sequence[str] = ASKED,
    seed: int = 0,
    n_boot: int = 2000,
    on_attack: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Clean and robust recall of a model: one row per attack, and `worst`.

    Args:
        model: in evaluation mode, judged on the device where it is.
        pairs: the gallery, its images of the model's size.
        threat: `Threat()` by default, whose words are those of a masked LM of the hub.
        attacks: names of `ATTACKS`, and `clean`; those that change words are left out where the
            threat has none, and those on the fusion where the model has none.
        seed: of the attacks' draws.
        n_boot: samples of the bootstrap.
        on_attack: called with the name of each attack when it is done, such as
            `partial(print, file=sys.stderr)`.

    Returns:
        index: the attack (`worst`: per query the minimum over all rows, a pessimistic bound).
        Columns: `eps_255` and `n_words`, what it may use; `TR@1`, `IR@1` and `mean` of both, in
        [0, 1], each with the limits of its 95 % interval over images (`mean low`, `mean high`).

    Raises:
        ValueError: another kind of model, one in training mode, images of another size, a threat
            that changes no word; before any attack.
        FileNotFoundError: weights or a masked LM that are neither here nor reachable.
    """
    threat, encoder = threat or Threat(), _encoder(model)
    if threat.released:
        plain = tuple(normalise_caption(c) or c for c in pairs.captions)
        pairs = replace(pairs, captions=plain)
    suite, words, tables = threat.suite(attacks), "", {}
    if threat.words is not None:
        words, tables = THREAT, {THREAT: threat.edits(pairs.captions, str(encoder.device))}
    found = evaluate(encoder, pairs, tables, suite, seed=seed, on_attack=on_attack).outcomes
    found[WORST, words] = worst_under(found, words)
    rows = [
        {"attack": key[0], **allowed(key, threat.eps_255, threat.n_words),
         **_recalls(outcomes, pairs, n_boot)}
        for key, outcomes in found.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("attack")


def allowed(key: Key, eps_255: float, n_words: int) -> dict[str, float]:
    """What an attack may use of a budget: `eps_255` and `n_words`, 0 for what it leaves alone."""
    attack, threat = key
    moves_images = attack == WORST or (attack in ATTACKS and ATTACKS[attack].moves_images)
    return {"eps_255": eps_255 if moves_images else 0.0, "n_words": n_words if threat else 0}


def _recalls(outcomes: Outcomes, pairs: ImageTextPairs, n_boot: int) -> dict[str, float]:
    own = pairs.image_of
    found = {f"{d}@1": recall_estimate(outcomes, own, d, 1, n_boot=n_boot) for d in DIRECTIONS}
    found["mean"] = primary_difference(outcomes, None, own, n_boot=n_boot)
    return {k: v for name, each in found.items() for k, v in each.columns(name, f"{name} ").items()}


def _encoder(model: BenchmarkedModel) -> DualEncoder:
    if isinstance(model, tuple) and len(model) == 2:
        first, second = model
        if isinstance(first, str) and (second is None or isinstance(second, str)):
            return open_model(first, second)
        if isinstance(first, nn.Module) and callable(second):
            return open_model(first, second)
    if not isinstance(model, DualEncoder):
        raise ValueError(
            "expected a DualEncoder (matlib.models.open gives one), a name and its weights as a "
            "pair, or a model of open_clip and its tokenizer as a pair; got "
            f"{type(model).__name__}"
        )
    return model
