"""The README's generated parts: the claims table and what made it, never typed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matlib.analysis.as_text import markdown_text
from matlib.analysis.figures.sentences import theory_sentence
from matlib.analysis.prediction import prediction_errors
from matlib.files import write_durably
from matlib.study.publish.full import of_published, published_study
from matlib.study.publish.report import claim_rows, read_claims
from matlib.study.publish.shown import origin_markdown
from matlib.study.store.shared_json import read_shared
from matlib.study.tables.findings import beside_the_paper, shown_in
from matlib.study.tables.recall_left import held_out_notes, outside_markdown, recall_markdown

HEADINGS = {
    "id": "id", "claim": "claim", "contrast": "contrast", "estimate": "points (95 %)",
    "verdict": "verdict",
}  # fmt: skip
"""Columns of the README's tables, which are read on a narrow page."""

ALL_HEADINGS = {
    **HEADINGS, "n": "interval over", "seeds": "training seeds", "scope": "scope",
}  # fmt: skip
"""Every column, for the notebooks."""

GOAL = 1.25
"""A step of MAT takes at most this many times the passes that it cannot do without."""


def claims_markdown(
    claims: Sequence[Mapping[str, Any]],
    *,
    columns: Mapping[str, str] = HEADINGS,
    notebooks: str = "notebooks/",
    with_open: bool = False,
    notes: Mapping[str, str] | None = None,
) -> str:
    """Decided claims as a table, the others in one line below it.

    Args:
        claims: rows of claims.json.
        columns: column of `claim_rows` -> its heading; the id links to the claim's notebook.
        notebooks: folder of the notebooks, as seen from where the table is read.
        with_open: open claims are rows of the table too.
        notes: claim -> Markdown that is to be read with its contrast.
    """
    notes = notes or {}
    rows = claim_rows(claims)
    is_open = [row["verdict"] == "not yet tested" and not with_open for row in rows]
    lines = [f"| {' | '.join(columns.values())} |", f"|{'---|' * len(columns)}"]
    for row, is_left_out in zip(rows, is_open, strict=True):
        if not is_left_out:
            told = {name: markdown_text(row[name]) for name in ("claim", "contrast", "scope")}
            cells = {**row, **told, "id": _linked(row["id"], notebooks)}
            if row["id"] in notes:
                cells["contrast"] += f" ({notes[row['id']]})"
            lines.append(f"| {' | '.join(cells[column] for column in columns)} |")
    if any(is_open):
        pending = [row["id"] for row, left_out in zip(rows, is_open, strict=True) if left_out]
        lines += ["", f"Not yet tested: {', '.join(pending)}."]
    return "\n".join(lines)


def _linked(claim: str, notebooks: str) -> str:
    """A claim's id as a link to the notebook that shows it, where there is one."""
    notebook, _ = shown_in(claim)
    return f"[{claim}]({notebooks}{notebook}.ipynb)" if notebook else markdown_text(claim)


def full_markdown(folder: Path) -> str:
    """The claims of the larger study on the same world, or how to make it."""
    if not (folder / "claims.json").is_file():
        return (
            f"Several training seeds are needed to speak of methods: `python -m matlib study "
            f"--profile {folder.name} --publish`, not published yet."
        )
    provenance = read_shared(folder / "provenance.json")
    profile = provenance["profile"]
    return "\n".join([
        f"The same world with {len(profile['seeds'])} training seeds of {len(profile['runs'])} "
        f"rows (`python -m matlib study --profile {folder.name}`, `published/{folder.name}/`):",
        "",
        claims_markdown(read_claims(folder / "claims.json"), notes=held_out_notes(folder)),
        "",
        origin_markdown(provenance),
    ])  # fmt: skip


def pairs_markdown(folder: Path) -> str:
    """The claims of the studies of pairs with their figure, or how to make them."""
    if not (folder / "claims.json").is_file():
        return (
            f"Which pairs help, and why: `python -m matlib study --profile {folder.name} "
            f"--publish`, not published yet."
        )
    provenance = read_shared(folder / "provenance.json")
    profile = provenance["profile"]
    n_seeds = len(profile["technique_seeds"] or profile["seeds"])
    claims = [c for c in read_claims(folder / "claims.json") if c["estimate"] is not None]
    lines = [
        f"{len(profile['techniques'])} rows of techniques with {n_seeds} training seeds, and the "
        f"controlled experiment (`python -m matlib study --profile {folder.name}`, "
        f"`published/{folder.name}/`, notebooks 30 and 70):",
        "",
        claims_markdown(claims),
    ]
    if (folder / "good_pairs.png").is_file():
        lines += ["", f"![Gain by the set level of each dial](published/{folder.name}/"
                      "good_pairs.png)"]  # fmt: skip
    if (folder / "intervention.csv").is_file():
        lines += ["", theory_markdown(folder)]
    return "\n".join([*lines, "", origin_markdown(provenance)])


def theory_markdown(folder: Path) -> str:
    """Whether the model fitted to the dials predicts real techniques (notebook 70)."""
    pairs = of_published(published_study(folder))
    every, nearby = pairs.predictions(), pairs.predictions(within=True)
    n_inside = int(every["inside"].sum())
    told = {}
    for name, predicted in {"within the range of the dials": nearby, "anywhere": every}.items():
        if len(predicted):
            errors = prediction_errors(predicted).set_index("model")
            error, low, high = (
                float(errors[column]["theory"]) for column in ("error", "better_low", "better_high")
            )
            told[name] = theory_sentence(error, low, high, n_inside, int(errors["n"].iloc[0]))
    sentences = "; ".join(f"{name}, {sentence}" for name, sentence in told.items())
    return f"What the experiment foretells of techniques (notebook 70): {sentences}."


def findings_markdown(published: Path) -> str:
    """The paper's claims beside what we found, from the ledgers of all published studies."""
    ledgers = {
        folder.name: read_claims(folder / "claims.json")
        for folder in (published / name for name in ("demo", "demo-full", "one-to-many"))
        if (folder / "claims.json").is_file()
    }
    return "\n".join(f"- {sentence}" for sentence in beside_the_paper(ledgers))


def bench_markdown(found: Mapping[str, Any]) -> str:
    """What `make bench` measured, in one sentence."""
    speed = found["text_captions_per_second"]
    machine = found["machine"]
    ratios = {"the demo's small model": found["mat_step_over_necessary"]}
    if "mat_step_vit_b_16" in found:
        ratios["ViT-B/16"] = found["mat_step_vit_b_16"]["mat_step_over_necessary"]
    steps = " and ".join(f"{ratio:.3f} on {model}" for model, ratio in ratios.items())
    gpu = "" if "accelerator" in found else "; not measured on a GPU"
    return (
        f"On {machine['n_cores']} CPU cores ({machine['cpu']}), at equal captions, SGA's text "
        f"attack does {speed['ours']:.0f} captions/s, {found['text_attack_speedup']:.1f} times "
        f"the released order of operations written plainly; its second pass costs "
        f"{found['sga_second_pass_share']:.1%} of the first. SGA's image step is "
        f"{found['sga_image_speedup_released_order']:.2f} times as fast as in its own order, one "
        f"forward of all views. A step of MAT over the passes that it cannot do without: {steps} "
        f"(goal: at most {GOAL:g}{gpu})."
    )


def with_part(readme: str, part: str, content: str) -> str:
    """The README's text with one generated part replaced.

    Args:
        part: name in the markers `<!-- part:begin -->` and `<!-- part:end -->`.

    Raises:
        ValueError: the markers are missing.
    """
    begin, end = f"<!-- {part}:begin -->", f"<!-- {part}:end -->"
    if readme.count(begin) != 1 or readme.count(end) != 1:
        raise ValueError(f"README needs one {begin} and one {end}")
    head, _, rest = readme.partition(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def generated_readme(readme: str, published: Path) -> str:
    """The README's text with every generated part made anew from `published/`."""
    provenance = read_shared(published / "provenance.json")
    studies = published.parent
    readme = with_part(readme, "recall", recall_markdown(studies / "demo-full"))
    readme = with_part(readme, "outside", outside_markdown(studies))
    claims = read_claims(published / "claims.json")
    notes = held_out_notes(published)
    readme = with_part(readme, "claims", claims_markdown(claims, notes=notes))
    readme = with_part(readme, "origin", origin_markdown(provenance))
    readme = with_part(readme, "full", full_markdown(studies / "demo-full"))
    readme = with_part(readme, "pairs", pairs_markdown(studies / "one-to-many"))
    readme = with_part(readme, "findings", findings_markdown(studies))
    measured = json.loads((studies / "bench.json").read_text(encoding="utf-8"))
    return with_part(readme, "bench", bench_markdown(measured))


def update_readme(path: Path, published: Path) -> None:
    """Rewrite the generated parts in the README file."""
    write_durably(path, generated_readme(path.read_text(encoding="utf-8"), published))
