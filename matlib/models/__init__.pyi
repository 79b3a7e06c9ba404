# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from .captioner import (
    CaptionerConfig as CaptionerConfig,
    SmallCaptioner as SmallCaptioner,
    TowerCaptioner as TowerCaptioner,
    train_captioner as train_captioner,
    train_tower_captioner as train_tower_captioner,
)
from .door import open as open
from .dual_encoder import (
    CachedText as CachedText,
    DualEncoder as DualEncoder,
    Fused as Fused,
    FusionEncoder as FusionEncoder,
    TrainableEncoder as TrainableEncoder,
    frozen as frozen,
    parameters_of as parameters_of,
)
from .encoder import VisionLanguageModel as VisionLanguageModel
from .in_memory import ClipInMemory as ClipInMemory
from .masked_lm import MaskedLM as MaskedLM, train_masked_lm as train_masked_lm
from .masked_lm_training import MaskedLMConfig as MaskedLMConfig
from .open_clip import OpenClipEncoder as OpenClipEncoder
from .positions import heat_of_fusion as heat_of_fusion, heat_of_tower as heat_of_tower
from .sentence_encoder import SentenceEncoder as SentenceEncoder
from .settings import Settings as Settings
from .small import (
    SmallModel as SmallModel,
    build_small as build_small,
    load_small as load_small,
    save_small as save_small,
)
from .zoo import found_in_zoo as found_in_zoo, read_zoo as read_zoo
