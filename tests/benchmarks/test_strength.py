"""The strength-time front of the bench, at toy size."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from benchmarks.memory import TOY
from benchmarks.strength import StrengthSize, bench_strength, draw_front, front_of

SIZE = StrengthSize(
    n_images=6, captions_per_image=2, n_train=16, n_steps=4, eps_255=8.0, pgd_steps=2,
    joint_steps=(2,), shape=TOY,
)  # fmt: skip


def test_nothing_on_the_front_is_slower_and_weaker_than_another() -> None:
    measured = {"a": (1.0, 50.0), "b": (2.0, 20.0), "c": (2.5, 20.0), "d": (3.0, 60.0)}
    assert front_of(measured) == {"a", "b"}
    assert front_of({"a": (1.0, 5.0), "same": (1.0, 5.0)}) == {"a", "same"}


def test_every_attack_is_timed_and_judged_on_one_model(tmp_path: Path) -> None:
    found = bench_strength(SIZE)
    assert {"clean", "pgd", "bert", "co-attack, released", "sga, released", "joint, APGD",
            "gallery, 2 steps", "gallery, 2 steps, APGD", "words, gallery"} <= {*found}  # fmt: skip
    clean = found["clean"]["recall_left"]
    for name, row in found.items():
        assert set(row) == {"seconds", "recall_left", "on_front"}
        assert 0 <= row["recall_left"] <= 100 and (row["seconds"] > 0) == (name != "clean")
    for name in ("words, gallery", "gallery, 2 steps"):  # never above what they begin with
        assert found[name]["recall_left"] <= clean
    draw_front(found, tmp_path / "strength.png")
    with Image.open(tmp_path / "strength.png") as picture:
        assert min(picture.size) > 400
