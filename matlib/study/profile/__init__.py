"""A study is one profile: every number that shapes its results, checked before work starts."""

from matlib.study.profile.parts import (
    TRUE_THREATS,
    CandidatesConfig,
    Dataset,
    EvaluationConfig,
    MaskedLanguageModel,
    Model,
    TrainAttack,
    Training,
)
from matlib.study.profile.profile import (
    PROFILES,
    Profile,
    ProfileError,
    load_profile,
    profile_names,
    profile_path,
)
from matlib.study.profile.rows import (
    AUGMENTATIONS,
    REAL_ONLY,
    SCENES_ONLY,
    STRENGTHS,
    Augmentation,
    Generators,
    Intervention,
    Run,
    SetLevels,
)

__all__ = [
    "AUGMENTATIONS",
    "PROFILES",
    "REAL_ONLY",
    "SCENES_ONLY",
    "STRENGTHS",
    "TRUE_THREATS",
    "Augmentation",
    "CandidatesConfig",
    "Dataset",
    "EvaluationConfig",
    "Generators",
    "Intervention",
    "MaskedLanguageModel",
    "Model",
    "Profile",
    "ProfileError",
    "Run",
    "SetLevels",
    "TrainAttack",
    "Training",
    "load_profile",
    "profile_names",
    "profile_path",
]
