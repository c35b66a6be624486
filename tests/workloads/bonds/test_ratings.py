"""Letters of agencies as ranks."""

import pytest

from gpupipe.workloads.bonds.ratings import RANKS, rating_of


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("AAA", "AAA"), ("Aaa", "AAA"), ("aa-", "AA"), ("Aa3", "AA"), ("A", "A"), ("A1", "A"), ("BBB+", "BBB"),
        ("Baa2", "BBB"), ("BB", "BB"), ("Ba1", "BB"), ("B", "B"), ("B3", "B"), ("CCC-", "CCC"), ("Caa1", "CCC"),
        ("CC", "CC"), ("Ca", "CC"), ("C", "C"), ("D", "D"), ("SD", "D"), ("AA+ *-", "AA"), ("(P)Baa1", "BBB"),
        ("AAA(sf)", "AAA"), ("BBBu", "BBB"), (" ", "NR"), ("nr", "NR"), ("WR", "NR"), ("Treasury", "Treasury"),
        ("AAAA", None), ("BBA", None), ("A-1", None), ("F1+", None), ("7", None), ("É", None),
    ],
)  # fmt: skip
def test_texts(text, rating):
    assert rating_of(text) == rating


def test_ranks():
    assert list(RANKS.values()) == list(range(12))
    assert (RANKS["Treasury"], RANKS["AAA"], RANKS["D"], RANKS["NR"]) == (0, 1, 10, 11)
