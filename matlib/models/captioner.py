"""Small captioners, trained in the study: they see an image and write what they take it for.

They stand for the large captioners in the embedded world, learn from the base pairs in a minute
or two on a CPU, and make real mistakes: colours, shapes and sides that they have seen wrongly,
with words that a caption would have. One has eyes of its own; the other reads an image tower
that stays as it is, and so tells what an attack on the tower does to a caption.
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
from matlib.models.dual_encoder import DualEncoder
from matlib.models.positions import seen

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


class CaptionWriter(nn.Module):
    """A transformer that writes word by word what it reads in the features of an image.

    Args:
        words: the vocabulary, the special ones first.
        config: shape.
    """

    def __init__(self, words: Sequence[str], config: CaptionerConfig) -> None:
        super().__init__()
        self.words, self.config = tuple(words), config
        self._ids = {word: i for i, word in enumerate(self.words)}
        w = config.width
        self.word = nn.Embedding(len(words), w)
        self.order = nn.Parameter(torch.randn(1, config.max_words, w) * 0.02)
        layer = nn.TransformerDecoderLayer(
            w, config.heads, 4 * w, dropout=0.0, activation="gelu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        self.write = nn.TransformerDecoder(layer, config.layers, nn.LayerNorm(w))

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

    def sampled(
        self, features: Tensor, generator: torch.Generator, temperature: float, top_p: float = 1.0
    ) -> list[str]:
        """A caption of each image, from its features (B, N, width); at temperature 0 the likeliest
        words."""
        ids = torch.full((len(features), 1), _BEGIN, device=features.device)
        for _ in range(self.config.max_words - 1):
            scores = self.logits(features, ids)[:, -1]
            scores[:, [_PAD, _BEGIN, _UNKNOWN]] = -torch.inf
            if temperature > 0:
                scores = in_nucleus(scores / temperature, top_p)
                noise = torch.rand(scores.shape, generator=generator).clamp(min=1e-20).to(scores)
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

    def read(self, folder: Path) -> None:
        """Take the weights that `save` wrote."""
        self.load_state_dict(load_file(str(folder / _WEIGHTS)))
        self.eval()


class SmallCaptioner(CaptionWriter):
    """A convolutional grid of features of its own, and a writer.

    Args:
        words, config: as of `CaptionWriter`.
    """

    def __init__(self, words: Sequence[str], config: CaptionerConfig) -> None:
        super().__init__(words, config)
        w = config.width
        self.see = nn.Sequential(
            _block(3, w // 4), _block(w // 4, w // 2), _block(w // 2, w), nn.Conv2d(w, w, 3, 1, 1)
        )
        self.place = nn.Parameter(torch.randn(1, w, 8, 8) * 0.02)

    def features(self, images: Tensor) -> Tensor:
        """(B, 64, width) from uint8 (B, 3, H, W)."""
        grid = F.adaptive_avg_pool2d(self.see(images.float().div(127.5).sub(1)), 8)
        return (grid + self.place).flatten(2).transpose(1, 2)

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
            features = self.features(part).repeat_interleave(n, 0)
            texts = self.sampled(features, generator, temperature, top_p)
            found += [texts[i * n : (i + 1) * n] for i in range(len(part))]
        return found

    @classmethod
    def load(cls, folder: Path) -> SmallCaptioner:
        """What `save` wrote, in evaluation mode."""
        model = cls(*_shape_in(folder))
        model.read(folder)
        return model


class TowerCaptioner(CaptionWriter):
    """A writer that reads the positions of a frozen image tower (`positions.seen`).

    It satisfies `matlib.evaluation.captioning.Captioner`. Its own weights are the writer's; those
    of the encoder are neither trained nor saved with it.

    Args:
        words, config: as of `CaptionWriter`.
        encoder: whose image tower is read.
    """

    def __init__(self, words: Sequence[str], config: CaptionerConfig, encoder: DualEncoder) -> None:
        super().__init__(words, config)
        self._encoder = (encoder,)  # in a tuple: no submodule, so that it is not saved
        side = encoder.image_size
        with torch.no_grad():
            blank = torch.zeros(1, 3, side, side, device=encoder.device)
            n, width = seen(encoder, blank).at.shape[1:]
        self.look = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.width))
        self.place = nn.Parameter(torch.randn(1, n, config.width) * 0.02)
        self.to(encoder.device)

    @property
    def encoder(self) -> DualEncoder:
        """Whose image tower is read."""
        return self._encoder[0]

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """Everything that `loss` runs through: writer and encoder."""
        return (self, *(each for each in self._encoder if isinstance(each, nn.Module)))

    def adapted(self, at: Tensor) -> Tensor:
        """Positions of the tower (B, N, W) -> features (B, N, width)."""
        return self.look(at) + self.place

    def loss(self, pixels: Tensor, captions: Sequence[str]) -> Tensor:
        """(B,) mean cross-entropy of a caption's words; differentiable in pixels in [0, 1]."""
        ids = self.encode(captions).to(pixels.device)
        logits = self.logits(self.adapted(seen(self.encoder, pixels).at), ids[:, :-1])
        own = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], ignore_index=_PAD,
                              reduction="none")  # fmt: skip
        return own.sum(1) / (ids[:, 1:] != _PAD).sum(1)  # (B, T) -> (B,)

    @torch.no_grad()
    def describe(self, pixels: Tensor, batch_size: int = 256) -> list[str]:
        """The likeliest caption, word by word, of each of float (B, 3, H, W) in [0, 1]."""
        found: list[str] = []
        for part in pixels.split(batch_size):
            at = seen(self.encoder, part.to(self.encoder.device)).at
            found += self.sampled(self.adapted(at), torch.Generator(), 0.0)
        return found

    @classmethod
    def load(cls, folder: Path, encoder: DualEncoder) -> TowerCaptioner:
        """What `save` wrote, in evaluation mode, on the encoder that it was trained with."""
        model = cls(*_shape_in(folder), encoder)
        model.read(folder)
        return model


def _shape_in(folder: Path) -> tuple[list[str], CaptionerConfig]:
    about = json.loads((folder / _SHAPE).read_text(encoding="utf-8"))
    return about["words"], CaptionerConfig(**about["config"])


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
    words = _vocabulary(data, config.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SmallCaptioner(words, config)
    _train(model, data, lambda rows, which: model.features(data.take(rows, which)), seed, on_step)
    return model


def train_tower_captioner(
    encoder: DualEncoder,
    data: OneToMany,
    config: CaptionerConfig,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    *,
    batch_size: int = 512,
) -> TowerCaptioner:
    """The same for a writer on a frozen image tower, which sees each image once.

    Args:
        encoder: in evaluation mode; its weights stay.
        batch_size: images per forward of the tower.

    Raises:
        ValueError: no pairs, or a tower without positions.
    """
    words = _vocabulary(data, config.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TowerCaptioner(words, config, encoder)
    n, n_images = data.images.shape[:2]
    order = torch.arange(n * n_images)
    with torch.no_grad():
        at = torch.cat([
            seen(encoder, data.take(part // n_images, part % n_images).float() / 255).at
            for part in order.split(batch_size)
        ])  # fmt: skip
    _train(model, data, lambda r, which: model.adapted(at[r * n_images + which]), seed, on_step)
    return model


def _train(
    model: CaptionWriter,
    data: OneToMany,
    features_of: Callable[[Tensor, Tensor], Tensor],
    seed: int,
    on_step: Callable[[int, float], None] | None,
) -> None:
    """Train all weights of a writer.

    Args:
        features_of: int64 (B,) pairs and (B,) which of their images -> (B, N, width).
    """
    config, device = model.config, next(model.parameters()).device
    model.train()
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
        ids = model.encode(captions).to(device)
        logits = model.logits(features_of(rows, which), ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=_PAD)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        plan.step()
        if on_step is not None:
            on_step(step, float(loss.detach()))
    model.eval()


def _vocabulary(data: OneToMany, size: int) -> list[str]:
    if len(data) == 0:
        raise ValueError("a captioner needs at least one pair to learn from")
    counts = Counter(w for own in data.captions for c in own for w in c.lower().split())
    words = sorted(counts, key=lambda word: (-counts[word], word))
    return [*CAPTIONER_TOKENS, *words[: size - len(CAPTIONER_TOKENS)]]


def _block(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 4, 2, 1), nn.GroupNorm(4, n_out), nn.GELU())
