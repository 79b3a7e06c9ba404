from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, strategies as st
from open_clip.tokenizer import SimpleTokenizer

from matlib.models import tokens as clip_tokenizer
from matlib.models.tokens import ClipTokenizer

PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126)
LATIN = st.characters(min_codepoint=1, max_codepoint=0x17F)


@cache
def tokenizers() -> tuple[ClipTokenizer, SimpleTokenizer]:
    return ClipTokenizer(16), SimpleTokenizer(context_length=16)


@given(st.one_of(st.text(PRINTABLE, max_size=40), st.text(LATIN, max_size=40)))
def test_word_by_word_tokens_equal_open_clips_on_any_text(text: str) -> None:
    ours, theirs = tokenizers()
    assert ours.ids(text) == theirs.encode(text)


@pytest.mark.parametrize(
    "text", ["[UNK] dog", "don't", "a&amp;b &lt;x&gt;", "A  b\tc", "<end_of_text> a", "#1: x/y", ""]
)
def test_word_by_word_tokens_equal_open_clips_on_odd_strings(text: str) -> None:
    ours, theirs = tokenizers()
    assert ours.ids(text) == theirs.encode(text)
    assert torch.equal(ours([text, "red"])[0], theirs(text)[0, : ours([text, "red"]).shape[1]])


def test_remembered_words_stay_within_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_tokenizer, "_MOST_WORDS", 3)
    ours, theirs = ClipTokenizer(16), SimpleTokenizer(context_length=16)
    for text in ("a b c d e", "a f", "g h i a"):
        assert ours.ids(text) == theirs.encode(text)
    assert len(ours._words) <= 3
