"""Word substitution (after BERT-Attack, Li et al. 2020), batched over captions.

A *threat* is a table of allowed edits per caption. What may replace what is decided
before the attack (masked language model, typos, truth check); the attack only searches.
So the same search serves every threat, and tables are made once and shared. What several passes
over the same captions share is kept (`PreparedSubstitution`); which word is tried first follows
from masking it, or from the gradient at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from matlib.attacks.budgets import check_count
from matlib.attacks.edits import (
    CandidateTable,
    Edit,
    apply_edit,
    by_position,
    check_table,
    masked_token,
)
from matlib.attacks.objectives import TextObjective, kl_from
from matlib.attacks.one_word import CHUNKS_AT_ONCE, MOST_EDITS, OneWord
from matlib.attacks.scoring import (
    best_rows,
    embed_in_order,
    embed_texts,
    gather_values,
    is_better,
    score_texts,
)
from matlib.attacks.word_order import WordOrder, order_by_gradient, order_by_masking
from matlib.models.chosen import ChosenTexts
from matlib.models.dual_encoder import DualEncoder
from matlib.models.tokens import Tokenize


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
        return list(self._once(encoder, captions, candidates)(objective))

    def with_embeddings(
        self,
        encoder: DualEncoder,
        captions: Sequence[str],
        candidates: CandidateTable,
        objective: TextObjective | None = None,
    ) -> tuple[Sequence[str], Tensor | None]:
        """As a call; and (M, D) unit embeddings of what it gives, where the search made them.

        On an accelerator the captions may be `ChosenTexts`, which nothing waited for.
        """
        prepared = self._once(encoder, captions, candidates)
        prepared.may_choose = getattr(encoder, "may_choose", lambda: None)()
        return prepared.search(objective), prepared.found

    def _once(
        self, encoder: DualEncoder, captions: Sequence[str], candidates: CandidateTable
    ) -> PreparedSubstitution:
        """For one pass, which never meets a sentence twice."""
        return replace(self, max_kept=0).prepare(encoder, captions, candidates)


class PreparedSubstitution:
    """`WordSubstitution` bound to an encoder, captions and their candidates.

    Attacks of several passes (SGA, the contrastive judge) meet the same captions with another
    guide each time. Importances and the embeddings of captions with *one* edit do not depend
    on the guide: the first pass computes them, a later pass costs one matrix product with
    them, and a forward only for edits it is the first to ask for. The encoder's weights must
    stay as they are for as long as this object is used.

    Memory: at most `attack.max_kept` rows of D floats (one per edit that was ever scored; at
    k candidates per word a pass by importance asks for about k rows per caption), M clean
    rows, and one chunk. Captions with two edits and more are scored and forgotten.

    Attributes:
        n_unattackable: captions without an edit that changes them; they come back unchanged.
        n_attackable_words: positions, of all captions, that some edit changes.
        n_embedded: sentences embedded so far.
        n_kept: rows kept.
        found: (M, D) unit embeddings of the captions that the last pass gave, where it has them.
        may_choose: the model's tokenizer, where captions may stay on its device (`ChosenTexts`).
    """

    may_choose: Tokenize | None = None

    def __init__(
        self,
        attack: WordSubstitution,
        encoder: DualEncoder,
        captions: Sequence[str],
        candidates: CandidateTable,
    ) -> None:
        check_table(captions, candidates)
        self.attack, self.encoder, self.captions = attack, encoder, list(captions)
        self._edits: list[Edit] = []  # the allowed edits of all captions, numbered
        self._span: list[dict[int, range]] = []  # per caption: position -> numbers of its edits
        owner: list[int] = []
        for i, (caption, row) in enumerate(zip(captions, candidates, strict=True)):
            spans: dict[int, range] = {}
            for position, words in by_position(caption, row).items():
                spans[position] = range(len(self._edits), len(self._edits) + len(words))
                self._edits += [Edit(position, word) for word in words]
                owner += [i] * len(words)
            self._span.append(spans)
        self._owner, self._owner_of = torch.tensor(owner, dtype=torch.long), owner
        self.n_edits = len(owner)
        self.n_unattackable = sum(not spans for spans in self._span)
        self.n_attackable_words = sum(map(len, self._span))
        self.n_embedded = self.n_kept = 0
        self._kept: list[tuple[Tensor, Tensor]] = []  # (numbers of edits, their embeddings)
        self._table: OneWord | None = None
        self.found: Tensor | None = None

    @cached_property
    def clean(self) -> Tensor:
        """(M, D) unit embeddings of the captions."""
        clean = embed_texts(self.encoder, self.captions, self.attack.chunk)
        self.n_embedded += len(clean)
        return clean

    @cached_property
    def order(self) -> WordOrder:
        """Per caption its attackable positions by importance, measured by masking."""
        masks = [self._masks(i) for i in range(len(self.captions))]
        self.n_embedded += sum(len(own) for own in masks if len(own) > 1)
        return order_by_masking(self.encoder, self.captions, masks, self.clean, self.attack.chunk)

    def _masks(self, i: int) -> dict[int, str]:
        """Per attackable position of a caption what stands there once its word is masked."""
        tokens = self.captions[i].split(" ")
        return {
            position: masked_token(tokens[position], [self._edits[n].replacement for n in own])
            for position, own in self._span[i].items()
        }

    def __call__(self, objective: TextObjective | None = None) -> list[str]:
        """Adversarial captions under an objective (KL from the clean captions by default).

        Raises:
            ValueError: importance by gradient where it cannot be had.
        """
        return list(self.search(objective))

    def search(self, objective: TextObjective | None) -> Sequence[str]:
        """As a call; `ChosenTexts` where they may be."""
        self.found = None
        if self.attack.n_words == 0 or not self.n_edits:
            return list(self.captions)
        if self._is_found_at_once():
            return self._found_at_once(objective)
        return _Pass(self, objective).run()

    def _is_found_at_once(self) -> bool:
        """Whether all edits are embedded before any is chosen: where that costs no forward more,
        or where waiting for the host costs more than the forwards."""
        attack = self.attack
        if attack.n_words != 1 or self.n_edits > min(MOST_EDITS, attack.max_kept or MOST_EDITS):
            return False
        if attack.search == "exhaustive":
            return True
        return attack.importance == "masking" and self.encoder.device.type != "cpu"

    def _found_at_once(self, objective: TextObjective | None) -> Sequence[str]:
        table = self._table or self._embed_all()
        importance = self._importance if self.attack.search == "importance" else None
        chosen = table.best(objective or kl_from(table.clean), importance)
        self.found = table.features[chosen]
        if table.tokens.numel() and self.may_choose is not None:
            return ChosenTexts(self._sentences(), chosen, table.tokens, self.may_choose)
        return [self._sentence(row) for row in chosen.tolist()]

    def _sentence(self, row: int) -> str:
        """The caption with one edit, or one behind all edits as it is."""
        if row >= self.n_edits:
            return self.captions[row - self.n_edits]
        return self.edited(row, self.captions[self._owner_of[row]])

    def _sentences(self) -> list[str]:
        return [self._sentence(row) for row in range(self.n_edits + len(self.captions))]

    def _embed_all(self) -> OneWord:
        """Every edit that is not kept, and the captions if they are not, in as few forwards."""
        n_all = self.n_edits + len(self.captions)  # a caption's number is behind those of edits
        known, parts = torch.zeros(n_all, dtype=torch.bool), list(self._kept)
        if "clean" in self.__dict__:
            parts.append((torch.arange(self.n_edits, n_all), self.clean))
        for numbers, _ in parts:
            known[numbers] = True
        new = (~known).nonzero().flatten()
        parts += [(new[rows], features) for rows, features in self._embedded(new)]
        words = [(i, span) for i, spans in enumerate(self._span) for span in spans.values()]
        word = torch.tensor([n for n, (_, span) in enumerate(words) for _ in span])
        tokens = torch.empty(0, 0, dtype=torch.long)
        if self.may_choose is not None and self.encoder.device.type != "cpu":
            tokens = self.may_choose(self._sentences())  # (E + M, T)
        table = OneWord.of(parts, self._owner, word, [i for i, _ in words], tokens)
        self.clean = table.clean
        if self.attack.max_kept:
            self._table, self._kept = table, [(torch.arange(self.n_edits), table.edited)]
            self.n_kept = self.n_edits
        return table

    @cached_property
    def _importance(self) -> Tensor:
        """(W,) KL of masking each attackable word, where the embeddings lie; 0 if it is alone."""
        masks = [self._masks(i) for i in range(len(self.captions))]
        words = [(i, p) for i, own in enumerate(masks) for p in own]
        rows = [n for n, (i, _) in enumerate(words) if len(masks[i]) > 1]
        found = self.clean.new_zeros(len(words))
        if not rows:
            return found

        def masked(row: int) -> str:
            i, position = words[rows[row]]
            return apply_edit(self.captions[i], Edit(position, masks[i][position]))

        owner = torch.tensor([words[n][0] for n in rows])
        lengths = [len(self.captions[i]) for i in owner.tolist()]
        parts = list(embed_in_order(self.encoder, masked, lengths, self._chunk))
        self.n_embedded += len(rows)
        order = torch.cat([part for part, _ in parts])
        sent = torch.stack([owner[order], torch.tensor(rows)[order]]).to(found.device)  # (2, K)
        values = kl_from(self.clean)(torch.cat([features for _, features in parts]), sent[0])
        return found.index_copy(0, sent[1], values)

    @property
    def _chunk(self) -> int:
        """Rows of a forward of `_embed_all`."""
        return self.attack.chunk * (1 if self.encoder.device.type == "cpu" else CHUNKS_AT_ONCE)

    def queues(self, objective: TextObjective | None) -> list[list[list[int]]]:
        """Per caption the groups of positions that are tried one after the other."""
        if self.attack.search == "exhaustive":  # all positions again for every further word
            return [[list(spans)] * self.attack.n_words if spans else [] for spans in self._span]
        if self.attack.importance == "masking":
            order = self.order
        elif objective is None:
            raise ValueError(
                "importance by gradient needs an objective: KL from the clean caption, the "
                "default, has no slope there"
            )
        else:
            positions = [list(spans) for spans in self._span]
            order = order_by_gradient(
                self.encoder, self.captions, positions, objective, self.attack.chunk
            )
        return [[[position] for position in own] for own in order]

    def edits_at(self, caption: int, positions: Sequence[int]) -> list[int]:
        """Numbers of the edits of a caption at some of its positions."""
        return [edit for position in positions for edit in self._span[caption][position]]

    def positions(self, caption: int) -> list[int]:
        """The positions of a caption that some edit changes."""
        return list(self._span[caption])

    def edited(self, edit: int, text: str) -> str:
        """`text` with an edit applied, `text` being the edit's caption, perhaps edited already."""
        return apply_edit(text, self._edits[edit])

    def position(self, edit: int) -> int:
        return self._edits[edit].position

    def score_clean(self, score: TextObjective) -> list[float]:
        """The objective's value of every unchanged caption."""
        parts = torch.arange(len(self.captions)).split(self.attack.chunk)
        rows = [score(self.clean[part], part.to(self.clean.device)) for part in parts]
        return torch.cat(rows).tolist()

    def score_kept(self, score: TextObjective) -> tuple[Tensor, Tensor]:
        """Values of all edits (0 where unknown) and bool, whether they are known."""
        scored = [
            (edits, score(features, self._owner[edits].to(features.device)))
            for edits, features in self._kept
        ]
        known = torch.zeros(self.n_edits, dtype=torch.bool)
        for edits, _ in scored:
            known[edits] = True
        return gather_values(scored, self.n_edits), known

    def score_new(self, edits: Tensor, score: TextObjective) -> Tensor:
        """Values of captions with one edit each; their embeddings are kept up to the limit.

        Args:
            edits: int64 (R,), numbers of edits not kept so far.
        """
        owner = self._owner[edits]
        scored = [
            (rows, score(features, owner[rows].to(features.device)))
            for rows, features in self._embed(edits)
        ]
        return gather_values(scored, len(edits))

    def every_edit(self) -> tuple[list[int], Tensor]:
        """Per edit the number of its caption, and (n_edits, D) embeddings of the captions with it.

        What earlier passes kept is not embedded again.
        """
        found = self.clean.new_empty(self.n_edits, self.clean.shape[1])  # (n_edits, D)
        known = torch.zeros(self.n_edits, dtype=torch.bool)
        for edits, features in self._kept:
            found[edits.to(found.device)], known[edits] = features, True
        new = (~known).nonzero().flatten()
        for rows, features in self._embed(new):
            found[new[rows].to(found.device)] = features
        return self._owner.tolist(), found

    def _embed(self, edits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of `edits` and their embeddings, in chunks, each kept while the limit allows."""
        for rows, features in self._embedded(edits, self.attack.chunk):
            if self.n_kept + len(rows) <= self.attack.max_kept:
                self._kept.append((edits[rows], features))
                self.n_kept += len(rows)
            yield rows, features

    def _embedded(
        self, numbers: Tensor, chunk: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of numbers of edits, or of captions behind them, and their embeddings in chunks."""
        n_edits, each = self.n_edits, numbers.tolist()
        owner = [
            self._owner_of[number] if number < n_edits else number - n_edits for number in each
        ]

        lengths = [len(self.captions[i]) for i in owner]
        for rows, features in embed_in_order(
            self.encoder, lambda row: self._sentence(each[row]), lengths, chunk or self._chunk
        ):
            self.n_embedded += len(rows)
            yield rows, features


class _Pass:
    """One search over all captions at once, in rounds; a round tries one group per caption."""

    def __init__(self, prepared: PreparedSubstitution, objective: TextObjective | None) -> None:
        self.prepared = prepared
        self.score = objective or kl_from(prepared.clean)
        self.queues = prepared.queues(objective)
        self.current = list(prepared.captions)
        self.value = prepared.score_clean(self.score)
        self.edited: list[set[int]] = [set() for _ in self.current]
        self.values, self.known = prepared.score_kept(self.score)

    def run(self) -> list[str]:
        active = [i for i, queue in enumerate(self.queues) if queue]
        while active:
            self._round(active)
            limit = self.prepared.attack.n_words
            active = [i for i in active if self.queues[i] and len(self.edited[i]) < limit]
        return self.current

    def _round(self, active: list[int]) -> None:
        """The best edit of each caption's next group, taken if it beats the caption as it is."""
        edits: list[int] = []
        group: list[int] = []
        for n, i in enumerate(active):
            positions = [p for p in self.queues[i].pop(0) if p not in self.edited[i]]
            own = self.prepared.edits_at(i, positions)
            edits += own
            group += [n] * len(own)
        values = self._score(edits, [active[n] for n in group])
        # none at all where the only attackable word of every caption is changed already
        rows = best_rows(values, torch.tensor(group, dtype=torch.long), len(active)).tolist()
        for i, row in zip(active, rows, strict=True):
            if row >= 0 and is_better(float(values[row]), self.value[i], values.dtype):
                self.current[i] = self.prepared.edited(edits[row], self.current[i])
                self.edited[i].add(self.prepared.position(edits[row]))
                self.value[i] = float(values[row])
            elif self.prepared.attack.search == "exhaustive":
                self.queues[i] = []  # nothing beats it: trying again would find the same

    def _score(self, edits: list[int], owner: list[int]) -> Tensor:
        """Values of edits of the captions as they are now: first edits by number, others anew."""
        prepared, numbers = self.prepared, torch.tensor(edits, dtype=torch.long)
        is_first = torch.tensor([not self.edited[i] for i in owner], dtype=torch.bool)
        values = self.values[numbers]
        new = is_first & ~self.known[numbers]
        if bool(new.any()):
            found = prepared.score_new(numbers[new], self.score)
            values = values.to(found.dtype)
            values[new] = found
        later = (~is_first).nonzero().flatten().tolist()
        if later:
            texts = [prepared.edited(edits[row], self.current[owner[row]]) for row in later]
            own = [owner[row] for row in later]
            lengths = [len(prepared.captions[i]) for i in own]
            chunk = prepared.attack.chunk
            found = score_texts(prepared.encoder, texts, own, lengths, self.score, chunk)
            values = values.to(found.dtype)
            values[later] = found
            prepared.n_embedded += len(texts)
        return values
