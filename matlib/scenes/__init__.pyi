# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from .grammar import (
    FAMILIES as FAMILIES,
    TEMPLATES as TEMPLATES,
    Dials as Dials,
    Template as Template,
    restate as restate,
    write_captions as write_captions,
)
from .lexicon import (
    CANONICAL_WORDS as CANONICAL_WORDS,
    CONCEPT_OF as CONCEPT_OF,
    FUNCTION_WORDS as FUNCTION_WORDS,
    LEXICON as LEXICON,
    SYNONYM_WORDS as SYNONYM_WORDS,
    VOCABULARY as VOCABULARY,
    Concept as Concept,
    decode as decode,
    synonyms_of as synonyms_of,
)
from .renderer import (
    PLAIN_STYLE as PLAIN_STYLE,
    Style as Style,
    render as render,
    render_with_boxes as render_with_boxes,
)
from .scene import (
    Scene as Scene,
    SceneObject as SceneObject,
    corrupt_scene as corrupt_scene,
    holds as holds,
    sample_scenes as sample_scenes,
)
from .truth import (
    Reading as Reading,
    SceneIndex as SceneIndex,
    TruthChecker as TruthChecker,
    aligned_fraction as aligned_fraction,
    ceiling as ceiling,
    describes as describes,
    read as read,
    read_leniently as read_leniently,
    relevance as relevance,
)
from .typos import TYPO_RULES as TYPO_RULES, typo_edits as typo_edits, typos_of as typos_of
from .world import (
    BASE_DIALS as BASE_DIALS,
    MASKED_LM_DIALS as MASKED_LM_DIALS,
    Split as Split,
    World as World,
)
