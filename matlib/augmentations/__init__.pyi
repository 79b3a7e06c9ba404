# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from .dialled import dialled_captions as dialled_captions, dialled_images as dialled_images
from .diffusion import (
    Diffusion as Diffusion,
    drawn_by_diffusion as drawn_by_diffusion,
    restyled_by_diffusion as restyled_by_diffusion,
)
from .filtering import (
    Embedded as Embedded,
    keep_aligned as keep_aligned,
    keep_diverse as keep_diverse,
    thin_to_vendi as thin_to_vendi,
)
from .generators import (
    BackTranslator as BackTranslator,
    Captioner as Captioner,
    InstructRewriter as InstructRewriter,
    MissingExtraError as MissingExtraError,
    PretrainedCaptioner as PretrainedCaptioner,
    Writer as Writer,
    captions_by as captions_by,
    write_variants as write_variants,
)
from .images import (
    augmix as augmix,
    crop_flip_jitter as crop_flip_jitter,
    randaugment as randaugment,
    similar_images as similar_images,
)
from .scenes_rewriter import rewrite_scene_captions as rewrite_scene_captions
from .table import TECHNIQUES as TECHNIQUES, Strength as Strength, Technique as Technique
from .text import (
    Synonyms as Synonyms,
    character_noise as character_noise,
    drop_and_swap as drop_and_swap,
    eda as eda,
    mismatched as mismatched,
)
from .variants import combine as combine, with_captions as with_captions, with_images as with_images
from .wanted import Wanted as Wanted
