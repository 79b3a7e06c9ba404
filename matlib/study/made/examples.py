"""Examples and counts that make an attack visible: what is found, which words change.

How near attacked captions stay to the originals, where truth itself cannot be checked.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from matlib.analysis.figures.pictures import Shelf
from matlib.attacks.gallery import embed_images
from matlib.attacks.scoring import embed_texts
from matlib.evaluation.robustness import evaluate
from matlib.evaluation.statistics import Estimate, bootstrap_ratio
from matlib.models.sentence_encoder import SentenceEncoder
from matlib.study.context import Context, Node
from matlib.study.identity.makers import makes
from matlib.study.made.candidates import tables
from matlib.study.made.evaluated import EvaluatedModel, evaluated
from matlib.study.made.models import open_model
from matlib.study.made.protocols import full, make_suite, moves_of
from matlib.study.made.substitutions import labelled_share
from matlib.study.sources.scenes import ScenesSource
from matlib.study.store.provenance import named_weights
from matlib.study.store.store import Artefact

FOUND = "found.safetensors"
SHOWN_ATTACK = "gallery"
"""The attack under which captions search: who chooses all images and all words together."""


def _evaluated(study: Context, name: str, seed: int) -> EvaluatedModel:
    return study.get(evaluated(study, name, seed, full(study.profile.evaluation, "test")))


def chosen_queries(study: Context, name: str, seed: int, n: int) -> list[int]:
    """The first captions, one per image, whose image is found first without an attack.

    The choice does not look at the attack. If there are too few, captions that fail already
    follow.
    """
    own = study.pairs("test").image_of
    is_right = _evaluated(study, name, seed).outcomes["clean", ""].hits("IR", 1)
    first: dict[int, int] = {}
    for caption in [*is_right.nonzero().flatten().tolist(), *range(len(own))]:
        first.setdefault(int(own[caption]), caption)
    ranked = sorted(first.values(), key=lambda caption: (not bool(is_right[caption]), caption))
    return ranked[:n]


@makes("found")
def found(
    study: Context, name: str, threat: str, *, seed: int, n_queries: int, k: int
) -> Node[dict[str, Tensor]]:
    """Rows and pixels of the `k` images that a few captions find, before and under the attack."""
    whole = full(study.profile.evaluation, "test")
    how = replace(whole, attacks=("clean", SHOWN_ATTACK), with_curve=False)
    of_model = evaluated(study, name, seed, whole)
    words = tables(study, how.gallery, how.threats)
    parts = tables(study, how.gallery, how.parts) if how.parts else None

    def make(folder: Path) -> None:
        pairs, encoder = study.pairs("test"), open_model(study, name, seed)
        suite = replace(make_suite(study.profile.evaluation, how), n_shown=len(pairs))
        # seed 0 as in the evaluation: the very images and captions that were judged
        attacked = evaluate(encoder, pairs, study.get(words), suite, seed=0,
                            parts=study.get(parts) if parts else None)  # fmt: skip
        queries = chosen_queries(study, name, seed, n_queries)
        at, tensors = (SHOWN_ATTACK, threat), dict[str, Tensor]()
        for label, pixels, texts in (
            ("before", pairs.pixels(), pairs.captions),
            ("after", attacked.shown[at], attacked.captions[at]),
        ):
            asked = embed_texts(encoder, [texts[q] for q in queries])
            top = (asked @ embed_images(encoder, pixels).T).topk(k, dim=1).indices.cpu()
            tensors[f"{label}_rows"] = top.contiguous()
            tensors[f"{label}_pixels"] = pixels[top.flatten()].unflatten(0, top.shape).contiguous()
        save_file(tensors, str(folder / FOUND))

    config = {"threat": threat, "n_queries": n_queries, "k": k}
    inputs = {"judged": of_model, "tables": words, "parts": parts}
    return study.node(
        "found", name, seed, config, inputs, make,
        lambda artefact: load_file(str(artefact.file(FOUND))),
        chosen=moves_of(how, study.profile.model),
    )  # fmt: skip


def shelves(
    study: Context, name: str, threat: str, *, seed: int = 0, n_queries: int = 3, k: int = 5
) -> list[Shelf]:
    """What a few captions find before and under the gallery attack.

    Args:
        name: row of the study.
        threat: text threat, one under which the slow attacks run.
        seed: of the model.
        n_queries: captions, chosen by `chosen_queries`.
        k: images shown per caption.
    """
    pairs, relevant = study.pairs("test"), study.pairs("test").relevance()
    k = min(k, len(pairs))
    top = study.get(found(study, name, threat, seed=seed, n_queries=n_queries, k=k))
    captions = _evaluated(study, name, seed).captions[SHOWN_ATTACK, threat]
    return [
        Shelf(
            pairs.captions[query],
            captions[query],
            top["before_pixels"][i],
            top["after_pixels"][i],
            tuple(relevant[top["before_rows"][i], query].tolist()),
            tuple(relevant[top["after_rows"][i], query].tolist()),
        )
        for i, query in enumerate(chosen_queries(study, name, seed, n_queries))
    ]


def broken_captions(evaluated: EvaluatedModel, threat: str) -> tuple[Tensor, Tensor]:
    """bool (M,) each: captions right without attack; those of them that the text attack breaks."""
    right = evaluated.outcomes["clean", ""].hits("IR", 1)
    return right, right & ~evaluated.outcomes["bert", threat].hits("IR", 1)


def substitutions(study: Context, name: str, threat: str, *, seed: int = 0) -> pd.DataFrame:
    """Which words the text attack replaces by which, the most frequent first.

    Returns:
        columns word, replacement, n (captions), n_right (of them right before), n_broken (of
        those, wrong after). Typos and rare words make many rows of one.
    """
    before, evaluated = study.pairs("test").captions, _evaluated(study, name, seed)
    right, broken = broken_captions(evaluated, threat)
    rows = []
    for i, (old, new) in enumerate(zip(before, evaluated.captions["bert", threat], strict=True)):
        changed = [(a, b) for a, b in zip(old.split(" "), new.split(" "), strict=False) if a != b]
        for word, replacement in changed[:1]:
            rows.append((word, replacement, 1, int(right[i]), int(broken[i])))
    columns = ["word", "replacement", "n", "n_right", "n_broken"]
    table = pd.DataFrame(rows, columns=columns).groupby(["word", "replacement"]).sum()
    order = ["n", "word", "replacement"]
    return table.reset_index().sort_values(order, ascending=[False, True, True], ignore_index=True)


def false_share(
    study: Context, name: str, threat: str = "bert_free", *, seed: int = 0
) -> Estimate | None:
    """Share of the text attack's successes whose caption is no longer true of its image.

    A success is a caption that found its image before and does not after. The interval
    resamples images. Of real captions, whose truth cannot be checked: the share of the allowed
    changes that a reader labelled false (`labelled_share`), whoever is attacked. None where
    nothing was labelled or nothing succeeded.
    """
    if not isinstance(study.source, ScenesSource):
        return labelled_share(study.profile.name, threat)
    evaluated = _evaluated(study, name, seed)
    if ("bert", threat) not in evaluated.captions:
        return None
    pairs, captions = study.pairs("test"), evaluated.captions["bert", threat]
    _, broken = broken_captions(evaluated, threat)
    if not bool(broken.any()):
        return None
    false = torch.zeros(len(captions), dtype=torch.double)
    for i in broken.nonzero().flatten().tolist():
        false[i] = float(study.source.is_false("test", i, captions[i]))
    per_image = [torch.zeros(len(pairs), dtype=torch.double) for _ in range(2)]
    per_image[0].index_add_(0, pairs.image_of, false)
    per_image[1].index_add_(0, pairs.image_of, broken.double())
    has_success = per_image[1] > 0  # images without success tell nothing about the share
    return bootstrap_ratio(
        per_image[0][has_success],
        per_image[1][has_success],
        n_boot=study.profile.evaluation.n_boot,
    )


COSINES_FILE = "cosines.json"
NEAR = 0.95
"""The limit that VLAttack puts on the universal sentence encoder's cosine (reference values of
another encoder differ: compare the threats with each other, not with 0.95)."""


def edit_similarity(study: Context, name: str, *, seed: int = 0) -> pd.DataFrame | None:
    """Cosine of each changed caption with its original, over the text attack's successes.

    A success is a caption that found its image before and does not after. The encoder is the
    profile's `evaluation.sentence_encoder`; it is neither the attacked model nor the attacker's.

    Returns:
        one row per text threat: text_threat, n (successes), mean, low, high (95 %, resampling
        images), share_near (cosine of at least 0.95); None where the profile names no encoder.
    """
    if not study.profile.evaluation.sentence_encoder:
        return None
    evaluated, pairs = _evaluated(study, name, seed), study.pairs("test")
    rows: list[dict[str, Any]] = []
    for threat in study.profile.evaluation.threats:
        own = study.get(cosines(study, name, seed, threat))
        _, broken = broken_captions(evaluated, threat)
        row: dict[str, Any] = {"text_threat": threat, "n": int(broken.sum())}
        if bool(broken.any()):
            row |= _summary(
                torch.tensor(own, dtype=torch.double), broken, pairs.image_of, len(pairs), study
            )
        rows.append(row)
    columns = ["text_threat", "n", "mean", "low", "high", "share_near"]
    return pd.DataFrame(rows).reindex(columns=columns)


def _summary(
    cosines: Tensor, broken: Tensor, own: Tensor, n_images: int, study: Context
) -> dict[str, float]:
    total, count = (torch.zeros(n_images, dtype=torch.double) for _ in range(2))
    total.index_add_(0, own, cosines * broken)
    count.index_add_(0, own, broken.double())
    has = count > 0  # images without success say nothing about the successes
    found = bootstrap_ratio(total[has], count[has], n_boot=study.profile.evaluation.n_boot)
    near = float((cosines[broken] >= NEAR).double().mean())
    return {"mean": found.value, "low": found.low, "high": found.high, "share_near": near}


@makes("similarity")
def cosines(study: Context, name: str, seed: int, threat: str) -> Node[list[float]]:
    """Per caption of the test gallery, the cosine of the attacked with the original one."""
    of_model = evaluated(study, name, seed, full(study.profile.evaluation, "test"))
    encoder_name = study.profile.evaluation.sentence_encoder

    def make(folder: Path) -> None:
        encoder = SentenceEncoder.load(encoder_name, study.device)
        clean = encoder.encode_text(study.pairs("test").captions)
        attacked = encoder.encode_text(study.get(of_model).captions["bert", threat])
        (folder / COSINES_FILE).write_text(
            json.dumps((clean * attacked).sum(1).tolist()), encoding="utf-8"
        )

    config = {"encoder": named_weights(encoder_name), "threat": threat}
    return study.node(
        "similarity", f"{name}-{threat}", seed, config, {"judged": of_model}, make, _cosines_in
    )


def _cosines_in(artefact: Artefact) -> list[float]:
    found: list[float] = json.loads(artefact.file(COSINES_FILE).read_text(encoding="utf-8"))
    return found
