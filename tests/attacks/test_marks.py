from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from matlib.attacks.attackable import RELEASED, apart, english_stop_words, in_place, marks, pieces
from matlib.attacks.edits import (
    MASK,
    Edit,
    apply_edit,
    check_table,
    content_words,
    free_edits,
    from_masked_lm,
    from_synonyms,
    from_table,
    masked_token,
    normalise_caption,
)
from matlib.attacks.word_order import order_by_gradient
from matlib.attacks.word_substitution import WordSubstitution
from tests.toys import tiny_encoder

ANY = st.text("ab é’'.,-!(\"7c\u0301狗❤\u200d", max_size=30)


def words_of(text: str) -> list[str]:
    return [piece.text for piece in pieces(text) if piece.is_word]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Three men, all in hats, play chess.", "Three men all in hats play chess"),
        ('"Dog!" (a cat) [sic] <person>', "Dog a cat sic person"),
        ("the boy’s and girl's boys' kites", "the boy and girl boys kites"),
        ("don't can’t isn't they're he'd I'll", "they he"),  # one letter beside others
        ("a well-dressed man and/or a red,blue dog...cat", "a well dressed man and or a red blue"
         " dog cat"),
        ("t-shirt U.S. rock'n'roll o'clock", "shirt rock roll clock"),
        ("2nd 3d T20 1980s 7 , - & ''", ""),
        ("n't 's x b", "x b"),
        ("café cafe\u0301, naïve! красный, 狗，猫", "café cafe\u0301 naïve красный 狗 猫"),
        ("dog❤\ufe0f ‘men’ “cats”", "dog men cats"),
        ("", ""),
    ],
)  # fmt: skip
def test_words_are_found_whatever_mark_they_touch(text: str, words: str) -> None:
    assert words_of(text) == words.split()


@given(ANY)
def test_pieces_are_the_whole_caption_and_a_word_is_replaced_in_its_place(text: str) -> None:
    split, found = text.split(" "), pieces(text)
    for position, token in enumerate(split):
        own = [piece for piece in found if piece.position == position]
        assert "".join(piece.text for piece in own) == token and own
        for piece in own:
            assert piece.before + piece.text + piece.after == token
            assert piece.replaced("new") == piece.before + "new" + piece.after
            if piece.is_word:
                assert piece.text[0].isalpha() and not any(c.isdigit() for c in piece.text)
    assert apart(text).split(" ") == [piece.text for piece in found]
    if all(token.isalpha() for token in split if token):
        assert apart(text) == text


def test_content_words_are_those_of_the_same_caption_without_marks() -> None:
    raw = 'A man, two dogs and a "big" (red) ball: they\'re running; all look happy!'
    stop = english_stop_words()
    clean = normalise_caption(raw).split(" ")
    found = [piece.text for piece in pieces(raw) if piece.is_word]
    kept = [w.lower() for w in found if w.lower() not in stop and w != "they"]
    assert kept == [w for w in clean if w not in stop and w != "theyre"]
    assert len(content_words(raw, stop)) == len(kept) == 8


class Spy:
    """Notes what it is asked and offers `cat` everywhere."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.how: dict[str, object] = {}

    def candidates(self, captions: list[str], k: int, **how: object) -> list[list[list[str]]]:
        self.asked, self.how = list(captions), how
        return [[["cat", "the", "two"][:k] for _ in c.split(" ")] for c in captions]


def test_a_masked_lm_is_asked_about_words_alone_and_marks_stay() -> None:
    lm = Spy()
    [row] = from_masked_lm(["the boy's (dog), well-dressed."], lm, k=1)
    assert lm.asked == ["the boy 's ( dog ), well - dressed ."] and lm.how == {}
    edited = [apply_edit("the boy's (dog), well-dressed.", edit) for edit in row]
    assert edited == [
        "the cat's (dog), well-dressed.",
        "the boy's (cat), well-dressed.",
        "the boy's (dog), well-cat.",
    ]  # "well" is a stop word


def test_released_candidates_are_of_whole_tokens_and_of_the_field_s_stop_words() -> None:
    lm = Spy()
    [row] = from_masked_lm(["two of the boy’s 7 top has"], lm, k=3, released=True)
    assert lm.asked == ["two of the boy’s 7 top has"] and lm.how["alignment"] == "as_released"
    assert {edit.position for edit in row} == {0, 3, 4, 5, 6}
    assert {edit.replacement for edit in row} == {"cat", "two"}


def test_the_field_s_list_of_stop_words() -> None:
    assert len(RELEASED) == 292 and {"a the", "some", "b", "·", "needn't", "hundred"} <= RELEASED
    alike, other = RELEASED & english_stop_words(), english_stop_words() - RELEASED
    assert {"two", "three", "front", "side", "top", "fire", "has", "each", "several"} <= other
    assert {"the", "of", "with", "yourself"} <= alike


def test_synonyms_reach_words_beside_marks_and_compounds() -> None:
    listed = {"chess": ["go"], "Boy": ["girl"], "well-dressed": ["chic"], "dressed": ["clad"]}
    captions = ["Play chess.", "the BOY’s kite", "a (well-dressed) man"]
    assert from_synonyms(captions, listed) == [
        [Edit(1, "go.")],
        [Edit(1, "girl’s")],
        [Edit(1, "(well-clad)"), Edit(1, "(chic)")],
    ]


@pytest.mark.parametrize("mark", ["\u200b", "\u00ad", "\u200e", "\ufeff", "\x00", "\u2028", "\t"])
def test_what_cannot_be_seen_in_a_caption_stays_and_does_not_stop_an_attack(mark: str) -> None:
    captions = [f"a dog{mark}house", f"a dog{mark}"]
    table = from_synonyms(captions, {"dog": ["cat"]})
    check_table(captions, table)
    assert [row[0].replacement for row in table] == [f"cat{mark}house", f"cat{mark}"]
    with pytest.raises(ValueError, match="caption 0, position 1: a replacement must be one word"):
        check_table(["a dog"], [[Edit(1, f"cat{mark}")]])
    with pytest.raises(ValueError, match="one word"):
        check_table(captions[1:], [[Edit(1, f"cat {mark}")]])


def test_given_replacements_keep_the_marks_unless_they_bring_their_own() -> None:
    caption = '"chess," boys\' dog'
    rows = [[(0, "go"), (0, '"go."'), (1, "girls"), (2, "cat.")]]
    [row] = from_table([caption], rows)
    assert [e.replacement for e in row] == ['"go,"', '"go."', "girls'", "cat."]
    assert from_table([caption], [row]) == [row]  # a stored table reads as it was
    [whole] = from_table([caption], rows, whole=True)
    assert [e.replacement for e in whole] == ["go", '"go."', "girls", "cat."]


@given(ANY, st.sampled_from(["go", "go.", "girl's", "(a)"]))
def test_a_replacement_put_in_place_twice_is_put_in_place_once(token: str, new: str) -> None:
    token = token.replace(" ", "") or "x"
    once = in_place(token, new)
    before, after = marks(token)
    assert once == new or once == before + new + after
    assert in_place(token, once) == once


def test_what_is_masked_is_what_the_edits_change() -> None:
    assert masked_token("chess.", ["go.", "cards."]) == MASK + "."
    assert masked_token("boy's", ["girl's"]) == MASK + "'s"
    assert masked_token("boy's", ["girl"]) == MASK
    assert masked_token("(well-dressed)", ["(well-clad)"]) == f"({MASK})"


def test_marks_change_neither_the_importance_nor_the_choice_of_a_word() -> None:
    """A model that reads marks apart has the same words of a caption with and without spaces."""
    encoder = tiny_encoder()
    glued, spaced = '"red circle, near (blue) star!', '" red circle , near ( blue ) star !'

    def attacked(caption: str, importance: str) -> str:
        words = [["green", "large", "cross"] if p.is_word else [] for p in pieces(caption)]
        table = free_edits([caption], [words], {"near"}, 3)
        attack = WordSubstitution(1, importance=importance)  # type: ignore[arg-type]
        target = encoder.encode_text(["large square"]).detach()
        [found] = attack(encoder, [caption], table, lambda f, _: f @ target[0])
        return " ".join(apart(found).split())

    for importance in ("masking", "gradient"):
        found = attacked(glued, importance)
        assert found == attacked(spaced, importance).replace(' ",', '",') != spaced
    score = encoder.encode_text(["large square"]).detach()[0]
    args = lambda f, _: f @ score  # noqa: E731
    glued_order = order_by_gradient(encoder, [glued], [[0, 1, 3, 4]], args, 8)
    spaced_order = order_by_gradient(encoder, [spaced], [[1, 2, 6, 8]], args, 8)
    assert glued_order == [[{1: 0, 2: 1, 6: 3, 8: 4}[p] for p in spaced_order[0]]]


def test_an_exhaustive_search_ends_where_no_word_is_left_to_change() -> None:
    encoder, words = tiny_encoder(), WordSubstitution(3, search="exhaustive")
    target = encoder.encode_text(["large square"]).detach()[0]
    captions = ["dog!", "red star"]
    for n in (1, 2):
        table = [[Edit(0, "circle!")], [Edit(0, "blue")]][:n]
        found = words(encoder, captions[:n], table, lambda f, _: f @ target)
        assert len(found) == n and found[0] in ("dog!", "circle!")
    assert torch.equal(encoder.encode_text(["dog!"]), encoder.encode_text(["dog !"]))
