from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from matlib.attacks.characters import one_letter_edits


def distance(a: str, b: str) -> int:
    """Levenshtein distance with adjacent transpositions, written out."""
    rows = [
        [max(i, j) if min(i, j) == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)
    ]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            rows[i][j] = min(
                rows[i - 1][j] + 1,
                rows[i][j - 1] + 1,
                rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
            )
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
    return rows[-1][-1]


@given(
    word=st.text(alphabet="abcdefgxyzéß圆", min_size=0, max_size=8),
    n=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_edits_are_one_letter_away_distinct_and_never_known_words(
    word: str, n: int, seed: int
) -> None:
    vocabulary = {"ab", "abc", "cab", word}
    edits = one_letter_edits(word, n, vocabulary, random.Random(seed))
    assert len(edits) == len(set(edits)) <= n
    assert all(distance(word, edit) == 1 for edit in edits)
    assert not vocabulary & set(edits)
    assert edits == one_letter_edits(word, n, vocabulary, random.Random(seed))


def test_one_letter_words_have_no_typos() -> None:
    assert one_letter_edits("a", 3, set(), random.Random(0)) == []
