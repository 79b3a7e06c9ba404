"""Models of transformers and diffusers are loaded whole, wherever they are loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from matlib.models.sentence_encoder import SentenceEncoder
from matlib.models.whole import load_pretrained, load_whole
from tests.models.test_masked_lm_kinds import SMALL, word_pieces


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(str(folder / "model.safetensors"))
    change(state)
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})


def llama(folder: Path) -> Path:
    LlamaForCausalLM(LlamaConfig(vocab_size=9, **SMALL)).save_pretrained(folder)
    return folder


def test_a_whole_model_is_loaded_and_a_part_of_one_refused(tmp_path: Path) -> None:
    folder, load = str(llama(tmp_path)), LlamaForCausalLM.from_pretrained
    assert load_whole(load, folder, "toy").config.vocab_size == 9
    changed(tmp_path, lambda state: state.pop("model.layers.1.self_attn.q_proj.weight"))
    with pytest.raises(ValueError, match=r"the toy at .* lacks weights.*layers\.1.*LlamaForCausal"):
        load_whole(load, folder, "toy")
    assert load_whole(load, folder, "toy", unread=r"q_proj") is not None


def test_what_is_left_over_is_named(tmp_path: Path) -> None:
    folder = str(llama(tmp_path))
    changed(tmp_path, lambda s: s.update({f"adapter.{i}": torch.zeros(1) for i in range(5)}))
    with pytest.raises(ValueError, match=r"adapter\.0, adapter\.1, adapter\.2 and 2 more"):
        load_whole(LlamaForCausalLM.from_pretrained, folder, "toy")


def test_missing_folders_and_damaged_files_say_what_to_do(tmp_path: Path) -> None:
    load = LlamaForCausalLM.from_pretrained
    with pytest.raises(FileNotFoundError, match=r"no toy at .*download it first"):
        load_pretrained(load, str(tmp_path / "nowhere"), "toy")
    (llama(tmp_path) / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"the toy in .* cannot be read"):
        load_whole(load, str(tmp_path), "toy")


def test_the_libraries_own_reports_are_back_afterwards(tmp_path: Path) -> None:
    before = transformers_logging.get_verbosity()
    load_whole(LlamaForCausalLM.from_pretrained, str(llama(tmp_path)), "toy")
    assert transformers_logging.get_verbosity() == before != logging.ERROR


def test_a_sentence_encoder_needs_no_head_and_every_layer(tmp_path: Path) -> None:
    n = len(word_pieces(tmp_path))
    # with a head for masked words and without a pooler, neither of which is read
    BertForMaskedLM(BertConfig(vocab_size=n, **SMALL)).save_pretrained(tmp_path)
    assert SentenceEncoder.load(tmp_path).encode_text(["a red star"]).shape == (1, 16)
    BertModel(BertConfig(vocab_size=n, **SMALL)).save_pretrained(tmp_path)
    changed(tmp_path, lambda state: state.pop("encoder.layer.0.output.dense.weight"))
    with pytest.raises(ValueError, match=r"the sentence encoder at .* lacks weights"):
        SentenceEncoder.load(tmp_path)
