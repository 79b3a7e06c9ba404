"""Captions by generators: the real classes with tiny random weights, and the embedded stand-ins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
)

from matlib.attacks.pgd import PGD
from matlib.augmentations.generators import (
    BackTranslator,
    InstructRewriter,
    MissingExtraError,
    PretrainedCaptioner,
    Translator,
    captions_by,
    cleaned,
    write_variants,
)
from matlib.evaluation.captioning import caption_under_attack
from tests.augmentations.pairs import CAPTIONS, toy_pairs, without_weight
from tests.toys import generator

WORDS = sorted({word for caption in CAPTIONS for word in caption.split()})


def writer_of(answers: list[list[str]]) -> object:
    given = iter(answers)

    def write(rows: Sequence[int], n: int, generator: torch.Generator) -> list[list[str]]:
        return [next(given) for _ in rows]

    return write


def test_unusable_captions_are_counted_asked_for_again_and_left_out() -> None:
    pairs = toy_pairs(["one dog", "two cats"])
    first = [["a dog", " "], ["Two cats.", "two cats"]]  # an empty one; the original twice
    second = [["a DOG"], ["a pair of cats", ""]]  # a repeat; an empty one
    third = [["a hound"], ["a pair of cats"]]
    write = writer_of([*first, *second, *third])
    found, report = write_variants(pairs, 2, generator(), write, "toy")  # type: ignore[arg-type]
    assert found.captions == (("one dog", "a dog", "a hound"), ("two cats", "a pair of cats"))
    assert (report.n_asked, report.n_empty, report.n_identical, report.n_left_out) == (4, 2, 4, 1)


def test_a_writer_of_nothing_is_refused() -> None:
    write = writer_of([[""]] * 9)
    with pytest.raises(ValueError, match="wrote nothing usable for 1 pairs: 3 empty captions"):
        write_variants(toy_pairs(["one dog"]), 1, generator(), write, "toy")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    config = BlipConfig(
        text_config={**small, "encoder_hidden_size": 16, "vocab_size": len(vocabulary),
                     "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0},
        vision_config={**small, "image_size": 16, "patch_size": 8},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BlipForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    images = BlipImageProcessor(size={"height": 16, "width": 16})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def test_blip_writes_several_sampled_captions_of_each_image(blip: Path) -> None:
    captioner = replace(PretrainedCaptioner.load(str(blip), batch_size=3), max_new_tokens=5)
    pairs = toy_pairs()
    images = pairs.images.load(range(5))
    before = torch.get_rng_state()
    one, other = (captioner(images, 3, generator(1), temperature=1.0) for _ in range(2))
    assert one == other and [len(own) for own in one] == [3] * 5
    assert torch.equal(torch.get_rng_state(), before)
    assert len({caption for own in one for caption in own}) > 5  # sampled, not repeated
    likeliest = captioner(images, 2, generator(), temperature=0)
    assert all(own[0] == own[1] for own in likeliest)
    found, report = write_variants(
        pairs, 2, generator(), captions_by(captioner, pairs), "captioned"
    )
    assert report.n_asked == 10 and found.technique == "captioned"
    assert {w for own in found.captions for c in own[1:] for w in c.split()} <= {
        *WORDS,
        "[DEC]",
        "[ENC]",
    }


def test_half_a_captioner_is_refused(blip: Path, tmp_path: Path) -> None:
    lacking = "text_decoder.bert.encoder.layer.0.attention.self.query.weight"
    half = without_weight(blip, tmp_path / "half", "model.safetensors", lacking)
    with pytest.raises(ValueError, match=r"the captioner at .* drawn at random: text_decoder"):
        PretrainedCaptioner.load(str(half))


def word_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<unk>", "</s>", *WORDS])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )


def test_an_instruct_model_rewrites_under_its_chat_template(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}user {{ m['content'] }} answer{% endfor %}"
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
        pad_token_id=0, bos_token_id=2, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rewriter = replace(InstructRewriter.load(str(tmp_path), batch_size=3), max_new_tokens=6)
    asked = rewriter._asked("a dog")
    assert asked.startswith("user Say what") and "Caption: a dog" in asked
    one, other = (rewriter(CAPTIONS, 2, generator(1)) for _ in range(2))
    assert one == other and [len(own) for own in one] == [2] * len(CAPTIONS)
    found, _ = write_variants(toy_pairs(), 2, generator(), rewriter.writer(CAPTIONS), "rewritten")
    assert all(own[0] == c for own, c in zip(found.captions, CAPTIONS, strict=True))
    with pytest.raises(ValueError, match=r"holds \{caption\}"):
        InstructRewriter(rewriter.model, rewriter.tokenizer, prompt="say it again")


def test_answers_are_cleaned_of_what_chat_models_add() -> None:
    assert cleaned('\n "A dog runs."\nI kept every fact.') == "A dog runs."
    assert cleaned("- Caption: a dog") == cleaned("* a dog") == cleaned("caption: a dog") == "a dog"
    assert cleaned("2 dogs run") == "2 dogs run" and cleaned("2) 2 dogs run") == "2 dogs run"
    assert cleaned("1. two dogs") == "two dogs" and cleaned("  \n ") == ""


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import json

    folder = tmp_path_factory.mktemp("marian")
    text = folder / "text.txt"
    text.write_text("\n".join(CAPTIONS), encoding="utf-8")
    for name in ("source", "target"):
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(folder / name), vocab_size=40, minloglevel=9
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    names = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    names = [n for n in dict.fromkeys(["</s>", "<unk>", *names]) if n != "<s>"] + ["<pad>"]
    (folder / "vocab.json").write_text(json.dumps({n: i for i, n in enumerate(names)}))
    settings = {"model_type": "marian", "source_lang": "en", "target_lang": "xx"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = MarianConfig(
        vocab_size=len(names), d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, max_position_embeddings=64, pad_token_id=len(names) - 1,
        decoder_start_token_id=len(names) - 1, eos_token_id=0, forced_eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MarianMTModel(config).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:.*sacremoses.*")
def test_captions_go_there_and_back(marian: Path) -> None:
    one_way = Translator.load(str(marian))
    both = BackTranslator(one_way, one_way, batch_size=2, max_new_tokens=6)
    one, other = (both(CAPTIONS, 2, generator(1)) for _ in range(2))
    assert one == other and [len(own) for own in one] == [2] * len(CAPTIONS)
    assert len(both.writer(CAPTIONS)([0, 3], 1, generator())) == 2


def test_half_a_translator_is_refused(marian: Path, tmp_path: Path) -> None:
    lacking = "model.decoder.layers.0.fc1.weight"
    half = without_weight(marian, tmp_path / "half", "model.safetensors", lacking)
    with pytest.raises(ValueError, match=r"the translator at .* drawn at random: model\.decoder"):
        Translator.load(str(half))


def test_what_is_missing_is_said_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for load in (PretrainedCaptioner.load, InstructRewriter.load, Translator.load):
        with pytest.raises(FileNotFoundError, match="Pass a local folder with its safetensors"):
            load(str(tmp_path / "nowhere"))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(MissingExtraError, match=r"needs the package sentencepiece: pip install"):
        Translator.load("any")


def test_blip_can_be_attacked_through_the_loss_of_its_own_caption(blip: Path) -> None:
    captioner = PretrainedCaptioner.load(str(blip))
    with torch.no_grad():
        for weight in captioner.model.parameters():
            weight.mul_(8)  # drawn so small that nothing seen would show in the loss
    pixels = torch.rand(2, 3, 24, 24, generator=generator())
    texts = list(CAPTIONS[:2])
    tokens = captioner.processor.tokenizer(texts[0], return_tensors="pt")["input_ids"]
    tokens[:, 0] = captioner.model.config.text_config.bos_token_id
    shown = captioner._normalised(pixels[:1])
    logits = captioner.model(pixel_values=shown, input_ids=tokens).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, tokens[0, 1:])
    assert torch.allclose(captioner.loss(pixels, texts)[0], expected, atol=1e-5)
    found = caption_under_attack(captioner, pixels, PGD(8, 3))
    written = found.captions["clean"]
    assert written == captioner.describe(pixels)
    before, after = (captioner.loss(found.pixels[k], written) for k in ("clean", "caption-loss"))
    assert (after > before).all()


def test_blip_sees_pixels_as_its_processor_would_hand_them_over(blip: Path) -> None:
    captioner = PretrainedCaptioner.load(str(blip))
    side = captioner.model.config.vision_config.image_size
    image = torch.randint(0, 256, (1, 3, side, side), generator=generator(), dtype=torch.uint8)
    expected = captioner.processor(images=list(image), return_tensors="pt")["pixel_values"]
    assert torch.allclose(captioner._normalised(image.float() / 255), expected, atol=1e-5)
