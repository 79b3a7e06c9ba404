"""A study is one profile: every number that shapes its results, checked before work starts.

The models that a profile names: on a hub, or in local files and folders.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from matlib.augmentations.table import TECHNIQUES
from matlib.data.strict import UnreadableError, read_yaml
from matlib.models.packaged import PACKAGED, TEXT_PACKAGE
from matlib.study.profile.parts import (
    TRUE_THREATS,
    BaseTraining,
    CandidatesConfig,
    Dataset,
    Distinct,
    EvaluationConfig,
    MaskedLanguageModel,
    Model,
    Part,
    Seeds,
    TrainAttack,
    Training,
)
from matlib.study.profile.rows import Generators, Intervention, OtherTasks, Run

Architecture = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]
"""Name of a further model; part of a folder's name, so letters, digits and - only."""

PROFILES = Path(__file__).resolve().parents[3] / "profiles"


class ProfileError(ValueError):
    """A profile that does not say what a study needs; the message says which key."""


class Profile(Part):
    """Everything a study depends on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}$")] = Field(
        description="also of its folder below results/"
    )
    about: str
    minutes: float = Field(gt=0, le=1e9, description="expected time on the hardware named in about")
    dataset: Dataset
    model: Model = Model()
    masked_lm: MaskedLanguageModel = MaskedLanguageModel()
    base: BaseTraining | None = None
    finetune: Training | None = None
    train_attack: TrainAttack
    evaluation: EvaluationConfig
    candidates: CandidatesConfig = CandidatesConfig()
    runs: tuple[Run, ...] = ()
    n_variants: int = Field(
        default=5, ge=1, le=1000, description="captions and images per pair for mat+"
    )
    inside: tuple[Run, ...] = Field(
        default=(), description="variations of one defence, for the study of its own choices"
    )
    techniques: tuple[Run, ...] = Field(
        default=(), description="rows that compare pairs: MAT+ with each technique, and rivals"
    )
    technique_seeds: Seeds = Field(
        default=(), description="training seeds of the techniques; those of the study by default"
    )
    sweeps: tuple[Run, ...] = Field(
        default=(), description="further amounts and strengths of techniques, first seed only"
    )
    reference: str = Field(
        default="", description="the row of `techniques` from which gains are counted: MAT itself"
    )
    intervention: Intervention | None = None
    generators: Generators = Generators()
    notebooks: tuple[str, ...] = Field(
        default=(),
        description="beginnings of the notebooks' names that this study runs; all if empty",
    )
    inside_seeds: Seeds = Field(
        default=(), description="training seeds of the variations, some of `seeds`; all by default"
    )
    architectures: dict[Architecture, Model] = Field(
        default={}, description="further models beside `model`, for transfer and C8a"
    )
    transfer_rows: Annotated[tuple[str, ...], Distinct] = Field(
        default=(), description="names of rows that every architecture is trained as too"
    )
    transfer: Literal["all", "none"] = Field(
        default="all", description="models whose attacks are shown to all others (notebook 85)"
    )
    battery_rows: Annotated[tuple[str, ...], Distinct] = Field(
        default=(), description="names of rows that the sanity battery examines; all if empty"
    )
    other_tasks: OtherTasks | None = None
    seeds: Seeds = Field(default=(0,), min_length=1)
    worlds: Seeds = Field(
        default=(),
        description="scenes only: seeds of further worlds beside dataset.world_seed, each with "
        "data, vocabulary and base model of its own, in which the same rows are trained and judged",
    )
    analysis_images: int = Field(default=100, ge=4, le=1_000_000)
    limit: int = Field(
        default=0, ge=0, description="0: whole; otherwise at most this many test images"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if self.model.kind == "small" and self.base is None:
            raise ValueError("a small model starts from random weights: give `base`")
        if self.base is None and any(m.kind == "small" for m in self.architectures.values()):
            raise ValueError(
                "small models in `architectures` start from random weights: give `base`"
            )
        if self.base is None and any(
            model.pretrained == PACKAGED for model in (self.model, *self.architectures.values())
        ):
            raise ValueError("the heads of packaged towers start from random weights: give `base`")
        if not set(self.inside_seeds) <= set(self.seeds):
            raise ValueError(f"inside_seeds must be some of seeds; got {self.inside_seeds}")
        others = self.other_tasks.rows if self.other_tasks else ()
        for key, named in (
            ("transfer_rows", self.transfer_rows), ("battery_rows", self.battery_rows),
            ("other_tasks.rows", others),
        ):  # fmt: skip
            if unknown := set(named) - {run.row for run in self.runs}:
                raise ValueError(
                    f"{key} names rows that `runs` has not: {sorted(unknown)}; "
                    f"it has: {', '.join(run.row for run in self.runs)}"
                )
        elsewhere = self.other_tasks.architectures if self.other_tasks else ()
        if unknown := set(elsewhere) - {*self.architectures}:
            raise ValueError(
                f"other_tasks.architectures names {sorted(unknown)}; `architectures` has: "
                + (", ".join(self.architectures) or "none")
            )
        if self.other_tasks and self.dataset.name != "scenes":
            raise ValueError(
                "other_tasks need boxes and the truth of captions, which only scenes has; for "
                "photographs there are matlib.evaluation.captioning and grounding"
            )
        self._check_sizes()
        self._check_rows()
        if self.finetune and self.finetune.batch_size > self.dataset.n_train:
            raise ValueError("finetune.batch_size is larger than dataset.n_train")
        if self.base and self.dataset.n_base < self.base.batch_size:
            raise ValueError("base.batch_size is larger than dataset.n_base")
        if self.dataset.name != "scenes" and not self._every_threat.isdisjoint(TRUE_THREATS):
            raise ValueError(
                f"a threat on true words ({', '.join(TRUE_THREATS)}) needs the truth, which only "
                "scenes has"
            )
        if self.worlds and (
            self.dataset.name != "scenes" or self.dataset.world_seed in self.worlds
        ):
            raise ValueError(
                "worlds are seeds of further embedded worlds: dataset.name scenes is expected, and "
                f"not {self.dataset.world_seed} once more; got {self.dataset.name}, {self.worlds}"
            )
        if "bert_similar" in self._every_threat and not self.evaluation.sentence_encoder:
            raise ValueError(
                "threat bert_similar compares sentences: name evaluation.sentence_encoder, for "
                f"instance {TEXT_PACKAGE}"
            )
        return self

    @property
    def _every_threat(self) -> set[str]:
        own = (run.threats for run in self.every_run)
        return {
            *self.evaluation.threats, *self.evaluation.held_out, *self.train_attack.threats,
            *(threat for threats in own for threat in threats),
        }  # fmt: skip

    @property
    def every_run(self) -> tuple[Run, ...]:
        """All rows that a study of this profile trains on its own model."""
        dialled = self.intervention.runs() if self.intervention else ()
        return (*self.runs, *self.inside, *self.techniques, *self.sweeps, *dialled)

    @property
    def seeds_of_techniques(self) -> tuple[int, ...]:
        """Training seeds of the compared techniques."""
        return self.technique_seeds or self.seeds

    def _check_sizes(self) -> None:
        size = self.dataset.image_size
        for model in (self.model, *self.architectures.values()):
            model.check_image_size(size)
        for scale in self.evaluation.sga_scales:
            if scale * size < 1:
                raise ValueError(f"sga_scales {scale:g} leaves nothing of images of {size} px")

    def _check_rows(self) -> None:
        if self.every_run and self.finetune is None:
            raise ValueError("rows are given but `finetune` is missing")
        by_name: dict[str, Run] = {}
        for run in self.every_run:
            if by_name.setdefault(run.row, run) != run:
                raise ValueError(f"two different rows are named {run.row!r}: give one a `label`")
        for name in ("runs", "inside", "techniques", "sweeps"):
            rows = [run.row for run in getattr(self, name)]
            if len(set(rows)) < len(rows):
                raise ValueError(f"{name} has a row twice: {max(rows, key=rows.count)}")
        for run in self.every_run:
            if not TECHNIQUES[run.augmentation].fits(self.dataset.data):
                raise ValueError(f"{run.augmentation} cannot be made from {self.dataset.name}")
            if run.n_train is not None and run.n_train > self.dataset.n_train:
                raise ValueError(
                    f"{run.row}: n_train is more than the data's {self.dataset.n_train}"
                )
            batch = self.finetune.batch_size if self.finetune else 0
            if run.n_train is not None and run.n_train < batch:
                raise ValueError(
                    f"{run.row}: n_train {run.n_train} is smaller than finetune.batch_size {batch}"
                )
        compared = [run.row for run in self.techniques]
        dialled = self.intervention.seeds if self.intervention else ()
        if not set(dialled) <= set(self.seeds_of_techniques):
            raise ValueError(
                f"intervention.seeds {dialled} are some of the techniques' seeds "
                f"{self.seeds_of_techniques}: gains are paired by seed"
            )
        if (self.techniques or self.intervention) and self.reference not in compared:
            raise ValueError(
                f"`reference` names the row of `techniques` that gains are counted from; got "
                f"{self.reference!r}, rows: {', '.join(compared)}"
            )

    def limited(self, limit: int) -> Profile:
        """The same study on at most `limit` test images; its results say so."""
        limit = min(limit, self.limit) if limit > 0 and self.limit else max(limit, self.limit)
        if limit <= 0:
            return self
        n = min(limit, self.dataset.n_test)
        smaller = self.dataset.model_copy(update={"n_test": max(n, 2)})
        return self.model_copy(update={"dataset": smaller, "limit": limit})


def profile_names() -> list[str]:
    """Names of the profiles that come with the project."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name_or_path: str | Path, limit: int = 0) -> Profile:
    """Read and check a profile; models in local files and folders are found by absolute paths.

    Args:
        name_or_path: a name such as `demo`, or the path of a YAML file.
        limit: if positive, at most so many test images.

    Raises:
        ProfileError: unknown profile, or a key that is unknown, missing or out of range; one
            line that names the file and every such key.
    """
    path = profile_path(name_or_path)
    try:
        raw = read_yaml(path)
    except (UnreadableError, OSError) as error:
        raise ProfileError(str(error)) from error
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else type(raw).__name__
        raise ProfileError(f"{path.name}: expected keys and values, got {found}")
    try:
        profile = Profile.model_validate(raw).limited(limit)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'profile'}: "
            f"{e['msg'].removeprefix('Value error, ')}{_got(e['input'])}"
            for e in error.errors()
        )
        raise ProfileError(f"{path.name} is not a valid profile: {faults}") from None
    try:
        return with_places(profile, path.parent)
    except FileNotFoundError as error:
        raise ProfileError(f"{path.name}: {error}") from None


def _got(value: object) -> str:
    """What stands in the file, where it is short enough to be shown."""
    return "" if isinstance(value, dict | list) else f" (got {value!r:.60})"


def profile_path(name_or_path: str | Path) -> Path:
    """The file of a profile: of one that comes with the project, or the path that is given.

    Raises:
        ProfileError: there is none.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = PROFILES / f"{name_or_path}.yaml"
    if not path.is_file():
        raise ProfileError(f"no profile {str(name_or_path)!r}; known: {', '.join(profile_names())}")
    return path.absolute()


SomePart = TypeVar("SomePart", bound=Part)

GENERATORS = ("captioner", "rewriter", "image_to_image", "text_to_image")
_WEIGHT_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")
"""Ends of the names of files: a name with one of them is not one of a hub."""


def map_places(profile: Profile, change: Callable[[str, str], str]) -> Profile:
    """The profile with every name of a model changed.

    Args:
        change: (key, name) -> the name to stand there; empty names are not asked about.
    """

    def with_names(part: SomePart, key: str, *names: str) -> SomePart:
        found = {name: getattr(part, name) for name in names}
        return part.model_copy(
            update={n: change(f"{key}.{n}", value) for n, value in found.items() if value}
        )

    def model(part: Model, key: str) -> Model:
        return with_names(part, key, "pretrained", "rest")

    generators = with_names(profile.generators, "generators", *GENERATORS)
    there = (change("generators.translators", name) for name in generators.translators)
    return profile.model_copy(update={
        "model": model(profile.model, "model"),
        "architectures": {name: model(each, f"architectures.{name}")
                          for name, each in profile.architectures.items()},
        "masked_lm": with_names(profile.masked_lm, "masked_lm", "name"),
        "generators": generators.model_copy(update={"translators": tuple(there)}),
        "evaluation": with_names(profile.evaluation, "evaluation", "sentence_encoder"),
    })  # fmt: skip


def with_places(profile: Profile, folder: Path) -> Profile:
    """Absolute paths in place of relative ones, so that every process finds the same files.

    A relative path is looked for beside the profile, then in the working folder; what lies in
    neither is a name on a hub, unless it can only be a path.

    Args:
        folder: of the profile.

    Raises:
        FileNotFoundError: a path at which there is nothing.
    """

    def place(key: str, name: str) -> str:
        path = Path(name).expanduser()
        places = [path] if path.is_absolute() else [folder / path, Path.cwd() / path]
        # of open_clip: a tag, a file or a folder; no tag has a separator in it
        may_be_tag = key.endswith((".pretrained", ".rest")) and len(path.parts) == 1
        for found in places:
            if found.is_file() or (found.is_dir() and not may_be_tag):
                return str(found.resolve())
        if path.is_absolute() or name.startswith((".", "~")) or path.suffix in _WEIGHT_SUFFIXES:
            looked = " and in ".join(sorted({str(each.parent) for each in places}))
            raise FileNotFoundError(
                f"{key}: there is no {name!r} (looked in {looked}); a path is relative to the "
                "profile's folder"
            )
        return name

    return map_places(profile, place)
