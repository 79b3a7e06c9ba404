"""A profile as part of identities: local files and folders are known by their content."""

from __future__ import annotations

from matlib.config.places import map_places
from matlib.config.profile import Profile
from matlib.study.provenance import named_weights


def identified(profile: Profile) -> Profile:
    """The profile with the hash of its content in place of every path of this machine.

    Names on a hub stay as they are.
    """
    return map_places(profile, lambda _, name: named_weights(name))
