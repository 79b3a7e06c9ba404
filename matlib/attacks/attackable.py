"""Words and the marks that they touch: of a token its words are attacked, the marks stay.

A caption is cut at its spaces into tokens, the positions of an edit. A token is cut into pieces:
its words, and the marks before, between and behind them. "chess." becomes "go.", '"men,' becomes
'"women,', "boy's" becomes "girl's".

- A word is a run of letters of any script with the accents that belong to them. Letters beside a
  digit ("2nd", "3d") are none, and a single letter beside another word ("t-shirt", "U.S.") is
  none.
- Hyphens, slashes and other marks inside a token part words, as the spaces do that the released
  code puts in their place: "well-dressed" may become "well-known" or "badly-dressed". It is one
  position still, so one edit changes one of its words. (A list of synonyms may also name the
  whole compound.)
- An apostrophe with s, t, d, m, re, ve or ll behind it belongs to the word before it and stays:
  "boy's", "they're". A word before n't is never attacked ("don't", "can't"): it is a function
  word that no list of stop words holds in this form.

Function words a word substitution neither attacks nor uses; there are two lists of them.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import NamedTuple

_APOSTROPHES = "'’‘ʼ＇`´"
_CLITICS = frozenset({"s", "t", "d", "m", "re", "ve", "ll"})
_RUN = re.compile(r"[a0][a0m]*")


class Piece(NamedTuple):
    """A part of a token, a word or not; the token is `before + text + after`.

    Attributes:
        position: of the token in `caption.split(" ")`.
    """

    position: int
    before: str
    text: str
    after: str
    is_word: bool

    def replaced(self, word: str) -> str:
        """The token with another word in this place, its marks kept."""
        return self.before + word + self.after


def pieces(caption: str) -> list[Piece]:
    """The words of a caption and all that lies between them, but for the spaces."""
    return [
        Piece(position, token[:start], token[start:end], token[end:], is_word)
        for position, token in enumerate(caption.split(" "))
        for start, end, is_word in _cut(token)
    ]


def tokens(caption: str) -> list[Piece]:
    """Every token as one word, as the released code has it (its captions are cleaned first)."""
    return [Piece(i, "", token, "", bool(token)) for i, token in enumerate(caption.split(" "))]


def apart(caption: str) -> str:
    """The caption with spaces between its pieces: word `i` of it is `pieces(caption)[i]`.

    Models whose tokenizers part marks from words anyway (BERT's, CLIP's) read both alike.
    """
    return " ".join(piece.text for piece in pieces(caption))


def marks(token: str) -> tuple[str, str]:
    """What stands before the first word of a token and behind its last; empty without words."""
    words = [(start, end) for start, end, is_word in _cut(token) if is_word]
    return (token[: words[0][0]], token[words[-1][1] :]) if words else ("", "")


def in_place(token: str, replacement: str) -> str:
    """A replacement with the token's outer marks, unless it brings marks of its own."""
    before, after = marks(token)
    return replacement if any(marks(replacement)) else before + replacement + after


@lru_cache(maxsize=65_536)
def _cut(token: str) -> tuple[tuple[int, int, bool], ...]:
    """(start, end, whether it is a word) of every piece; an empty token is one empty piece."""
    if token.isalpha() and not any(mark in token for mark in _APOSTROPHES):
        return ((0, len(token), True),)
    found, at = [], 0
    for start, end in _words(token):
        if start > at:
            found.append((at, start, False))
        found.append((start, end, True))
        at = end
    if at < len(token) or not token:
        found.append((at, len(token), False))
    return tuple(found)


def _words(token: str) -> list[tuple[int, int]]:
    runs = [match.span() for match in _RUN.finditer("".join(map(_kind, token)))]
    words = [
        (start, end)
        for start, end in runs
        if all(_kind(c) != "0" for c in token[start:end]) and not _is_clitic(token, start, end)
    ]
    return [(a, b) for a, b in words if len(runs) == 1 or not _is_initial(token[a:b])]


def _kind(character: str) -> str:
    """a letter, m: a mark of the letter before it, 0: a digit, `.`: all else."""
    if character in _APOSTROPHES:
        return "."
    if character.isalpha():
        return "a"
    if character.isalnum():
        return "0"
    return "m" if unicodedata.category(character).startswith("M") else "."


def _is_clitic(token: str, start: int, end: int) -> bool:
    """Whether a run is what an apostrophe ties to a word, or the word before n't."""
    text, behind = token[start:end].lower(), token[end : end + 3].lower()
    if start > 0 and token[start - 1] in _APOSTROPHES and text in _CLITICS:
        return True
    is_before_nt = len(behind) > 1 and behind[0] in _APOSTROPHES and behind[1] == "t"
    return text.endswith("n") and is_before_nt and not behind[2:].isalpha()


def _is_initial(word: str) -> bool:
    """One letter of a script with capitals."""
    return len(word) == 1 and word.lower() != word.upper()


@cache
def english_stop_words() -> frozenset[str]:
    """scikit-learn's English stop words (318).

    Loaded on first use: scikit-learn is slow to import and only real captions need its list.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


_BERT_ATTACK = """
    a about above across after afterwards again against ain all almost alone along already also
    although am among amongst an and another any anyhow anyone anything anyway anywhere are aren
    aren't around as at back been before beforehand behind being below beside besides between
    beyond both but by can cannot could couldn couldn't d didn didn't doesn doesn't don don't down
    due during either else elsewhere empty enough even ever everyone everything everywhere except
    first for former formerly from hadn hadn't hasn hasn't haven haven't he hence her here
    hereafter hereby herein hereupon hers herself him himself his how however hundred i if in
    indeed into is isn isn't it it's its itself just latter latterly least ll may me meanwhile
    mightn mightn't mine more moreover most mostly must mustn mustn't my myself namely needn
    needn't neither never nevertheless next no nobody none noone nor not nothing now nowhere o of
    off on once one only onto or other others otherwise our ours ourselves out over per please s
    same shan shan't she she's should've shouldn shouldn't somehow something sometime somewhere
    such t than that that'll the their theirs them themselves then thence there thereafter thereby
    therefore therein thereupon these they this those through throughout thru thus to too toward
    towards under unless until up upon used ve was wasn wasn't we were weren weren't what whatever
    when whence whenever where whereafter whereas whereby wherein whereupon wherever whether which
    while whither who whoever whole whom whose why with within without won won't would wouldn
    wouldn't y yet you you'd you'll you're you've your yours yourself yourselves
"""

_ADDED = '. - / ? some " , b & ! @ % ^ * ( ) + = < > | : ; ～ ·'

RELEASED: frozenset[str] = frozenset({*_BERT_ATTACK.split(), *_ADDED.split(), "a the"})
"""`filter_words` of the code released with SGA, Co-Attack, DRA and MMCoA (292).

The 266 words of BERT-Attack's `bertattack.py` (github.com/LinyangLee/BERT-Attack, Li et al. 2020)
and the 26 marks and words that SGA's `attacker.py` (github.com/Zoky-2020/SGA, Lu et al. 2023; MIT)
adds to them. Unlike scikit-learn's list it lets "two", "three", "front", "side", "top" and "has" be
attacked.
"""
