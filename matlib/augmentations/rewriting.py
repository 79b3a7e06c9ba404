"""Text to text: captions reworded by an instruct model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from matlib.augmentations.generated import Writer
from matlib.augmentations.pretrained import seeded
from matlib.models.whole import load_pretrained, load_whole

PROMPT = (
    "Say what this image caption says in other words. Keep every fact, add none, write one "
    "sentence and nothing else.\nCaption: {caption}\nIn other words:"
)
"""source: ours. What is asked for; `{caption}` is replaced."""


@dataclass(frozen=True)
class InstructRewriter:
    """An instruct model of transformers with nucleus sampling.

    Attributes:
        model, tokenizer: of transformers; the tokenizer pads on the left.
        prompt: with `{caption}` in it; the model's chat template is put around it where it
            has one.
        top_p: nucleus, in (0, 1].
        batch_size: captions per call of the model.
        max_new_tokens: length of an answer at most.
    """

    model: Any
    tokenizer: Any
    prompt: str = PROMPT
    top_p: float = 0.9
    batch_size: int = 16
    max_new_tokens: int = 40

    def __post_init__(self) -> None:
        if "{caption}" not in self.prompt:
            raise ValueError("a prompt holds {caption} where the caption goes")

    @classmethod
    def load(
        cls, source: str, device: str = "cpu", *, top_p: float = 0.9, batch_size: int = 16
    ) -> InstructRewriter:
        """From a hub (`Qwen/Qwen2.5-1.5B-Instruct`) or a local folder.

        Raises:
            FileNotFoundError: neither here nor on a hub that can be reached.
            ValueError: another model, or a part of one.
        """
        model = load_whole(AutoModelForCausalLM.from_pretrained, source, "instruct model")
        tokenizer = load_pretrained(
            AutoTokenizer.from_pretrained, source, "instruct model's tokenizer", padding_side="left"
        )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return cls(model.to(device).eval(), tokenizer, top_p=top_p, batch_size=batch_size)

    def writer(self, captions: Sequence[str], *, temperature: float = 1.0) -> Writer:
        """Rewrites of these captions, for `matlib.augmentations.generated.write_captions`."""

        def write(rows: Sequence[int], n: int, generator: torch.Generator) -> list[list[str]]:
            return self([captions[i] for i in rows], n, generator, temperature=temperature)

        return write

    def __call__(
        self,
        captions: Sequence[str],
        n: int,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
    ) -> list[list[str]]:
        """`n` sampled rewrites of each caption; empty where the model says nothing."""
        found: list[list[str]] = []
        device = self.model.device
        with torch.no_grad(), seeded(generator, device):
            for start in range(0, len(captions), self.batch_size):
                part = captions[start : start + self.batch_size]
                asked = [self._asked(caption) for caption in part]
                encoded = self.tokenizer(asked, return_tensors="pt", padding=True).to(device)
                ids = self.model.generate(
                    input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"],
                    do_sample=True, top_p=self.top_p, top_k=0, temperature=max(temperature, 1e-3),
                    num_return_sequences=n, max_new_tokens=self.max_new_tokens,
                    pad_token_id=self.tokenizer.pad_token_id,
                )  # fmt: skip
                answers = ids[:, encoded["input_ids"].shape[1] :]
                texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
                found += [[cleaned(t) for t in texts[i * n : (i + 1) * n]]
                          for i in range(len(part))]  # fmt: skip
        return found

    def _asked(self, caption: str) -> str:
        text = self.prompt.replace("{caption}", caption)
        if not getattr(self.tokenizer, "chat_template", None):
            return text
        chat = [{"role": "user", "content": text}]
        return str(
            self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        )


def cleaned(answer: str) -> str:
    """The first line of an answer without quotes, bullets and a repeated "Caption:"."""
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    # a list's mark, not a number that belongs to the caption ("2 dogs run")
    text = re.sub(r"^(?:[-*]\s+|\d+[.)]\s+)?(?:caption:\s*)?", "", lines[0], flags=re.IGNORECASE)
    return text.strip().strip("\"'“”").strip()
