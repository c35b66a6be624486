"""Decide when so many rows are quarantined that reading stops, and say which ones."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.data import columns
from gpupipe.data.errors import DataError, printable
from gpupipe.data.report import quarantine_table

DEFAULT = 0.05
_ALWAYS_ALLOWED = 2  # rows: among ten rows a single bad one is a tenth
_SHOWN = 3


def check_share(allowed: float) -> None:
    """Raise DataError unless the share that may be quarantined is in 0..1."""
    if not 0 <= allowed <= 1:
        raise DataError(f"max_quarantined is {allowed:g}, expected a share of rows in 0..1, such as 0.05")


def is_exceeded(n_quarantined: int, n_rows: int, allowed: float) -> bool:
    """Whether more than the allowed share of rows is quarantined, and more than two rows; with 0, any row.

    >>> is_exceeded(2, 10, 0.05), is_exceeded(3, 60, 0.05), is_exceeded(4, 60, 0.05), is_exceeded(1, 60, 0.0)
    (False, False, True, True)
    """
    return n_quarantined > (_ALWAYS_ALLOWED if allowed else 0) and n_quarantined > allowed * n_rows


def in_words(n_quarantined: int, n_rows: int, allowed: float, reasons: str) -> str:
    """Say how many rows are quarantined and why, and which option reads the rest."""
    share = n_quarantined / n_rows
    enough = f"{min(1.0, math.ceil(share * 100) / 100):g}"
    return (
        f"{n_quarantined:,} of {n_rows:,} rows would be quarantined, a share of {share:.3g} where {allowed:g} "
        f"may be: {reasons}; correct them, or read the rest with --max-quarantined {enough} (max_quarantined={enough})"
    )


def first_texts(
    tables: Sequence[tuple[str, Any]],
    matches: Sequence[dict[str, str]],
    rows: np.ndarray,
    reasons: Sequence[str],
    reason: str = "",
) -> list[str]:
    """What the first rows with a reason hold in the columns that the reason is about; up to three different texts.

    tables: `(origin, table)` in the order of reading.  matches: the columns of each, see `columns.find`.  rows: int64,
    the quarantined row numbers.  reasons: one for each.  reason: the one to show; the most frequent one if empty.
    """
    if not len(rows) or not matches:
        return []
    reason = reason or collections.Counter(reasons).most_common(1)[0][0]
    chosen = np.sort(rows[np.array(reasons) == reason])[:_SHOWN]
    first_word = reason.split(" ")[0]
    meanings = (first_word,) if first_word in ("time", "symbol") else ("open", "high", "low", "close")
    names = {name for table in matches for meaning in meanings for name in columns.of_meaning(table, meaning)}
    found = quarantine_table(list(tables), chosen, [reason] * len(chosen)).to_pylist()
    values = (
        ["nothing" if value is None else repr(value) for name, value in row.items() if name in names] for row in found
    )
    return list(dict.fromkeys(printable(" ".join(value)) for value in values))
