"""What a user may say to a command: name, type, default and help of every option, once.

Nothing here imports the work, so that `--help` answers at once.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import typer
from typer import Argument, Option

from matlib.choices import names_in

_ROOT = Path(__file__).resolve().parents[2]
PROFILE_NAMES, DATA_SET_NAMES = (
    tuple(sorted(path.stem for path in (_ROOT / folder).glob("*.yaml")))
    for folder in ("profiles", "data_manifests")
)
HAS_CHECKOUT = bool(PROFILE_NAMES)
NO_CHECKOUT = (
    "this matlib was installed without its project: profiles, manifests and notebooks lie in the "
    "checkout only. Clone the repository and run the command there; attack, evaluate --images and "
    "board work anywhere"
)
ATTACK_NAMES = tuple(
    name for name in names_in(_ROOT / "matlib/evaluation/suite.py", "ATTACKS") if name != "own"
)

Given = TypeVar("Given")


def takes(options: Callable[..., Given]) -> Callable[[Callable[[Given], None]], Callable[..., Any]]:
    """Make a function of one object a command that has an option for each of its fields."""

    def command_of(run: Callable[[Given], None]) -> Callable[..., Any]:
        @wraps(run)
        def command(**given: Any) -> None:
            run(options(**given))

        command.__signature__ = inspect.signature(options)  # type: ignore[attr-defined]
        return command

    return command_of


class Shard(NamedTuple):
    """Every `of`-th row, from the `first` on."""

    first: int
    of: int


def read_shard(text: str) -> Shard:
    """`i/n`.

    Raises:
        typer.BadParameter: not of that form, or not 1 <= i <= n.
    """
    first, _, second = text.partition("/")
    is_number = (first + second).isascii() and first.isdecimal() and second.isdecimal()
    if not is_number or not 1 <= int(first) <= int(second):
        raise typer.BadParameter(f"expected i/n with 1 <= i <= n; got {text!r}")
    return Shard(int(first), int(second))


def at_least(least: int, hint: str = "") -> Callable[[str | int], int]:
    """Reads a whole number, and refuses others; a default comes as the number that it is."""

    def number(given: str | int) -> int:
        text = str(given)
        if not (text.isascii() and text.isdecimal()) or int(text) < least:
            raise typer.BadParameter(
                f"expected a whole number, {least} or more{hint}; got {text!r}"
            )
        return int(text)

    return number


def one_of(*names: str) -> Callable[[str], str]:
    """Refuses other words than these."""

    def choice(text: str) -> str:
        if not names:  # those of files that are not installed
            raise typer.BadParameter(NO_CHECKOUT)
        if text not in names:
            raise typer.BadParameter(f"invalid choice: {text!r} (choose from {', '.join(names)})")
        return text

    return choice


DataFolder = Annotated[Path | None, Option("--data", help="folder of a data set on disk")]
ResultsFolder = Annotated[Path | None, Option(help="folder of all results")]
ImageLimit = Annotated[
    int | None,
    Option(
        parser=at_least(1, " (leave the option away for all)"), help="at most so many test images"
    ),
]
WorkerCount = Annotated[
    int, Option(parser=at_least(0), help="runs at once on a CPU; 0: one for each core")
]
DataSetName = Annotated[
    str,
    Argument(
        parser=one_of(*DATA_SET_NAMES), metavar="NAME", help=f"one of {', '.join(DATA_SET_NAMES)}"
    ),
]
DataRoot = Annotated[Path | None, Option("--root", help="folder of this data set (data/NAME)")]
ModelName = Annotated[str, Option(help="open_clip name (ViT-B-16), or small")]


_IMAGES = Option("--images", help="folder of images")
_CAPTIONS = Option(
    "--captions",
    help="JSON {image: [captions]}, a Karpathy data set, a table (image, caption), .token",
)
_Split = Annotated[str, Option(help="of a Karpathy data set; all for every")]


@dataclass(frozen=True, kw_only=True)
class ThreatOptions:
    """What an attacker may do.

    `released` conventions are those of the field's code (see `Suite`, `normalise_caption`, and
    `MaskedLM.candidates`). Of words only one source may be given (see `allowed_edits`).
    """

    eps_255: Annotated[float, Option("--eps", help="L-infinity budget in 1/255")] = 2.0
    n_steps: Annotated[int, Option("--steps", help="of the image attack")] = 10
    step_255: Annotated[float | None, Option("--step-size", help="in 1/255")] = None
    n_words: Annotated[int, Option(help="words that may change per caption")] = 1
    masked_lm: Annotated[str, Option(help="folder, or name on the hub")] = ""
    synonyms: Annotated[Path | None, Option(help="JSON: {word: [words]}")] = None
    candidates: Annotated[Path | None, Option(help="JSON: {caption: [[position, word]]}")] = None
    k: Annotated[int, Option(help="candidates per word")] = 10
    conventions: Annotated[
        Literal["matlib", "released"],
        Option(help="released: as in the field's code, to compare with published numbers"),
    ] = "matlib"
    seed: Annotated[int, Option(help="of the image attack's draws")] = 0
    device: Annotated[str, Option(help="cpu or cuda; the GPU if there is one")] = ""

    @property
    def is_released(self) -> bool:
        return self.conventions == "released"

    @property
    def sources_of_words(self) -> list[str]:
        """The options that were given of those of which one may be."""
        sources = ("masked_lm", "synonyms", "candidates")
        return [f"--{name.replace('_', '-')}" for name in sources if getattr(self, name)]

    def refuse_two_sources(self) -> None:
        """Raises typer.BadParameter: words from two places."""
        if len(given := self.sources_of_words) > 1:
            raise typer.BadParameter(f"argument {given[1]}: not allowed with argument {given[0]}")


@dataclass(frozen=True, kw_only=True)
class AttackOptions(ThreatOptions):
    """What is attacked, with what.

    The contrastive attacks (pgd, sep, joint, apgd) take their negatives from the batch, so a
    larger one is stronger; the others do not depend on it but for the noise that they draw.
    Attacks on text need a source of words. On model, weights and rest see `open_model`, on data
    `read_user_data`.
    """

    model: ModelName
    weights: Annotated[str, Option("--pretrained", metavar="TAG|FILE", help="its weights")]
    rest: Annotated[str, Option(help="weights of the towers that a FILE lacks")] = ""
    profile: Annotated[str, Option(help="whose shape a small model has")] = ""
    images: Annotated[Path, _IMAGES]
    captions: Annotated[Path, _CAPTIONS]
    split: _Split = "test"
    attack: Annotated[str, Option(parser=one_of(*ATTACK_NAMES), metavar="|".join(ATTACK_NAMES))] = (
        "sga"
    )
    out: Annotated[Path, Option(help="folder of the results")]
    batch: Annotated[
        int,
        Option(help="images attacked together; pgd, sep, joint and apgd take their negatives here"),
    ] = 16
    format: Annotated[
        Literal["png", "float"],
        Option(help="png: 8-bit files; float: arrays as computed, in the batches' safetensors"),
    ] = "png"


@dataclass(frozen=True, kw_only=True)
class WeightOptions:
    """Which weights a model has, said as for `attack`: `--pretrained`, and `--rest` beside a file.

    Once they were `--checkpoint`, and `--pretrained` what is `--rest` now; that is still read.
    """

    checkpoint: Annotated[str, Option(hidden=True)] = ""
    pretrained: Annotated[
        str,
        Option(
            metavar="TAG|FILE",
            help="its weights; left out for a folder or a name of hf-hub:, which has its own",
        ),
    ] = ""
    rest: Annotated[str, Option(help="weights of the towers that a FILE lacks")] = ""

    def __post_init__(self) -> None:
        """Let `checkpoint` be the weights, and `rest` what they lack, however they were said.

        Raises:
            typer.BadParameter: three of them, or only what weights lack.
        """
        if self.checkpoint and self.pretrained and self.rest:
            raise typer.BadParameter("expected --pretrained and --rest; leave --checkpoint out")
        if self.rest and not (self.checkpoint or self.pretrained):
            raise typer.BadParameter("--rest completes a file: give that with --pretrained")
        if not self.checkpoint:
            object.__setattr__(self, "checkpoint", self.pretrained)
        elif self.pretrained:
            object.__setattr__(self, "rest", self.pretrained)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(WeightOptions, ThreatOptions):
    """Which model is judged, on what: a folder of one's own, or a study's gallery by its suite.

    With `images` and `captions` the threat is the one that is given here. Without them the
    profile has suite and gallery, and the row's file is `results/<profile>/extra/<name>.csv`, its
    name none that the study has; on fewer images than the profile's it is a row of its own,
    `<name>.limit-<n>`, never shown beside rows of the whole gallery. A `small` model has the
    profile's shape where no model.json lies beside it. On model and weights see `open_model`, on
    the profile's suite `open_study`, on data `read_user_data`.
    """

    model: ModelName = ""
    zoo: Annotated[str, Option(help="name in the zoo, instead of --model and --pretrained")] = ""
    zoo_file: Annotated[Path | None, Option(help="a zoo of your own, in YAML")] = None
    name: Annotated[str, Option(help="of the row; a study's must be given")] = ""
    images: Annotated[Path | None, _IMAGES] = None
    captions: Annotated[Path | None, _CAPTIONS] = None
    split: _Split = "test"
    rerank: Annotated[
        int,
        Option(
            parser=at_least(0),
            help="fusion models: candidates of each query that are read together; 0: none",
        ),
    ] = 16
    relevance: Annotated[
        Literal["own", "eccv"],
        Option(
            help="eccv: also the right answers that ECCV Caption has found in COCO's test split"
        ),
    ] = "own"
    out: Annotated[
        Path | None, Option(help="JSON file of the table for `board`, or a folder for it")
    ] = None
    profile: Annotated[str, Option(help="without --images: whose suite and gallery")] = ""
    dataset: Annotated[str, Option(help="checked against the profile's")] = ""
    data: Annotated[str, Option(help="folder of a data set on disk")] = ""
    results: Annotated[str, Option(help="folder of all results")] = ""
    limit: ImageLimit = None
    train_eps_255: Annotated[
        float | None, Option("--train-eps", help="in 1/255; only recorded")
    ] = None
    source: Annotated[
        str,
        Option(
            metavar="self|ROW",
            help="the model that the attacks are made on: the judged one, or a row such as base",
        ),
    ] = "self"

    def refuse_a_mixture(self) -> None:
        """Let a command speak of a folder of one's own or of a study, and not of both.

        Raises:
            typer.BadParameter: an option that the other form has, or one that is missing.
        """
        self.refuse_two_sources()
        if bool(self.zoo) == bool(self.model):
            raise typer.BadParameter("expected either --model or --zoo")
        if self.zoo and (self.checkpoint or self.rest):
            raise typer.BadParameter(
                "--zoo NAME says its weights: leave --pretrained and --rest out"
            )
        is_folder = self.images is not None or self.captions is not None
        form = "--images and --captions" if is_folder else "--profile and --name"
        needed = ("images", "captions") if is_folder else ("profile", "name")
        if not all(getattr(self, name) for name in needed):
            raise typer.BadParameter(
                "expected --images and --captions (a folder of your own), or --profile and --name "
                "(a row beside a study's)"
            )
        for field in fields(self):
            is_other = field.name in (_OF_STUDY if is_folder else _OF_FOLDER)
            if is_other and getattr(self, field.name) != field.default:
                option = _spelled(field.name)
                raise typer.BadParameter(f"argument {option}: not allowed with {form}")


@dataclass(frozen=True, kw_only=True)
class GroundOptions(WeightOptions, ThreatOptions):
    """Which model looks for the things of which phrases.

    Phrases are attacked where a source of words is given. On model and weights see `open_model`,
    on data `read_refcoco`.
    """

    model: ModelName
    refs: Annotated[Path, Option(help="folder of RefCOCO: refs(unc).json and instances.json")]
    images: Annotated[Path, Option(help="folder of COCO's images of 2014")]
    split: Annotated[str, Option(help="val, testA, testB")] = "val"
    split_by: Annotated[str, Option(help="who split it: unc, google or umd")] = "unc"
    limit: ImageLimit = None
    out: Annotated[Path | None, Option(help="CSV file of the table")] = None


_OF_FOLDER = {
    "split",
    "rerank",
    "relevance",
    "out",
    "zoo",
    "zoo_file",
    *(field.name for field in fields(ThreatOptions)),
}
_OF_STUDY = {"dataset", "data", "results", "limit", "train_eps_255", "source"}
_SPELLED = {
    "eps_255": "--eps", "n_steps": "--steps", "step_255": "--step-size",
    "train_eps_255": "--train-eps",
}  # fmt: skip


def _spelled(name: str) -> str:
    return _SPELLED.get(name, f"--{name.replace('_', '-')}")
