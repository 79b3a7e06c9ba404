# The names of this front door (`__init__.py`), for type checkers and `lazy_loader` alike.

from .caption_files import read_caption_file as read_caption_file
from .fetching import (
    DownloadError as DownloadError,
    LicenceNotAccepted as LicenceNotAccepted,
    fetch as fetch,
)
from .images import CorruptImageError as CorruptImageError, decode_image as decode_image
from .karpathy import (
    KarpathyFormatError as KarpathyFormatError,
    read_karpathy as read_karpathy,
    write_karpathy as write_karpathy,
)
from .manifest import (
    Manifest as Manifest,
    ManifestError as ManifestError,
    load_manifest as load_manifest,
    manifest_names as manifest_names,
    verify as verify,
)
from .pairs import (
    ImageFiles as ImageFiles,
    ImageSource as ImageSource,
    ImageTensor as ImageTensor,
    ImageTextPairs as ImageTextPairs,
    OneToMany as OneToMany,
    Originals as Originals,
    VariantImages as VariantImages,
)
from .referring import (
    Referring as Referring,
    ReferringImages as ReferringImages,
    read_refcoco as read_refcoco,
)
from .strict import UnreadableError as UnreadableError
from .wordnet import WordNet as WordNet, open_wordnet as open_wordnet
