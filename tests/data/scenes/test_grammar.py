"""Captions: forms, dials, and that they say what is true and enough of it."""

import hashlib
from collections import Counter

import pytest
import torch

from matlib.scenes.grammar import FAMILIES, TEMPLATES, Dials, restate, write_captions
from matlib.scenes.lexicon import (
    CONCEPT_OF,
    FUNCTION_WORDS,
    LEXICON,
    SYNONYM_WORDS,
    VOCABULARY,
    synonyms_of,
)
from matlib.scenes.scene import sample_scenes
from matlib.scenes.truth import SceneIndex, describes, read

SCENES = sample_scenes(400, 11)
LIVELY = Dials(synonym_rate=0.4, typo_rate=0.3)


def _flat(written):
    return [caption for captions in written for caption in captions]


def test_there_are_forty_different_templates():
    assert len({template.text for template in TEMPLATES}) == len(TEMPLATES) >= 40


@pytest.mark.parametrize("dials", [Dials(), LIVELY, Dials(omit_rate=1.0), Dials(omit_rate=0.0)])
def test_every_caption_describes_its_scene(dials):
    for scene, captions in zip(SCENES, write_captions(SCENES, 1, 4, dials=dials), strict=True):
        for caption in captions:
            assert describes(caption, scene), (caption, scene)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.text)
def test_every_template_is_read_with_all_its_facts(template, monkeypatch):
    monkeypatch.setattr("matlib.scenes.grammar.TEMPLATES", (template,))
    threes = [scene for scene in SCENES if len(scene.objects) == 3][:15]
    dials = Dials(families=(template.family, "plain"), omit_rate=0.0)
    for scene, (caption,) in zip(threes, write_captions(threes, 2, 1, dials=dials), strict=True):
        reading = read(caption)
        assert describes(caption, scene), caption
        assert len(reading.mentions) == template.n_mentions
        assert len(reading.relations) == template.has_relation + template.has_second_relation
        assert len(reading.backgrounds) == template.has_background


def _wrong_values(word):
    concept = CONCEPT_OF[word]
    return [value for value in LEXICON[concept.kind] if value != concept.value]


def test_a_caption_with_one_wrong_attribute_describes_its_scene_no_more():
    checked = 0
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    opposite |= {"near": "far", "far": "near"}
    for scene, (caption,) in zip(SCENES, write_captions(SCENES, 3), strict=True):
        words = caption.split(" ")
        for position, word in enumerate(words):
            if word not in CONCEPT_OF:
                continue
            kind = CONCEPT_OF[word].kind
            wrong = _wrong_values(word)[0]
            if kind == "relation":
                if word in ("near", "far"):
                    continue  # these need other function words, not another word alone
                wrong = opposite[word]
            elif kind != "background" and wrong in {getattr(o, kind) for o in scene.objects}:
                continue  # could become true of another object
            edited = " ".join([*words[:position], wrong, *words[position + 1 :]])
            assert not describes(edited, scene), (caption, edited)
            checked += 1
    assert checked > 1500


def test_swapping_a_word_for_its_synonym_keeps_the_caption_true():
    for scene, (caption,) in zip(SCENES[:150], write_captions(SCENES[:150], 4), strict=True):
        words = caption.split(" ")
        for position, word in enumerate(words):
            for other in synonyms_of(word):
                assert describes(
                    " ".join([*words[:position], other, *words[position + 1 :]]), scene
                )


def test_captions_are_plain_lower_case_words_of_the_lexicon():
    captions = _flat(write_captions(SCENES, 5, 3))
    lengths = [len(caption.split(" ")) for caption in captions]
    assert set(" ".join(captions).split(" ")) <= VOCABULARY - SYNONYM_WORDS
    assert 9 < sum(lengths) / len(lengths) < 15
    assert max(lengths) <= 26
    for caption in captions:
        for word, following in zip(caption.split(" "), caption.split(" ")[1:], strict=False):
            if word in ("a", "an"):
                assert (word == "an") == (following[0] in "aeio")


def test_captions_of_a_scene_differ_from_each_other():
    for captions in write_captions(SCENES, 6, 8):
        assert len(set(captions)) == 8


def test_same_generator_gives_the_same_captions_in_every_process():
    generator = torch.Generator().manual_seed(8)
    first = write_captions(SCENES, generator, 2, dials=LIVELY)
    assert write_captions(SCENES, generator, 2, dials=LIVELY) != first
    assert write_captions(SCENES, torch.Generator().manual_seed(8), 2, dials=LIVELY) == first
    digest = hashlib.sha256("\n".join(_flat(first)).encode()).hexdigest()
    assert digest[:12] == "04eb6111ea35"


def test_rates_are_met():
    captions = _flat(write_captions(SCENES, 9, 10, synonym_rate=0.3, typo_rate=0.25))
    words = [word for caption in captions for word in caption.split(" ")]
    content = [word for word in words if word in CONCEPT_OF]
    typos = [any(word not in VOCABULARY for word in c.split(" ")) for c in captions]
    assert abs(sum(word in SYNONYM_WORDS for word in content) / len(content) - 0.3) < 0.02
    assert abs(sum(typos) / len(captions) - 0.25) < 0.02


def test_synonyms_at_four_fifths_make_all_words_of_a_concept_equally_likely():
    captions = _flat(write_captions(SCENES, 10, 20, synonym_rate=0.8))
    counts = Counter(word for caption in captions for word in caption.split(" "))
    for word in LEXICON["size"]:
        family = [counts[word], *(counts[other] for other in synonyms_of(word))]
        assert max(family) < 1.4 * min(family)


def test_a_higher_floor_of_information_leaves_fewer_confusions():
    gallery = sample_scenes(300, 12)
    index = SceneIndex(gallery)

    def n_described(min_bits):
        captions = _flat(write_captions(gallery, 13, 3, omit_rate=1.0, min_bits=min_bits))
        return sum(int(index.matches(caption).sum()) for caption in captions)

    assert n_described(4.0) > 1.2 * n_described(13.0) > 1.2 * n_described(16.0) >= 1.2 * 900


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "three"])
def test_a_family_of_templates_can_be_used_alone(family):
    for captions in write_captions(SCENES[:40], 14, 2, families=(family,)):
        assert all(read(caption) is not None for caption in captions)


@pytest.mark.parametrize(
    "rates",
    [
        {"synonym_rate": 1.2},
        {"typo_rate": -0.1},
        {"families": ("three",)},
        {"families": ("rhymes",)},
        {"typo_rules": ()},
    ],
)
def test_impossible_dials_are_refused(rates):
    with pytest.raises(ValueError, match=next(iter(rates))):
        write_captions(SCENES[:1], 0, **rates)


def test_asking_for_no_captions_is_refused():
    with pytest.raises(ValueError, match="n_per_scene"):
        write_captions(SCENES[:1], 0, 0)


def test_restated_captions_say_the_same_and_no_more():
    index = SceneIndex(sample_scenes(3000, 15))
    for captions in write_captions(SCENES[:120], 16, synonym_rate=0.2):
        original = read(captions[0])
        told = restate(original, 17, 4)
        assert len(set(told)) == len(told) >= 2
        for caption in told:
            assert read(caption).n_facts == original.n_facts
            assert index.mask(read(caption)) == index.mask(original) or _same_up_to_order(
                read(caption), original
            )


def _same_up_to_order(first, second):
    return sorted(map(sorted, first.mentions)) == sorted(map(sorted, second.mentions))


def test_restating_a_contradiction_is_refused():
    with pytest.raises(ValueError, match="no template"):
        restate(read("a red blue star and a ring"), 0, 2)


def test_function_words_are_those_that_state_nothing():
    captions = _flat(write_captions(SCENES, 18, 2))
    used = set(" ".join(captions).split(" "))
    assert used - set(CONCEPT_OF) <= FUNCTION_WORDS
