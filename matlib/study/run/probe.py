"""Short measurements from which the cost of a long study follows.

How many passes a step or an attack makes does not depend on the size of the model, so they are
counted on a tiny one. What a pass costs is measured on the real architecture with random
weights. Where whole steps and whole attacks are quick they are timed as they are instead.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor

from matlib.attacks.edits import Edit, content_words
from matlib.attacks.pgd import PGD
from matlib.attacks.word_substitution import WordSubstitution
from matlib.data.pairs import ImageTensor, ImageTextPairs, OneToMany
from matlib.data.referring import Referring
from matlib.evaluation.captioning import caption_under_attack
from matlib.evaluation.grounding import ground_under_attack
from matlib.evaluation.robustness import evaluate, strength_curve
from matlib.evaluation.sanity_checks import sanity
from matlib.models.captioner import train_tower_captioner
from matlib.models.dual_encoder import frozen
from matlib.models.encoder import VisionLanguageModel
from matlib.models.small import SmallModel, build_small
from matlib.scenes.lexicon import FUNCTION_WORDS
from matlib.scenes.world import World
from matlib.study.made.models import inner_attack
from matlib.study.made.other_tasks import captioner_config
from matlib.study.made.protocols import EvaluationProtocol, make_suite
from matlib.study.profile.profile import Profile
from matlib.study.profile.rows import Run
from matlib.study.recipes import defence_of, train_attack_of
from matlib.training.log import Bookkeeping
from matlib.training.loop import train
from matlib.training.schedule import Precision, Schedule

KINDS = ("image_forward", "image_attack", "image_train", "text_forward", "text_train")
"""Rows that pass a tower: without gradient, with one to the pixels, with one to the weights."""

PHRASES_PER_IMAGE = 2
"""Things of a scene: two or three."""

WRITER_STEPS = 4
"""Of a writer on a frozen tower; the first of them does not count."""

TRUE_SHARE = 0.15
"""Share of the words offered that keep a caption true: 4.4 of 30 in the demo's tables."""

COUNTING = SmallModel(
    image_size=32, patch_size=16, image_width=32, image_layers=1, text_width=32, text_layers=1,
    head_width=16, embed_dim=16, context_length=77,
)  # fmt: skip


@dataclass(frozen=True)
class Timed:
    """Seconds of something, and how far repetitions lie apart.

    Attributes:
        seconds: the median.
        spread: half the range of the repetitions over the median; 0 with one repetition.
    """

    seconds: float
    spread: float

    @classmethod
    def of(cls, found: Sequence[float]) -> Timed:
        """Of repetitions."""
        middle = median(found)
        return cls(middle, (max(found) - min(found)) / 2 / middle)


@contextmanager
def counted(encoder: VisionLanguageModel) -> Iterator[Counter[str]]:
    """Rows that pass the towers in the block, by kind."""
    rows: Counter[str] = Counter()
    image, text = encoder.image_features, encoder.text_features

    def learns(name: str) -> bool:
        return torch.is_grad_enabled() and any(p.requires_grad for p in encoder.tower(name))

    def count_image(pixels: Tensor) -> Tensor:
        to_pixels = torch.is_grad_enabled() and pixels.requires_grad
        kind = "train" if learns("image") else "attack" if to_pixels else "forward"
        rows[f"image_{kind}"] += len(pixels)
        return image(pixels)

    def count_text(texts: Sequence[str]) -> Tensor:
        rows["text_train" if learns("text") else "text_forward"] += len(texts)
        return text(texts)

    encoder.image_features, encoder.text_features = count_image, count_text  # type: ignore[method-assign]
    try:
        yield rows
    finally:
        del encoder.image_features, encoder.text_features


def made_pairs(n: int, n_captions: int, image_size: int) -> ImageTextPairs:
    """Scenes' captions with images of noise: what is in them costs nothing."""
    world = World(0, image_size=32, n_train=1, n_val=1, n_test=n, captions_per_image=n_captions)
    pairs = world.test.pairs
    pixels = torch.randint(
        256, (n, 3, image_size, image_size), generator=torch.Generator().manual_seed(0)
    )
    images = ImageTensor(pixels.byte())
    return ImageTextPairs(
        "probe", "test", images, pairs.captions, pairs.image_of, pairs.image_ids, pairs.relevant
    )


def edits_for(
    captions: Sequence[str], profile: Profile, threats: Sequence[str]
) -> list[list[Edit]]:
    """As many edits of each caption as the threats will about allow; which does not matter."""
    sizes = profile.candidates
    n = {
        "bert_free": sizes.k_free,
        "bert_true": max(1, round(TRUE_SHARE * sizes.k_true)),
        "bert_similar": max(1, round(TRUE_SHARE * sizes.k_true)),
        "typo": sizes.typos_per_word,
        "typo_held_out": sizes.typos_per_word,
        "true_known": max(1, round(TRUE_SHARE * sizes.k_true)),
        "true_held_out": max(1, round(TRUE_SHARE * sizes.k_true / 4)),
    }
    per_word = sum(n[threat] for threat in threats)
    return [
        [
            Edit(position, f"word{i}")
            for position in content_words(caption, frozenset(FUNCTION_WORDS))
            for i in range(per_word)
        ]
        for caption in captions
    ]


def training_steps(
    encoder: VisionLanguageModel, profile: Profile, run: Run, batch: int, n: int
) -> tuple[Timed, dict[str, float]]:
    """A few steps of a defence on made data: seconds of one, and its rows per pair by kind."""
    how, phase = defence_of(run), profile.finetune or profile.base
    assert phase is not None
    attack = train_attack_of(profile, run)
    pairs = made_pairs(batch, 2 if how.uses_one_to_many else 1, encoder.image_size)
    data = OneToMany.from_pairs(pairs)
    table = edits_for(pairs.captions, profile, attack.threats)
    schedule = Schedule(
        n + 1, batch, 1e-6, mixed_precision=phase.mixed_precision, checkpoint_every=10**6
    )
    seconds: list[float] = []
    with counted(encoder) as rows:
        train(
            encoder, data, how, schedule, seed=0, inner=inner_attack(attack),
            candidates=dict(zip(pairs.captions, table, strict=True)),
            books=Bookkeeping(on_row=lambda row: seconds.append(row["seconds"])),
        )  # fmt: skip
    encoder.eval()
    return Timed.of(seconds[1:]), {kind: rows[kind] / (n + 1) / batch for kind in KINDS}


def judging(
    encoder: VisionLanguageModel, profile: Profile, how: EvaluationProtocol, n: int
) -> tuple[float, dict[str, float]]:
    """The suite on `n` made images: seconds, and rows per image by kind."""
    pairs = made_pairs(n, captions_per_image(profile), encoder.image_size)
    tables = {t: edits_for(pairs.captions, profile, (t,)) for t in how.threats}
    suite = make_suite(profile.evaluation, how)
    began = time.perf_counter()
    with counted(encoder) as rows:
        evaluate(encoder, pairs, tables, suite, seed=0)
        if how.with_curve:
            eps = profile.evaluation.curve_eps_255
            strength_curve(encoder, pairs, suite, eps, seed=0)
    return time.perf_counter() - began, {kind: rows[kind] / n for kind in KINDS}


def sanity_rows(encoder: VisionLanguageModel, profile: Profile, n: int) -> dict[str, float]:
    """Rows per image of the sanity battery, counted on `n` made images and as many to learn on."""
    e = profile.evaluation
    pairs = made_pairs(n, captions_per_image(profile), encoder.image_size)
    threat: str = e.primary_threat
    tables = {threat: edits_for(pairs.captions, profile, (threat,))}
    with counted(encoder) as rows:
        sanity(
            encoder, pairs, tables, image=PGD(e.eps_255, e.pgd_steps, e.step_255),
            source=build_small(COUNTING, 1), word_search=WordSubstitution(e.n_words),
            n_restarts=e.n_restarts, train=pairs, n_boot=10,
        )  # fmt: skip
    return {kind: rows[kind] / n for kind in KINDS}


def captioning_seconds(
    encoder: VisionLanguageModel, profile: Profile, n: int
) -> tuple[Timed, float]:
    """A writer's training on made images, and `n` of them captioned, clean and attacked.

    Returns:
        seconds of one step, and of one image.
    """
    assert profile.other_tasks is not None
    pairs, moments = made_pairs(n, 1, encoder.image_size), [time.perf_counter()]
    config = replace(captioner_config(profile.other_tasks), n_steps=WRITER_STEPS)
    writer = train_tower_captioner(
        encoder, OneToMany.from_pairs(pairs), config, 0,
        lambda *_: moments.append(time.perf_counter()),
    )  # fmt: skip
    steps = [after - before for before, after in pairwise(moments[1:])]
    image, began = _image_attack(profile), time.perf_counter()
    caption_under_attack(writer, pairs.pixels().to(encoder.device), image, encoder=encoder)
    return Timed.of(steps), (time.perf_counter() - began) / n


def grounding_seconds(encoder: VisionLanguageModel, profile: Profile, n: int) -> float:
    """Seconds of one of `n` made images, its phrases grounded, clean and attacked."""
    pairs, threat = made_pairs(n, 1, encoder.image_size), profile.evaluation.primary_threat
    each = torch.arange(n).repeat_interleave(PHRASES_PER_IMAGE)
    box = torch.tensor([0.25, 0.25, 0.75, 0.75])
    phrases = ("a red star",) * len(each)
    asked = Referring(phrases, each, box.expand(len(each), 4), (box[None],) * n)
    words, began = edits_for(phrases, profile, (threat,)), time.perf_counter()
    ground_under_attack(encoder, pairs.pixels(), asked, _image_attack(profile), words)
    return (time.perf_counter() - began) / n


def _image_attack(profile: Profile) -> PGD:
    e = profile.evaluation
    return PGD(e.eps_255, e.pgd_steps, e.step_255)


def captions_per_image(profile: Profile) -> int:
    """Of the test gallery; real data sets have five."""
    return profile.dataset.captions_per_image if profile.dataset.name == "scenes" else 5


def pass_seconds(
    encoder: VisionLanguageModel,
    batch: int,
    n: int = 3,
    precision: Precision = "no",
    *,
    kinds: Sequence[str] = KINDS,
) -> dict[str, Timed]:
    """Seconds per row of kinds of pass, on `batch` rows at once.

    Args:
        n: passes that count; the first of each kind, which sets the machine up, does not.
    """
    pairs = made_pairs(batch, 1, encoder.image_size)
    pixels, captions = pairs.pixels().to(encoder.device), list(pairs.captions)

    def to_pixels() -> None:
        with frozen(encoder):
            point = pixels.clone().requires_grad_(True)
            torch.autograd.grad(encoder.encode_image(point).sum(), point)

    def forward(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                call()

        return run

    def to_weights(call: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            call().sum().backward()
            encoder.zero_grad(set_to_none=True)

        return run

    calls: Mapping[str, Callable[[], None]] = {
        "image_forward": forward(lambda: encoder.encode_image(pixels)),
        "image_attack": to_pixels,
        "image_train": to_weights(lambda: encoder.encode_image(pixels)),
        "text_forward": forward(lambda: encoder.encode_text(captions)),
        "text_train": to_weights(lambda: encoder.encode_text(captions)),
    }
    found = {}
    half = torch.bfloat16 if precision == "bf16" else torch.float16
    with torch.autocast(encoder.device.type, half, enabled=precision != "no"):
        for kind in kinds:
            call = calls[kind]
            call()
            times = [_seconds(call, encoder.device) / batch for _ in range(n)]
            found[kind] = Timed.of(times)
    return found


def activation_bytes(encoder: VisionLanguageModel, batch: int) -> float:
    """What one pair's training pass keeps for its backward pass, in float32."""
    pairs = made_pairs(batch, 1, encoder.image_size)
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in encoder.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        image = encoder.encode_image(pairs.pixels().to(encoder.device))
        text = encoder.encode_text(list(pairs.captions))
        (image.sum() + text.sum()).detach()
    return sum(kept.values()) / batch


def counting_encoder() -> VisionLanguageModel:
    """The tiny model that passes are counted on."""
    return build_small(COUNTING, 0)


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    began = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - began
