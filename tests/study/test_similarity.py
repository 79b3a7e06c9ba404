"""Similarity of attacked captions, under a tiny encoder of the real kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from matlib.models.sentence_encoder import SentenceEncoder
from matlib.study.made.examples import edit_similarity
from matlib.study.study import Study


@pytest.fixture(scope="module")
def folder(base_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with the tokenizer of the study's masked LM."""
    torch.manual_seed(0)
    tokenizer = base_study.masked_lm().tokenizer
    shape = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=16,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("encoder")
    BertModel(shape).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _with(study: Study, encoder: str) -> Study:
    evaluation = study.profile.evaluation.model_copy(update={"sentence_encoder": encoder})
    profile = study.profile.model_copy(update={"evaluation": evaluation})
    return Study(profile, study.root.parent)


def test_sentence_is_the_mean_of_its_own_tokens_whatever_stands_beside_it(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    texts = ["a red star", "a small blue circle left of a large green square"]
    together = encoder.encode_text(texts)
    for text, row in zip(texts, together, strict=True):
        tokens = encoder.tokenizer([text], return_tensors="pt", truncation=True, max_length=16)
        with torch.no_grad():
            mean = encoder.model(**tokens).last_hidden_state[0].mean(0)
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=0)


def test_long_sentences_are_cut_and_no_sentence_is_refused(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    assert encoder.encode_text(["star " * 500]).shape == (1, 16)
    with pytest.raises(ValueError, match="no sentence"):
        encoder.encode_text([])


def test_missing_encoder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"leave evaluation\.sentence_encoder empty"):
        SentenceEncoder.load(tmp_path / "nowhere")


def test_a_profile_without_encoder_has_no_table(base_study: Study) -> None:
    assert edit_similarity(base_study, "base") is None


def test_table_is_the_naive_mean_over_the_successes(base_study: Study, folder: Path) -> None:
    study = _with(base_study, str(folder))
    table = edit_similarity(study, "base")
    assert table is not None
    assert list(table["text_threat"]) == list(study.profile.evaluation.threats)
    evaluated, clean = study.evaluated("base"), study.pairs("test").captions
    assert (
        evaluated.hash == base_study.evaluated("base").hash
    )  # the encoder is no part of the attack
    encoder = SentenceEncoder.load(folder)
    for row in table.itertuples():
        before = evaluated.outcomes["clean", ""].hits("IR", 1)
        after = evaluated.outcomes["bert", row.text_threat].hits("IR", 1)
        lost = (before & ~after).nonzero().flatten().tolist()
        assert row.n == len(lost)
        if lost:
            texts = evaluated.captions["bert", row.text_threat]
            cosines = [
                float(encoder.encode_text([clean[i]])[0] @ encoder.encode_text([texts[i]])[0])
                for i in lost
            ]
            assert row.mean == pytest.approx(sum(cosines) / len(cosines), abs=1e-5)
            assert row.low <= row.mean <= row.high
