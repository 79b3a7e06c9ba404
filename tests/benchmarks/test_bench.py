from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import text as bench_text_module
from benchmarks.__main__ import app
from benchmarks.image import check_equal_images, count_synchronisations
from benchmarks.load import EDITS_PER_WORD, Load, scenes_load
from benchmarks.memory import TOY, bench_memory
from benchmarks.run import TOY_SIZE, toy_accelerator, write_bench
from benchmarks.text import UnequalOutputs, check_equal_captions
from benchmarks.timing import Paired, in_turns
from matlib.attacks.pgd import PGD


@pytest.fixture(scope="module")
def toy() -> Load:
    return scenes_load(4, 2, TOY)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bench") / "deep" / "bench.json"
    write_bench(path, TOY_SIZE)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_bench_writes_every_promised_key(written: dict[str, Any]) -> None:
    for key in (
        "machine", "model", "text_attack_speedup", "text_rows_per_caption",
        "text_forwards_per_caption", "padded_tokens_per_caption",
        "sga_image_speedup_released_order", "sga_second_pass_share", "pgd10_images_per_second",
        "text_peak_memory_mib",
        "host_synchronisations_per_step", "mat_step_over_necessary",
        "mat_step_necessary_seconds", "mat_step_text_share", "feed_samples_per_second",
        "mat_step_vit_b_16", "strength",
    ):  # fmt: skip
        assert key in written, key
    assert {"cpu", "n_cores", "memory_gib", "torch", "n_threads", "gpu"} <= {*written["machine"]}
    assert ("accelerator" in written) == torch.cuda.is_available()


def test_ours_asks_for_fewer_rows_and_positions_than_the_released_order(
    written: dict[str, Any],
) -> None:
    for key in (
        "text_forwards_per_caption", "text_rows_per_caption", "padded_tokens_per_caption"
    ):  # fmt: skip
        assert 0 < written[key]["ours"] < written[key]["peer"]


def test_our_image_attacks_never_make_the_host_wait(written: dict[str, Any]) -> None:
    found = written["host_synchronisations_per_step"]
    assert found == {"pgd": 0, "apgd": 0, "sga": 0, "sga_peer": 5}  # the peer: once a view


def test_both_orders_find_the_same_captions_and_pixels(toy: Load) -> None:
    assert check_equal_captions(toy) == 2 * len(toy.captions)
    assert check_equal_images(toy, PGD(2.0, 3)) == 4


def test_unequal_outputs_are_refused(toy: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bench_text_module, "peers_passes", lambda load, guides: [load.captions, load.captions]
    )
    with pytest.raises(UnequalOutputs, match="captions differ"):
        check_equal_captions(toy)


def test_the_edit_table_has_ten_edits_for_every_content_word_and_none_of_itself(toy: Load) -> None:
    for caption, row in zip(toy.captions, toy.table, strict=True):
        words = caption.split(" ")
        assert all(edit.replacement != words[edit.position] for edit in row)
        assert len(row) == EDITS_PER_WORD * len({edit.position for edit in row})


def test_a_part_of_the_load_keeps_images_captions_and_edits_together(toy: Load) -> None:
    part = toy.first(2)
    assert len(part.pixels) == 2 and part.own.tolist() == [0, 0, 1, 1]
    assert part.captions == toy.captions[:4] and part.table == toy.table[:4]


def test_the_speedup_is_the_median_of_the_ratios() -> None:
    timed = Paired((1.0, 2.0, 1.0), (10.0, 10.0, 30.0))
    assert timed.speedup == 10.0
    assert timed.rates(5) == {"ours": 5.0, "peer": 0.5}
    with pytest.raises(ValueError, match="1 repeat"):
        in_turns(lambda: None, lambda: None, torch.device("cpu"), 0)


def test_reading_a_value_back_counts_as_a_synchronisation() -> None:
    values = torch.arange(4.0)
    assert count_synchronisations(lambda: values * 2) == 0
    assert count_synchronisations(lambda: values.sum().item()) == 1
    assert count_synchronisations(lambda: bool((values > 1).all())) == 1
    assert count_synchronisations(lambda: values.tolist()) == 1
    assert count_synchronisations(lambda: values[values > 1]) == 1


def test_the_accelerators_measurement_has_one_figure_per_precision() -> None:
    found = toy_accelerator()
    names = {"float32", "bf16", "bf16_channels_last"}
    for key in ("pgd_images_per_second", "matmul_peak_tflops", "share_of_matmul_peak"):
        assert {*found[key]} == names and all(value > 0 for value in found[key].values())
    # a step is a forward and a backward to the pixels: about two forwards, weights left out
    assert found["pgd_flops_per_image_and_step"] > 0


def test_bench_runs_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.run.bench", lambda _size: {"text_attack_speedup": 12.3456})
    app(["--out", str(tmp_path / "bench.json")], standalone_mode=False)
    assert "text_attack_speedup  12.35" in capsys.readouterr().out
    assert json.loads((tmp_path / "bench.json").read_text()) == {"text_attack_speedup": 12.35}


def test_help_is_given_without_measuring_anything() -> None:
    program = """
import sys
from benchmarks.__main__ import app
app(["--help"], standalone_mode=False)
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "--out" in done.stdout and done.stdout.endswith("False\n") and not done.stderr


@pytest.mark.full
def test_a_text_attack_on_5000_captions_stays_within_256_mib() -> None:
    """The demo's model, default-sized chunks; measured 72 to 100 MiB for chunks 64 to 1,024."""
    grown = bench_memory((256,), (1250, 5000))
    by_captions = grown["by_captions_at_chunk_256"]
    assert by_captions["5000"] < 256
    # four times the captions, not four times the memory: what may grow is the kept embeddings
    assert by_captions["5000"] < 2 * by_captions["1250"] + 16
