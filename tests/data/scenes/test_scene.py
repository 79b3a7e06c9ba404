"""Scenes: sampling, geometry, corruption."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from matlib.scenes.lexicon import LEXICON
from matlib.scenes.scene import (
    ATTRIBUTES,
    RELATION_NAMES,
    Scene,
    SceneObject,
    corrupt_scene,
    holds,
    sample_scenes,
    scene_arrays,
)

SCENES = sample_scenes(300, 0)


def test_same_seed_gives_the_same_scenes_in_every_process():
    assert sample_scenes(300, 0) == SCENES != sample_scenes(300, 1)
    digest = hashlib.sha256("".join(scene.key for scene in SCENES).encode()).hexdigest()
    assert digest[:12] == "311899b190c2"  # string hashing must not leak into the order of draws


def test_sampled_scenes_are_distinct_and_avoid_excluded_ones():
    contents = {scene.content for scene in SCENES}
    assert len(contents) == len(SCENES)
    # The same stream, with its first scenes forbidden, goes on without them.
    others = sample_scenes(50, 0, exclude={scene.content for scene in SCENES[:100]})
    assert not {scene.content for scene in others} & {scene.content for scene in SCENES[:100]}


def test_scenes_have_two_or_three_objects_that_do_not_overlap():
    assert {len(scene.objects) for scene in SCENES} == {2, 3}
    for scene in SCENES:
        for i, first in enumerate(scene.objects):
            assert first.radius <= first.x <= 1 - first.radius
            for second in scene.objects[:i]:
                distance = math.dist((first.x, first.y), (second.x, second.y))
                assert distance > first.radius + second.radius
                assert (first.shape, first.colour) != (second.shape, second.colour)


def test_every_value_and_relation_occurs():
    for kind in ATTRIBUTES:
        seen = {getattr(thing, kind) for scene in SCENES for thing in scene.objects}
        assert seen == set(LEXICON[kind])
    assert {scene.background for scene in SCENES} == set(LEXICON["background"])
    for relation in RELATION_NAMES:
        assert any(holds(relation, *scene.objects[:2]) for scene in SCENES)


def test_relations_are_unambiguous():
    for scene in SCENES:
        first, second = scene.objects[:2]
        for axis in ("x", "y"):
            gap = abs(getattr(first, axis) - getattr(second, axis))
            assert gap == 0 or gap > 10 / 64
        assert not (holds("near", first, second) and holds("far", first, second))
        assert holds("left", first, second) == holds("right", second, first)
        assert holds("above", first, second) == holds("below", second, first)


def test_arrays_agree_with_the_scenes():
    arrays = scene_arrays(SCENES)
    for s, scene in enumerate(SCENES):
        assert arrays.present[s].sum() == len(scene.objects)
        for i, first in enumerate(scene.objects):
            values = [
                list(LEXICON[k])[arrays.attributes[s, i, a]] for a, k in enumerate(ATTRIBUTES)
            ]
            assert values == [getattr(first, kind) for kind in ATTRIBUTES]
            for j, second in enumerate(scene.objects):
                wanted = [i != j and holds(name, first, second) for name in RELATION_NAMES]
                assert arrays.relations[s, i, j].tolist() == wanted
    assert not arrays.relations[~arrays.present].any()
    assert np.all(arrays.attributes[~arrays.present] == -1)


@given(st.integers(0, 10_000))
def test_corruption_at_zero_keeps_and_at_one_changes_every_attribute(seed):
    scene = SCENES[seed % len(SCENES)]
    assert corrupt_scene(scene, 0.0, seed) == scene
    wrong = corrupt_scene(scene, 1.0, seed)
    assert wrong.background != scene.background
    for old, new in zip(scene.objects, wrong.objects, strict=True):
        assert all(getattr(old, kind) != getattr(new, kind) for kind in ATTRIBUTES)


def test_corruption_rate_is_the_share_of_changed_attributes():
    changed = [
        getattr(old, kind) != getattr(new, kind)
        for seed, scene in enumerate(SCENES)
        for old, new in zip(scene.objects, corrupt_scene(scene, 0.3, seed).objects, strict=True)
        for kind in ATTRIBUTES[:3]
    ]
    assert 0.26 < np.mean(changed) < 0.34


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("blob", "red", "plain", "small"), "shape 'blob'"),
        (("star", "crimson", "plain", "small"), "colour 'crimson'"),
    ],
)
def test_scenes_refuse_words_that_are_not_canonical(arguments, message):
    with pytest.raises(ValueError, match=message):
        Scene((SceneObject(*arguments, 0.5, 0.5),), "sand")


def test_scenes_refuse_four_objects_and_unknown_backgrounds():
    thing = SceneObject("star", "red", "plain", "small", 0.5, 0.5)
    with pytest.raises(ValueError, match="1 to 3 objects"):
        Scene((thing,) * 4, "sand")
    with pytest.raises(ValueError, match="background 'beach'"):
        Scene((thing,), "beach")


def test_sampling_and_corruption_refuse_rates_outside_the_unit_interval():
    with pytest.raises(ValueError, match="three_rate"):
        sample_scenes(3, 0, three_rate=1.5)
    with pytest.raises(ValueError, match="probability"):
        corrupt_scene(SCENES[0], -0.1, 0)
