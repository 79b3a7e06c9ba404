"""`make gpu`: what holds and how fast it is on one CUDA machine, within minutes, without a network.

Three parts: what must hold on any device, rates on ViT-B/16 with random weights beside a ceiling
measured in the same run, and rows of the demo from nothing. What is found is written after each
measurement, so that a run cut short still tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.accelerator import matmul_peak_tflops, precision
from benchmarks.device_checks import checks_of, cpu_load
from benchmarks.load import Load, demo_shape, scenes_load
from benchmarks.machine import describe_machine
from benchmarks.memory import TOY
from benchmarks.run import write_found
from benchmarks.step import StepSize, bench_step
from benchmarks.text import both_passes
from benchmarks.timing import repeated
from matlib.attacks.gallery import Gallery
from matlib.attacks.multimodal import sga
from matlib.attacks.objectives import kl_from_image
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.models import opening
from matlib.models.dual_encoder import frozen
from matlib.models.small import SmallModel
from matlib.study.profile.profile import load_profile
from matlib.study.run.tasks import Task, label, missing
from matlib.study.study import Study

Measure = Callable[[], Any]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        shape: of a small model in place of ViT-B/16 and the demo's; None: these.
        n_images: of the checks; `batch` and `steps` of the rates.
        side: of the matrices whose product is the ceiling.
        profile, rows: what is made from nothing.
    """

    shape: SmallModel | None = None
    n_images: int = 32
    batch: int = 256
    steps: int = 10
    side: int = 8192
    step: StepSize | None = None
    profile: str = "demo"
    rows: tuple[str, ...] = ("base", "clean", "image-at", "text-at", "mat")


SIZES = {
    "full": Size(),
    "tiny": Size(
        TOY, 4, 2, 2, 64, StepSize(batch=4, image_steps=1, max_edits=2, n_steps=2),
        "smoke", ("base", "clean"),
    ),
}  # fmt: skip


class Rates:
    """What is done in a second, and which share of the measured matrix product that is."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size, self.device = size, device

    @cached_property
    def load(self) -> Load:
        """The model, as many images as the batch with a caption each, and their edits."""
        if self.size.shape is not None:
            load = scenes_load(max(self.size.batch, 8), 1, self.size.shape)
            return replace(load, encoder=load.encoder.to(self.device))
        encoder = opening.open_named("ViT-B-16", None, self.device.type)
        shape = replace(demo_shape(), image_size=encoder.image_size)
        return replace(scenes_load(self.size.batch, 1, shape), encoder=encoder)

    @cached_property
    def peaks(self) -> dict[str, float]:
        """TFLOP/s of a square matrix product by precision."""
        dtypes = {"float32": torch.float32, "bf16": torch.bfloat16}
        return {
            name: matmul_peak_tflops(self.device, dtype, self.size.side)
            for name, dtype in dtypes.items()
        }

    def row(self, name: str, n: int, call: Measure) -> dict[str, float]:
        """One way of working in one precision: `n` things in a call."""
        with precision(self.device, name == "bf16"):
            with FlopCounterMode(display=False) as counter:
                call()
            seconds = repeated(call, self.device, 3)
        rate = counter.get_total_flops() / seconds / 1e12
        return {
            "per_second": n / seconds,
            "tflops": rate,
            "share_of_matmul_peak": rate / self.peaks[name],
        }

    def pgd(self) -> None:
        """On the whole batch."""
        encoder, pixels = self.load.encoder, self.load.pixels.to(self.device)
        with torch.no_grad(), frozen(encoder):
            objective = kl_from_image(encoder.encode_image(pixels))
        generator = torch.Generator().manual_seed(0)
        PGD(2.0, self.size.steps)(encoder, pixels, objective, generator=generator)

    def text(self) -> None:
        """Both of SGA's passes on the first images' captions."""
        load = self.load.first(self.n_few)
        both_passes(load, load.guides())

    def sga(self) -> None:
        """Text, image and text on the first images."""
        load = self.load.first(self.n_few)
        relevant = load.own == torch.arange(self.n_few)[:, None]  # (N, M)
        pixels = load.pixels.to(self.device)
        gallery = Gallery(pixels, load.captions, relevant.to(self.device), load.own.to(self.device))
        sga(
            load.encoder, gallery, load.table, PGD(2.0, self.size.steps), WordSubstitution(),
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip

    @property
    def n_few(self) -> int:
        """Images of the attacks that are slower than PGD."""
        return min(32, self.size.batch)

    def step(self) -> dict[str, Any]:
        """A step of MAT over its necessary passes, which are its ceiling."""
        step = self.size.step or StepSize.demo(precision="bf16")
        found = bench_step(self.load, step)
        return {**found, "share_of_necessary": 1 / found["mat_step_over_necessary"]}

    def measures(self) -> Iterator[tuple[str, Measure]]:
        """Every measurement by name; the step moves the weights and comes last."""
        yield "matmul_peak_tflops", lambda: self.peaks
        for name in ("float32", "bf16"):
            for what, call, n in (
                ("pgd", self.pgd, self.size.batch),
                ("text", self.text, self.n_few),
                ("sga", self.sga, self.n_few),
            ):
                yield f"{what}_{name}", lambda p=name, n=n, c=call: self.row(p, n, c)  # type: ignore[misc]
        yield "mat_step", self.step


class Made:
    """Rows of a profile trained and judged from nothing, in one process."""

    def __init__(self, size: Size, folder: Path) -> None:
        self.size, self.folder = size, folder

    @cached_property
    def study(self) -> Study:
        return Study(load_profile(self.size.profile), self.folder)

    def row(self, name: str) -> dict[str, Any]:
        """Wall seconds of a row, and of each artefact that it needed."""
        seconds: dict[str, float] = {}
        for node in missing(self.study, [Task("judged", name)]).values():
            began = time.monotonic()
            self.study.make(node)
            seconds[label(node)] = seconds.get(label(node), 0.0) + time.monotonic() - began
        return {"seconds": sum(seconds.values()), "of": seconds}


def measure(
    size: Size, device: torch.device, out: Path, minutes: float, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure one after the other until the time is over, and write after each.

    Returns:
        what is in `out`: machine, the three parts, and what was not reached. A measurement that
        fails leaves its error, and the others go on.
    """
    deadline = time.monotonic() + 60 * minutes
    found: dict[str, Any] = {
        "machine": describe_machine(), "device": device.type, "minutes_allowed": minutes,
        "checks": {}, "rates": {}, "rows": {}, "not_reached": [],
    }  # fmt: skip
    with TemporaryDirectory(prefix="matlib-") as folder:
        for part, name, call in _all(size, device, Path(folder)):
            if time.monotonic() > deadline:
                found["not_reached"].append(f"{part}: {name}")
                continue
            began = time.monotonic()
            try:
                found[part][name] = call()
            except (RuntimeError, ValueError, TypeError) as error:
                found[part][name] = {"error": f"{type(error).__name__}: {error}"}
            write_found(out, found)
            say(f"{part}: {name}, {time.monotonic() - began:.1f} s: {found[part][name]}")
    write_found(out, found)
    return found


def _all(size: Size, device: torch.device, folder: Path) -> Iterator[tuple[str, str, Measure]]:
    for name, check in checks_of(cpu_load(size.n_images, size.shape), device).items():
        yield "checks", name, check
    for name, measured in Rates(size, device).measures():
        yield "rates", name, measured
    made = Made(size, folder)
    for name in size.rows:
        yield "rows", name, lambda name=name: made.row(name)  # type: ignore[misc]


def faults(found: dict[str, Any]) -> list[str]:
    """What did not hold or could not be measured, a line each."""
    return [
        f"{part}: {name}: {value.get('error', value)}"
        for part in ("checks", "rates", "rows")
        for name, value in found[part].items()
        if "error" in value or value.get("holds") is False
    ]


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("results/bench-gpu.json"),
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the same code")] = "cuda",
    size: Annotated[str, typer.Option(help="full or tiny")] = "full",
    minutes: Annotated[float, typer.Option(help="nothing begins after so many")] = 7.0,
) -> None:
    if size not in SIZES or device not in ("cuda", "cpu"):
        raise typer.BadParameter("--size is full or tiny, --device cuda or cpu")
    if device == "cuda" and not torch.cuda.is_available():
        typer.echo(
            "error: PyTorch finds no CUDA device here, and this measures one. `python -m "
            "benchmarks.gpu --device cpu --size tiny` tries the same code on a CPU",
            err=True,
        )
        raise typer.Exit(1)
    torch.set_flush_denormal(True)
    wrong = faults(measure(SIZES[size], torch.device(device), out, minutes))
    print(f"wrote {out}")
    for line in wrong:
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    app()
