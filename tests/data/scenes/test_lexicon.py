"""The lexicon meets the floors of the study, and typos can be read in one way only."""

import pytest

from matlib.scenes.lexicon import (
    CANONICAL_WORDS,
    CONCEPT_OF,
    FUNCTION_WORDS,
    LEXICON,
    SYNONYM_WORDS,
    VOCABULARY,
    decode,
    single_letter_edits,
    synonyms_of,
)
from matlib.scenes.typos import TYPO_RULES, typo_edits, typos_of

FLOORS = {"shape": 12, "colour": 10, "texture": 4, "size": 3, "relation": 6, "background": 5}


@pytest.mark.parametrize(("kind", "floor"), FLOORS.items())
def test_lexicon_has_as_many_concepts_as_the_study_asks(kind, floor):
    assert len(LEXICON[kind]) >= floor


def test_every_content_word_has_four_single_word_synonyms():
    for word in CONCEPT_OF:
        others = synonyms_of(word)
        assert len(others) >= 4
        assert all(other.isalpha() and other.islower() for other in others)
        assert {CONCEPT_OF[other] for other in others} == {CONCEPT_OF[word]}


def test_words_are_content_or_function_but_never_both():
    assert not FUNCTION_WORDS & set(CONCEPT_OF)
    assert CANONICAL_WORDS | SYNONYM_WORDS | FUNCTION_WORDS == VOCABULARY
    assert synonyms_of("the") == ()


def test_more_than_a_million_scenes_exist():
    per_object = 1
    for kind in ("shape", "colour", "texture", "size"):
        per_object *= len(LEXICON[kind])
    assert per_object**2 // 2 * len(LEXICON["background"]) >= 10**6


@pytest.mark.parametrize("rule", TYPO_RULES)
def test_typos_are_no_words_and_decode_to_their_word_alone(rule):
    for word in CONCEPT_OF:
        for typo in typos_of(word, rule)[::5]:
            assert typo not in VOCABULARY
            assert single_letter_edits(typo) & VOCABULARY == {word}


def test_every_content_word_has_typos_and_function_words_have_none():
    for word in CONCEPT_OF:
        assert sum(len(typos_of(word, rule)) for rule in TYPO_RULES) >= 5, word
    assert typos_of("there", "delete") == ()


def test_decode_equals_a_search_of_the_whole_vocabulary():
    for text in ["rde", "yelow", "starr", "sta", "blwe", "qqq", "", "x", "nigth", "cros", "hart"]:
        near = [w for w in VOCABULARY if text in single_letter_edits(w)]  # the long way round
        wanted = text if text in VOCABULARY else None
        if text not in VOCABULARY and len(near) == 1 and len(text) > 1:  # one letter says nothing
            wanted = near[0]
        assert decode(text) == wanted, text


def test_single_letter_edits_are_the_four_kinds():
    assert {"ab", "abcd", "bac", "acb", "xbc", "axc", "abx", "xabc"} <= single_letter_edits("abc")
    assert not {"abc", "cba", "a", "abcde"} & single_letter_edits("abc")


def test_typo_edits_touch_content_words_and_respect_a_held_out_rule():
    caption = "there is a red star left of a blue ring"
    words = caption.split(" ")
    kept = [rule for rule in TYPO_RULES if rule != "insert"]
    edits = typo_edits(caption, 5, 6, rules=kept)
    assert {position for position, _ in edits} == {3, 4, 5, 8, 9}
    assert all(len(typo) <= len(words[position]) for position, typo in edits)
    assert all(decode(typo) == words[position] for position, typo in edits)
    assert edits == typo_edits(caption, 5, 6, rules=kept) != typo_edits(caption, 6, 6, rules=kept)


def test_an_unknown_typo_rule_is_refused():
    with pytest.raises(ValueError, match="rule"):
        typo_edits("a red star", 0, 3, rules=("swap",))
