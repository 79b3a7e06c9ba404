from __future__ import annotations

from pathlib import Path

import pytest
import torch

from matlib.models.masked_lm import MaskedLM, MaskedLMConfig, train_masked_lm

COLOURS = ["red", "blue", "green", "black"]
SHAPES = ["circle", "star", "square", "cross"]
CORPUS = [f"a {c} {s} on the floor" for c in COLOURS for s in SHAPES]
CONFIG = MaskedLMConfig(width=32, layers=1, heads=2, vocab_size=120, n_steps=120, batch_size=32,
                        lr=5e-3)  # fmt: skip


@pytest.fixture(scope="module")
def masked_lm() -> MaskedLM:
    return train_masked_lm(CORPUS, CONFIG, seed=0)


def test_candidates_belong_to_their_own_word(masked_lm: MaskedLM) -> None:
    # an index that ignores [CLS] would offer articles for colours and colours for shapes
    [words] = masked_lm.candidates(["a red circle on the floor"], k=3)
    assert set(words[1]) == set(COLOURS) - {"red"}
    assert set(words[2]) == set(SHAPES) - {"circle"}


def test_candidates_do_not_depend_on_the_batch(masked_lm: MaskedLM) -> None:
    captions = ["a red circle on the floor", "star", "the blue cross", ""]
    together = masked_lm.candidates(captions, k=3, batch_size=4)
    alone = [masked_lm.candidates([c], k=3, batch_size=1)[0] for c in captions]
    assert together == alone
    assert [len(words) for words in together] == [6, 1, 3, 1]


def test_a_word_of_several_tokens_is_replaced_as_a_whole(masked_lm: MaskedLM) -> None:
    [words] = masked_lm.candidates(["a crimsonish circle on the floor"], k=3)
    assert len(words) == 6
    assert set(words[1]) <= set(COLOURS)
    assert words[2] and set(words[2]) <= set(SHAPES)  # positions after it stay aligned


def test_any_caption_is_handled(masked_lm: MaskedLM) -> None:
    odd = ["", "圆 красный", "word " * 500, "?!", "a  double space"]
    found = masked_lm.candidates(odd, k=2)
    assert [len(words) for words in found] == [len(c.split(" ")) for c in odd]


def test_same_seed_same_model_and_it_survives_the_disk(masked_lm: MaskedLM, tmp_path: Path) -> None:
    again = train_masked_lm(CORPUS, CONFIG, seed=0)
    for a, b in zip(again.model.parameters(), masked_lm.model.parameters(), strict=True):
        assert torch.equal(a, b)
    masked_lm.save(tmp_path)
    loaded = MaskedLM.load(tmp_path)
    captions = ["the red star on a floor"]
    assert loaded.candidates(captions, k=4) == masked_lm.candidates(captions, k=4)


def test_vocabulary_smaller_than_its_tokenizer_is_refused(masked_lm: MaskedLM) -> None:
    masked_lm.tokenizer.add_tokens(["extra"])
    try:
        with pytest.raises(ValueError, match="do not belong together"):
            MaskedLM(masked_lm.model, masked_lm.tokenizer)
    finally:
        masked_lm.tokenizer.backend_tokenizer.no_truncation()


def test_missing_model_says_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="local folder"):
        MaskedLM.load(tmp_path / "nothing")


def test_empty_corpus_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one caption"):
        train_masked_lm([], CONFIG, seed=0)
