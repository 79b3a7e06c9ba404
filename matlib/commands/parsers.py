"""The options of `attack` and `evaluate`; what they import waits until one is run.

`plan`: what a study will cost, before it starts.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matlib.study.run.plan import Plan


ATTACK_NAMES = (
    "pgd", "bert", "words-pairwise", "words", "sep", "co-attack", "sga", "dra", "joint", "apgd",
    "gallery", "gallery-tr", "gallery-ir",
)  # fmt: skip


def count(text: str) -> int:
    """A whole number, 0 or more."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more; got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A whole number, 1 or more; the default of such an option stands for none."""
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"expected a whole number, 1 or more (leave the option away for all); got {text!r}"
        )
    return int(text)


def add_attack(commands: Any) -> None:
    """`attack`: adversarial pairs of any model from a user's images and captions."""
    attack = commands.add_parser("attack", help="attack any model on your own images and captions")
    attack.add_argument("--model", required=True, help="open_clip name (ViT-B-16), or small")
    attack.add_argument("--pretrained", required=True, metavar="TAG|FILE", help="its weights")
    attack.add_argument("--rest", default="", help="weights of the towers that a FILE lacks")
    attack.add_argument("--profile", default="", help="whose shape a small model has")
    attack.add_argument("--images", required=True, type=Path, help="folder of images")
    attack.add_argument(
        "--captions", required=True, type=Path,
        help="JSON {image: [captions]}, a Karpathy data set, a table (image, caption), .token",
    )  # fmt: skip
    attack.add_argument("--split", default="test", help="of a Karpathy data set; all for every")
    attack.add_argument("--attack", default="sga", choices=ATTACK_NAMES)
    attack.add_argument("--out", required=True, type=Path, help="folder of the results")
    attack.add_argument("--eps", type=float, default=2.0, help="L-infinity budget in 1/255")
    attack.add_argument("--steps", type=int, default=10)
    attack.add_argument("--step-size", type=float, help="in 1/255")
    attack.add_argument("--n-words", type=int, default=1, help="words that may change")
    words = attack.add_mutually_exclusive_group()
    words.add_argument("--masked-lm", default="", help="folder, or name on the hub")
    words.add_argument("--synonyms", type=Path, help="JSON: {word: [words]}")
    words.add_argument("--candidates", type=Path, help="JSON: {caption: [[position, word]]}")
    attack.add_argument("--k", type=int, default=10, help="candidates per word")
    attack.add_argument(
        "--conventions", default="matlib", choices=("matlib", "released"),
        help="released: as in the field's code, to compare with published numbers",
    )  # fmt: skip
    attack.add_argument(
        "--batch",
        type=int,
        default=16,
        help="images attacked together; pgd, sep, joint and apgd take their negatives here",
    )
    attack.add_argument("--format", default="png", choices=("png", "float"))
    attack.add_argument("--seed", type=int, default=0)
    attack.add_argument("--device", default="", help="cpu or cuda")
    attack.set_defaults(command=_attack)


def _attack(options: argparse.Namespace) -> int:
    from matlib.commands.attack import AttackOptions, run_attack, summary_text
    from matlib.commands.words import Words

    o = options
    has_words = o.masked_lm or o.synonyms or o.candidates
    words = Words(o.candidates, o.synonyms, o.masked_lm, o.k) if has_words else None
    summary = run_attack(
        AttackOptions(
            o.model, o.pretrained, o.images, o.captions, o.attack, o.out,
            eps_255=o.eps, n_steps=o.steps, step_255=o.step_size, n_words=o.n_words, words=words,
            batch=o.batch, form=o.format, seed=o.seed, split=o.split, profile=o.profile,
            rest=o.rest, conventions=o.conventions, device=o.device,
        )
    )  # fmt: skip
    print(summary_text(summary))
    print(f"wrote {o.out / 'pairs.json'}")
    return 0


def add_evaluate(commands: Any) -> None:
    """`evaluate`: any model as a row beside a study's defences."""
    evaluate = commands.add_parser("evaluate", help="judge any model beside the study's defences")
    evaluate.add_argument("--model", required=True, help="open_clip name (ViT-B-16), or small")
    evaluate.add_argument("--checkpoint", required=True, help=".safetensors or .pt file, or a tag")
    evaluate.add_argument(
        "--pretrained", default="", metavar="TAG|FILE",
        help="weights of the towers that the checkpoint lacks",
    )  # fmt: skip
    evaluate.add_argument("--profile", required=True, help="whose suite and gallery")
    evaluate.add_argument("--name", required=True, help="of the row")
    evaluate.add_argument("--dataset", default="", help="checked against the profile's")
    evaluate.add_argument("--data", default="", help="folder of a data set on disk")
    evaluate.add_argument("--results", default="", help="folder of all results")
    evaluate.add_argument("--limit", type=positive, default=0, help="at most so many test images")
    evaluate.add_argument("--train-eps", type=float, help="in 1/255; only recorded")
    evaluate.add_argument(
        "--source", default="self", metavar="self|ROW",
        help="the model that the attacks are made on: the judged one, or a row such as base",
    )  # fmt: skip
    evaluate.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from matlib.commands.evaluate import EvaluateOptions, run_evaluate

    o = options
    path = run_evaluate(
        EvaluateOptions(
            o.model, o.checkpoint, o.profile, o.name,
            dataset=o.dataset, data=o.data, results=o.results, limit=o.limit, rest=o.pretrained,
            train_eps_255=o.train_eps, source=o.source,
        )
    )  # fmt: skip
    print(f"wrote {path}")
    return 0


def add_plan(commands: Any) -> None:
    """`plan`: a short probe, and the cost that follows from it."""
    plan = commands.add_parser("plan", help="what a study will cost: hours, memory, disk")
    plan.add_argument("profile", help="name of a profile, or a YAML file")
    plan.add_argument("--data", type=Path, help="folder of a data set on disk")
    plan.add_argument("--results", type=Path, help="folder of all results")
    plan.add_argument("--limit", type=positive, default=0, help="at most so many test images")
    plan.add_argument("--workers", type=count, default=0, help="runs at once on a CPU; 0: per core")
    plan.set_defaults(command=_plan)


def _plan(options: argparse.Namespace) -> int:
    from matlib.study.profile.profile import load_profile
    from matlib.study.run.plan import plan
    from matlib.study.study import results_folder

    profile = load_profile(options.profile, options.limit)
    results = options.results or results_folder()
    print(plan_text(plan(profile, results, options.data, options.workers)))
    return 0


def plan_text(found: Plan) -> str:
    """The plan as lines for a person."""
    share = round(100 * found.error)
    rows = [
        ("profile", found.profile),
        ("device", f"{found.device}, {found.n_workers} at a time"),
        ("parameters", ", ".join(f"{n} {c:,}" for n, c in found.parameters.items())),
        ("models", f"{found.n_models}, of which {found.n_left} are left"),
        ("training passes", _passes(found.training_rows)),
        ("judging passes", _passes(found.judging_rows)),
        ("time", f"{_time(found.hours)} ± {share} % (error of the probe)"),
        ("time left", f"{_time(found.hours_left)} ± {share} %"),
        *((f"  {what}", _time(s / 3600 / found.n_workers)) for what, s in found.seconds.items()),
        *((f"memory: {what}", f"{g:.2f} GiB") for what, g in found.memory_gib.items()),
        *((f"disk: {what}", f"{g:.2f} GiB") for what, g in found.disk_gib.items()),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name.ljust(width)}  {value}" for name, value in rows]
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def _passes(rows: dict[str, float]) -> str:
    parts = {tower: sum(n for k, n in rows.items() if k.startswith(tower)) for tower in _TOWERS}
    return ", ".join(f"{n:.3g} {_TOWERS[tower]}" for tower, n in parts.items())


_TOWERS = {"image": "images", "text": "captions"}


def _time(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.1f} min" if hours < 2 else f"{hours:.1f} h"
