"""The README's generated parts: the claims table and what made it, never typed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matlib.analysis.as_text import markdown_text
from matlib.bench.step import GOAL
from matlib.study.durable import write_durably
from matlib.study.findings import findings, shown_in
from matlib.study.provenance import stale_kinds
from matlib.study.report import claim_rows, read_claims

KINDS = {
    "masked-lm": "the attacker's language model",
    "candidates": "the candidate words",
    "model": "the models",
    "judged": "the evaluations",
    "sanity": "the sanity checks",
    "captioner": "the captioner",
    "pairs": "generated pairs",
    "filtered": "the shares that filters keep",
    "coordinates": "measures of pairs",
}
"""Kinds of artefacts, as a reader would call them."""

HEADINGS = {
    "id": "id", "claim": "claim", "contrast": "contrast", "estimate": "points (95 %)",
    "verdict": "verdict",
}  # fmt: skip
"""Columns of the README's tables, which are read on a narrow page."""

ALL_HEADINGS = {
    **HEADINGS, "n": "interval over", "seeds": "training seeds", "scope": "scope",
}  # fmt: skip
"""Every column, for the notebooks."""


def claims_markdown(
    claims: Sequence[Mapping[str, Any]],
    *,
    columns: Mapping[str, str] = HEADINGS,
    notebooks: str = "notebooks/",
    with_open: bool = False,
) -> str:
    """Decided claims as a table, the others in one line below it.

    Args:
        claims: rows of claims.json.
        columns: column of `claim_rows` -> its heading; the id links to the claim's notebook.
        notebooks: folder of the notebooks, as seen from where the table is read.
        with_open: open claims are rows of the table too.
    """
    rows = claim_rows(claims)
    is_open = [row["verdict"] == "not yet tested" and not with_open for row in rows]
    lines = [f"| {' | '.join(columns.values())} |", f"|{'---|' * len(columns)}"]
    for row, is_left_out in zip(rows, is_open, strict=True):
        if not is_left_out:
            told = {name: markdown_text(row[name]) for name in ("claim", "contrast", "scope")}
            cells = {**row, **told, "id": _linked(row["id"], notebooks)}
            lines.append(f"| {' | '.join(cells[column] for column in columns)} |")
    if any(is_open):
        pending = [row["id"] for row, left_out in zip(rows, is_open, strict=True) if left_out]
        lines += ["", f"Not yet tested: {', '.join(pending)}."]
    return "\n".join(lines)


def _linked(claim: str, notebooks: str) -> str:
    """A claim's id as a link to the notebook that shows it, where there is one."""
    notebook, _ = shown_in(claim)
    return f"[{claim}]({notebooks}{notebook}.ipynb)" if notebook else markdown_text(claim)


def origin_markdown(provenance: Mapping[str, Any]) -> str:
    """Which commit made the published numbers, and whether their code has changed since."""
    artefacts = provenance["artefacts"]
    commits = sorted({str(a["commit"])[:7] + ("+" if a["dirty"] else "") for a in artefacts})
    seconds = sum(a["wall_seconds"] for a in artefacts if a["kind"] in ("model", "judged"))
    n_runs = sum(a["kind"] == "judged" for a in artefacts)
    text = (
        f"Made at commit {', '.join(commits)}: training and attacking took "
        f"{seconds / 60:.0f} minutes for {n_runs} evaluations."
    )
    stale = [KINDS.get(kind, kind) for kind in stale_kinds(artefacts)]
    if stale:
        text += (
            f" The code of {', '.join(stale)} has changed since: a rerun may give other numbers."
        )
    return text


def full_markdown(folder: Path) -> str:
    """The claims of the larger study on the same world, or how to make it."""
    if not (folder / "claims.json").is_file():
        return (
            f"Several training seeds are needed to speak of methods: `python -m matlib study "
            f"--profile {folder.name} --publish`, not published yet."
        )
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    profile = provenance["profile"]
    return "\n".join([
        f"The same world with {len(profile['seeds'])} training seeds of {len(profile['runs'])} "
        f"rows (`python -m matlib study --profile {folder.name}`, `published/{folder.name}/`):",
        "",
        claims_markdown(read_claims(folder / "claims.json")),
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
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
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
    return "\n".join([*lines, "", origin_markdown(provenance)])


def findings_markdown(published: Path) -> str:
    """What we found, from the ledgers of all published studies."""
    ledgers = {
        folder.name: read_claims(folder / "claims.json")
        for folder in (published / name for name in ("demo", "demo-full", "one-to-many"))
        if (folder / "claims.json").is_file()
    }
    return "\n".join(f"- {sentence}" for sentence in findings(ledgers))


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
        f"{found['sga_second_pass_share']:.1%} of the first. The image step is "
        f"{found['sga_image_speedup']:.1f} times as fast as a loop over views. A step of MAT "
        f"over the passes that it cannot do without: {steps} (goal: at most {GOAL:g}{gpu})."
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


def generated(readme: str, published: Path) -> str:
    """The README's text with every generated part made anew from `published/`."""
    provenance = json.loads((published / "provenance.json").read_text(encoding="utf-8"))
    readme = with_part(readme, "claims", claims_markdown(read_claims(published / "claims.json")))
    readme = with_part(readme, "origin", origin_markdown(provenance))
    readme = with_part(readme, "full", full_markdown(published.parent / "demo-full"))
    readme = with_part(readme, "pairs", pairs_markdown(published.parent / "one-to-many"))
    readme = with_part(readme, "findings", findings_markdown(published.parent))
    measured = json.loads((published.parent / "bench.json").read_text(encoding="utf-8"))
    return with_part(readme, "bench", bench_markdown(measured))


def update_readme(path: Path, published: Path) -> None:
    """Rewrite the generated parts in the README file."""
    write_durably(path, generated(path.read_text(encoding="utf-8"), published))
