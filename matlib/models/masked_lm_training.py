"""Training a masked language model on captions, for worlds without a model hub.

A small one from random weights, or the head for masked words on a pretrained body.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, processors
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
)

from matlib.models.packaged import place_of
from matlib.models.whole import load_pretrained, load_whole

BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class MaskedLMConfig:
    """Shape and training of the masked language model.

    Attributes:
        width, layers, heads: of the small BERT encoder; a pretrained body has its own.
        vocab_size: WordPiece vocabulary learnt from the corpus, for the small one.
        n_steps, batch_size, lr: training; captions per step.
        mask_rate: share of the words predicted per caption; of these 60 % are masked, 20 %
            replaced by a random word and 20 % kept (Devlin et al. use 15 % and 80/10/10;
            BERT-Attack reads predictions at *unmasked* words, so those get more practice).
    """

    width: int = 96
    layers: int = 2
    heads: int = 4
    vocab_size: int = 2000
    n_steps: int = 600
    batch_size: int = 128
    lr: float = 2e-3
    mask_rate: float = 0.25
    max_tokens: int = 64


def train_bert(
    corpus: Sequence[str],
    config: MaskedLMConfig,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    body: str = "",
) -> tuple[BertForMaskedLM, PreTrainedTokenizerFast]:
    """A BERT trained on captions, and its tokenizer.

    Args:
        corpus: captions, at least one.
        on_step: called with the step and its loss.
        body: name, folder or package of a BERT without that head, which training begins from;
            empty: a small one with random weights.

    Raises:
        FileNotFoundError, ValueError: no such body, or not a BERT.
    """
    if body:
        model, tokenizer = _on_body(place_of(body), seed)
    else:
        tokenizer = train_tokenizer(corpus, config.vocab_size)
        model = _fresh_bert(config, len(tokenizer), tokenizer.pad_token_id, seed)
    generator = torch.Generator().manual_seed(seed)
    encoded = tokenizer(list(corpus), truncation=True, max_length=config.max_tokens)["input_ids"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.01, fused=True)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=config.n_steps + 1)
    model.train()
    for step in range(config.n_steps):
        rows = torch.randint(len(encoded), (config.batch_size,), generator=generator).tolist()
        ids = _pad([encoded[i] for i in rows], tokenizer.pad_token_id)
        inputs, target = _corrupt(ids, tokenizer, config.mask_rate, generator)
        hidden = model.bert(inputs, attention_mask=(ids != tokenizer.pad_token_id).long())
        chosen = target >= 0  # only the predicted words pass the large output layer
        loss = F.cross_entropy(model.cls(hidden.last_hidden_state[chosen]), target[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        plan.step()
        if on_step is not None:
            on_step(step, float(loss.detach()))
    return model, tokenizer


def _fresh_bert(config: MaskedLMConfig, n_tokens: int, pad: int, seed: int) -> BertForMaskedLM:
    shape = BertConfig(
        vocab_size=n_tokens,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.width,
        max_position_embeddings=config.max_tokens,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=pad,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForMaskedLM(shape)


def _on_body(source: str, seed: int) -> tuple[BertForMaskedLM, PreTrainedTokenizerFast]:
    """A pretrained BERT under a head with random weights; its words are those that it reads."""
    what = "body of the masked language model"
    tokenizer = load_pretrained(AutoTokenizer.from_pretrained, source, what)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"the {what} at {source!r} has no fast tokenizer (tokenizer.json)")
    body = load_whole(
        AutoModel.from_pretrained, source, what, unread=r"^pooler\.", add_pooling_layer=False,
        # the same seed shall give the same weights
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    if body.config.model_type != "bert":
        raise ValueError(f"the {what} at {source!r} is a {body.config.model_type}, expected a bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForMaskedLM(body.config)
    model.bert.load_state_dict(body.state_dict())
    return model, tokenizer


def train_tokenizer(corpus: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """WordPiece over the corpus' most frequent words and all its letters, BERT's special tokens.

    The library's own trainer breaks ties by hash order, so two processes learn different
    vocabularies; counting words is enough here and the same everywhere.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), BertPreTokenizer()
    counts: Counter[str] = Counter()
    for caption in corpus:
        text = normalizer.normalize_str(caption)
        counts.update(word for word, _ in splitter.pre_tokenize_str(text))
    letters = sorted({letter for word in counts for letter in word})
    words = sorted(counts, key=lambda word: (-counts[word], word))
    pieces = [*BERT_TOKENS, *letters, *(f"##{letter}" for letter in letters), *words]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces[:vocab_size]))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _pad(rows: list[list[int]], pad: int) -> Tensor:
    padded = torch.full((len(rows), max(map(len, rows))), pad, dtype=torch.long)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row)
    return padded


def _corrupt(
    ids: Tensor, tokenizer: PreTrainedTokenizerFast, rate: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Inputs (B, T) with words masked, replaced or kept, and targets (-1: not predicted)."""
    first = max(tokenizer.all_special_ids) + 1  # special and unused ones begin the vocabulary
    words = ids >= first
    chosen = (torch.rand(ids.shape, generator=generator) < rate) & words
    if not bool(chosen.any()):
        chosen = words.clone()
    fate = torch.rand(ids.shape, generator=generator)
    others = torch.randint(first, len(tokenizer), ids.shape, generator=generator)
    inputs = torch.where(chosen & (fate < 0.6), tokenizer.mask_token_id, ids)
    inputs = torch.where(chosen & (fate >= 0.6) & (fate < 0.8), others, inputs)
    return inputs, torch.where(chosen, ids, -1)
