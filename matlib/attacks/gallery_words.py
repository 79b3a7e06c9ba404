"""Coordinate descent over words: every caption of a gallery at once, by exact margins.

The sentences that every caption may become are embedded once (`WordChoices`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from matlib.attacks.margins import NOTHING, SEARCH_TIE, Aim, soft_worth, unit_of
from matlib.attacks.scoring import embed_in_order
from matlib.attacks.word_substitution import PreparedSubstitution

Worth = Callable[[Tensor], Tensor]
"""Margins -> how much of a query's worth the attacker counts as won, in [0, 1], rising."""

TEMPERATURES = (1.0, 0.3, 0.1)
"""Softness of the stages of a descent, in units of the model's margins; the last stage counts
exactly."""

LEAST_GAIN = 1e-6
"""Of a changed word, as a share of all queries' worth: above rounding, below one query."""


class WordDescent:
    """Which sentence every caption becomes, so that as many queries as possible fail.

    A caption matters threefold: as a query (its highest wrong image against its right ones), as
    an own caption of its images (lower is better) and as a distractor of all other images
    (higher is better). For one caption all its sentences are compared at once, the other
    captions being what they are; then comes the next caption. Per image the two highest right
    and wrong captions are kept, so the margins that hold *without* the caption at hand are known
    without another look at the gallery: a sweep costs one pass over the similarities of all
    sentences, which are made 64 captions at a time and forgotten.

    Attributes:
        choice: int64 (M,), rows of `choices` that are chosen.
        similarity: float (M, N) of the chosen sentences.
    """

    block = 64

    def __init__(self, choices: WordChoices, image: Tensor, relevant: Tensor, aim: Aim) -> None:
        """
        Args:
            image: (N, D) unit embeddings of the gallery's images.
            relevant: bool (N, M).
        """
        self.choices, self.image, self.aim = choices, image, aim.to(image)
        self._right = relevant.T.to(image.device).contiguous()  # (M, N)
        self.choose(torch.tensor(choices.start[:-1]))

    def choose(self, choice: Tensor) -> None:
        """Take int64 (M,) rows."""
        self.choice = choice.clone()
        features = self.choices.features[choice.to(self.image.device)]  # (M, D)
        self.similarity = features @ self.image.T  # (M, N)
        self._tops = _Tops(self.similarity, self._right)

    def see(self, image: Tensor) -> None:
        """The images have moved."""
        self.image = image
        self.choose(self.choice)

    def margins(self) -> tuple[Tensor, Tensor]:
        """(N,) and (M,) margins of the chosen sentences."""
        return self._tops.tr(), _own_margins(self.similarity, self._right)

    def failing(self) -> float:
        """Worth of the queries that fail."""
        return float(self.aim.failing(*self.margins()))

    def descend(
        self,
        generator: torch.Generator,
        *,
        n_kicks: int = 0,
        max_sweeps: int = 6,
        temperatures: Sequence[float] = TEMPERATURES,
    ) -> float:
        """Sweep until nothing changes, ever harder; then from disturbed choices.

        The best choice met is taken, the one at the beginning among them: never worse.

        Args:
            generator: for the order of the captions and for the disturbances.
            n_kicks: descents from the best choice with a tenth of the captions set at random.
            max_sweeps: of each stage.
            temperatures: of the stages before the exact one, in units of the model's margins.

        Returns:
            the worth of the queries that fail.
        """
        unit = unit_of(*self.margins())
        best, choice = self.failing(), self.choice.clone()
        for kick in range(n_kicks + 1):
            if kick:
                self.choose(self._disturbed(choice, generator))
            for temperature in TEMPERATURES[-1:] if kick else temperatures:
                best, choice = self._settle(
                    soft(temperature * unit), best, choice, generator, max_sweeps
                )
            best, choice = self._settle(
                exact(TEMPERATURES[-1] * unit), best, choice, generator, max_sweeps
            )
        self.choose(choice)
        return best

    def _settle(
        self,
        worth: Worth,
        best: float,
        choice: Tensor,
        generator: torch.Generator,
        max_sweeps: int,
    ) -> tuple[float, Tensor]:
        for _ in range(max_sweeps):
            n_changed = self.sweep(worth, torch.randperm(len(self.choice), generator=generator))
            failing = self.failing()
            if failing > best:
                best, choice = failing, self.choice.clone()
            if n_changed <= len(self.choice) // 200:
                break
        return best, choice

    def sweep(self, worth: Worth, order: Tensor) -> int:
        """Let each caption become its best sentence, one after the other.

        64 captions are looked at together; those that have a better sentence are then looked at
        again, one by one, as the others have become by then.

        Args:
            order: int64, the captions to go through.

        Returns:
            how many changed.
        """
        start, n_changed = torch.tensor(self.choices.start), 0
        for part in order.split(self.block):
            first, count = start[part], start[part + 1] - start[part]  # (B,), (B,)
            owner = torch.repeat_interleave(torch.arange(len(part)), count)  # (R,)
            offset = count.cumsum(0) - count
            rows = torch.arange(len(owner)) - (offset - first)[owner]  # (R,)
            device = self.image.device
            similarity = self.choices.features[rows.to(device)] @ self.image.T  # (R, N)
            value = self._values(part.to(device), owner.to(device), similarity, worth)  # (R,)
            best = value.new_full((len(part),), -math.inf)
            best = best.scatter_reduce(0, owner.to(device), value, "amax")  # (B,)
            gain = best - value[(self.choice[part] - first + offset).to(device)]  # (B,)
            for i in (gain > LEAST_GAIN).nonzero().flatten().tolist():
                own = similarity[int(offset[i]) : int(offset[i] + count[i])]  # (k, N)
                n_changed += self._improve(int(part[i]), int(first[i]), own, worth)
        return n_changed

    def _values(self, part: Tensor, owner: Tensor, similarity: Tensor, worth: Worth) -> Tensor:
        """(R,) worth of what fails if a caption becomes a sentence, as far as it changes that.

        Args:
            part: int64 (B,), captions.
            owner: int64 (R,), of each sentence the caption in `part`.
            similarity: float (R, N), of the sentences.
        """
        right = self._right[part][owner]  # (R, N)
        tr = worth(self._tops.with_sentences(part, owner, similarity, right)) @ self.aim.tr  # (R,)
        return tr + self.aim.ir[part][owner] * worth(_own_margins(similarity, right))

    def _improve(self, m: int, first: int, own: Tensor, worth: Worth) -> bool:
        """Caption m becomes the best of its sentences, of which (k, N) similarities are given."""
        one = torch.tensor([m], device=own.device)
        value = self._values(one, one.new_zeros(len(own)), own, worth)  # (k,)
        now = int(self.choice[m]) - first
        top, row = value.max(0)
        if not float(top - value[now]) > LEAST_GAIN:
            return False
        self.choice[m] = first + int(row)
        self.similarity[m] = own[row]
        self._tops.replace(m, own[row], self.similarity)
        return True

    def alone(self) -> Tensor:
        """Every caption for itself against the rest as it is now (the pairwise attacker).

        A caption becomes the sentence by which its own query comes nearest to failing, and its
        own images would, as queries, if they had no other caption.

        Returns:
            int64 (M,) rows.
        """
        found, worth, start = (
            self.choice.clone(),
            soft(unit_of(*self.margins())),
            self.choices.start,
        )
        for m in range(len(found)):
            right = self._right[m]
            own = self.choices.features[start[m] : start[m + 1]] @ self.image.T  # (k, N)
            tr = torch.where(right, self._tops.value[1, 0] - own, NOTHING)  # (k, N)
            value = worth(tr) @ self.aim.tr + self.aim.ir[m] * worth(_own_margins(own, right))
            found[m] = start[m] + int(value.argmax())
        return found

    def _disturbed(self, choice: Tensor, generator: torch.Generator) -> Tensor:
        """A tenth of the captions, at least one, set at random."""
        m, start = len(choice), torch.tensor(self.choices.start)
        count = start[1:] - start[:-1]
        picked = torch.randperm(m, generator=generator)[: max(m // 10, 1)]
        drawn = (torch.rand(m, generator=generator) * count).long().clamp(max=count - 1)
        found = choice.clone()
        found[picked] = (start[:-1] + drawn)[picked]
        return found


def soft(width: float) -> Worth:
    """`soft_worth`: queries near to failing pull most."""
    return lambda margin: soft_worth((margin + SEARCH_TIE) / width)


def exact(width: float) -> Worth:
    """Failing queries count; of choices with equally many, the one that comes nearest to more."""
    near = soft(width)
    return lambda margin: 0.98 * (margin >= -SEARCH_TIE).to(margin.dtype) + 0.02 * near(margin)


def _own_margins(own: Tensor, right: Tensor) -> Tensor:
    """(k,) margins of captions as queries, from (k, N) similarities and bool (N,) or (k, N)."""
    wrong = own.masked_fill(right, NOTHING).amax(1)
    return wrong - own.masked_fill(~right, NOTHING).amax(1)


class _Tops:
    """Per image its two highest right and its two highest wrong captions.

    Attributes:
        value: float (2, 2, N): right and wrong; first and second; `NOTHING` where there is none.
        at: int64 (2, 2, N), which captions they are.
    """

    def __init__(self, similarity: Tensor, right: Tensor) -> None:
        self._right = right
        n = similarity.shape[1]
        self.value = similarity.new_full((2, 2, n), NOTHING)
        self.at = torch.full((2, 2, n), -1, device=similarity.device)
        self._look(similarity, torch.arange(n, device=similarity.device))

    def _look(self, similarity: Tensor, images: Tensor) -> None:
        part, right = similarity[:, images], self._right[:, images]
        for side, other in ((0, ~right), (1, right)):
            top = part.masked_fill(other, NOTHING).topk(min(2, len(part)), 0)  # (2, images)
            self.value[side, : len(top.values), images] = top.values
            self.at[side, : len(top.values), images] = top.indices

    def tr(self) -> Tensor:
        """(N,) margins of the images as queries."""
        return self.value[1, 0] - self.value[0, 0]

    def with_sentences(self, part: Tensor, owner: Tensor, own: Tensor, right: Tensor) -> Tensor:
        """(R, N) margins of the images if one caption became a sentence, for each sentence.

        Args: as of `WordDescent._values`, and bool (R, N) `right`.
        """
        is_top = self.at[:, 0, None] == part[:, None]  # (2, B, N)
        rest = torch.where(is_top, self.value[:, 1, None], self.value[:, 0, None])[:, owner]
        highest_right = torch.where(right, torch.maximum(rest[0], own), rest[0])  # (R, N)
        highest_wrong = torch.where(right, rest[1], torch.maximum(rest[1], own))
        return highest_wrong - highest_right

    def replace(self, m: int, own: Tensor, similarity: Tensor) -> None:
        """Caption m has new similarities (N,); `similarity` holds them already."""
        mine = self._right[m]
        second = torch.where(mine, self.value[0, 1], self.value[1, 1])
        touched = (self.at == m).flatten(0, 1).any(0) | (own >= second)  # (N,)
        images = touched.nonzero().flatten()
        if len(images):
            self._look(similarity, images)


class WordChoices:
    """Per caption a list of sentences: the caption itself, then what its edits make of it.

    At first one word is changed; `grow` adds sentences with one word more. A sentence that is
    once among them stays.

    Memory: one embedding per sentence.

    Attributes:
        features: float (R, D), the unit embeddings of all sentences, captions ascending.
        start: M + 1 row numbers; the sentences of caption m are rows start[m] to start[m + 1],
            and row start[m] is the caption unchanged.
    """

    def __init__(self, text: PreparedSubstitution) -> None:
        self._text = text
        edits, features = text.every_edit() if text.attack.n_words else ([], text.clean[:0])
        rows: list[list[int]] = [[] for _ in text.captions]
        for number, owner in enumerate(edits):
            rows[owner].append(number)
        m = len(text.captions)
        order = [row for i, own in enumerate(rows) for row in (i, *(m + n for n in own))]
        every = torch.cat([text.clean, features])  # (M + n_edits, D)
        self.features = every[torch.tensor(order, device=every.device)]  # (R, D)
        # per sentence, the numbers of the edits that made it
        self._made: list[tuple[int, ...]] = [() if row < m else (row - m,) for row in order]
        self.start = _starts([1 + len(own) for own in rows])

    def __len__(self) -> int:
        return len(self._made)

    @property
    def n_words(self) -> int:
        """Words that the longest chain of edits changes."""
        return max(map(len, self._made), default=0)

    def sentences(self, choice: Tensor) -> list[str]:
        """The chosen sentence of every caption, from int64 (M,) rows."""
        return [self._sentence(i, self._made[row]) for i, row in enumerate(choice.tolist())]

    def rows_of(self, captions: Sequence[str]) -> Tensor:
        """int64 (M,): the row of each of M given sentences; -1 for one that is not there."""
        found = []
        for i, wanted in enumerate(captions):
            rows = range(self.start[i], self.start[i + 1])
            found.append(next((r for r in rows if self._sentence(i, self._made[r]) == wanted), -1))
        return torch.tensor(found)

    def grow(self, choice: Tensor) -> Tensor:
        """Add every sentence with one word more than the chosen ones.

        Args:
            choice: int64 (M,), the rows chosen now.

        Returns:
            int64 (M,): the same sentences by their new rows.
        """
        text, made = self._text, self._made
        new: list[list[tuple[int, ...]]] = []
        for i, row in enumerate(choice.tolist()):
            taken = {text.position(edit) for edit in made[row]}
            free = [p for p in text.positions(i) if p not in taken]
            added = [(*made[row], edit) for edit in text.edits_at(i, free)]
            known = {frozenset(each) for each in made[self.start[i] : self.start[i + 1]]}
            new.append([each for each in added if frozenset(each) not in known])
        features = self._embed([(i, each) for i, own in enumerate(new) for each in own])
        parts, chosen, done, old_start = [], [], 0, self.start
        self._made, first = [], 0
        for i, own in enumerate(new):
            a, b = old_start[i], old_start[i + 1]
            parts += [self.features[a:b], features[done : done + len(own)]]
            chosen.append(first + int(choice[i]) - a)
            self._made += [*made[a:b], *own]
            done, first = done + len(own), len(self._made)
        self.features = torch.cat(parts)  # (R, D)
        self.start = _starts([old_start[i + 1] - old_start[i] + len(n) for i, n in enumerate(new)])
        return torch.tensor(chosen)

    def _sentence(self, caption: int, edits: tuple[int, ...]) -> str:
        sentence = self._text.captions[caption]
        for edit in edits:
            sentence = self._text.edited(edit, sentence)
        return sentence

    def _embed(self, wanted: list[tuple[int, tuple[int, ...]]]) -> Tensor:
        """(len(wanted), D) embeddings of captions with some edits."""
        text = self._text
        found = self.features.new_empty(len(wanted), self.features.shape[1])
        parts = embed_in_order(
            text.encoder,
            lambda row: self._sentence(*wanted[row]),
            [len(text.captions[i]) for i, _ in wanted],
            text.attack.chunk,
        )
        for rows, features in parts:
            found[rows.to(found.device)] = features
        text.n_embedded += len(wanted)
        return found


def _starts(counts: Sequence[int]) -> list[int]:
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts
