"""Verdict: which rows of a source are rejected and why, and the findings on the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpupipe.data.errors import printable
from gpupipe.data.report import Finding


class Verdict:
    """Collects the reasons for which rows of one source are rejected, and what else is told of them.

    what: the source, "bonds", "quotes" or "curve", which every kind of finding begins with.
    bond_of_row: int64 (n_rows,), a number for each bond, -1 where it is not known; None for the curve.
    name_of_row(row): a row in words, as "BOND 2024-01-02".

    >>> verdict = Verdict("quotes", np.int64([0, 0, 1]), ["A 2024-01-02", "A 2024-01-03", "B 2024-01-02"].__getitem__)
    >>> verdict.reject("price is outside 1..300", np.array([False, True, False]))
    >>> verdict.kept, [(finding.kind, finding.rows, finding.symbols) for finding in verdict.findings()]
    (array([ True, False,  True]), [('quotes: price is outside 1..300', 1, 1)])
    """

    def __init__(self, what: str, bond_of_row: np.ndarray | None, name_of_row: Callable[[int], str], n_rows: int = 0):
        self._what = what
        self._bond = bond_of_row
        self._name = name_of_row
        self._code = np.zeros(n_rows if bond_of_row is None else len(bond_of_row), np.int16)
        self._reasons: list[str] = []
        self._told: list[Finding] = []

    @property
    def kept(self) -> np.ndarray:
        """bool (n_rows,): rows that are not rejected."""
        return self._code == 0

    @property
    def rejected(self) -> np.ndarray:
        """int64: row numbers that are rejected, rising."""
        return np.flatnonzero(self._code)

    @property
    def reasons(self) -> list[str]:
        """The reason of each rejected row."""
        return [self._reasons[k - 1] for k in self._code[self.rejected]]

    def reject(self, reason: str, mask: np.ndarray) -> None:
        """Reject the rows where `mask`, bool (n_rows,), is true; a row keeps the first reason that it got."""
        self._reasons.append(reason)
        self._code[mask & (self._code == 0)] = len(self._reasons)

    def tell(self, kind: str, action: str, mask: np.ndarray) -> None:
        """Tell of rows, if there are any, that are not rejected for it."""
        rows = np.flatnonzero(mask & self.kept)
        if len(rows):
            self._told.append(self._finding(kind, action, rows))

    def add(self, finding: Finding) -> None:
        """Tell of something that is not about rows."""
        self._told.append(finding)

    def findings(self) -> tuple[Finding, ...]:
        """One finding for each reason that some row was rejected for, then those that were told."""
        rejected = (
            self._finding(reason, "quarantined", np.flatnonzero(self._code == k))
            for k, reason in enumerate(self._reasons, start=1)
        )
        return (*(finding for finding in rejected if finding.rows), *self._told)

    def _finding(self, kind: str, action: str, rows: np.ndarray) -> Finding:
        bonds = np.zeros(0, np.int64) if self._bond is None else np.unique(self._bond[rows])
        example = printable(self._name(int(rows[0]))) if len(rows) else ""
        return Finding(f"{self._what}: {kind}", action, len(rows), int((bonds >= 0).sum()), example)


def mask_of(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """bool (n_rows,): true in some rows.

    >>> mask_of(np.int64([1]), 3)
    array([False,  True, False])
    """
    mask = np.zeros(n_rows, bool)
    mask[rows] = True
    return mask


def conflicts_and_repeats(keys: np.ndarray, values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare rows of one key: `(rows whose key has rows with other values, rows that repeat an earlier row)`.

    keys: int64 (n,), of each row.  values: float64 (n, n_values); NaN equals NaN.  rows: int64 (n,), row numbers,
    rising, of which the result's are a part.

    >>> values = np.array([[1.0], [2.0], [1.0], [1.0]])
    >>> conflicts_and_repeats(np.int64([7, 8, 7, 8]), values, np.int64([0, 1, 2, 3]))
    (array([1, 3]), array([2]))
    """
    order = np.argsort(keys, kind="stable")
    sorted_keys, sorted_values = keys[order], values[order]
    same_key = sorted_keys[1:] == sorted_keys[:-1]
    if not same_key.any():
        return rows[:0], rows[:0]
    before, after = sorted_values[:-1], sorted_values[1:]
    equal = ((before == after) | (np.isnan(before) & np.isnan(after))).all(axis=1)
    group = np.concatenate([[0], np.cumsum(~same_key)])
    in_conflict = np.zeros(group[-1] + 1, bool)
    in_conflict[group[1:][same_key & ~equal]] = True
    conflicts = in_conflict[group]
    repeats = np.concatenate([[False], same_key]) & ~conflicts
    return np.sort(rows[order[conflicts]]), np.sort(rows[order[repeats]])
