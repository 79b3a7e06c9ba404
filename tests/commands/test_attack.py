from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from matlib.attacks.ascent import ScaleViews
from matlib.attacks.edits import from_synonyms, n_changed_words
from matlib.attacks.gallery import Gallery, embed_images
from matlib.attacks.multimodal import sga
from matlib.attacks.pgd import PGD
from matlib.attacks.scoring import embed_texts
from matlib.attacks.word_substitution import WordSubstitution
from matlib.cli import main
from matlib.commands import attack as attack_module
from matlib.commands.attack import run_attack
from matlib.commands.options import ATTACK_NAMES, AttackOptions
from matlib.commands.user_data import read_user_data, sized
from matlib.evaluation.retrieval import retrieve
from matlib.evaluation.suite import ATTACKS
from matlib.models.masked_lm import train_masked_lm
from matlib.models.masked_lm_training import MaskedLMConfig
from tests.commands.toy_data import COUNTS, Toy, make_toy
from tests.toys import WORDS, tiny_encoder


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


def _read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "pairs.json").read_text(encoding="utf-8"))
    return found


def _stored(out: Path, pair: dict[str, Any]) -> np.ndarray[Any, Any]:
    place = pair["adversarial_image"]
    if isinstance(place, str):
        return np.asarray(Image.open(out / place)).transpose(2, 0, 1) / 255
    return load_file(str(out / place["file"]))["pixels"][place["row"]].numpy()


@pytest.mark.parametrize("form", ["png", "float"])
@pytest.mark.parametrize("attack", [a for a in ATTACK_NAMES if not ATTACKS[a].of_fusion])
def test_every_attack_stays_in_its_budget(toy: Toy, tmp_path: Path, attack: str, form: Any) -> None:
    summary = run_attack(toy.options(tmp_path / "out", attack, format=form))
    found = _read(tmp_path / "out")
    clean = sized(read_user_data(toy.images, toy.captions), 16).pixels().double().numpy()
    assert [len(pair["captions"]) for pair in found["pairs"]] == list(COUNTS)
    for i, pair in enumerate(found["pairs"]):
        gap = np.abs(_stored(tmp_path / "out", pair) - clean[i]).max() * 255
        assert gap <= 8 + 1e-4 and (gap > 0.5) == ATTACKS[attack].moves_images
        for caption in pair["captions"]:
            n = n_changed_words(caption["original"], caption["adversarial"])
            assert n == len(caption["changed"]) <= (attack != "pgd")
            for change in caption["changed"]:
                words = caption["adversarial"].split(" ")
                assert words[change["position"]] == change["after"] != change["before"]
    assert summary == found["summary"]


def test_a_batch_is_the_attack_of_the_library_and_ranks_are_over_all_pairs(
    toy: Toy, tmp_path: Path
) -> None:
    run_attack(toy.options(tmp_path / "out", "sga", format="float", batch=5))
    found, encoder = _read(tmp_path / "out"), tiny_encoder()
    pairs = sized(read_user_data(toy.images, toy.captions), 16)
    gallery = Gallery(pairs.pixels(), pairs.captions, pairs.relevance(), pairs.image_of)
    table = from_synonyms(pairs.captions, json.loads(toy.synonyms.read_text()))
    moved, edited = sga(
        encoder, gallery, table, PGD(8.0, 2), WordSubstitution(),
        generator=torch.Generator().manual_seed(0), views=ScaleViews(),
    )  # fmt: skip
    got = torch.tensor(np.stack([_stored(tmp_path / "out", pair) for pair in found["pairs"]]))
    captions = [c for pair in found["pairs"] for c in pair["captions"]]
    assert got.equal(moved) and [c["adversarial"] for c in captions] == edited
    for name, images, texts in (
        ("clean", gallery.pixels, pairs.captions),
        ("adversarial", moved, edited),
    ):
        outcomes = retrieve(
            embed_images(encoder, images), embed_texts(encoder, texts), pairs.relevance()
        )
        assert [pair["tr_rank"][name] for pair in found["pairs"]] == outcomes.tr_rank.tolist()
        assert [c["ir_rank"][name] for c in captions] == outcomes.ir_rank.tolist()


def test_released_conventions_are_another_setting_with_cleaned_captions(
    toy: Toy, tmp_path: Path
) -> None:
    content = json.loads(toy.captions.read_text())
    content["i0.png"] = ["A red, circle near the star."]
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps(content))
    given = {**vars(toy.options(tmp_path / "out", "co-attack")), "captions": captions}
    run_attack(AttackOptions(**{**given, "conventions": "released"}))
    found = _read(tmp_path / "out")
    assert found["pairs"][0]["captions"][0]["original"] == "a red circle near the star"
    with pytest.raises(ValueError, match="conventions: released there, matlib now"):
        run_attack(AttackOptions(**given))


def test_the_effect_of_quantisation_is_reported(toy: Toy, tmp_path: Path) -> None:
    summary = run_attack(toy.options(tmp_path / "out", "pgd", eps_255=1.5))
    recall, gained = summary["recall"], summary["recall_gained_by_quantisation"]
    assert summary["stored_as"] == "8bit"
    for key, value in gained.items():
        assert value == recall["8bit"][key] - recall["float"][key]
    pair = _read(tmp_path / "out")["pairs"][0]
    assert {"clean", "adversarial", "adversarial_float"} == {*pair["tr_rank"]}


def test_a_stopped_attack_goes_on_where_it_was(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_attack(toy.options(tmp_path / "whole"))
    real = attack_module._attack_batch
    made: list[int] = []

    def noted(options: AttackOptions, number: int, *rest: Any) -> Any:
        made.append(number)
        if made == [0, 1]:
            raise KeyboardInterrupt
        return real(options, number, *rest)

    monkeypatch.setattr(attack_module, "_attack_batch", noted)
    options = toy.options(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        run_attack(options)
    run_attack(options)
    run_attack(options)
    assert made == [0, 1, 1, 2]  # finished ones are not made again
    assert _read(tmp_path / "parts") == _read(tmp_path / "whole")


def test_other_settings_in_the_same_folder_are_refused(toy: Toy, tmp_path: Path) -> None:
    run_attack(toy.options(tmp_path, "pgd"))
    with pytest.raises(ValueError, match=r"other settings.*seed: 0 there, 1 now"):
        run_attack(toy.options(tmp_path, "pgd", seed=1))


def test_the_seed_decides_the_result(toy: Toy, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run_attack(toy.options(tmp_path / name, "pgd", seed=seed))
    files = [(tmp_path / n / "images" / "000000_i0.png").read_bytes() for n in "abc"]
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack": "fused"}, "attacks what a model makes of image and text together.*: .*sga"),
        ({"attack": "fgsm"}, "unknown attacks .*'fgsm'.*; known: "),
        ({"eps_255": 2 / 255}, "already divided by 255"),
        ({"eps_255": 500}, "1/255 of the pixel range"),
        ({"eps_255": 0.5}, "--format float"),
        ({"batch": 0}, "1 or more"),
        ({"n_words": -1}, "n_words must be 0 or more"),
        ({"n_words": 0}, "--n-words must be 1 or more"),
        ({"n_steps": 0}, "--steps must be 1 or more"),
        ({"eps_255": 0.0}, "--eps must be above 0"),
        ({"eps_255": -2.0}, "1/255 of the pixel range"),
        ({"eps_255": float("nan")}, "1/255 of the pixel range"),
        ({"step_255": -2.0}, "step_255 must be above 0"),
        ({"step_255": 0.0}, "step_255 must be above 0"),
        ({"step_255": float("nan")}, "step_255 must be above 0"),
        ({"step_255": float("inf")}, "step_255 must be above 0"),
        ({"synonyms": None}, "one source of words"),
        ({"synonyms": Path("nowhere.json")}, "no synonyms at nowhere.json"),
        ({"synonyms": None, "masked_lm": "/nowhere/lm"}, "no masked language model in /nowhere/lm"),
        ({"weights": "nowhere.safetensors"}, "no checkpoint file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    toy: Toy, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    given = {**vars(toy.options(tmp_path / "out")), **changes}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_attack(AttackOptions(**given))
    assert not (tmp_path / "out").exists()


def test_captions_without_an_attackable_word_are_counted_and_kept(toy: Toy, tmp_path: Path) -> None:
    first = json.loads(toy.captions.read_text())["i0.png"][0]
    table = tmp_path / "table.json"
    table.write_text(json.dumps({first: [[1, "green"]]}))
    summary = run_attack(toy.options(tmp_path / "out", "bert", synonyms=None, candidates=table))
    assert summary["n_unattackable_captions"] == sum(COUNTS) - 1
    assert summary["n_changed_captions"] <= 1
    table.write_text(json.dumps({"another caption": [[1, "green"]]}))
    with pytest.raises(ValueError, match="edits for none of the captions"):
        run_attack(toy.options(tmp_path / "other", "bert", synonyms=None, candidates=table))


def test_candidates_come_from_a_masked_lm_in_a_folder(toy: Toy, tmp_path: Path) -> None:
    corpus = [f"a {a} {b} near the {c}" for a in WORDS for b in WORDS for c in WORDS[:3]]
    config = MaskedLMConfig(width=16, layers=1, heads=2, n_steps=2, batch_size=8)
    (tmp_path / "lm").mkdir()
    train_masked_lm(corpus, config, 0).save(tmp_path / "lm")
    words = {"synonyms": None, "masked_lm": str(tmp_path / "lm"), "k": 5}
    summary = run_attack(toy.options(tmp_path / "out", "sga", **words))
    assert summary["n_changed_captions"] > 0 and summary["n_unattackable_captions"] == 0


def test_the_command_line_says_what_happened(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "attack", "--model", "small", "--pretrained", str(toy.weights),
        "--images", str(toy.images), "--captions", str(toy.captions), "--attack", "pgd",
        "--out", str(tmp_path / "out"), "--steps", "1",
    ]  # fmt: skip
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "attacked, 8-bit images" in printed and "0 of 5 gradients vanished" in printed
    assert main([*arguments, "--eps", "4"]) == 1
    assert "was made with other settings" in capsys.readouterr().err


def _arguments(toy: Toy, out: Path, *more: str) -> list[str]:
    return [
        "attack", "--model", "small", "--pretrained", str(toy.weights), "--steps", "1",
        "--images", str(toy.images), "--captions", str(toy.captions), "--attack", "pgd",
        "--out", str(out), "--batch", "1", *more,
    ]  # fmt: skip


def test_a_bad_image_is_found_before_the_first_batch_and_repaired_costs_its_own_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy, out = make_toy(tmp_path / "own"), tmp_path / "out"
    real, made = attack_module._attack_batch, []

    def noted(options: AttackOptions, number: int, *rest: Any) -> Any:
        made.append(number)
        return real(options, number, *rest)

    monkeypatch.setattr(attack_module, "_attack_batch", noted)
    last = toy.images / "i4.png"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    assert main(_arguments(toy, out)) == 1
    assert "1 of 5 images cannot be used" in capsys.readouterr().err and made == []
    last.write_bytes(whole)
    assert main(_arguments(toy, out)) == 0 and made == [0, 1, 2, 3, 4]
    first = (toy.images / "i0.png").read_bytes()
    last.write_bytes(first)  # another picture: its batch alone is made again
    assert main(_arguments(toy, out)) == 0 and made[5:] == [4]
    found = _read(out)
    assert len([*out.glob("runs/attacked-*")]) == 5
    last.write_bytes(first[:100])
    assert main(_arguments(toy, out)) == 1
    assert "1 of 1 images cannot be used; what is finished is kept" in capsys.readouterr().err
    assert _read(out) == found


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (
            '{"i0.png": ["a dog \\ud83d runs"], "i1.png": ["two cats"]}',
            "'i0.png'.*half a surrogate",
        ),
        ('{"i0.png": ["a red dog"], "i0.png": ["two dogs"]}', "the key 'i0.png' is there twice"),
        ('{"i0.png": ["a red dog"], "./i0.png": ["two dogs"]}', "name the same image"),
        ("image,caption\ni0.png,a dog, a cat\n", "line 2: expected 2 columns"),
    ],
)
def test_captions_that_cannot_be_used_are_refused_before_anything_is_written(
    tmp_path: Path, captions: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = make_toy(tmp_path / "own")
    path = tmp_path / ("own.json" if captions[0] == "{" else "own.csv")
    path.write_text(captions, encoding="utf-8")
    assert main([*_arguments(toy, tmp_path / "out"), "--captions", str(path)]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_long_names_emoji_and_tables_are_attacked(tmp_path: Path) -> None:
    toy, out = make_toy(tmp_path / "own"), tmp_path / "out"
    long = "x" * 251 + ".png"
    (toy.images / "i0.png").rename(toy.images / long)
    table = tmp_path / "results.csv"
    table.write_text(f"image,caption\n{long},a dog 🐕 runs\n./i1.png,two cats\n", "utf-8")
    assert main([*_arguments(toy, out), "--captions", str(table)]) == 0
    pairs = _read(out)["pairs"]
    assert [pair["image"] for pair in pairs] == ["i1.png", long]
    assert pairs[1]["captions"][0]["adversarial"] == "a dog 🐕 runs"
    assert (out / pairs[1]["adversarial_image"]).is_file()


def test_damage_in_the_folder_is_mended_by_the_same_command(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(_arguments(toy, out)) == 0
    sound, image = _read(out), (out / "images" / "000003_i3.png").read_bytes()
    (out / "images" / "000003_i3.png").write_bytes(image[:40])
    next(out.glob("runs/attacked-0001-*/batch.json")).write_text("{}", encoding="utf-8")
    (out / "pairs.json").write_text("{", encoding="utf-8")
    capsys.readouterr()
    assert main(_arguments(toy, out)) == 0
    assert "it is made again" in capsys.readouterr().out
    assert _read(out) == sound and (out / "images" / "000003_i3.png").read_bytes() == image


def test_a_locale_without_utf8_changes_nothing(toy: Toy, tmp_path: Path) -> None:
    captions = {f"i{i}.png": ["ein Käfer · 🐞"] for i in range(2)}
    own = tmp_path / "captions.json"
    own.write_text(json.dumps(captions, ensure_ascii=False), encoding="utf-8")
    arguments = [*_arguments(toy, tmp_path / "out"), "--captions", str(own)]
    done = subprocess.run(
        [sys.executable, "-m", "matlib", *arguments],
        env={**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode("utf-8")
    assert _read(tmp_path / "out")["pairs"][0]["captions"][0]["original"] == "ein Käfer · 🐞"
