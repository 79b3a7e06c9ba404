"""Captions by pretrained generators: a captioner, an instruct model, translation there and back.

What a generator writes is counted: unusable captions are asked for again, then left out. Each
needs optional packages, and draws from a given generator.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BlipForConditionalGeneration,
    BlipProcessor,
    MarianMTModel,
)

from matlib.augmentations.variants import with_captions
from matlib.data.pairs import ImageTextPairs, OneToMany
from matlib.models.whole import load_pretrained, load_whole

Writer = Callable[[Sequence[int], int, torch.Generator], list[list[str]]]
"""(rows of the pairs, captions for each, generator) -> that many captions for each row."""

TRIES = 3


@dataclass(frozen=True)
class Written:
    """What a generator was asked for and what came.

    Attributes:
        n_asked: captions wanted.
        n_empty: times that it gave an empty caption.
        n_identical: times that it gave the original or a caption that it had given before.
        n_left_out: captions still missing after the last try.
    """

    n_asked: int
    n_empty: int
    n_identical: int
    n_left_out: int


def write_variants(
    pairs: ImageTextPairs,
    n_variants: int,
    generator: torch.Generator,
    writer: Writer,
    technique: str,
    *,
    tries: int = TRIES,
) -> tuple[OneToMany, Written]:
    """Each pair with up to `n_variants` different captions of a generator.

    Args:
        pairs: N images with one caption each.
        n_variants: captions wanted for each pair, 0 or more.
        generator: CPU generator; same generator and writer, same captions.
        writer: the generator.
        technique: name of the result.
        tries: how often a pair is asked about, at least once.

    Raises:
        ValueError: the writer gave captions for another number of pairs, or nothing usable.
    """
    kept: list[list[str]] = [[] for _ in range(len(pairs))]
    seen = [{_plain(caption)} for caption in pairs.captions]
    n_empty = n_identical = 0
    open_rows = list(range(len(pairs))) if n_variants else []
    for _ in range(max(1, tries)):
        if not open_rows:
            break
        missing = max(n_variants - len(kept[i]) for i in open_rows)
        found = writer(open_rows, missing, generator)
        if len(found) != len(open_rows):
            raise ValueError(f"{technique} wrote for {len(found)} pairs; asked {len(open_rows)}")
        for i, captions in zip(open_rows, found, strict=True):
            for caption in captions:
                if not caption.strip():
                    n_empty += 1
                elif _plain(caption) in seen[i]:
                    n_identical += 1
                elif len(kept[i]) < n_variants:
                    seen[i].add(_plain(caption))
                    kept[i].append(" ".join(caption.split()))
        open_rows = [i for i in open_rows if len(kept[i]) < n_variants]
    n_left_out = sum(n_variants - len(own) for own in kept)
    n_asked = n_variants * len(pairs)
    if n_asked and n_left_out == n_asked:
        raise ValueError(
            f"{technique} wrote nothing usable for {len(pairs)} pairs: {n_empty} empty captions, "
            f"{n_identical} repeats; look at its prompt, its weights and its temperature"
        )
    report = Written(n_asked, n_empty, n_identical, n_left_out)
    return with_captions(pairs, kept, technique), report


def _plain(caption: str) -> str:
    return " ".join(caption.lower().split()).rstrip(".")


EXTRA = "pip install -e '.[generative]' in this project's folder"


class MissingExtraError(ImportError):
    """An optional package that a technique needs is not installed."""


def optional(module: str, what: str) -> ModuleType:
    """An optional package.

    Raises:
        MissingExtraError: it is not installed; the message has the command.
    """
    try:
        with warnings.catch_warnings():
            # diffusers compiles a module on import in a way that torch is giving up
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{what} needs the package {module}: {EXTRA}") from error


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """torch's global generators seeded from `generator` inside, and put back after.

    transformers samples from the global generator of the model's device.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class Captioner(Protocol):
    """Writes captions of images."""

    def __call__(
        self, images: Tensor, n: int, generator: torch.Generator, *, temperature: float = 1.0
    ) -> list[list[str]]:
        """`n` sampled captions of each image.

        Args:
            images: uint8 (N, 3, H, W).
            n: captions of each.
            generator: CPU generator; same generator, same captions.
            temperature: of the sampling; 0 takes the likeliest word each time.
        """
        ...


def captions_by(captioner: Captioner, pairs: ImageTextPairs, *, temperature: float = 1.0) -> Writer:
    """The captioner as a writer for `matlib.augmentations.generators.write_captions`."""

    def write(rows: Sequence[int], n: int, generator: torch.Generator) -> list[list[str]]:
        return captioner(pairs.images.load(rows), n, generator, temperature=temperature)

    return write


@dataclass(frozen=True)
class PretrainedCaptioner:
    """A BLIP model (Li et al. 2022) with nucleus sampling.

    The paper of this project samples several captions per image from a captioner; number,
    nucleus and temperature are ours.

    Attributes:
        model, processor: of transformers.
        top_p: nucleus, in (0, 1].
        batch_size: images per call of the model.
        max_new_tokens: length of a caption at most.
    """

    model: BlipForConditionalGeneration
    processor: Any
    top_p: float = 0.9
    batch_size: int = 16
    max_new_tokens: int = 30

    @classmethod
    def load(
        cls, source: str, device: str = "cpu", *, top_p: float = 0.9, batch_size: int = 16
    ) -> PretrainedCaptioner:
        """From a hub (`Salesforce/blip-image-captioning-base`) or a local folder.

        Raises:
            FileNotFoundError: neither here nor on a hub that can be reached.
            ValueError: another model, or a part of one.
        """
        model = load_whole(BlipForConditionalGeneration.from_pretrained, source, "captioner")
        processor = load_pretrained(BlipProcessor.from_pretrained, source, "captioner's processor")
        return cls(model.to(device).eval(), processor, top_p, batch_size)

    def __call__(
        self, images: Tensor, n: int, generator: torch.Generator, *, temperature: float = 1.0
    ) -> list[list[str]]:
        """`n` sampled captions of each image, uint8 (N, 3, H, W); as `Captioner`."""
        device = self.model.device
        sampling: dict[str, Any] = {"do_sample": False, "num_return_sequences": 1}
        if temperature > 0:
            sampling = {
                "do_sample": True, "top_p": self.top_p, "top_k": 0, "temperature": temperature,
                "num_return_sequences": n,
            }  # fmt: skip
        found: list[list[str]] = []
        with torch.no_grad(), seeded(generator, device):
            for part in images.split(self.batch_size):
                pixels = self.processor(images=list(part), return_tensors="pt")["pixel_values"]
                ids = self.model.generate(
                    pixels.to(device), max_new_tokens=self.max_new_tokens, **sampling
                )
                texts = self.processor.batch_decode(ids, skip_special_tokens=True)
                each = sampling["num_return_sequences"]
                groups = [texts[i : i + each] for i in range(0, len(texts), each)]
                found += [own * (n // each) for own in groups]
        return found

    # as `matlib.evaluation.captioning.AttackableCaptioner`

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """The model alone."""
        return (self.model,)

    def loss(self, pixels: Tensor, captions: Sequence[str]) -> Tensor:
        """(B,) mean cross-entropy of a caption's tokens; differentiable in pixels in [0, 1]."""
        tokens = self.processor.tokenizer(list(captions), return_tensors="pt", padding=True)
        ids, mask = tokens["input_ids"].to(self.model.device), tokens["attention_mask"]
        config: Any = self.model.config
        ids[:, 0] = config.text_config.bos_token_id  # what its captions begin with
        mask = mask.to(self.model.device)
        found = self.model(
            pixel_values=self._normalised(pixels), input_ids=ids, attention_mask=mask
        )
        own = F.cross_entropy(
            found.logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none"
        )  # (B, T)
        return (own * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)

    @torch.no_grad()
    def describe(self, pixels: Tensor) -> list[str]:
        """The likeliest caption, token by token, of each of float (B, 3, H, W) in [0, 1]."""
        found: list[str] = []
        for part in pixels.split(self.batch_size):
            ids = self.model.generate(
                self._normalised(part), do_sample=False, max_new_tokens=self.max_new_tokens
            )
            found += self.processor.batch_decode(ids, skip_special_tokens=True)
        return found

    def _normalised(self, pixels: Tensor) -> Tensor:
        """As the processor does it to files, but with a gradient."""
        config: Any = self.model.config
        side, how = config.vision_config.image_size, self.processor.image_processor
        whole = pixels.to(self.model.device)
        if whole.shape[-2:] != (side, side):
            whole = F.interpolate(whole, size=(side, side), mode="bicubic", antialias=True)
            whole = whole.clamp(0, 1)
        mean, std = (torch.tensor(each).view(1, 3, 1, 1).to(whole)
                     for each in (how.image_mean, how.image_std))  # fmt: skip
        return (whole - mean) / std


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
        """Rewrites of these captions, for `matlib.augmentations.generators.write_captions`."""

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
        """For `matlib.augmentations.generators.write_captions`."""

        def write(rows: Sequence[int], n: int, generator: torch.Generator) -> list[list[str]]:
            return self([captions[i] for i in rows], n, generator)

        return write
