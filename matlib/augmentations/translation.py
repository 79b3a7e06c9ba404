"""Text to text: captions translated into another language and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import MarianMTModel

from matlib.augmentations.generated import Writer
from matlib.augmentations.pretrained import optional, seeded
from matlib.models.whole import load_pretrained, load_whole


@dataclass(frozen=True)
class Translator:
    """One direction of a Marian model (Opus-MT) of transformers.

    Attributes:
        model, tokenizer: of transformers.
    """

    model: Any
    tokenizer: Any

    @classmethod
    def load(cls, source: str, device: str = "cpu") -> Translator:
        """From a hub (`Helsinki-NLP/opus-mt-en-de`) or a local folder.

        Raises:
            MissingExtraError: sentencepiece, which its tokenizer needs, is not installed.
            FileNotFoundError: neither here nor on a hub that can be reached.
            ValueError: another model, or a part of one.
        """
        optional("sentencepiece", "back-translation")
        from transformers import MarianTokenizer

        model = load_whole(MarianMTModel.from_pretrained, source, "translator")
        tokenizer = load_pretrained(MarianTokenizer.from_pretrained, source, "translator's words")
        return cls(model.to(device).eval(), tokenizer)

    def __call__(self, texts: Sequence[str], **sampling: Any) -> list[str]:
        """One translation of each text, or `num_return_sequences`, text by text."""
        encoded = self.tokenizer(list(texts), return_tensors="pt", padding=True)
        ids = self.model.generate(**encoded.to(self.model.device), **sampling)
        found: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return found


@dataclass(frozen=True)
class BackTranslator:
    """There and back (Sennrich et al. 2016; as an augmentation, Edunov et al. 2018: sampled).

    The way there is sampled, which is where variants come from; the way back takes the
    likeliest words, which keeps the meaning (source: ours).

    Attributes:
        there, back: the two directions.
        top_p: nucleus of the way there, in (0, 1].
        batch_size: captions per call of the models.
        max_new_tokens: length of a translation at most.
    """

    there: Translator
    back: Translator
    top_p: float = 0.9
    batch_size: int = 16
    max_new_tokens: int = 60

    def __call__(
        self, captions: Sequence[str], n: int, generator: torch.Generator
    ) -> list[list[str]]:
        """`n` back-translations of each caption."""
        found: list[list[str]] = []
        limit = {"max_new_tokens": self.max_new_tokens, "num_beams": 1}
        with torch.no_grad(), seeded(generator, self.there.model.device):
            for start in range(0, len(captions), self.batch_size):
                part = captions[start : start + self.batch_size]
                abroad = self.there(
                    part, do_sample=True, top_p=self.top_p, top_k=0, num_return_sequences=n, **limit
                )
                home = self.back(abroad, do_sample=False, **limit)
                found += [home[i * n : (i + 1) * n] for i in range(len(part))]
        return found

    def writer(self, captions: Sequence[str]) -> Writer:
        """For `matlib.augmentations.generated.write_captions`."""

        def write(rows: Sequence[int], n: int, generator: torch.Generator) -> list[list[str]]:
            return self([captions[i] for i in rows], n, generator)

        return write
