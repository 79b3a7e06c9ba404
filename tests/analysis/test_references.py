"""The same measures under two reference models, and how far these agree."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from matlib.analysis.agreement import MODEL_FREE, reference_agreement
from matlib.analysis.embeddings import HeldOutEmbeddings, embed_test, joint_rows
from matlib.analysis.shift.classifier import two_sample_accuracy
from matlib.analysis.shift.frechet import frechet_test
from matlib.analysis.shift.mmd import median_bandwidth, mmd_test
from matlib.analysis.technique import joint_features, measure_technique
from matlib.augmentations.images import randaugment
from matlib.augmentations.text import drop_and_swap, mismatched
from matlib.data.pairs import OneToMany
from tests.analysis.test_technique import toy_pairs
from tests.toys import generator, tiny_encoder

REFERENCES = {"one": tiny_encoder(0), "other": tiny_encoder(1)}


@pytest.fixture(scope="module")
def techniques() -> dict[str, OneToMany]:
    pairs = toy_pairs(12)
    return {
        "none": OneToMany.from_pairs(pairs),
        "randaugment": randaugment(pairs, 2, generator()),
        "drop-swap": drop_and_swap(pairs, 2, generator()),
        "mismatched": mismatched(pairs, 2, generator()),
    }


@pytest.fixture(scope="module")
def table(techniques: dict[str, OneToMany]) -> pd.DataFrame:
    parts = []
    for name, encoder in REFERENCES.items():
        there = embed_test(encoder, toy_pairs(12, seed=1, shift=12))
        for technique, variants in techniques.items():
            found = measure_technique(encoder, variants, there, truth=None, n_boot=20)
            parts.append(found.assign(technique=technique, reference=name))
    return pd.concat(parts, ignore_index=True)


def test_every_technique_is_measured_under_every_reference(table: pd.DataFrame) -> None:
    keys = ["technique", "property", "measure", "modality"]
    first, other = (table[table["reference"] == name] for name in REFERENCES)
    assert first[keys].to_numpy().tolist() == other[keys].to_numpy().tolist()
    for name in (*(MODEL_FREE - {"true_fraction"}), "similarity"):
        values = [part[part["measure"] == name]["value"].tolist() for part in (first, other)]
        assert values[0] and (values[0] == values[1]) == (name in MODEL_FREE), name


def test_pairs_have_a_shift_of_their_own(table: pd.DataFrame) -> None:
    shift = table[table["property"] == "shift"]
    joint = shift[shift["modality"] == "joint"]
    assert set(joint["technique"]) == set(table["technique"])
    assert set(joint["measure"]) == {"mmd2", "kernel_distance", "frechet", "accuracy"}
    tested = shift[shift["measure"] != "accuracy"]
    assert tested["p_value"].between(0, 1, inclusive="right").all()


def test_a_model_agrees_with_itself_and_a_reversed_one_does_not(table: pd.DataFrame) -> None:
    first = table[table["reference"] == "one"]
    twice = pd.concat([first, first.assign(reference="again")])
    found = reference_agreement(twice)
    assert found["value"].tolist() == pytest.approx([1.0] * len(found))
    assert set(found["n"]) == {4} and len(found) >= 5
    assert not set(found["measure"]) & MODEL_FREE
    turned = pd.concat([first, first.assign(reference="turned", value=-first["value"])])
    assert reference_agreement(turned)["value"].tolist() == pytest.approx([-1.0] * len(found))
    with pytest.raises(ValueError, match="two references"):
        reference_agreement(first)


def test_pairs_that_do_not_belong_together_are_seen_by_the_joint_measures_alone() -> None:
    """Captions of other images: no shift of captions or images, all of it between them."""
    g = generator(4)
    made = torch.nn.functional.normalize(torch.randn(240, 6, generator=g), dim=1)
    here, there = made[:120], made[120:]
    wrong = here[torch.randperm(120, generator=g)]
    test = HeldOutEmbeddings(there, there)
    x, y = joint_rows(here, wrong), test.of("joint")
    assert mmd_test(x, y, g, bandwidth=0.5 * median_bandwidth(x, y)).p_value < 0.05
    assert frechet_test(x, y, g, n_permutations=49).p_value == 0.02
    assert mmd_test(wrong, there, g).p_value > 0.05
    features = joint_features(here, wrong), joint_features(there, there)
    assert two_sample_accuracy(*features, n_boot=50).accuracy.low > 0.8
    assert two_sample_accuracy(x, y, n_boot=50).accuracy.value < 0.65  # blind without products
