from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Literal

import pytest
import torch

from matlib.attacks.edits import from_masked_lm
from matlib.models.masked_lm import MaskedLM, first_products, train_masked_lm
from matlib.models.masked_lm_training import MaskedLMConfig

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


def test_as_released_alignment_gives_the_preceding_tokens_predictions(masked_lm: MaskedLM) -> None:
    caption = "a red circle on the floor"
    ids = masked_lm.tokenizer(caption, return_tensors="pt")["input_ids"]  # [CLS] a red ...
    with torch.no_grad():
        order = masked_lm.model(ids).logits[0].argsort(1, descending=True).tolist()
    [words] = masked_lm.candidates([caption], k=3, alignment="as_released")
    for j, word in enumerate(caption.split(" ")):
        tokens = masked_lm.tokenizer.convert_ids_to_tokens(order[j])  # row 0 is [CLS]'s
        expected = [t for t in tokens[:8] if t.isalpha() and t != word][:3]
        assert words[j] == expected
    # so the shape is offered colours
    assert set(words[2]) <= set(COLOURS)


def test_k_may_count_the_predictions_before_they_are_filtered(masked_lm: MaskedLM) -> None:
    captions = ["a red circle on the floor"]
    [kept] = masked_lm.candidates(captions, k=4)
    [looked_at] = masked_lm.candidates(captions, k=4, k_counts="predicted")
    for many, few in zip(kept, looked_at, strict=True):
        assert few == many[: len(few)]
    assert any(len(few) < 4 for few in looked_at)  # the word itself is among the four


@pytest.mark.parametrize("alignment", ["correct", "as_released"])
def test_combinations_of_sub_tokens_are_found_as_released(
    masked_lm: MaskedLM, alignment: Literal["correct", "as_released"]
) -> None:
    captions = ["a redx circle", "starx on the bluex floor", "?!"]
    found = masked_lm.candidates(captions, 24, alignment=alignment, multi_token="as_released")
    tokenizer, model = masked_lm.tokenizer, masked_lm.model
    for caption, words in zip(captions, found, strict=True):
        encoded = tokenizer(caption.split(" "), is_split_into_words=True, return_tensors="pt")
        owners = encoded.word_ids(0)
        with torch.no_grad():
            logits = model(encoded["input_ids"]).logits[0]
        for j, word in enumerate(caption.split(" ")):
            positions = [p for p, own in enumerate(owners) if own == j]
            if len(positions) == 1:
                continue
            shift = 0 if alignment == "correct" else 1
            top = [logits[p - shift].topk(4).indices.tolist() for p in positions]
            every = list(product(*top))[:24]  # all combinations are built, then cut
            loss = []
            for row in every:
                with torch.no_grad():
                    own = model(torch.tensor([row])).logits[0]
                loss.append(float(torch.nn.functional.cross_entropy(own, torch.tensor(row))))
            expected = []
            for i in sorted(range(len(every)), key=lambda i: loss[i]):
                text = tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(every[i]))
                if text.isalpha() and text != word and text not in expected:
                    expected.append(text)
            assert [w for w in words[j] if "##" in w] == []
            assert words[j] == expected


def test_products_of_many_sub_tokens_are_never_built() -> None:
    top = [list(range(10 * i, 10 * i + 9)) for i in range(200)]
    rows = first_products(top)  # 4 ** 200 combinations, of which the first 24 are taken
    assert len(rows) == 24 and all(len(row) == 12 for row in rows)
    assert rows[0] == tuple(range(0, 120, 10)) and rows[1][-1] == 111
    assert {row[:9] for row in rows} == {tuple(range(0, 90, 10))}
    assert {row[9] for row in rows} == {90, 91}


def test_a_table_comes_straight_from_a_masked_lm(masked_lm: MaskedLM) -> None:
    [row] = from_masked_lm(["the red circle"], masked_lm, k=2)
    assert {edit.position for edit in row} == {1, 2}
    assert {edit.replacement for edit in row if edit.position == 1} <= set(COLOURS)


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
