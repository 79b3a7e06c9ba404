"""The masked language model behind the text attack: candidate words for each position."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, processors
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class MaskedLMConfig:
    """Shape and training of the small masked language model.

    Attributes:
        width, layers, heads: of the BERT encoder.
        vocab_size: WordPiece vocabulary learnt from the corpus.
        n_steps, batch_size, lr: training; captions per step.
        mask_rate: share of the words predicted per caption; of these 60 % are masked, 20 %
            replaced by a random word and 20 % kept (Devlin et al. use 15 % and 80/10/10;
            BERT-Attack reads predictions at *unmasked* words, so those get more practice).
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    vocab_size: int = 2000
    n_steps: int = 400
    batch_size: int = 128
    lr: float = 1e-3
    mask_rate: float = 0.25
    max_tokens: int = 64


class MaskedLM:
    """A `BertForMaskedLM` with its tokenizer, asked for words that may replace words."""

    def __init__(
        self, model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, max_tokens: int = 64
    ) -> None:
        if model.config.vocab_size < len(tokenizer):
            raise ValueError(
                f"the masked LM knows {model.config.vocab_size} tokens, its tokenizer "
                f"{len(tokenizer)}: they do not belong together"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def candidates(
        self, captions: Sequence[str], k: int, batch_size: int = 256
    ) -> list[list[list[str]]]:
        """For each caption and each of its words, up to `k` words that may replace it.

        One forward per batch with nothing masked, as BERT-Attack does. The candidates of
        word j are the predictions *at* word j: BERT puts [CLS] before the first word, so
        word j's first token sits at 1 + the number of tokens before it. (The code released
        with Co-Attack, SGA and DRA indexes without that 1 and so takes the predictions of
        the preceding token.) A word of several tokens is replaced as a whole, by the
        predictions at a single [MASK] in its place.

        Returns:
            `out[caption][word]`: whole words, most likely first, the word itself left out;
            empty for words beyond `max_tokens`.
        """
        order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
        found: list[list[list[str]]] = [[] for _ in captions]
        for at in range(0, len(order), batch_size):
            rows = order[at : at + batch_size]
            for i, words in zip(rows, self._batch([captions[i] for i in rows], k), strict=True):
                found[i] = words
        return found

    def _batch(self, captions: list[str], k: int) -> list[list[list[str]]]:
        ids, owners = self._encode(captions)
        top = self._top(ids, 2 * k + 2)
        out: list[list[list[str]]] = []
        split: list[tuple[int, int]] = []  # (caption, word) of words of several tokens
        for row, caption in enumerate(captions):
            words = caption.split(" ")
            per_word: list[list[str]] = [[] for _ in words]
            for j, positions in owners[row].items():
                if len(positions) == 1:
                    per_word[j] = self._words(top[row][positions[0]], words[j], k)
                else:
                    split.append((row, j))
            out.append(per_word)
        for row, j, words in self._masked_words(captions, split, k):
            out[row][j] = words
        return out

    def _masked_words(
        self, captions: list[str], where: list[tuple[int, int]], k: int
    ) -> list[tuple[int, int, list[str]]]:
        if not where:
            return []
        masked, originals = [], []
        for row, j in where:
            words = captions[row].split(" ")
            originals.append(words[j])
            words[j] = self.tokenizer.mask_token
            masked.append(" ".join(words))
        ids, _ = self._encode(masked)
        top = self._top(ids, 2 * k + 2)
        results = []
        for n, (row, j) in enumerate(where):
            at = (ids[n] == self.tokenizer.mask_token_id).nonzero().flatten()
            words = self._words(top[n][int(at[0])], originals[n], k) if len(at) else []
            results.append((row, j, words))
        return results

    def _encode(self, captions: list[str]) -> tuple[Tensor, list[dict[int, list[int]]]]:
        """Token ids (B, T) and, per caption, word index -> its token positions."""
        encoded = self.tokenizer(
            [caption.split(" ") for caption in captions],
            is_split_into_words=True,
            truncation=True,
            max_length=self.max_tokens,
            padding=True,
            return_tensors="pt",
        )
        owners: list[dict[int, list[int]]] = []
        for row in range(len(captions)):
            mapping: dict[int, list[int]] = {}
            for position, word in enumerate(encoded.word_ids(row)):
                if word is not None:
                    mapping.setdefault(word, []).append(position)
            owners.append(mapping)
        return encoded["input_ids"], owners

    def _top(self, ids: Tensor, k: int) -> list[list[list[int]]]:
        device = self.model.device
        with torch.no_grad():
            logits = self.model(
                input_ids=ids.to(device),
                attention_mask=(ids != self.tokenizer.pad_token_id).long().to(device),
            ).logits
        return logits.topk(min(k, logits.shape[-1]), dim=-1).indices.tolist()

    def _words(self, ids: list[int], original: str, k: int) -> list[str]:
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        kept = [
            token
            for token in tokens
            if token != original.lower() and token not in SPECIAL and _WORD.fullmatch(token)
        ]
        return kept[:k]

    def save(self, folder: Path) -> None:
        """Weights as safetensors, the tokenizer as JSON."""
        transformers_logging.disable_progress_bar()
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def load(cls, folder_or_name: str | Path) -> MaskedLM:
        """From a folder written by `save`, or any BERT of the hub (`bert-base-uncased`).

        Raises:
            FileNotFoundError: neither a folder with a model here nor reachable on the hub.
        """
        source = str(folder_or_name)
        transformers_logging.disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = BertForMaskedLM.from_pretrained(source, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"no masked language model at {source!r} and none on the hub ({error}). "
                "Pass a local folder with model.safetensors and tokenizer.json."
            ) from error
        return cls(model, tokenizer)  # type: ignore[arg-type]


def train_masked_lm(
    corpus: Sequence[str],
    config: MaskedLMConfig,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> MaskedLM:
    """Train a small BERT on captions; the same corpus and seed give the same weights.

    Raises:
        ValueError: an empty corpus.
    """
    if not corpus:
        raise ValueError("the masked LM needs at least one caption to train on")
    tokenizer = train_tokenizer(corpus, config.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.width,
                max_position_embeddings=config.max_tokens,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
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
    return MaskedLM(model, tokenizer, config.max_tokens)


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
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words]
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
    words = ids >= len(SPECIAL)  # the special tokens come first in the vocabulary
    chosen = (torch.rand(ids.shape, generator=generator) < rate) & words
    if not bool(chosen.any()):
        chosen = words.clone()
    fate = torch.rand(ids.shape, generator=generator)
    others = torch.randint(len(SPECIAL), len(tokenizer), ids.shape, generator=generator)
    inputs = torch.where(chosen & (fate < 0.6), tokenizer.mask_token_id, ids)
    inputs = torch.where(chosen & (fate >= 0.6) & (fate < 0.8), others, inputs)
    return inputs, torch.where(chosen, ids, -1)
