"""A profile as part of identities: local files and folders are known by their content."""

from __future__ import annotations

from matlib.config import Model, Profile
from matlib.study.provenance import named_weights


def identified(profile: Profile) -> Profile:
    """The profile with the hash of its content in place of every path of this machine.

    Names on a hub stay as they are.
    """

    def model(own: Model) -> Model:
        return own.model_copy(update={"pretrained": named_weights(own.pretrained)})

    named = profile.generators
    generators = named.model_copy(update={
        **{key: named_weights(getattr(named, key))
           for key in ("captioner", "rewriter", "image_to_image", "text_to_image")},
        "translators": tuple(map(named_weights, named.translators)),
    })  # fmt: skip
    words = {"name": named_weights(profile.masked_lm.name)}
    sentences = {"sentence_encoder": named_weights(profile.evaluation.sentence_encoder)}
    return profile.model_copy(update={
        "model": model(profile.model),
        "architectures": {name: model(each) for name, each in profile.architectures.items()},
        "masked_lm": profile.masked_lm.model_copy(update=words),
        "generators": generators,
        "evaluation": profile.evaluation.model_copy(update=sentences),
    })  # fmt: skip
