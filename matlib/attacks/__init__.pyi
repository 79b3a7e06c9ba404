# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from .apgd import APGD as APGD
from .ascent import AttackReport as AttackReport, ScaleViews as ScaleViews
from .attackable import RELEASED as RELEASED, english_stop_words as english_stop_words
from .attacked_gallery import Attacked as Attacked, margins_of as margins_of
from .balls import Ball as Ball, to_8bit as to_8bit
from .characters import CharacterEdits as CharacterEdits, Charmer as Charmer
from .diversified import DiversifiedPGD as DiversifiedPGD, dra as dra
from .edits import (
    MASK as MASK,
    CandidateTable as CandidateTable,
    Edit as Edit,
    apply_edit as apply_edit,
    free_edits as free_edits,
    from_masked_lm as from_masked_lm,
    from_synonyms as from_synonyms,
    from_table as from_table,
    keep_similar as keep_similar,
    n_changed_words as n_changed_words,
    normalise_caption as normalise_caption,
    one_letter_edits as one_letter_edits,
)
from .fused import fused_co_attack as fused_co_attack, unmatched as unmatched
from .gallery import Gallery as Gallery, TextAttack as TextAttack
from .gallery_images import JointAscent as JointAscent
from .gallery_words import WordDescent as WordDescent
from .hubs import hub as hub
from .margins import Aim as Aim
from .multimodal import (
    co_attack as co_attack,
    contrastive_attack as contrastive_attack,
    feature_pgd as feature_pgd,
    pgd_attack as pgd_attack,
    sep_attack as sep_attack,
    sga as sga,
)
from .objectives import (
    away_from_captions as away_from_captions,
    away_from_image as away_from_image,
    caption_contrastive as caption_contrastive,
    contrastive as contrastive,
    kl_from as kl_from,
    kl_from_image as kl_from_image,
    kl_from_image_and_captions as kl_from_image_and_captions,
    margin as margin,
    squared_distance as squared_distance,
    squared_distance_from as squared_distance_from,
    symmetric_contrastive as symmetric_contrastive,
)
from .pgd import PGD as PGD
from .scored import ascend_score as ascend_score
from .scoring import embed_texts as embed_texts
from .universal import Universal as Universal
from .whole_gallery import (
    GalleryBudget as GalleryBudget,
    aimed_at_rest as aimed_at_rest,
    gallery_attack as gallery_attack,
    nested as nested,
    words_attack as words_attack,
)
from .word_order import (
    order_by_gradient as order_by_gradient,
    order_by_masking as order_by_masking,
)
from .word_substitution import (
    PreparedSubstitution as PreparedSubstitution,
    WordSubstitution as WordSubstitution,
)
