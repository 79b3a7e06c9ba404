"""EDA, character noise and images of similar captions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from matlib.augmentations.images import similar_images
from matlib.augmentations.text import character_noise, eda
from tests.augmentations.pairs import CAPTIONS, toy_pairs
from tests.toys import generator

THESAURUS = {"red": ("crimson",), "dogs": ("hounds", "puppies"), "small": ("little",)}


def thesaurus(word: str) -> tuple[str, ...]:
    return THESAURUS.get(word, ())


@given(
    words=st.lists(st.sampled_from(["red", "dogs", "a", "sea"]), min_size=1, max_size=9),
    rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 50),
)
def test_each_variant_is_one_of_edas_operations(words: list[str], rate: float, seed: int) -> None:
    caption = " ".join(words)
    found = eda(toy_pairs([caption]), 2, generator(seed), synonyms=thesaurus, rate=rate)
    known = {*words, *(s for w in words for s in thesaurus(w))}
    n = max(1, int(rate * len(words)))
    for variant in found.captions[0][1:]:
        new = variant.split()
        assert new and set(new) <= known
        assert len(new) <= len(words) + n
        if rate == 0 or len(words) < 2:
            assert variant == caption


def test_eda_replaces_no_stop_word_and_needs_no_thesaurus() -> None:
    pairs = toy_pairs(["red red red red"])
    kept = eda(pairs, 30, generator(), synonyms=thesaurus, rate=0.5, stop_words={"red"})
    assert {word for caption in kept.captions[0] for word in caption.split()} == {"red"}
    swapped = eda(toy_pairs(), 4, generator(), synonyms=lambda _: (), rate=0.2)
    assert len(swapped) == len(CAPTIONS)
    with pytest.raises(ValueError, match=r"rate is a share in \[0, 1\]; got 2"):
        eda(toy_pairs(), 1, generator(), synonyms=thesaurus, rate=2)


def test_eda_finds_words_beside_marks_and_keeps_the_marks() -> None:
    pairs = toy_pairs(["small dogs."])
    found = eda(pairs, 40, generator(), synonyms=thesaurus, rate=0.5).captions[0][1:]
    replaced = {
        c for c in found if c.startswith("small ") and c.endswith(".") and len(c.split()) == 2
    }
    assert {"small hounds.", "small puppies."} <= replaced
    plain = eda(pairs, 40, generator(), synonyms=thesaurus, rate=0.5, stop_words={"dogs"})
    assert not any("hounds" in c or "puppies" in c for c in plain.captions[0])


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def test_character_noise_edits_the_share_of_words_by_one_letter_each() -> None:
    for rate, n in ((0.0, 0), (0.1, 1), (0.5, 4)):
        found = character_noise(toy_pairs(["some eight words stand in this one caption"]), 20,
                                generator(), rate=rate)  # fmt: skip
        for variant in found.captions[0][1:]:
            pairs = zip(found.captions[0][0].split(), variant.split(), strict=True)
            distances = [levenshtein(a, b) for a, b in pairs]
            assert sum(d > 0 for d in distances) == n
            assert all(d in (0, 1) or d == 2 for d in distances)  # an exchange is two edits


def test_words_of_one_letter_are_left_and_equal_seeds_give_equal_captions() -> None:
    assert character_noise(toy_pairs(["a b c"]), 2, generator()).captions[0] == ("a b c",) * 3
    one, other = (character_noise(toy_pairs(), 3, generator(4)).captions for _ in range(2))
    assert one == other


def test_images_of_nearly_the_same_captions_are_added_and_others_are_not() -> None:
    captions = ["a red kite over the sea", "a red kite over a sea", "two dogs sleep",
                "the red kite over the sea"]  # fmt: skip
    found = similar_images(toy_pairs(captions), 2)
    images = found.all_images()
    near = {tuple(images[0, r].flatten().tolist()) for r in (1, 2)}
    assert near == {tuple(images[i, 0].flatten().tolist()) for i in (1, 3)}
    assert torch.equal(images[2, 1], images[2, 0]) and torch.equal(images[2, 2], images[2, 0])
    with pytest.raises(ValueError, match="one caption per image"):
        similar_images(toy_pairs(captions, per_image=2), 1)
