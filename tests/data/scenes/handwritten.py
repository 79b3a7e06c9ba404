"""Scenes chosen by hand, and the captions of `handwritten.txt` that are judged against them."""

from pathlib import Path
from typing import NamedTuple

from matlib.scenes.scene import Scene, SceneObject

FIRST, SECOND, THIRD, FOURTH = 0.21875, 0.40625, 0.59375, 0.78125

SCENES = {
    "pair": Scene(
        (
            SceneObject("star", "red", "striped", "small", FIRST, SECOND),
            SceneObject("ring", "blue", "plain", "large", THIRD, SECOND),
        ),
        "sand",
    ),
    "tower": Scene(
        (
            SceneObject("heart", "yellow", "dotted", "medium", SECOND, FIRST),
            SceneObject("cross", "green", "checkered", "medium", SECOND, FOURTH),
        ),
        "night",
    ),
    "trio": Scene(
        (
            SceneObject("moon", "purple", "plain", "large", FIRST, FIRST),
            SceneObject("arrow", "orange", "dotted", "small", FOURTH, FIRST),
            SceneObject("square", "white", "striped", "medium", FOURTH, FOURTH),
        ),
        "grass",
    ),
    "reds": Scene(
        (
            SceneObject("circle", "red", "plain", "small", FIRST, SECOND),
            SceneObject("square", "red", "plain", "large", THIRD, THIRD),
        ),
        "sky",
    ),
    "corner": Scene(
        (
            SceneObject("bolt", "black", "checkered", "small", SECOND, SECOND),
            SceneObject("hexagon", "pink", "plain", "small", THIRD, THIRD),
        ),
        "dusk",
    ),
}


class Judged(NamedTuple):
    scene: str
    caption: str
    is_true: bool


def _load() -> list[Judged]:
    judged, scene = [], ""
    lines = Path(__file__).with_name("handwritten.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith("== "):
            scene = line[3:]
        elif line[:2] in ("+ ", "- "):
            judged.append(Judged(scene, line[2:], line[0] == "+"))
    return judged


JUDGED = _load()
