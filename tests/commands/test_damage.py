"""Damage to any file of an attack's folder: the right result again, or a refusal; never another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from matlib.attacks.edits import Edit
from matlib.commands.batches import AttackedBatch, AttackFolder

Damage = Callable[[Path], None]
CAPTIONS = ["a red star", "ein Käfer 🐞"]
TABLE = [[Edit(1, "blue")], [Edit(0, "kein")]]


def _attack(out: Path) -> dict[str, Any]:
    """Two finished batches, one as PNG files, one as an array; and what they say."""
    folder = AttackFolder(out, {"eps_255": 2.0}, 0, ())
    table = folder.table(CAPTIONS, lambda: TABLE)
    found: dict[str, Any] = {"table": table, "batches": []}
    for number, kind in enumerate((torch.uint8, torch.float32)):

        def make(
            number: int = number, kind: torch.dtype = kind
        ) -> tuple[AttackedBatch, torch.Tensor]:
            seeded = torch.Generator().manual_seed(number)
            tensors = {"text": torch.rand(2, 4, generator=seeded)}
            pixels = torch.rand(2, 3, 4, 4, generator=seeded) * 255
            return AttackedBatch(tuple(CAPTIONS), tensors, {"n_zero": number}), pixels.to(kind)

        names = (f"{2 * number:06d}_x", f"{2 * number + 1:06d}_y")
        batch, places = folder.batch(number, "content", names, make)
        tensors = {name: tensor.tolist() for name, tensor in batch.tensors.items()}
        found["batches"].append([batch.captions, tensors, batch.counts, places])
    folder.finish({"pairs": found["batches"]})
    return found


def _seen(out: Path) -> dict[str, bytes]:
    """What a person looks at: every file beside the store."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and "runs" not in path.parts and not path.name.startswith(".")
    }


def _files() -> list[str]:
    """Names of all files in such a folder, without what differs between versions of the code."""
    return [
        "store.json", "pairs.json", "images/000000_x.png", "images/000001_y.png",
        "arrays/0001.safetensors", "runs/candidates-*/table.json",
        "runs/candidates-*/provenance.json", "runs/attacked-0000-*/batch.json",
        "runs/attacked-0000-*/embeddings.safetensors", "runs/attacked-0000-*/pixels/0000.png",
        "runs/attacked-0000-*/pixels/0001.png", "runs/attacked-0000-*/provenance.json",
        "runs/attacked-0001-*/batch.json", "runs/attacked-0001-*/embeddings.safetensors",
        "runs/attacked-0001-*/pixels.safetensors", "runs/attacked-0001-*/provenance.json",
    ]  # fmt: skip


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _delete(path: Path) -> None:
    path.unlink()


def _not_json(path: Path) -> None:
    path.write_bytes(b"[]")


def _flip(place: float) -> Damage:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * (len(content) - 1))] ^= 4
        path.write_bytes(content)

    return damage


DAMAGES: dict[str, Damage] = {
    "cut": _cut, "emptied": _empty, "deleted": _delete, "replaced": _not_json,
    **{f"flipped at {place}": _flip(place) for place in (0.0, 0.3, 0.62, 1.0)},
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("sound") / "out"
    return out, _attack(out)


def _check(out: Path, sound: tuple[Path, dict[str, Any]]) -> None:
    try:
        again = _attack(out)
    except ValueError:  # refused in a sentence
        return
    assert again == sound[1]
    seen = _seen(out)
    seen["store.json"] = _seen(sound[0])["store.json"]  # a version, read or refused above
    assert seen == _seen(sound[0])


def test_the_list_of_files_is_whole(sound: tuple[Path, dict[str, Any]]) -> None:
    out = sound[0]
    present = {p for p in out.rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert present == {path for name in _files() for path in out.glob(name)}


@pytest.mark.parametrize("name", _files())
def test_damage_is_mended_or_refused(
    sound: tuple[Path, dict[str, Any]], tmp_path: Path, name: str
) -> None:
    for number, damage in enumerate(DAMAGES.values()):
        out = tmp_path / str(number)
        shutil.copytree(sound[0], out)
        damage(next(out.glob(name)))
        _check(out, sound)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("runs/attacked-0000-*", "runs/attacked-0001-*"),
        ("runs/attacked-0000-*/provenance.json", "runs/attacked-0001-*/provenance.json"),
        ("runs/attacked-0000-*/batch.json", "runs/attacked-0001-*/batch.json"),
        ("runs/attacked-0000-*/batch.json", "runs/candidates-*/table.json"),
        ("runs/candidates-*/provenance.json", "runs/candidates-*/table.json"),
        ("runs/attacked-0000-*/embeddings.safetensors", "runs/attacked-0001-*/embeddings.*"),
        ("runs/attacked-0000-*/pixels/0000.png", "runs/attacked-0000-*/pixels/0001.png"),
        ("images/000000_x.png", "images/000001_y.png"),
        ("pairs.json", "store.json"),
    ],
)
def test_swapped_files_are_mended_or_refused(
    sound: tuple[Path, dict[str, Any]], tmp_path: Path, one: str, other: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(sound[0], out)
    first, second = next(out.glob(one)), next(out.glob(other))
    beside = first.with_name("beside")
    first.rename(beside)
    second.rename(first)
    beside.rename(second)
    _check(out, sound)


def test_what_is_made_again_is_said(
    sound: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(sound[0], tmp_path / "out")
    _flip(0.9)(next((tmp_path / "out").glob("runs/attacked-0000-*/embeddings.safetensors")))
    assert _attack(tmp_path / "out") == sound[1]
    assert "the content of embeddings.safetensors has changed): it is made again" in (
        capsys.readouterr().out
    )
