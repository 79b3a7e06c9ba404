"""README's generated parts, and those of the documentation's page of results: never typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from matlib.analysis.as_text import markdown_text
from matlib.analysis.figures.effects import with_true_names
from matlib.analysis.figures.sentences import percent
from matlib.analysis.figures.style import label_of
from matlib.files import write_durably
from matlib.study.publish.answers import (
    MAT,
    MAT_PLUS,
    MAT_TRUE,
    few_pairs_answer,
    good_pairs_answer,
    left,
    photographs_answer,
    theory_sentences,
    threat_answer,
    what_it_never_met,
    what_mat_keeps,
)
from matlib.study.publish.full import (
    PublishedStudy,
    ledgers_of_now,
    of_published,
    published_study,
)
from matlib.study.publish.report import claim_rows, read_claims
from matlib.study.publish.shown import origin_markdown
from matlib.study.store.shared_json import read_shared
from matlib.study.tables.contrasts_of_pairs import PAPER_TECHNIQUE
from matlib.study.tables.findings import REPLICATIONS, Ledger, beside_the_paper, decided, shown_in
from matlib.study.tables.recall_left import cells_of, intervals_over, recall_markdown

HEADINGS = {
    "id": "id", "claim": "claim", "contrast": "contrast", "estimate": "points (95 %)",
    "verdict": "verdict",
}  # fmt: skip
"""Columns of the documentation's tables, which are read on a narrow page."""

ALL_HEADINGS = {
    **HEADINGS, "n": "interval over", "seeds": "training seeds", "scope": "scope",
}  # fmt: skip
"""Every column, for the notebooks."""

MAIN = "report"
"""The published study that README tells of."""

PHOTOS = "photos"
"""The study of photographs beside it, once it is published."""

SHOWN_FIRST = (
    "base", "image-at", "text-at-valid", "tecoa", "fare", "mmcoa", "fare+leaf", "mat", "mat-valid",
    "mat+.captions+renderings",
)  # fmt: skip
"""Rows of README's table; the documentation has all."""

JUDGED_FROM_OUTSIDE = ("base", MAT, MAT_TRUE, f"{MAT_PLUS}.{PAPER_TECHNIQUE}")
"""Rows of which README says what an attack from outside left."""

GOAL = 1.25
"""A step of MAT takes at most this many times the passes that it cannot do without."""


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
    if not claims:
        return "No claims of this kind here."
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


def ledger_markdown(folder: Path) -> str:
    """A published study: its claims, what its experiment foretells, and what made it."""
    if not (folder / "claims.json").is_file():
        return f"`python -m matlib study --profile {folder.name} --publish`, not published yet."
    provenance = read_shared(folder / "provenance.json")
    parts = [claims_markdown(_verdicts_of_now(folder))]
    if (folder / "intervention.csv").is_file():
        parts.append(theory_markdown(folder))
    return "\n\n".join([*parts, origin_markdown(provenance)])


def _verdicts_of_now(folder: Path) -> Ledger:
    """A study's claims, corrected with their family; of an older judge as they were."""
    known: Mapping[str, Ledger] = ledgers_of_now(folder.parent)
    return known.get(folder.name) or read_claims(folder / "claims.json")


def published_markdown(published: Path) -> str:
    """The page of the folder `published`: every study that the judge of now judged.

    Args:
        published: folder of all published studies.
    """
    parts = [
        "# Published studies",
        "Made by `python -m matlib readme` from the files beside it. Row names and verdicts are "
        "explained in [names](../docs/names.md); `make docs` builds the pages with figures. "
        "`demo-full` and `one-to-many` are of an older judge and are not told here.",
    ]
    for name in (MAIN, *REPLICATIONS, PHOTOS, "demo"):
        study = published_study(published / name)
        claims = claims_markdown(_verdicts_of_now(study.folder), notebooks="../notebooks/")
        parts += [
            f"## {name}",
            f"{study.gallery}, {study.worlds}.",
            recall_markdown(study.folder),
            claims,
        ]
    return "\n\n".join(parts) + "\n"


def theory_markdown(folder: Path) -> str:
    """Whether the model fitted to the dials predicts real techniques (notebook 70)."""
    told = theory_sentences(of_published(published_study(folder)))
    sentences = "; ".join(f"{name}, {sentence}" for name, sentence in told.items())
    return f"What the experiment foretells of techniques (notebook 70): {sentences}."


def findings_markdown(published: Path) -> str:
    """The paper's claims beside what we found: of all studies judged by the gallery attacker."""
    sentences = beside_the_paper(ledgers_of_now(published))
    return "\n".join(f"- {sentence}" for sentence in sentences)


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


def masked_gradients_told(published: Path) -> str:
    """The verdicts on C9 of the report, its replications and the photographs."""
    ledgers = ledgers_of_now(published)
    told = [
        f"`{name}` {claim['verdict']}"
        for name in (MAIN, *REPLICATIONS, PHOTOS)
        for claim in ledgers.get(name, ())
        if claim["id"] == "C9" and claim["estimate"] is not None
    ]
    return f"That robustness is not masked gradients (C9): {'; '.join(told) or 'not tested'}."


def judge_markdown(published: Path) -> str:
    """Which judge the published numbers have, beside what an attack from outside left of MAT.

    Args:
        published: folder of all published studies, with `outside_attack.csv`.
    """
    study = published_study(published / "demo")
    table = study.table("endpoints")
    outside = pd.read_csv(published / "outside_attack.csv").set_index("row")
    told = []
    for row in (name for name in JUDGED_FROM_OUTSIDE if name in outside.index):
        theirs = percent(*outside.loc[row, ["recall", "low", "high"]].astype(float))
        told.append(f"`{row}` {theirs} ({left(table, row, 'worst', study.deciding)})")
    beside = (
        f"leaves {', '.join(told)}; in parentheses what the study's worst attack leaves (demo, one "
        "training seed)"
    )
    if study.knows_gallery:
        told_of_c9 = masked_gradients_told(published)
        return f"An attack from outside the project {beside}. {told_of_c9}"
    return (
        "**These numbers are of an older judge.** An attack from outside the project, which "
        f"chooses all images and all words together, {beside}. The suite has such an attacker "
        "of its own since (`gallery`), but the published studies were judged before: robustness "
        "is less than they say, and verdicts will change when they are run again."
    )


def claims_told(published: Path) -> Ledger:
    """The rows of claims that README quotes: the replication's, which are named so, then `MAIN`'s.

    Args:
        published: folder of all published studies.
    """
    every = decided(ledgers_of_now(published))
    again = [
        {**claim, "part": ", ".join(filter(None, [claim.get("part", ""), name]))}
        for name, claim in every if name in REPLICATIONS
    ]  # fmt: skip
    return [*again, *(claim for name, claim in every if name == MAIN)]


def found_markdown(published: Path) -> str:
    """What was found, in plain sentences with a link to the notebook that shows each.

    Args:
        published: folder of all published studies.
    """
    main, again, pairs, photos = (
        published_study(published / name) for name in (MAIN, *REPLICATIONS, PHOTOS)
    )
    table, threat, claims = main.table("endpoints"), main.deciding, claims_told(published)
    ledgers = ledgers_of_now(published)
    of_photos = with_true_names(photos.table("endpoints"), photos.profile["dataset"]["name"])
    told = [
        ("10_threat", threat_answer(table, threat)),
        ("20_defences", what_mat_keeps(table, threat, claims, ledgers[main.name])),
        ("20_defences", what_it_never_met(table, claims)),
        ("30_one_to_many", few_pairs_answer(again.table("curves"), claims)),
        (
            "70_what_makes_a_good_pair",
            good_pairs_answer(
                pairs.table("contrasts"),
                of_published(pairs).dialled,
                ledgers[pairs.name],
                f"{len(pairs.table('intervention')['world'].unique())} further worlds, "
                f"{pairs.profile['dataset']['n_train']} pairs",
            ),
        ),
        ("20_defences", photographs_answer(of_photos, photos.deciding, _of_photographs(photos))),
    ]
    return "\n".join(f"- {text} ([{name}](notebooks/{name}.ipynb))" for name, text in told)


def _of_photographs(photos: PublishedStudy) -> str:
    eps, seeds = photos.profile["evaluation"]["eps_255"], len(photos.profile["seeds"])
    return f"{eps:g}/255, {seeds} {'training' if seeds == 1 else 'trainings'} of each row"


def short_recall_markdown(folder: Path) -> str:
    """README's one table: recall left of the rows that a reader asks for first."""
    study = published_study(folder)
    table, threat = study.table("endpoints"), study.deciding
    cells = cells_of(table)
    columns = (("clean", ""), ("pgd", ""), ("words", threat), ("worst", threat), ("worst", "typo"))
    lines = [
        "| defence | no attack | image alone | a word alone | worst, both | a typo, both |",
        "|---|---|---|---|---|---|",
    ]
    for row in dict.fromkeys(table["row"]):
        if row in SHOWN_FIRST:
            shown = [cells.get((row, *column), "–") for column in columns]
            lines.append(f"| {markdown_text(label_of(row))} (`{row}`) | {' | '.join(shown)} |")
    profile, seeds = study.profile, int(table["n_seeds"].max())
    return "\n".join([
        *lines,
        "",
        f"Recall left in %, with 95 % intervals over {intervals_over(profile, seeds)}; a word: "
        f"{label_of(threat, 'threat')}; {study.gallery}, {study.worlds}, "
        f"{profile['evaluation']['eps_255']:g}/255. "
        f"From `published/{folder.name}/endpoints.csv`.",
    ])  # fmt: skip


def generated_readme(readme: str, published: Path) -> str:
    """The README's text with every generated part made anew.

    Args:
        readme: the text as it is.
        published: folder of all published studies.
    """
    parts = {
        "judge": judge_markdown(published),
        "found": found_markdown(published),
        "recall": short_recall_markdown(published / MAIN),
    }
    for name, text in parts.items():
        readme = with_part(readme, name, text)
    return readme


def update_readme(path: Path, published: Path) -> None:
    """Rewrite the generated parts in the README file from the folder of all published studies,
    and the page of that folder."""
    write_durably(path, generated_readme(path.read_text(encoding="utf-8"), published))
    write_durably(published / "README.md", published_markdown(published))
