"""What was found, in sentences that are computed from tables: a notebook's answer, README's list.

Shares of 1 go in, percent of queries and points come out. `worst` is the study's worst attack on
both sides; recall is the mean of TR@1 and IR@1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
from torch import Tensor

from matlib.analysis.experiment import BEND, DIALS
from matlib.analysis.figures.sentences import (
    bend_sentence,
    effect_sentence,
    percent,
    theory_sentence,
)
from matlib.analysis.figures.style import label_of
from matlib.analysis.prediction import prediction_errors
from matlib.evaluation.statistics import Estimate
from matlib.study.profile.rows import ON_TRUE_WORDS
from matlib.study.publish.full import PairStudy
from matlib.study.tables.contrasts import THREAT_PARTS
from matlib.study.tables.contrasts_of_pairs import PAPER_TECHNIQUE
from matlib.study.tables.findings import Ledger
from matlib.study.tables.other_tasks import RANKED_BY

BASE, MAT, MAT_TRUE, MAT_PLUS = "base", "mat", f"mat{ON_TRUE_WORDS}", "mat+"
LITERATURE = ("image-at", "tecoa", "fare", "pmg-aft", "mmcoa", "leaf", "fare+leaf")
"""Published defences that know no true words; README names the best of them beside MAT."""


def left(table: pd.DataFrame, row: str, attack: str, threat: str, column: str = "value") -> str:
    """One cell of a table of endpoints without its interval: `66.4 %`, or `not measured`."""
    found = table[
        (table["row"] == row) & (table["attack"] == attack) & (table["text_threat"] == threat)
    ]
    return percent(float(found[column].iloc[0]) if len(found) else float("nan"))


def _best_first(table: pd.DataFrame, threat: str) -> pd.Series:
    """Recall under the worst attack by row, the best row first."""
    worst = table[(table["attack"] == "worst") & (table["text_threat"] == threat)]
    return worst.set_index("row")["value"].astype(float).sort_values(ascending=False, kind="stable")


def data_answer(relevant: Tensor, own_text: float, own_image: float) -> str:
    """Notebook 00.

    Args:
        relevant: bool (N, M), which caption is true of which image.
        own_text, own_image: best TR@1 and IR@1 where only an image's own captions count.
    """
    shared = float((relevant.sum(0) > 1).double().mean())
    return (
        f"{percent(shared)} of the captions are true of more than one image, so a protocol that "
        f"accepts a caption's own image only would stop a perfect model at TR@1 "
        f"{percent(own_text)} and IR@1 {percent(own_image)}."
    )


def threat_answer(table: pd.DataFrame, threat: str) -> str:
    """Notebook 10: what an undefended model keeps."""
    clean, image, word, both = (
        left(table, BASE, attack, under)
        for attack, under in (("clean", ""), ("pgd", ""), ("words", threat), ("worst", threat))
    )
    return (
        f"Without an attack the undefended model puts a right answer first for {clean} of the "
        f"queries; changed pixels alone leave {image}, one word alone "
        f"({label_of(threat, 'threat')}) {word}, and the worst attack on both {both}."
    )


def share_of_false(share: Estimate | None) -> str:
    """Notebook 10: how many successes of the text attack made the caption false.

    Args:
        share: as `false_share` gives it.
    """
    if share is None:
        return "Truth is not counted here: real captions, or no judging under any word."
    numbers = percent(share.value, share.low, share.high)
    return f"False among the successes of any word (`bert_free`): {numbers}."


def defences_answer(table: pd.DataFrame, threat: str) -> str:
    """Notebook 20: MAT, the best row, and no defence."""
    worst = _best_first(table, threat)
    shown = [row for row in (MAT, *worst.index[:1]) if row in worst and row != BASE]
    told = [f"{label_of(row)} {left(table, row, 'worst', threat)}" for row in dict.fromkeys(shown)]
    base = left(table, BASE, "worst", threat)
    others = ", ".join(told) or "no defence was judged"
    return f"Under the worst attack the undefended model keeps {base}; {others}."


def what_mat_keeps(table: pd.DataFrame, threat: str, claims: Ledger, own: Ledger) -> str:
    """README: MAT beside no defence and the best of the literature, with the verdicts on C0, C2.

    Args:
        claims: of the study that speaks of each.
        own: of the study that `table` is of.
    """
    worst = _best_first(table, threat)
    rivals = [row for row in worst.index if row in LITERATURE]
    best = f", {label_of(rivals[0])} {left(table, rivals[0], 'worst', threat)}" if rivals else ""
    return (
        f"Under it MAT as the paper trains it, on any word (`{MAT}`), keeps "
        f"{left(table, MAT, 'worst', threat)}; no defence {left(table, BASE, 'worst', threat)}"
        f"{best}. Trained on true words alone (`{MAT_TRUE}`) it keeps "
        f"{left(table, MAT_TRUE, 'worst', threat)}. That this is more than no defence keeps is "
        f"{_own_verdict(own, claims, 'C0')}; that it is more than each defence of the image alone "
        f"or the text alone keeps is {_own_verdict(own, claims, 'C2')}. "
        f"Of changed pixels alone `{MAT_TRUE}` keeps {left(table, MAT_TRUE, 'pgd', '')}, no "
        f"defence {left(table, BASE, 'pgd', '')}."
    )


def _own_verdict(own: Ledger, claims: Ledger, name: str) -> str:
    """A study's own verdict on the first part of a claim, then that of the study that speaks."""
    told = verdict_of(claims, name, in_short=True)
    first = next((str(each["verdict"]) for each in own if each["id"] == name), "")
    if first in ("", told.split(" (")[0]):
        return told
    return f"{first} in these worlds, and in others {told}"


def what_it_never_met(table: pd.DataFrame, claims: Ledger) -> str:
    """README: MAT under typos and words of no training, with the verdicts of C0's further rows.

    Args:
        claims: of the study that `table` is of.
    """
    never = {"typo": "typos", "true_held_out": "true words that no training had"}
    told = [
        f"under {said} `{MAT_TRUE}` keeps {left(table, MAT_TRUE, 'worst', threat)}, `{MAT}` "
        f"{left(table, MAT, 'worst', threat)}, no defence {left(table, BASE, 'worst', threat)}"
        for threat, said in never.items()
        if threat in set(table["text_threat"])
    ]
    rows = [claim for claim in claims if claim["id"] == "C0" and claim["estimate"] is not None]
    verdicts = "; ".join(f"{claim['part']}: {claim['verdict']}" for claim in rows[1:])
    return (
        f"Against what no training met: {'; '.join(told)}. Whether `{MAT}` keeps more than no "
        f"defence there (C0): {verdicts or 'not tested'}."
    )


def pairs_answer(table: pd.DataFrame, threat: str, claims: Ledger) -> str:
    """Notebook 30: MAT+ beside MAT on the same words, with the verdict on C4."""
    rows = list(dict.fromkeys(table["row"]))
    plus = [row for row in rows if row.startswith(MAT_PLUS)]
    other = MAT_TRUE if MAT_TRUE in rows else MAT
    told = [f"{label_of(row)} {left(table, row, 'worst', threat)}" for row in (*plus[:1], other)]
    return (
        f"With several captions and images for each pair, and with one of each: "
        f"{' against '.join(told)} under the worst attack; that more help is "
        f"{verdict_of(claims, 'C4')}."
    )


def few_pairs_answer(curve: pd.DataFrame, claims: Ledger) -> str:
    """README: MAT and MAT+ on few pairs, with the verdicts on C3 and C4.

    Args:
        curve: as `curve_of_pairs`, of one number of pairs.
    """
    kept = curve[curve["weights"] == "best"]
    [plain], [plus] = (kept[kept["defence"] == name].to_dict("records")
                       for name in (MAT_TRUE, f"{MAT_PLUS}.{PAPER_TECHNIQUE}"))  # fmt: skip
    return (
        f"Under the joint attack `{MAT_TRUE}`, trained on {plain['n_train']} pairs with one "
        f"caption and one image each, keeps {100 * plain['gap']:.1f} points more of the pairs that "
        f"it learnt than of new ones (beyond what no defence does; best weights), with several "
        f"captions and images for each (`{MAT_PLUS}`) {100 * plus['gap']:.1f}. Of new "
        f"pairs the worst attack leaves `{MAT_PLUS}` {percent(plus['worst'])}, `{MAT_TRUE}` "
        f"{percent(plain['worst'])}. That MAT over-fits is "
        f"{verdict_of(claims, 'C3', in_short=True)}; that one-to-many pairs help is "
        f"{verdict_of(claims, 'C4', in_short=True)}."
    )


PROPERTIES = {
    "C7a": "alignment (how much of what is added is true)",
    "C7b": "diversity",
    "C7c": "closeness to new data",
}
"""What each dial sets; the last one is shift, turned."""


def good_pairs_answer(
    contrasts: pd.DataFrame, runs: pd.DataFrame, claims: Ledger, about: str
) -> str:
    """README: what each half of each property of the added pairs gains, with the verdicts on C7.

    Args:
        contrasts: as `contrast_table`, of a study with the controlled experiment at three levels.
        runs: of that experiment.
        claims: its ledger.
        about: how many worlds, how many training pairs.
    """
    gains = runs.groupby([*DIALS, "modality"])["gain"].mean()
    decides = contrasts[contrasts["decides"].astype(bool)]
    told = []
    for claim, what in PROPERTIES.items():
        rows = [each for each in claims if each["id"] == claim]
        steps = [
            f"{row['part'].removeprefix('added ')} "
            + " and ".join(
                f"{100 * value:+.1f}"
                for value in decides.loc[
                    (decides["claim"] == claim) & (decides["part"] == row["part"]), "estimate"
                ].astype(float)
            )
            + f" ({row['verdict']})"
            for row in rows
        ]
        told.append(f"{what}: {', '.join(steps)}")
    [c5] = [each for each in claims if each["id"] == "C5"]
    return (
        f"What makes an added pair good ({about}), in points from the low to the middle and from "
        f"the middle to the high level of a property: {'; '.join(told)}; supported only where both "
        f"steps are (C7). These compare added pairs with each other: {int((gains < 0).sum())} of "
        f"{len(gains)} settings keep less than MAT without them. That the best text technique "
        f"beats the best image technique ({c5['contrast']}, by mean reciprocal rank): "
        f"{verdict_of(claims, 'C5', in_short=True)}."
    )


def photographs_answer(table: pd.DataFrame, threat: str, about: str) -> str:
    """README, of the study of photographs: what rows keep under pixels, and under the worst.

    Args:
        about: budget and trainings.
    """
    told = [
        f"{label_of(row)} {left(table, row, 'clean', '')} and {left(table, row, 'pgd', '')}"
        for row in table["row"].unique()
    ]
    worst = _best_first(table, threat)
    return (
        f"On photographs (Flickr8k; {about}), of which nobody knows the truth, no attack and "
        f"changed pixels alone (PGD) leave {', '.join(told)}; the worst attack on pixels and one "
        f"word ({label_of(threat, 'threat')}) leaves no row more than {percent(worst.iloc[0])}."
    )


def under_sga(gains: pd.DataFrame) -> str:
    """Notebook 30: how many techniques gain under the strongest attack of the literature.

    Args:
        gains: as `PairStudy.gains`.
    """
    if gains.empty:
        return "No technique was compared here."
    tried = gains[(gains["modality"] != "") & gains["sga_low"].notna()]
    above, below = (tried["sga_low"] > 0).sum(), (tried["sga_high"] < 0).sum()
    return (
        f"Under SGA alone, of {len(tried)} techniques with an interval over seeds {above} gain "
        f"over MAT and {below} lose; the others cannot be told from it."
    )


def inside_answer(table: pd.DataFrame) -> str:
    """Notebook 25, of the differences of MAT's variations."""
    worst = table[table["attack"] == "worst"] if len(table) else table
    if worst.empty:
        return "No variation of MAT is at hand."
    gains, costs = (worst["difference_low"] > 0).sum(), (worst["difference_high"] < 0).sum()
    return (
        f"Of {len(worst)} variations of MAT, {gains} gain robustness and {costs} cost some; "
        f"the other {len(worst) - gains - costs} cannot be told from MAT as it is."
    )


def alignment_answer(aligned: pd.DataFrame) -> str:
    """Notebook 40: by the truth where it is known, else by similarity."""
    measure = "true_fraction" if "true_fraction" in set(aligned["measure"]) else "similarity"
    what = {"true_fraction": "Truth of added captions", "similarity": "Similarity of added pairs"}
    return _from_to(aligned[aligned["measure"] == measure], what[measure])


def diversity_answer(diverse: pd.DataFrame) -> str:
    """Notebook 50."""
    of_text = (diverse["measure"] == "vendi") & (diverse["modality"] == "text")
    return _from_to(diverse[of_text], "The effective number of different captions in a set")


def _from_to(found: pd.DataFrame, what: str) -> str:
    ordered = found[found["technique"] != "none"].sort_values("value")
    if ordered.empty:
        return f"{what} was not measured."
    ends = [
        f"{each.value:.2f} ({label_of(each.technique, 'technique')})"
        for each in (ordered.iloc[0], ordered.iloc[-1])
    ]
    return f"{what} goes from {' to '.join(ends)}."


def shift_answer(shifted: pd.DataFrame) -> str:
    """Notebook 60."""
    told = shifted[(shifted["measure"] == "accuracy") & (shifted["technique"] != "none")]
    told = told[told["modality"] != "joint"]
    apart = told[told["low"] > 0.5].sort_values("value", ascending=False)
    names = [label_of(name, "technique") for name in dict.fromkeys(apart["technique"])]
    which = f": {', '.join(names)}" if names else ""
    return (
        f"{len(names)} of {told['technique'].nunique()} augmentations can be told from test "
        f"data{which}."
    )


def dials_answer(effects: pd.DataFrame) -> str:
    """Notebook 70, of the table of effects; empty where there was no experiment."""
    if effects.empty:
        return "No experiment is at hand."
    rows = effects.set_index("term")[["value", "low", "high"]].astype(float).mul(100).T
    told = ["{} {:+.1f} [{:.1f}, {:.1f}]".format(dial, *rows[dial]) for dial in DIALS]
    return (
        f"Turning one property of the added pairs alone from its lowest to its highest level "
        f"changes robust recall by so many points: {', '.join(told)}."
    )


def dial_sentences(pairs: PairStudy) -> list[str]:
    """Notebook 70: each dial's effect; apart for captions and images where they differ, and bends.

    Empty where there was no experiment.
    """
    apart = {kind: _by_term(pairs.effects(kind)) for kind in ("image", "text")}
    told = []
    for term, numbers in _by_term(pairs.effects()).items():
        dial, _, other = term.partition(":")
        if term in DIALS:
            told.append(effect_sentence(dial, *numbers))
        elif other == "modality" and _is_clear(numbers):  # then the mean hides something
            told += [effect_sentence(dial, *of[dial], modality=kind) for kind, of in apart.items()]
    return told + [
        bend_sentence(kind, term.removesuffix(BEND), numbers[0])
        for kind, of in apart.items()
        for term, numbers in of.items()
        if term.endswith(BEND) and _is_clear(numbers)
    ]


def _by_term(effects: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Value, low and high of each term."""
    columns = (effects[name].astype(float) for name in ("value", "low", "high"))
    return dict(zip(effects["term"], zip(*columns, strict=True), strict=True))


def _is_clear(numbers: tuple[float, float, float]) -> bool:
    return numbers[1] > 0 or numbers[2] < 0


def theory_sentences(pairs: PairStudy) -> dict[str, str]:
    """How far the fitted dials miss real techniques, by which techniques those are.

    Empty where too few were predicted.
    """
    every, told = pairs.predictions(), {}
    parts = {"within the range of the dials": pairs.predictions(within=True), "anywhere": every}
    for name, predicted in parts.items():
        if len(predicted):
            errors = prediction_errors(predicted).set_index("model")
            error, low, high = (
                float(errors[column]["theory"]) for column in ("error", "better_low", "better_high")
            )
            counts = int(every["inside"].sum()), int(errors["n"].iloc[0])
            told[name] = theory_sentence(error, low, high, *counts)
    return told


def sanity_answer(checks: pd.DataFrame) -> str:
    """Notebook 80, of a table with a `verdict` for each check of each model."""
    if checks.empty:
        return "No defence was examined."
    count = Counter(checks["verdict"])
    n_open = len(checks) - count["violated"] - count["passed"]
    return (
        f"Of {len(checks)} checks of {checks['model'].nunique()} models, {count['violated']} are "
        f"violated and {count['passed']} passed; {n_open} stay open."
    )


def transfer_answer(table: pd.DataFrame) -> str:
    """Notebook 85."""
    sga = table[table["attack"] == "sga"]
    is_own = sga["source"] == sga["target"]
    own, foreign = (float(part["value"].mean()) for part in (sga[is_own], sga[~is_own]))
    return (
        f"SGA made on the judged model itself leaves {percent(own)} of the queries, SGA made on "
        f"another model {percent(foreign)} (means)."
    )


def claims_answer(claims: Ledger) -> str:
    """Notebook 90."""
    count = Counter(str(claim["verdict"]) for claim in claims)
    told = [f"{n} {verdict}" for verdict, n in count.most_common()]
    return f"Of {len(claims)} claims: {'; '.join(told)}."


def tasks_answer(table: pd.DataFrame) -> str:
    """Notebook 95: what the worst attack leaves of each task, undefended and at best."""
    told = []
    for task, measure in RANKED_BY.items() if len(table) else ():
        of_task = (table["task"] == task) & (table["measure"] == measure)
        worst = table[of_task & (table["attack"] == "worst")].set_index("row")["value"]
        if BASE in worst:
            best = str(worst.idxmax())
            more = f", {label_of(best)} {percent(worst[best])}" if best != BASE else ", the most"
            told.append(f"{percent(worst[BASE])} of {task} ({measure}){more}")
    if not told:
        return "No row of this study is judged by other tasks."
    return f"Under the worst attack the undefended model keeps {'; '.join(told)}."


def verdict_of(claims: Ledger, name: str, *, in_short: bool = False) -> str:
    """A claim's verdict with its contrast: `inconclusive (C2, mat - tecoa: +1.1 [-0.1, 2.2])`.

    Of a claim that has several parts the first that was tested, which is the primary one, has
    its numbers; the others are verdicts.

    Args:
        in_short: without the contrast, and without parts that are threats.
    """
    parts = [claim for claim in claims if claim["id"] == name and claim["estimate"] is not None]
    if not parts:
        return f"not yet tested ({name})"
    threats = {part.name for part in THREAT_PARTS} if in_short else set()
    others = (
        f"{claim['part']}: {claim['verdict']}"
        for claim in parts[1:]
        if claim["part"] not in threats
    )
    return "; ".join([_in_numbers(parts[0], with_contrast=not in_short), *others])


def _in_numbers(claim: Mapping[str, Any], *, with_contrast: bool) -> str:
    low, high = claim["ci_low"], claim["ci_high"]
    limits = f"≥ {100 * low:.1f}" if high is None else f"{100 * low:.1f}, {100 * high:.1f}"
    part = f" {claim['part']}" if claim.get("part") else ""
    contrast = f", {claim['contrast']}" if with_contrast else ""
    return (
        f"{claim['verdict']} ({claim['id']}{part}{contrast}: "
        f"{100 * claim['estimate']:+.1f} points [{limits}])"
    )
