"""Every text tower that open_clip knows by name, made tiny: its structure without its size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    M2M100Config,
    MT5Config,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

CAPTIONS = [
    "a dog",
    "",
    "!",
    "Two BLACK cats, asleep on_the sofa!",
    "größer als 圆",
    "<end_of_text> red",
    "word " * 90,
]
_WORDS = ["a", "dog", "two", "black", "cats", "asleep", "on", "the", "sofa", "!", ",", "_", "word"]
_IMAGES = {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 16}
_SIZE = {"width": 16, "heads": 2, "layers": 2}
# of the tokenizers on the hub: ids of start, padding and end; None: no start token
_MARKS = {
    "bert-base-uncased": (2, 0, 3),
    "facebook/xlm-v-base": (0, 1, 2),
    "facebook/nllb-200": (4, 1, 2),
    "google/mt5": (None, 0, 1),
    "roberta-base": (0, 1, 2),
    "xlm-roberta": (0, 1, 2),
    "SigLIP2": (None, 0, 1),
    "SigLIP": (None, 1, 1),
}
_N_TOKENS = 6 + 2 * len(_WORDS) - 3


def structures() -> dict[str, dict[str, Any]]:
    """Tiny configurations of all of open_clip's models, one name for each that differs."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in open_clip.list_models():
        tiny = _shrunk(open_clip.get_model_config(name))
        found.setdefault(json.dumps(tiny, sort_keys=True), (name, tiny))
    return dict(found.values())


def _shrunk(config: dict[str, Any]) -> dict[str, Any]:
    text = {**config["text_cfg"], **_SIZE}
    if "hf_tokenizer_name" in text:
        text |= {"hf_tokenizer_name": _kind(text["hf_tokenizer_name"]), "vocab_size": _N_TOKENS}
    if "hf_model_name" in text:
        text["hf_model_name"] = _kind(text["hf_model_name"])
    tiny = {**config, "embed_dim": 8, "vision_cfg": _IMAGES, "text_cfg": text}
    if "multimodal_cfg" in config:
        pooler = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
        tiny["vision_cfg"] = {**_IMAGES, **pooler}
        tiny["multimodal_cfg"] = {**config["multimodal_cfg"], **_SIZE, "attn_pooler_heads": 2}
    return tiny


def _kind(name: str) -> str:
    return next(kind for kind in _MARKS if kind in name)


def placed(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration with its tokenizer and its tower of transformers written to a folder."""
    text = dict(config["text_cfg"])
    if "hf_tokenizer_name" in text:
        kind = text["hf_tokenizer_name"]
        tokenizer(kind).save_pretrained(folder)
        text["hf_tokenizer_name"] = str(folder)
    if "hf_model_name" in text:
        _tower(text["hf_model_name"]).save_pretrained(folder)
        text["hf_model_name"] = str(folder)
    return {**config, "text_cfg": text}


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A few words, with the special tokens where those of the hub have them."""
    start, pad, end = _MARKS[kind]
    names = {pad: "<pad>", end: "</s>"} | ({} if start is None else {start: "<s>"})
    marks = [names.get(i, f"<{i}>") for i in range(6)]
    vocabulary = [*marks, *_WORDS, *(word.upper() for word in _WORDS if word.isalpha())]
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, "<5>"))
    plain.normalizer = normalizers.NFKC()
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    plain.post_processor = processors.TemplateProcessing(
        single="$A </s>" if start is None else "<s> $A </s>",
        special_tokens=[(name, i) for i, name in names.items() if name != "<pad>"],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token=names[pad], unk_token="<5>", eos_token="</s>",
        sep_token="</s>",
    )  # fmt: skip


def _tower(kind: str) -> Any:
    shape = {"vocab_size": _N_TOKENS, "pad_token_id": _MARKS[kind][1]}
    if kind == "google/mt5":
        return MT5Config(**shape, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    if kind == "facebook/nllb-200":
        return M2M100Config(
            **shape, d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16,
            decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16,
            max_position_embeddings=128,
        )  # fmt: skip
    kinds = {"roberta-base": RobertaConfig, "xlm-roberta": XLMRobertaConfig}
    return kinds[kind](
        **shape, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=130,
    )  # fmt: skip
