"""Truth of captions against hand-made judgements and naive loops."""

import pytest
import torch

from matlib.scenes.grammar import Dials, write_captions
from matlib.scenes.lexicon import LEXICON
from matlib.scenes.scene import sample_scenes
from matlib.scenes.truth import TruthChecker, aligned_fraction, ceiling, describes, relevance
from tests.data.scenes.handwritten import JUDGED, SCENES

GALLERY = sample_scenes(300, 21)
WRITTEN = write_captions(GALLERY, 22, 5)
CAPTIONS = [caption for captions in WRITTEN for caption in captions]
IMAGE_OF = torch.arange(300).repeat_interleave(5)


def test_at_least_two_hundred_captions_are_judged_by_hand():
    assert len({(judged.scene, judged.caption) for judged in JUDGED}) >= 200
    assert sum(judged.is_true for judged in JUDGED) >= 80
    assert sum(not judged.is_true for judged in JUDGED) >= 80


@pytest.mark.parametrize("judged", JUDGED, ids=lambda j: f"{j.scene}: {j.caption}")
def test_describes_agrees_with_the_judgement_by_hand(judged):
    assert describes(judged.caption, SCENES[judged.scene]) == judged.is_true


@pytest.mark.parametrize("judged", JUDGED, ids=lambda j: f"{j.scene}: {j.caption}")
def test_true_captions_are_wholly_aligned_and_index_agrees_with_describes(judged):
    scene = SCENES[judged.scene]
    fraction = aligned_fraction(judged.caption, scene)
    assert 0.0 <= fraction <= 1.0
    if judged.is_true and judged.caption.count("object") < 2:
        assert fraction == 1.0
    checker = TruthChecker(list(SCENES.values()))
    own = list(SCENES).index(judged.scene)
    assert (own in checker.described(judged.caption)) == judged.is_true


@pytest.mark.parametrize(
    ("caption", "fraction"),
    [
        ("a small red striped star left of a large blue ring on sand", 1.0),
        ("a small red striped star left of a large blue ring on grass", 8 / 9),
        ("a small red striped star right of a large blue ring on sand", 8 / 9),
        ("a small blue striped star left of a large red ring on sand", 7 / 9),
        ("a green dotted heart", 0.0),
        ("a green star and a yellow ring", 0.5),
        ("a star and a ring and a heart", 2 / 3),
        ("star red a of left ring blue sand", 4 / 5),
        ("red star blue", 1.0),
        ("the of and", 0.0),
        ("", 0.0),
        ("自転車 と 犬", 0.0),
    ],
)
def test_aligned_fraction_is_the_share_of_facts_that_hold(caption, fraction):
    assert aligned_fraction(caption, SCENES["pair"]) == pytest.approx(fraction)


@pytest.mark.parametrize("caption", ["", " ", "star", "a " * 500, "собака", "a\tred star"])
def test_odd_captions_are_handled_and_not_true_by_accident(caption):
    truth = describes(caption, SCENES["pair"])
    assert truth == (caption.split() in (["star"], ["a", "red", "star"]))


def test_relevance_equals_the_naive_loop():
    scenes = GALLERY[:40] + list(SCENES.values())
    captions = CAPTIONS[:60] + [judged.caption for judged in JUDGED[::4]]
    captions += [c for own in write_captions(scenes, 23, 2, omit_rate=1.0, min_bits=1) for c in own]
    captions += [f"a {colour} shape and an object" for colour in LEXICON["colour"]]
    naive = [[describes(caption, scene) for caption in captions] for scene in scenes]
    fast = relevance(scenes, captions)
    assert fast.dtype == torch.bool
    assert (fast.sum(0) > 1).sum() > 10  # short captions are true of several scenes
    assert torch.equal(fast, torch.tensor(naive))


def test_a_perfect_model_reaches_the_ceiling_of_95_percent():
    relevant = relevance(GALLERY, CAPTIONS)
    assert bool(relevant[IMAGE_OF, torch.arange(len(CAPTIONS))].all())
    assert min(ceiling(relevant, IMAGE_OF)) >= 0.95
    assert (relevant.sum(0) > 1).float().mean() < 0.05


def test_ceiling_counts_ties_at_random():
    relevant = torch.tensor([[True, True, False], [False, True, True]])
    text, image = ceiling(relevant, torch.tensor([0, 0, 1]))
    assert text == pytest.approx((1 + 1 / 2) / 2)
    assert image == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_valid_edits_are_true_of_their_scene_and_of_no_further_one():
    checker = TruthChecker(GALLERY)
    edited_words = ("azure", "crimson", "star", "and", "over", "small", "a", "sand", "the")
    n_valid = 0
    for m in range(0, 300, 3):
        own = int(IMAGE_OF[m])
        before = {s for s, scene in enumerate(GALLERY) if describes(CAPTIONS[m], scene)}
        assert checker.described(CAPTIONS[m]) == before
        words = CAPTIONS[m].split(" ")
        for position, new in enumerate(edited_words[: len(words)]):
            edited = " ".join([*words[:position], new, *words[position + 1 :]])
            after = {s for s, scene in enumerate(GALLERY) if describes(edited, scene)}
            wanted = own in after and after <= before | {own}
            assert checker.is_valid_edit(edited, own, before) == wanted
            n_valid += wanted
    assert n_valid > 10


def test_an_edit_that_says_too_little_is_invalid():
    checker = TruthChecker(GALLERY)
    assert not checker.is_valid_edit("a shape and a shape", 0)
    everything = checker.described("a shape and a shape")
    assert checker.is_valid_edit("a shape and a shape", 0, everything)


def test_typos_by_the_grammar_keep_the_truth():
    dials = Dials(typo_rate=1.0)
    for scene, captions in zip(GALLERY, write_captions(GALLERY, 24, 2, dials=dials), strict=True):
        assert all(describes(caption, scene) for caption in captions)
