"""Masked LMs of several kinds: each read by its own marks, and none that lacks a part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertModel,
    ElectraConfig,
    ElectraForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    RobertaTokenizerFast,
)

from matlib.cli import main
from matlib.models.masked_lm import MaskedLM, Pieces, longest_input
from tests.commands.toy_data import make_toy

WORDS = ["a", "red", "blue", "green", "circle", "star", "café", "on", "floor"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CAPTION = "red circle on a redstar floor"
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 16}  # fmt: skip
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 16}


def word_pieces(folder: Path) -> list[str]:
    pieces = [*WORDS, *(set(LETTERS) - {"a"}), *(f"##{letter}" for letter in LETTERS), "##star"]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(pieces)]
    BertTokenizerFast(vocab={piece: i for i, piece in enumerate(vocab)}).save_pretrained(folder)
    return vocab


def byte_pairs(folder: Path) -> list[str]:
    """RoBERTa's tokenizer as it is published: the first word of a text has no mark."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    learnt.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, show_progress=False,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), min_frequency=1,
    )  # fmt: skip
    learnt.train_from_iterator([" ".join(WORDS)] * 9, trainer)
    model = json.loads(learnt.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = RobertaTokenizerFast(vocab=model["vocab"], merges=merges)
    tokenizer.save_pretrained(folder)
    return [str(t) for t in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]


def saved(kind: str, folder: Path, *, head: bool = True) -> Path:
    """A model with random weights and its tokenizer, as transformers saves them."""
    tokens = (byte_pairs if kind == "roberta" else word_pieces)(folder)
    n = len(tokens)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "roberta":
            config: Any = RobertaConfig(vocab_size=n, max_position_embeddings=34, **SMALL)
            model: Any = (RobertaForMaskedLM if head else RobertaModel)(config)
        elif kind == "distilbert":
            config = DistilBertConfig(vocab_size=n, max_position_embeddings=32, **DISTIL)
            model = (DistilBertForMaskedLM if head else DistilBertModel)(config)
        else:
            config = BertConfig(vocab_size=n, max_position_embeddings=32, **SMALL)
            model = (BertForMaskedLM if head else BertModel)(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    if kind == "roberta" and head:  # of 400 pieces few are words: these are likelier
        words = [i for i in range(n) if tokens[i].startswith("Ġ")]
        model.lm_head.bias.data[words] += 5
    model.save_pretrained(folder)
    return folder


def naive_word(lm: MaskedLM, kind: str, i: int) -> str:
    token, text = str(lm.tokenizer.convert_ids_to_tokens(i)), lm.tokenizer.decode([i]).strip()
    begins = token.startswith("Ġ") if kind == "roberta" else not token.startswith("##")
    return text if begins and text.isalpha() else ""


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_candidates_are_the_heads_own_whole_words(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path)
    k = 5
    lm = MaskedLM.load(tmp_path)
    [found] = lm.candidates([CAPTION], k)
    assert [found] == MaskedLM.load(tmp_path).candidates([CAPTION], k)  # nothing is drawn
    for j, word in enumerate(CAPTION.split(" ")):
        words = CAPTION.split(" ")
        several = len(lm.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) > 1
        if several:
            words[j] = lm.tokenizer.mask_token
        encoded = lm.tokenizer(words, is_split_into_words=True, return_tensors="pt")
        place = encoded.word_ids(0).index(j)
        with torch.no_grad():
            order = lm.model(encoded["input_ids"]).logits[0, place].argsort(descending=True)
        expected = [naive_word(lm, kind, int(i)) for i in order[: 2 * k + 2]]
        assert found[j] == [w for w in expected if w and w != word][:k]
    assert any(found)


def test_byte_pairs_make_words_only_from_their_first_piece_on(tmp_path: Path) -> None:
    saved("roberta", tmp_path)
    lm = MaskedLM.load(tmp_path)
    pieces, ids = Pieces(lm.tokenizer), lm.tokenizer.convert_tokens_to_ids
    assert pieces.word(ids(["Ġred"])) == "red"
    assert pieces.word(ids(["r"])) == "" and pieces.word(ids(["Ġred", "Ġstar"])) == ""
    assert pieces.word(ids(["Ġred", "s"])) == "reds"
    cafe = lm.tokenizer(" café", add_special_tokens=False)["input_ids"]
    assert pieces.word(cafe) == "café"
    released = {"alignment": "as_released", "multi_token": "as_released", "k_counts": "predicted"}
    [words] = lm.candidates([CAPTION], 4, **released)  # type: ignore[arg-type]
    assert len(words) == 6 and all(w.isalpha() for row in words for w in row)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_a_model_without_its_head_is_refused(kind: str, tmp_path: Path) -> None:
    saved(kind, tmp_path, head=False)
    with pytest.raises(ValueError, match=r"lacks weights, .* drawn at random: .*save_pretrained"):
        MaskedLM.load(tmp_path)


def test_the_command_line_refuses_half_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy, lm = make_toy(tmp_path / "toy"), saved("bert", tmp_path / "lm", head=False)
    asked = ["attack", "--model", "small", "--pretrained", str(toy.weights), "--attack", "bert",
             "--images", str(toy.images), "--captions", str(toy.captions),
             "--out", str(tmp_path / "out"), "--masked-lm", str(lm)]  # fmt: skip
    assert main(asked) != 0
    assert "drawn at random" in capsys.readouterr().err


def test_weights_that_the_model_has_no_place_for_are_refused(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(ValueError, match=r"no place for: bert\.encoder\.layer\.1\."):
        MaskedLM.load(tmp_path)


def test_heads_for_other_questions_may_stand_beside_the_words(tmp_path: Path) -> None:
    n = len(word_pieces(tmp_path))
    BertForPreTraining(BertConfig(vocab_size=n, **SMALL)).save_pretrained(tmp_path)
    assert MaskedLM.load(tmp_path).candidates(["a red star"], 2)


def test_another_kind_of_model_is_refused_with_those_that_are_read(tmp_path: Path) -> None:
    n = len(word_pieces(tmp_path))
    shape = ElectraConfig(vocab_size=n, embedding_size=16, **SMALL)
    ElectraForMaskedLM(shape).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"of the kind electra; .* bert, distilbert, roberta"):
        MaskedLM.load(tmp_path)


def test_damaged_files_are_said_in_one_sentence(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"masked language model in .* cannot be read .*again"):
        MaskedLM.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises((ValueError, OSError), match="masked language model"):
        MaskedLM.load(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    state = load_file(str(tmp_path / "model.safetensors"))
    state["bert.embeddings.word_embeddings.weight"] = torch.zeros(7, 16)
    save_file(state, str(tmp_path / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(ValueError, match="masked language model"):
        MaskedLM.load(tmp_path)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("conventions", ["mask", "as_released"])
def test_an_overlong_word_leaves_its_places_empty(
    kind: str, conventions: Any, tmp_path: Path
) -> None:
    lm = MaskedLM.load(saved(kind, tmp_path))
    assert lm.max_tokens == 32  # where the positions end, less those of RoBERTa's padding
    long = ["z" * 90, "z" * 2000, "a " + "z" * 90 + " red", "a " * 29 + "zz a"]
    odd = [*long, "[MASK] zz", "<mask>"]
    for captions in (odd, *([caption] for caption in odd)):
        found = lm.candidates(captions, 3, multi_token=conventions, alignment="as_released")
        assert [len(words) for words in found] == [len(c.split(" ")) for c in captions]
    [words] = lm.candidates(["a " + "z" * 90 + " red"], 3)
    assert words[2] == []


def test_a_word_of_several_pieces_is_masked_where_it_stands(tmp_path: Path) -> None:
    # a mask that the caption itself holds is another place
    lm = MaskedLM.load(saved("bert", tmp_path))
    masked = ["[MASK]", "a", "[MASK]", "on"]
    encoded = lm.tokenizer(masked, is_split_into_words=True, return_tensors="pt")
    place = encoded.word_ids(0).index(2)
    with torch.no_grad():
        order = lm.model(encoded["input_ids"]).logits[0, place].argsort(descending=True)[:8]
    expected = [w for w in lm.tokenizer.convert_ids_to_tokens(order) if w.isalpha()]
    [words] = lm.candidates(["[MASK] a redstar on"], 3)
    assert words[2] == expected[:3]


def test_other_marks_of_words_are_refused() -> None:
    plain = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(ValueError, match="whole words cannot be told from parts"):
        Pieces(PreTrainedTokenizerFast(tokenizer_object=plain))


def test_positions_for_padding_are_no_places(tmp_path: Path) -> None:
    lm = MaskedLM.load(saved("roberta", tmp_path))
    lm.tokenizer.model_max_length = 10**30
    assert longest_input(lm.model, lm.tokenizer) == 32
