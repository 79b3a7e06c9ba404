"""Words that a word substitution neither attacks nor uses: function words, from two lists."""

from __future__ import annotations

from functools import cache


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
