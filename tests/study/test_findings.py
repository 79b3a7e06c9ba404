"""What we found, in sentences that follow from the verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from matlib.study.publish.readme import (
    ALL_HEADINGS,
    claims_markdown,
    findings_markdown,
    ledger_markdown,
)
from matlib.study.tables.findings import SHOWN_IN, beside_the_paper, findings, shown_in

ROOT = Path(__file__).resolve().parents[2]


def claim(
    name: str, verdict: str, n_seeds: int = 5, estimate: float | None = 0.1
) -> dict[str, Any]:
    return {"id": name, "claim": f"claim {name}", "contrast": "a - b", "scope": "here",
            "estimate": estimate, "ci_low": 0.05, "ci_high": 0.15, "n": 5, "unit": "seed",
            "n_seeds": n_seeds, "verdict": verdict}  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("supported", "in this world we find so too"),
        ("not supported", "in this world we find the opposite"),
        ("inconclusive", "our runs cannot tell"),
        ("inconclusive (floor)", "our runs cannot tell"),
        ("favourable, for these weights only", "these weights agree"),
        ("unfavourable, for these weights only", "these weights disagree"),
    ],
)
def test_a_sentence_says_how_the_verdict_stands_to_the_paper(verdict: str, words: str) -> None:
    [sentence] = findings({"demo": [claim("C2", verdict)]})
    assert f"**{verdict}**" in sentence and words in sentence
    assert "+10.0 points [+5.0, +15.0]" in sentence


def test_each_row_of_a_claim_is_told_apart() -> None:
    rows = [{**claim("C2", "supported"), "part": part} for part in ("typos", "known words")]
    told = beside_the_paper({"demo": rows})
    assert len(told) == len(findings({"demo": rows})) == 2
    assert "(typos): **supported** (a - b: +10.0 points" in told[0]
    assert "(known words): **supported**" in told[1]


def test_an_undecided_claim_with_0_outside_its_interval_says_why() -> None:
    [apart] = findings({"demo": [claim("C2", "inconclusive")]})
    assert "corrected for all claims" in apart
    across = {**claim("C2", "inconclusive"), "ci_low": -0.05}
    others = [across, claim("C3", "inconclusive (floor)"), claim("C4", "supported")]
    assert not any("corrected" in sentence for sentence in findings({"demo": others}))


def test_the_study_with_most_seeds_speaks_and_open_claims_are_silent() -> None:
    few = [claim("C2", "favourable, for these weights only", 1), claim("C4", "x", 0, None)]
    many = [claim("C1", "supported"), claim("C2", "not supported")]
    first, second = findings({"demo": few, "demo-full": many})
    assert first.startswith("C1") and "Not one of the paper" in first
    assert "(a - b" in second and "demo-full" in second and "not supported" in second
    assert findings({"demo": [claim("C4", "not yet tested", 0, None)]}) == []


def test_among_as_many_seeds_the_study_of_pairs_speaks_of_pairs() -> None:
    """Its rivals and its choice of members are those of the design."""
    full = [claim("C2", "supported"), claim("C4", "supported"), claim("C5", "supported", 7)]
    pairs = [claim("C2", "inconclusive"), claim("C4", "inconclusive"), claim("C5", "inconclusive")]
    for ledgers in ({"demo-full": full, "one-to-many": pairs},
                    {"one-to-many": pairs, "demo-full": full}):  # fmt: skip
        _, c4, c5 = findings(ledgers)
        assert "one-to-many" in c4 and "**inconclusive**" in c4
        assert "demo-full" in c5  # it has more seeds
    c2, _, _ = findings({"demo-full": full, "one-to-many": pairs})
    assert "demo-full" in c2


def test_the_replication_speaks_of_what_it_asks() -> None:
    report = [claim("C2", "inconclusive", 6), claim("C3", "inconclusive", 6)]
    for ledgers in ({"report": report, "replication": [claim("C2", "supported")]},
                    {"replication": [claim("C2", "supported")], "report": report}):  # fmt: skip
        c2, c3 = findings(ledgers)
        assert "replication" in c2 and "**supported**" in c2 and "(report" not in c2
        assert "report" in c3


def test_every_claim_is_shown_in_a_notebook_that_is_there() -> None:
    there = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {notebook for notebook, _ in SHOWN_IN.values()} <= there
    assert shown_in("C4b") == shown_in("C4") and shown_in("C0-valid") == shown_in("C0")
    assert shown_in("C7a") == ("70_what_makes_a_good_pair", "good_pairs.png")
    assert shown_in("C8a")[0] == "85_transfer" and shown_in("C8b") == ("95_other_tasks", "")


def test_a_published_study_is_told_by_its_ledger_and_what_made_it(tmp_path: Path) -> None:
    folder = tmp_path / "one-to-many"
    assert "not published yet" in ledger_markdown(folder) and findings_markdown(tmp_path) == ""
    folder.mkdir()
    ledger = [claim("C4", "supported"), claim("C2", "not yet tested", 0, None)]
    (folder / "claims.json").write_text(json.dumps(ledger))
    profile = {"technique_seeds": [0, 1], "seeds": [0], "techniques": [{}, {}, {}]}
    (folder / "provenance.json").write_text(json.dumps({"profile": profile, "artefacts": []}))
    text = ledger_markdown(folder)
    assert "Made at commit" in text and "foretells" not in text
    assert "| [C4](notebooks/30_one_to_many.ipynb) |" in text
    assert "Not yet tested: C2" in text
    assert findings_markdown(tmp_path) == ""  # nothing is told of an older judge
    (folder / "endpoints.csv").write_text("row,attack\nmat,gallery\n", encoding="utf-8")
    assert findings_markdown(tmp_path).startswith("- C4")


def test_a_notebooks_table_shows_scope_and_seeds_and_open_claims_too() -> None:
    ledger = [claim("C7a", "supported"), claim("C8b", "not yet tested", 0, None)]
    text = claims_markdown(ledger, columns=ALL_HEADINGS, notebooks="", with_open=True)
    head, _, decided, still_open = text.splitlines()
    assert "training seeds" in head and "scope" in head
    assert "[C7a](70_what_makes_a_good_pair.ipynb)" in decided and "| 5 | here |" in decided
    assert still_open.startswith(
        "| [C8b](95_other_tasks.ipynb) | claim C8b | a - b | – | not yet tested |"
    )
