"""A small captioner, trained in the study: it sees an image and writes what it takes it for.

It stands for the large captioners in the embedded world. It learns from the base pairs, in a
minute or two on a CPU, and makes real mistakes: colours, shapes and sides that it has seen
wrongly, with words that a caption would have.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from matlib.data.pairs import OneToMany

_PAD, _BEGIN, _END, _UNKNOWN = range(4)
CAPTIONER_TOKENS = ("[PAD]", "[BEGIN]", "[END]", "[UNK]")
_WEIGHTS, _SHAPE = "model.safetensors", "captioner.json"


@dataclass(frozen=True)
class CaptionerConfig:
    """Shape and training of the small captioner; all numbers are ours."""

    width: int = 128
    layers: int = 2
    heads: int = 4
    max_words: int = 32
    vocabulary: int = 600
    n_steps: int = 900
    batch_size: int = 96
    lr: float = 1.5e-3


class SmallCaptioner(nn.Module):
    """A convolutional grid of features, and a transformer that writes word by word.

    Args:
        words: the vocabulary, the special ones first.
        config: shape.
    """

    def __init__(self, words: Sequence[str], config: CaptionerConfig) -> None:
        super().__init__()
        self.words, self.config = tuple(words), config
        self._ids = {word: i for i, word in enumerate(self.words)}
        w = config.width
        self.see = nn.Sequential(
            _block(3, w // 4), _block(w // 4, w // 2), _block(w // 2, w), nn.Conv2d(w, w, 3, 1, 1)
        )
        self.place = nn.Parameter(torch.randn(1, w, 8, 8) * 0.02)
        self.word = nn.Embedding(len(words), w)
        self.order = nn.Parameter(torch.randn(1, config.max_words, w) * 0.02)
        layer = nn.TransformerDecoderLayer(
            w, config.heads, 4 * w, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.write = nn.TransformerDecoder(layer, config.layers, nn.LayerNorm(w))

    def features(self, images: Tensor) -> Tensor:
        """(B, 64, width) from uint8 (B, 3, H, W)."""
        grid = F.adaptive_avg_pool2d(self.see(images.float().div(127.5).sub(1)), 8)
        return (grid + self.place).flatten(2).transpose(1, 2)

    def logits(self, features: Tensor, ids: Tensor) -> Tensor:
        """(B, T, words): of the word after each."""
        t = ids.shape[1]
        future = torch.ones(t, t, dtype=torch.bool, device=ids.device).triu(1)
        hidden = self.write(self.word(ids) + self.order[:, :t], features, tgt_mask=future)
        return hidden @ self.word.weight.T / math.sqrt(self.config.width)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """int64 (B, T) with BEGIN and END."""
        longest = self.config.max_words - 2
        rows = [[_BEGIN, *(self._ids.get(w, _UNKNOWN) for w in c.lower().split()[:longest]), _END]
                for c in captions]  # fmt: skip
        ids = torch.full((len(rows), max(map(len, rows))), _PAD, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        n: int,
        generator: torch.Generator,
        *,
        temperature: float = 1.0,
        top_p: float = 0.9,
        batch_size: int = 256,
    ) -> list[list[str]]:
        """`n` sampled captions of each image; as `matlib.augmentations.generators.Captioner`.

        Args:
            top_p: nucleus: words beyond this share of the probability are not sampled.
        """
        found: list[list[str]] = []
        for part in images.split(max(1, batch_size // max(n, 1))):
            seen = self.features(part).repeat_interleave(n, 0)
            texts = self._sampled(seen, generator, temperature, top_p)
            found += [texts[i * n : (i + 1) * n] for i in range(len(part))]
        return found

    def _sampled(
        self, seen: Tensor, generator: torch.Generator, temperature: float, top_p: float
    ) -> list[str]:
        ids = torch.full((len(seen), 1), _BEGIN)
        for _ in range(self.config.max_words - 1):
            scores = self.logits(seen, ids)[:, -1]
            scores[:, [_PAD, _BEGIN, _UNKNOWN]] = -torch.inf
            if temperature > 0:
                scores = in_nucleus(scores / temperature, top_p)
                noise = torch.rand(scores.shape, generator=generator).clamp(min=1e-20)
                scores = scores - (-noise.log()).log()  # the largest is a sample
            nxt = scores.argmax(-1)
            nxt = torch.where((ids == _END).any(1), _PAD, nxt)
            ids = torch.cat([ids, nxt[:, None]], 1)
            if bool((ids == _END).any(1).all()):
                break
        return [
            " ".join(self.words[i] for i in row if i >= len(CAPTIONER_TOKENS))
            for row in ids.tolist()
        ]

    def save(self, folder: Path) -> None:
        """Weights as safetensors, words and shape as JSON."""
        save_file(self.state_dict(), str(folder / _WEIGHTS))
        about = {"words": self.words, "config": asdict(self.config)}
        (folder / _SHAPE).write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> SmallCaptioner:
        """What `save` wrote, in evaluation mode."""
        about = json.loads((folder / _SHAPE).read_text(encoding="utf-8"))
        model = cls(about["words"], CaptionerConfig(**about["config"]))
        model.load_state_dict(load_file(str(folder / _WEIGHTS)))
        return model.eval()


def in_nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Scores (B, W) with -inf outside the likeliest words that hold `top_p` of the probability.

    Holtzman et al. 2020, *The Curious Case of Neural Text Degeneration*. The likeliest word
    always stays.
    """
    ordered, order = scores.softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    outside = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return scores.masked_fill(outside, -torch.inf)


def train_captioner(
    data: OneToMany,
    config: CaptionerConfig,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> SmallCaptioner:
    """Train on pairs with a caption and an image of each drawn per step; same seed, same weights.

    Args:
        data: pairs with one or several captions and images each.
        on_step: receives step and loss.

    Raises:
        ValueError: no pairs.
    """
    if len(data) == 0:
        raise ValueError("a captioner needs at least one pair to learn from")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SmallCaptioner(_vocabulary(data, config.vocabulary), config).train()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=config.n_steps + 1)
    n_images = data.images.shape[1]
    for step in range(config.n_steps):
        rows = torch.randint(len(data), (config.batch_size,), generator=generator)
        which = torch.randint(n_images, (config.batch_size,), generator=generator)
        draws = torch.rand(config.batch_size, generator=generator).tolist()
        own = [data.captions[i] for i in rows.tolist()]
        captions = [c[int(draw * len(c))] for c, draw in zip(own, draws, strict=True)]
        ids = model.encode(captions)
        logits = model.logits(model.features(data.take(rows, which)), ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=_PAD)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        plan.step()
        if on_step is not None:
            on_step(step, float(loss.detach()))
    return model.eval()


def _vocabulary(data: OneToMany, size: int) -> list[str]:
    counts = Counter(w for own in data.captions for c in own for w in c.lower().split())
    words = sorted(counts, key=lambda word: (-counts[word], word))
    return [*CAPTIONER_TOKENS, *words[: size - len(CAPTIONER_TOKENS)]]


def _block(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 4, 2, 1), nn.GroupNorm(4, n_out), nn.GELU())
