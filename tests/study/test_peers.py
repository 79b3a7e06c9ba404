"""Published numbers are compared in their own terms."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from matlib.attacks.edits import normalise_caption
from matlib.evaluation.retrieval import conditional_attack_success
from matlib.study.made.candidates import tables
from matlib.study.profile.profile import load_profile
from matlib.study.study import Study
from matlib.study.tables.peers import compare_with_peers, published


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The undefended toy model, judged in the conventions of released code."""
    smoke = load_profile("smoke")
    evaluation = smoke.evaluation.model_copy(
        update={
            "conventions": "released",
            "threats": ("bert_free",),
            "primary_threat": "bert_free",
            "curve_eps_255": (),
        }
    )
    profile = smoke.model_copy(update={"runs": (), "name": "check", "evaluation": evaluation})
    return Study(profile, tmp_path_factory.mktemp("results"))


def test_every_published_number_has_a_tolerance_and_a_source() -> None:
    table = published("flickr30k-check")
    assert {"clean", "pgd", "bert", "sep", "co-attack", "sga"} == set(table["attack"])
    assert table["value"].between(0, 1).all() and table["tolerance"].between(0.001, 0.05).all()
    assert table["source"].str.len().min() > 10
    assert load_profile("flickr30k-check").evaluation.conventions == "released"
    assert published("demo").empty


def test_measured_beside_published_says_whether_they_agree(study: Study, tmp_path: Path) -> None:
    outcomes = study.evaluated("base").outcomes
    clean, sga = outcomes["clean", ""], outcomes["sga", "bert_free"]
    broken = conditional_attack_success(clean.hits("TR", 5), sga.hits("TR", 5))
    rows = [
        ("check", "clean", "recall", "IR", 1, clean.recall("IR", 1), 0.01, "ours"),
        ("check", "sga", "asr_conditional", "TR", 5, broken + 0.2, 0.1, "off by 20 points"),
        ("other", "clean", "recall", "TR", 1, 0.5, 0.01, "of another profile"),
    ]
    columns = ["profile", "attack", "measure", "direction", "k", "value", "tolerance", "source"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "peers.csv", index=False)
    found = compare_with_peers(study, tmp_path / "peers.csv")
    assert found["agrees"].tolist() == [True, False]
    assert found["measured"].tolist() == pytest.approx([clean.recall("IR", 1), broken])


def test_released_conventions_normalise_captions_and_judge_by_their_own_steps(
    study: Study,
) -> None:
    captions = study.pairs("test").captions
    assert all(caption == normalise_caption(caption) for caption in captions)
    suite = study.suite(study.main_protocol("test"))
    assert suite.released
    assert tables(study, "test", ("bert_free",)).spec.config["conventions"] == "released"
