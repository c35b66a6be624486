"""How rows are cut for trees that each see a share of them."""

from __future__ import annotations


def cut(share: float) -> tuple[int, bool]:
    """How rows are cut for trees that each see a `share` of them: (parts, whether a tree sees all parts but one).

    The nearest of 1/n, one part for each tree in turn; above 2/3 the nearest of (n - 1)/n, n up to 10, a part left out
    in turn; above 0.95 all rows.

        >>> cut(0.25), cut(0.8), cut(1.0)
        ((4, False), (5, True), (1, False))
    """
    if share > 0.95:
        return 1, False
    parts = round(1 / share)
    return (parts, False) if parts > 1 else (min(10, round(1 / (1 - share))), True)
