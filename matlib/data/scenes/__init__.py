"""The embedded world: structured scenes, their renderings, captions, and truth.

From one scene a renderer draws any number of images and a grammar writes any number of
captions, so both directions of the relation are one-to-many, and truth can be checked.
"""

from matlib.data.scenes.grammar import Dials, write_captions
from matlib.data.scenes.lexicon import (
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
from matlib.data.scenes.reading import Reading, read, read_leniently
from matlib.data.scenes.render import PLAIN_STYLE, Style, render
from matlib.data.scenes.restating import restate
from matlib.data.scenes.scene import Scene, SceneObject, corrupt_scene, holds, sample_scenes
from matlib.data.scenes.templates import FAMILIES, TEMPLATES, Template
from matlib.data.scenes.truth import (
    SceneIndex,
    TruthChecker,
    aligned_fraction,
    ceiling,
    describes,
    relevance,
)
from matlib.data.scenes.typos import TYPO_RULES, typo_edits, typos_of
from matlib.data.scenes.world import BASE_DIALS, MASKED_LM_DIALS, Split, World

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
