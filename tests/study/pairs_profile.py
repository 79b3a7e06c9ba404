"""A toy study of pairs: every kind of row that the claims C4 to C7 need."""

from __future__ import annotations

from matlib.study.profile.profile import Profile, load_profile
from matlib.study.profile.rows import Intervention, Run

TECHNIQUES = (
    Run(defence="mat"),
    Run(defence="mat", label="regularised", ema_decay=0.5, weight_decay=0.1),
    Run(defence="mat+", augmentation="captions+renderings"),
    Run(defence="mat+", augmentation="captions+renderings", n_train=8),
    Run(defence="mat+", augmentation="restated"),
    Run(defence="mat+", augmentation="eda"),
    Run(defence="mat+", augmentation="captioned"),
    Run(defence="mat+", augmentation="captioned", vendi=1.0, keep_aligned=-1.0),
    Run(defence="mat+", augmentation="rewritten", vendi=1.0),
    Run(defence="mat+", augmentation="augmix", keep_diverse=1),
    Run(defence="mat+", augmentation="crop-flip-jitter"),
)
SWEEPS = (
    Run(defence="mat+", augmentation="eda", strength=0.5),
    Run(defence="mat+", augmentation="eda", n_variants=2),
    Run(defence="mat+", augmentation="crop-flip-jitter", strength=0.5),
    Run(defence="mat", n_train=12),
    Run(defence="mat+", augmentation="captions+renderings", n_train=12),
)


def pairs_profile(name: str = "pairs") -> Profile:
    """The smoke profile without its defences."""
    plain = load_profile("smoke").model_dump()
    plain.update(
        name=name, runs=(), inside=(), architectures={}, transfer_rows=(), other_tasks=None,
        techniques=TECHNIQUES, sweeps=SWEEPS,
        intervention=Intervention(levels=(0, 1), modalities=("text",), seeds=(0,)),
    )  # fmt: skip
    plain["evaluation"]["curve_eps_255"] = ()
    plain["finetune"]["n_steps"] = 2
    return Profile(**plain)
