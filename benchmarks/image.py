"""Image attacks: SGA's image step against its own order, PGD, and host synchronisations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.load import Load
from benchmarks.peers import IMAGES, Draws, ReleasedDraws, peer_sga_images
from benchmarks.text import UnequalOutputs
from benchmarks.timing import in_turns, repeated
from matlib.attacks.apgd import APGD
from matlib.attacks.ascent import ScaleViews, attack_in_chunks
from matlib.attacks.noise import noise_of
from matlib.attacks.objectives import ImageObjective, away_from_captions, contrastive
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts

EPS_255 = 2.0
VIEWS = ScaleViews(released=True)
"""As SGA's code makes them, on both sides."""


def bench_images(load: Load, n_repeats: int, n_steps: int = 10) -> dict[str, Any]:
    """Images per second of SGA's image step and of PGD, at equal outputs."""
    image = PGD(EPS_255, n_steps)
    n_equal = check_equal_images(load.first(2 * IMAGES), image)
    text, device = embed_texts(load.encoder, load.captions), load.encoder.device

    released = in_turns(
        lambda: _ours(load, text, image), lambda: _peers(load, text, image), device, n_repeats
    )
    pgd = repeated(lambda: _pgd(load, text, image), device, n_repeats)
    n = len(load.pixels)
    return {
        "sga_image_speedup_released_order": released.speedup,
        "sga_images_per_second": {
            "ours": released.rates(n)["ours"],
            "peer_released_order": released.rates(n)["peer"],
        },
        "sga_images_equal": n_equal,
        "pgd10_images_per_second": n / pgd * (n_steps / 10),
        "host_synchronisations_per_step": host_synchronisations(load, text),
    }


def check_equal_images(load: Load, image: PGD) -> int:
    """Number of adversarial images compared, all equal to 1e-6, in double precision.

    Both with the noise that ours draws.

    Raises:
        UnequalOutputs: an image differs.
    """
    exact = load.in_double()
    text = embed_texts(exact.encoder, exact.captions)
    ours, drawn = _ours(exact, text, image), torch.Generator().manual_seed(0)
    peers = _peers(exact, text, image, lambda clean: noise_of(drawn, clean))
    gap = float((ours - peers).abs().max())
    if gap > 1e-6:
        raise UnequalOutputs(f"SGA's image step: pixels differ by up to {gap:.2g}")
    return len(ours)


def _ours(load: Load, text: Tensor, image: PGD) -> Tensor:
    own = _own_mask(load).to(text.device)
    return attack_in_chunks(
        image,
        load.encoder,
        load.pixels,
        lambda rows: away_from_captions(text, own[rows]),
        generator=torch.Generator().manual_seed(0),
        views=VIEWS,
    )


def _peers(
    load: Load, text: Tensor, image: PGD, noise: Callable[[Tensor], Draws] | None = None
) -> Tensor:
    released = ReleasedDraws(torch.Generator().manual_seed(0))
    return peer_sga_images(
        load.encoder, load.pixels, text, load.own.to(text.device), image, VIEWS,
        noise or (lambda _: released),
    )  # fmt: skip


def _pgd(load: Load, text: Tensor, image: PGD) -> Tensor:
    own = _own_mask(load).to(text.device)
    scale = load.encoder.logit_scale.detach()
    return attack_in_chunks(
        image,
        load.encoder,
        load.pixels,
        lambda rows: contrastive(text, own[rows], scale),
        generator=torch.Generator().manual_seed(0),
    )


def _own_mask(load: Load) -> Tensor:
    """bool (N, M): the captions of each image."""
    return load.own == torch.arange(len(load.pixels))[:, None]


class _Function(TorchFunctionMode):
    def __init__(self, count: list[int]) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count[0] += getattr(function, "__name__", "") in ("tolist", "numpy")
        return function(*args, **(kwargs or {}))


class _Dispatch(TorchDispatchMode):
    def __init__(self, count: list[int]) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.name().removeprefix("aten::").partition(".")[0]
        # what needs a value, or a size that depends on values, before the host can go on
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(each, Tensor) and each.dtype == torch.bool for each in args[1]
        )
        self.count[0] += by_mask
        self.count[0] += name in (
            "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique2", "equal",
        )  # fmt: skip
        return function(*args, **(kwargs or {}))


def count_synchronisations(call: Callable[[], object]) -> int:
    """How often a call would make the host wait for a GPU; counted on any device."""
    count = [0]
    with _Function(count), _Dispatch(count):
        call()
    return count[0]


def host_synchronisations(load: Load, text: Tensor) -> dict[str, float]:
    """Per gradient step, on one batch of the peer's size: a longer attack less a shorter one."""
    few = load.first(IMAGES)
    text = text[: len(few.captions)]
    own = _own_mask(few).to(text.device)
    objective: ImageObjective = contrastive(text, own, few.encoder.logit_scale.detach())

    def per_step(run: Callable[[int], object], steps: tuple[int, int] = (2, 6)) -> float:
        low, high = (count_synchronisations(lambda n=n: run(n)) for n in steps)  # type: ignore[misc]
        return (high - low) / (steps[1] - steps[0])

    def apgd(n: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return APGD(EPS_255, n)(few.encoder, few.pixels, objective, generator=generator)

    image = PGD(EPS_255)
    return {
        "pgd": per_step(lambda n: _pgd(few, text, replace(image, n_steps=n))),
        "apgd": per_step(apgd),
        "sga": per_step(lambda n: _ours(few, text, replace(image, n_steps=n))),
        "sga_peer": per_step(lambda n: _peers(few, text, replace(image, n_steps=n))),
    }
