"""Word substitution (after BERT-Attack, Li et al. 2020), batched over captions.

A *threat* is a table of allowed edits per caption. What may replace what is decided
before the attack (masked language model, typos, truth check); the attack only searches.
So the same search serves every threat, and tables are made once and shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from matlib.attacks.budgets import check_count
from matlib.attacks.edits import CandidateTable
from matlib.attacks.objectives import TextObjective
from matlib.attacks.prepared import PreparedSubstitution
from matlib.models.dual_encoder import DualEncoder


@dataclass(frozen=True)
class WordSubstitution:
    """Greedy substitution of at most `n_words` words.

    Words are tried in descending importance; at each word the edit with the highest objective
    is taken, the unchanged caption competing as well; the search goes on to the next word
    until `n_words` are changed. Words without candidates (stop words) are never masked: they
    could not be changed anyway.

    Attributes:
        n_words: words that may change.
        search: `importance` as in BERT-Attack, or `exhaustive`: every allowed edit of every
            word is scored and the best taken (stronger, costs one row per edit).
        chunk: rows per text-encoder forward; bounds memory.
        importance: `masking`: KL between the embeddings of the caption and of the caption
            with the word masked (BERT-Attack); `gradient`: norm of the objective's gradient
            at the word (one row per caption instead of one per word; a first-order estimate,
            so it may rank words otherwise; needs a guided objective and a model with
            `word_saliency`).
        max_kept: rows whose embeddings `prepare` keeps for later passes; D floats each, so
            the default bounds them by 2 GiB at D = 512.
    """

    n_words: int = 1
    search: Literal["importance", "exhaustive"] = "importance"
    chunk: int = 512
    importance: Literal["masking", "gradient"] = "masking"
    max_kept: int = 2**20

    def __post_init__(self) -> None:
        check_count("n_words", self.n_words)
        check_count("chunk", self.chunk, 1)
        check_count("max_kept", self.max_kept)
        if self.search not in ("importance", "exhaustive"):
            raise ValueError(f"search must be 'importance' or 'exhaustive'; got {self.search!r}")

    def prepare(
        self, encoder: DualEncoder, captions: Sequence[str], candidates: CandidateTable
    ) -> PreparedSubstitution:
        """The attack bound to its captions, to be called once per objective.

        Nothing is embedded before the first call.

        Args:
            encoder: the attacked model, untouched afterwards.
            captions: M captions.
            candidates: M lists of allowed edits.

        Raises:
            ValueError: not one list of edits per caption, or an edit outside its caption.
        """
        return PreparedSubstitution(self, encoder, captions, candidates)

    def __call__(
        self,
        encoder: DualEncoder,
        captions: Sequence[str],
        candidates: CandidateTable,
        objective: TextObjective | None = None,
    ) -> list[str]:
        """Adversarial captions; a caption without candidates comes back unchanged.

        Args:
            encoder: the attacked model, untouched afterwards.
            captions: M captions.
            candidates: M lists of allowed edits.
            objective: score to ascend; KL from the clean captions by default.

        Raises:
            ValueError: not one list of edits per caption, or an edit outside its caption.
        """
        once = replace(self, max_kept=0)  # one pass never meets a sentence twice
        return once.prepare(encoder, captions, candidates)(objective)
