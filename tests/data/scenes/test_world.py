"""The world of a seed: splits, base corpus, one-to-many relation, export."""

from collections import Counter

import pytest
import torch

from matlib.data.karpathy import read_karpathy
from matlib.scenes.lexicon import CONCEPT_OF, SYNONYM_WORDS, VOCABULARY
from matlib.scenes.renderer import Style
from matlib.scenes.truth import describes, relevance
from matlib.scenes.typos import TYPO_RULES
from matlib.scenes.world import World

WORLD = World(3, image_size=32, n_train=40, n_val=20, n_test=30, captions_per_image=3)


def _words(captions):
    return {word for caption in captions for word in caption.split(" ")}


def test_same_seed_gives_the_same_world_and_another_seed_another():
    again = World(3, image_size=32, n_train=40, n_val=20, n_test=30, captions_per_image=3)
    other = World(4, image_size=32, n_train=40, n_val=20, n_test=30, captions_per_image=3)
    for name in ("train", "val", "test"):
        first, second = WORLD.split(name).pairs, again.split(name).pairs
        assert first.captions == second.captions != other.split(name).pairs.captions
        assert first.image_ids == second.image_ids
        assert torch.equal(first.images.data, second.images.data)


def test_a_larger_training_set_leaves_evaluation_alone():
    larger = World(3, image_size=32, n_train=90, n_val=20, n_test=30, captions_per_image=3)
    assert larger.test.pairs.captions == WORLD.test.pairs.captions
    assert larger.val.scenes == WORLD.val.scenes


def test_splits_have_their_sizes_and_share_no_scene():
    assert [len(WORLD.split(n).pairs) for n in ("train", "val", "test")] == [40, 20, 30]
    assert [WORLD.split(n).pairs.n_captions for n in ("train", "val", "test")] == [40, 60, 90]
    scenes = [s for n in ("train", "val", "test") for s in WORLD.split(n).scenes]
    assert len({scene.content for scene in scenes}) == 90
    base = WORLD.base_pairs(200, captions=1)
    assert not {key.split("-")[0] for key in base.image_ids} & {scene.key for scene in scenes}


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_relevance_of_a_split_is_the_truth(name):
    split = WORLD.split(name)
    assert torch.equal(split.pairs.relevant, relevance(split.scenes, split.pairs.captions))
    for caption, image in zip(split.pairs.captions, split.pairs.image_of.tolist(), strict=True):
        assert describes(caption, split.scenes[image])


def test_fine_tuning_and_evaluation_use_canonical_words_without_typos():
    for name in ("train", "val", "test"):
        assert _words(WORLD.split(name).pairs.captions) <= VOCABULARY - SYNONYM_WORDS


def test_base_corpus_has_rare_synonyms_all_of_them_and_some_typos():
    base = WORLD.base_pairs(2000, captions=5)
    words = [word for caption in base.captions for word in caption.split(" ")]
    counts = Counter(words)
    n_content = sum(counts[word] for word in CONCEPT_OF)
    share = sum(counts[word] for word in SYNONYM_WORDS) / n_content
    typos = [any(w not in VOCABULARY for w in c.split(" ")) for c in base.captions]
    assert min(counts[word] for word in SYNONYM_WORDS) >= 3
    assert 0.002 < share < 0.01
    assert 0.01 < sum(typos) / len(typos) < 0.02
    assert base.relevant is None


def test_base_pairs_are_one_to_many_and_true():
    base = WORLD.base_pairs(20, captions=3, renderings=2, relevant=True)
    assert len(base) == 40
    assert base.n_captions == 120
    assert bool(base.relevant[base.image_of, torch.arange(120)].all())
    assert not torch.equal(base.images.data[0], base.images.data[1])
    assert base.image_ids[0].split("-")[0] == base.image_ids[1].split("-")[0]


def test_a_typo_rule_held_out_does_not_occur_in_base_training():
    from matlib.scenes.grammar import Dials
    from matlib.scenes.lexicon import decode

    kept = tuple(rule for rule in TYPO_RULES if rule != "insert")
    dials = Dials(typo_rate=0.5, typo_rules=kept)
    world = World(5, image_size=16, n_train=1, n_val=1, n_test=1, base_dials=dials)
    typos = _words(world.base_pairs(200).captions) - VOCABULARY
    assert len(typos) > 50
    assert all(len(typo) <= len(decode(typo)) for typo in typos)


def test_masked_lm_corpus_uses_every_word_of_the_lexicon_and_no_typos():
    corpus = WORLD.masked_lm_corpus(2000)
    assert len(corpus) == 2000
    assert set(CONCEPT_OF) <= _words(corpus) <= VOCABULARY


def test_further_captions_and_renderings_are_true_and_new():
    generator = torch.Generator().manual_seed(0)
    indices = [4, 0, 4]
    captions = WORLD.more_captions(indices, 6, generator)
    for i, own in zip(indices, captions, strict=True):
        assert len(set(own)) == 6
        assert all(describes(caption, WORLD.train.scenes[i]) for caption in own)
    images = WORLD.more_renderings(indices, 2, generator)
    assert images.shape == (3, 2, 3, 32, 32)
    assert images.dtype == torch.uint8
    own = WORLD.train.pairs.images.load(indices)[:, None].float()
    others = WORLD.train.pairs.images.load([1, 2, 3])[:, None].float()
    assert (images - own).abs().mean() < (images - others).abs().mean()


def test_renderings_in_another_style_are_shifted():
    def draw(style):
        return WORLD.more_renderings([0, 1], 2, torch.Generator().manual_seed(1), style=style)

    assert not torch.equal(draw(None), draw(Style(palette_shift=1.0)))


def test_a_split_checks_edits_of_its_own_captions():
    split = WORLD.test
    for m, caption in enumerate(split.pairs.captions[:30]):
        before = set(split.pairs.relevant[:, m].nonzero().flatten().tolist())
        assert split.checker.is_valid_edit(caption, int(split.pairs.image_of[m]), before)


def test_exported_world_reads_back_as_the_same_data(tmp_path):
    folder = WORLD.export(tmp_path / "scenes")
    for name in ("train", "val", "test"):
        pairs = WORLD.split(name).pairs
        back = read_karpathy(folder, "scenes", name, image_size=32)
        assert sorted(back.captions) == sorted(pairs.captions)
        assert len(back) == len(pairs)
        where = [back.image_ids.index(key) for key in pairs.image_ids]
        assert torch.equal(back.images.load(where), pairs.images.data)


def test_unknown_splits_and_empty_worlds_are_refused():
    with pytest.raises(ValueError, match="'dev'"):
        WORLD.split("dev")
    with pytest.raises(ValueError, match="at least one"):
        World(0, n_train=0)
