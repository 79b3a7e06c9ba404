"""How near attacked captions stay to the originals, where truth itself cannot be checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from matlib.evaluation.bootstrap import bootstrap_ratio
from matlib.models.sentence_encoder import SentenceEncoder
from matlib.study.artefacts import ArtefactSpec
from matlib.study.examples import broken_captions
from matlib.study.makers import makes
from matlib.study.provenance import named_weights
from matlib.study.runs import Study

COSINES_FILE = "cosines.json"
NEAR = 0.95
"""The limit that VLAttack puts on the universal sentence encoder's cosine (reference values of
another encoder differ: compare the threats with each other, not with 0.95)."""


def edit_similarity(study: Study, name: str, *, seed: int = 0) -> pd.DataFrame | None:
    """Cosine of each changed caption with its original, over the text attack's successes.

    A success is a caption that found its image before and does not after. The encoder is the
    profile's `evaluation.sentence_encoder`; it is neither the attacked model nor the attacker's.

    Returns:
        one row per text threat: text_threat, n (successes), mean, low, high (95 %, resampling
        images), share_near (cosine of at least 0.95); None where the profile names no encoder.
    """
    if not study.profile.evaluation.sentence_encoder:
        return None
    judged, pairs = study.judged(name, seed), study.pairs("test")
    rows: list[dict[str, Any]] = []
    for threat in study.profile.evaluation.threats:
        cosines = torch.tensor(_cosines(study, name, seed, threat), dtype=torch.double)
        _, broken = broken_captions(judged, threat)
        row: dict[str, Any] = {"text_threat": threat, "n": int(broken.sum())}
        if bool(broken.any()):
            row |= _summary(cosines, broken, pairs.image_of, len(pairs), study)
        rows.append(row)
    columns = ["text_threat", "n", "mean", "low", "high", "share_near"]
    return pd.DataFrame(rows).reindex(columns=columns)


def _summary(
    cosines: Tensor, broken: Tensor, own: Tensor, n_images: int, study: Study
) -> dict[str, float]:
    total, count = (torch.zeros(n_images, dtype=torch.double) for _ in range(2))
    total.index_add_(0, own, cosines * broken)
    count.index_add_(0, own, broken.double())
    has = count > 0  # images without success say nothing about the successes
    found = bootstrap_ratio(total[has], count[has], n_boot=study.profile.evaluation.n_boot)
    near = float((cosines[broken] >= NEAR).double().mean())
    return {"mean": found.value, "low": found.low, "high": found.high, "share_near": near}


@makes("similarity")
def _cosines(study: Study, name: str, seed: int, threat: str) -> list[float]:
    """Per caption of the test gallery, the cosine of the attacked with the original one."""
    judged = study.judged(name, seed)
    encoder_name = study.profile.evaluation.sentence_encoder
    spec = ArtefactSpec(
        kind="similarity",
        name=f"{name}-{threat}",
        seed=seed,
        config={"encoder": named_weights(encoder_name), "threat": threat},
        inputs={"judged": judged.hash},
        maker="similarity",
    )

    def make(folder: Path) -> None:
        encoder = SentenceEncoder.load(encoder_name, study.device)
        clean = encoder.encode_text(study.pairs("test").captions)
        attacked = encoder.encode_text(judged.captions["bert", threat])
        (folder / COSINES_FILE).write_text(
            json.dumps((clean * attacked).sum(1).tolist()), encoding="utf-8"
        )

    found: list[float] = json.loads(
        study.get(spec, make).file(COSINES_FILE).read_text(encoding="utf-8")
    )
    return found
