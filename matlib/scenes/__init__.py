"""The embedded world: structured scenes, their renderings, captions, and truth.

From one scene a renderer draws any number of images and a grammar writes any number of
captions, so both directions of the relation are one-to-many, and truth can be checked.
"""

from matlib.scenes.grammar import FAMILIES, TEMPLATES, Dials, Template, restate, write_captions
from matlib.scenes.lexicon import (
    CANONICAL_WORDS,
    CONCEPT_OF,
    FUNCTION_WORDS,
    LEXICON,
    SYNONYM_WORDS,
    VOCABULARY,
    Concept,
    decode,
    synonyms_of,
)
from matlib.scenes.render import PLAIN_STYLE, Style, render
from matlib.scenes.scene import Scene, SceneObject, corrupt_scene, holds, sample_scenes
from matlib.scenes.truth import (
    Reading,
    SceneIndex,
    TruthChecker,
    aligned_fraction,
    ceiling,
    describes,
    read,
    read_leniently,
    relevance,
)
from matlib.scenes.typos import TYPO_RULES, typo_edits, typos_of
from matlib.scenes.world import BASE_DIALS, MASKED_LM_DIALS, Split, World

__all__ = [
    "BASE_DIALS",
    "CANONICAL_WORDS",
    "CONCEPT_OF",
    "FAMILIES",
    "FUNCTION_WORDS",
    "LEXICON",
    "MASKED_LM_DIALS",
    "PLAIN_STYLE",
    "SYNONYM_WORDS",
    "TEMPLATES",
    "TYPO_RULES",
    "VOCABULARY",
    "Concept",
    "Dials",
    "Reading",
    "Scene",
    "SceneIndex",
    "SceneObject",
    "Split",
    "Style",
    "Template",
    "TruthChecker",
    "World",
    "aligned_fraction",
    "ceiling",
    "corrupt_scene",
    "decode",
    "describes",
    "holds",
    "read",
    "read_leniently",
    "relevance",
    "render",
    "restate",
    "sample_scenes",
    "synonyms_of",
    "typo_edits",
    "typos_of",
    "write_captions",
]
