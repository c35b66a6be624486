"""Lookback: the rows before a row that an estimator reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Lookback:
    """What an estimator reads of the rows before each row.

    rows: how many rows before it, 0 for none.
    max_gap_bars: the longest gap in time between two of these rows, in bars; 0: see `window_marks.gap_limit`.

        >>> Lookback.longest([Lookback(59), Lookback(89, max_gap_bars=24)])
        Lookback(rows=89, max_gap_bars=24)
    """

    rows: int = 0
    max_gap_bars: int = 0

    @classmethod
    def longest(cls, lookbacks: Iterable[Lookback]) -> Lookback:
        """What satisfies all: the most rows, and the shortest of the gaps that are stated."""
        several = list(lookbacks)
        gaps = [lookback.max_gap_bars for lookback in several if lookback.max_gap_bars]
        return cls(max((lookback.rows for lookback in several), default=0), min(gaps, default=0))


NO_LOOKBACK = Lookback()
