"""Multimodal attacks written plainly: one image, one caption, one word, one candidate at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from matlib.attacks.edits import CandidateTable
from matlib.attacks.gallery import Gallery
from matlib.attacks.pgd import PGD
from matlib.models.open_clip import OpenClipEncoder
from tests.attacks.plain_noise import PlainStream, plain_streams
from tests.attacks.text_oracle import by_importance, exhaustively

ImageScore = Callable[[Tensor, int], Tensor]
"""(D,) embedding of image i, and i -> the score to ascend."""

Found = tuple[list[Tensor], list[str]]
NOISE, SCALE = 0.05, 10.0


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Between the softmaxes of two embeddings."""
    p, q = p.softmax(0), q.softmax(0)
    return sum((p[d] * (p[d].log() - q[d].log()) for d in range(len(p))), p.new_zeros(()))


class Plain:
    """One gallery with its model, threat and budgets.

    Args:
        scales: of SGA's and DRA's views.
        released: views without antialiasing, and not clamped at the end.
        g: the generator that the attack under test has a twin of.
    """

    def __init__(
        self,
        encoder: OpenClipEncoder,
        gallery: Gallery,
        table: CandidateTable,
        image: PGD,
        n_words: int,
        scales: tuple[float, ...],
        g: torch.Generator,
        released: bool = False,
    ) -> None:
        self.encoder, self.gallery, self.table = encoder, gallery, table
        self.released = released
        self.image, self.n_words, self.scales, self.g = image, n_words, scales, g
        self.captions = list(gallery.captions)
        self.kept: dict[str, Tensor] = {}
        self.clean = [self.see(x).detach() for x in gallery.pixels]

    def see(self, x: Tensor) -> Tensor:
        return self.encoder.encode_image(x[None])[0]

    def encode_text(self, texts: list[str]) -> Tensor:
        """One sentence; it is embedded alone, and remembered only to save the tests' time."""
        [text] = texts
        if text not in self.kept:
            with torch.no_grad():
                self.kept[text] = self.encoder.encode_text([text])
        return self.kept[text]

    def read(self, captions: list[str]) -> list[Tensor]:
        return [self.encode_text([caption])[0] for caption in captions]

    def own(self, i: int) -> list[int]:
        return [m for m, image in enumerate(self.gallery.own.tolist()) if image == i]

    # --- text ------------------------------------------------------------------------------

    def edited(self, score: Callable[[Tensor, int], Tensor]) -> list[str]:
        return by_importance(
            self,  # type: ignore[arg-type]
            self.captions,
            self.table,
            lambda text, m: score(text[0], int(m))[None],
            self.n_words,
        )

    def edited_from_itself(self) -> list[str]:
        clean = self.read(self.captions)
        return self.edited(lambda text, m: kl(clean[m], text))

    def edited_from(self, images: list[Tensor]) -> list[str]:
        own = self.gallery.own.tolist()
        return self.edited(lambda text, m: -(text @ images[own[m]]))

    def edited_against(self, images: list[Tensor]) -> list[str]:
        def score(text: Tensor, m: Tensor) -> Tensor:
            is_true = self.gallery.relevant[:, int(m)].tolist()
            return self.margin([text[0] @ image for image in images], is_true)[None]

        return exhaustively(self, self.captions, self.table, score, self.n_words)  # type: ignore[arg-type]

    def margin(self, cosines: list[Tensor], is_true: list[bool]) -> Tensor:
        zero = torch.zeros((), dtype=cosines[0].dtype)
        terms = [(SCALE * c).exp() for c in cosines]
        true = sum((t for t, yes in zip(terms, is_true, strict=True) if yes), zero)
        false = sum((t for t, yes in zip(terms, is_true, strict=True) if not yes), zero)
        return -true.log() if all(is_true) else false.log() - true.log()

    # --- images ----------------------------------------------------------------------------

    def against(self, captions: list[str]) -> ImageScore:
        text = self.read(captions)
        return lambda v, i: self.margin([v @ t for t in text], self.gallery.relevant[i].tolist())

    def from_captions(self, captions: list[str]) -> ImageScore:
        text = self.read(captions)
        return lambda v, i: -sum((v @ text[m] for m in self.own(i)), v.new_zeros(()))

    def from_image_and(self, captions: list[str], only_last: bool) -> ImageScore:
        text = self.read(captions)

        def score(v: Tensor, i: int) -> Tensor:
            own = self.own(i)[-1:] if only_last else self.own(i)
            return kl(self.clean[i], v) + 3 * sum(
                (kl(text[m], v) / len(own) for m in own), v.new_zeros(())
            )

        return score

    def views(self, x: Tensor, noise: list[Tensor]) -> list[Tensor]:
        side, seen = x.shape[-1], [x]
        for scale, n in zip(self.scales, noise, strict=True):
            how = {"mode": "bicubic", "antialias": not self.released}
            noisy = (x + NOISE * n)[None]
            small = F.interpolate(noisy, size=int(scale * side), **how).clamp(0, 1)  # type: ignore[arg-type]
            back = F.interpolate(small, size=side, **how)  # type: ignore[arg-type]
            seen.append(back[0] if self.released else back[0].clamp(0, 1))
        return seen

    def gradient(self, score: ImageScore, x: Tensor, i: int, noise: list[Tensor]) -> Tensor:
        x = x.detach().requires_grad_(True)
        seen = self.views(x, noise) if noise else [x]
        (gradient,) = torch.autograd.grad(sum(score(self.see(view), i) for view in seen), x)
        return gradient

    def into_the_ball(self, x: Tensor, clean: Tensor) -> Tensor:
        eps = self.image.eps_255 / 255
        return torch.max(torch.min(x, clean + eps), clean - eps).clamp(0, 1)

    def start(self, clean: Tensor, stream: PlainStream) -> Tensor:
        if self.image.start == "none":
            return torch.zeros_like(clean)
        unit, eps = stream.uniform(clean.shape).to(clean), self.image.eps_255
        return (unit if self.image.start == "positive" else 2 * unit - 1) * eps / 255

    def climb(
        self, score: ImageScore, has_views: bool = False, n_mixes: int = 0
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Final images and those one step before; with `n_mixes`, DRA's steps."""
        pixels = self.gallery.pixels
        streams = plain_streams(len(pixels), self.g)
        done: list[Tensor] = []
        before: list[Tensor] = []
        for i, clean in enumerate(pixels):
            stream = streams[i]
            now = last = clean
            if self.image.eps_255 > 0:
                now = last = self.into_the_ball(clean + self.start(clean, stream), clean)
                for step in range(self.image.n_steps):
                    mixes = self.mixes(n_mixes, stream) if step else []
                    scales = self.scales if has_views else ()
                    noise = [stream.normal(clean.shape).to(clean) for _ in scales]
                    point = self.best_mix(score, i, mixes, now, clean, last) if mixes else now
                    gradient = self.gradient(score, point, i, noise)
                    there = now + self.image.step * gradient.sign()
                    last, now = now, self.into_the_ball(there, clean)
            done.append(now)
            before.append(last)
        return done, before

    def mixes(self, n: int, stream: PlainStream) -> list[tuple[float, float, float]]:
        drawn = []
        for _ in range(n):
            first, second = stream.uniform((2,)).tolist()
            a = int(101 * first)
            b = int((101 - a) * second)
            drawn.append((a / 100, b / 100, (100 - a - b) / 100))
        return drawn

    def best_mix(
        self,
        score: ImageScore,
        i: int,
        mixes: list[tuple[float, float, float]],
        now: Tensor,
        clean: Tensor,
        last: Tensor,
    ) -> Tensor:
        best, best_value = now, -float("inf")
        for a, b, c in mixes:
            point = a * now + b * clean + c * last
            tried = now + self.image.step * self.gradient(score, point, i, []).sign()
            value = float(score(self.see(tried), i).detach())
            if value > best_value + 1e-12:  # equal steps tie, whatever their sums round to
                best, best_value = point, value
        return best

    # --- compositions ----------------------------------------------------------------------

    def embedded(self, images: list[Tensor]) -> list[Tensor]:
        return [self.see(x).detach() for x in images]

    def sep(self) -> Found:
        return self.climb(self.against(self.captions))[0], self.edited_from_itself()

    def co(self, only_last: bool) -> Found:
        first = self.edited_from_itself()
        moved, _ = self.climb(self.from_image_and(first, only_last))
        return moved, self.edited_from_itself()  # the released code's third step, computed

    def sga(self) -> Found:
        first = self.edited_from(self.clean)
        moved, _ = self.climb(self.from_captions(first), has_views=True)
        return moved, self.edited_from(self.embedded(moved))

    def dra(self, n_mixes: int, weights: tuple[float, float, float] = (0.6, 0.2, 0.2)) -> Found:
        first = self.edited_from(self.clean)
        moved, before = self.climb(self.from_captions(first), has_views=True, n_mixes=n_mixes)
        guides = zip(self.clean, self.embedded(moved), self.embedded(before), strict=True)
        x, y, z = weights
        return moved, self.edited_from([x * c + y * m + z * b for c, m, b in guides])

    def contrastive(self) -> Found:
        first = self.edited_against(self.clean)
        moved, _ = self.climb(self.against(first))
        return moved, self.edited_against(self.embedded(moved))
