"""A small rewriter for the embedded world: it sees the caption only, and makes mistakes.

It stands for the large language models that reword captions. First the facts that it reads
are put into another sentence; then every word is read again by a masked language model, which
may take it for another one that would fit as well. What it gets wrong, it gets wrong as such
a model does: it has not seen the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from matlib.augmentations.text import originals_of
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.models.masked_lm import MaskedLM
from matlib.scenes.grammar import restate, with_articles
from matlib.scenes.lexicon import CANONICAL_WORDS, FUNCTION_WORDS
from matlib.scenes.truth import read

_BATCH = 512


def rewrite_scene_captions(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    rewriter: MaskedLM,
    *,
    temperature: float = 1.0,
) -> OneToMany:
    """Captions reworded by their words alone.

    Words are sampled from the masked language model's distribution at their place, nothing
    masked, over the canonical words of the world: synonyms would teach a defence the very
    words that the attack uses.

    Args:
        pairs: N images with one caption each.
        n_variants: captions added to each original, 0 or more.
        generator: CPU generator; same generator, same captions.
        rewriter: a masked language model of the world.
        temperature: of the sampling; 0 takes the likeliest word.

    Raises:
        ValueError: more than one caption per image, or a parameter outside its range.
    """
    originals = originals_of(pairs, n_variants)
    if temperature < 0:
        raise ValueError(f"a temperature is 0 or more; got {temperature}")
    told = [_restated(own, n_variants, generator) for (own,) in originals.captions]
    flat = [caption for own in told for caption in own]
    words = _Words(rewriter)
    reread: list[str] = []
    for start in range(0, len(flat), _BATCH):
        reread += words.read_again(flat[start : start + _BATCH], temperature, generator)
    sets = (reread[i * n_variants : (i + 1) * n_variants] for i in range(len(told)))
    captions = tuple((own, *new) for (own,), new in zip(originals.captions, sets, strict=True))
    return replace(originals, technique="rewritten", captions=captions)


def _restated(caption: str, n: int, generator: torch.Generator) -> list[str]:
    """Up to `n` other sentences with the same facts, repeated; the caption where none is known."""
    reading = read(caption)
    try:
        found = restate(reading, generator, n) if reading is not None and n else ()
    except ValueError:  # facts that fit no template
        found = ()
    return [found[i % len(found)] if found else caption for i in range(n)]


class _Words:
    """Sampling of words at their places."""

    def __init__(self, rewriter: MaskedLM) -> None:
        self._lm = rewriter
        vocabulary = rewriter.tokenizer.get_vocab()
        known = sorted((CANONICAL_WORDS | FUNCTION_WORDS) & set(vocabulary))
        self._ids = torch.tensor([vocabulary[word] for word in known], dtype=torch.long)
        self._words = known

    def read_again(
        self, captions: Sequence[str], temperature: float, generator: torch.Generator
    ) -> list[str]:
        """The captions with each known content word sampled anew."""
        encoded = self._lm.tokenizer(list(captions), padding=True, return_tensors="pt")
        ids: Tensor = encoded["input_ids"]
        mask = (ids != self._lm.tokenizer.pad_token_id).long()
        device = self._lm.model.device
        with torch.no_grad():
            logits = self._lm.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        scores = logits.cpu()[..., self._ids].float()
        if temperature > 0:
            noise = torch.rand(scores.shape, generator=generator).clamp(min=1e-20)
            scores = scores / temperature - (-noise.log()).log()  # the largest is a sample
        best = scores.argmax(-1)
        return [self._sentence(row, caption, best[i])
                for i, (row, caption) in enumerate(zip(ids, captions, strict=True))]  # fmt: skip

    def _sentence(self, row: Tensor, caption: str, best: Tensor) -> str:
        words = caption.split(" ")
        end = len(words) + 1
        if end >= len(row) or int(row[end]) != self._lm.tokenizer.sep_token_id:
            return caption  # a word of several tokens: places and words do not agree
        # only content words are read again, and only as content words
        new = [self._words[int(best[j + 1])] for j in range(len(words))]
        kept = [new[j] if {word, new[j]} <= CANONICAL_WORDS else word
                for j, word in enumerate(words)]  # fmt: skip
        return " ".join(with_articles(kept))
