"""Jumps of a price between two bars: those that come back are bad prices, those that stay may be splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.bars import Bars
from gpupipe.runtime.device import device_of

OFF = 5.0  # a price this many times too high or too low is not the market's: no stock or coin does that and comes back
_SURE = 10.0  # from this factor on: a slip of the decimal point, pence for pounds, cents for dollars
_AGREE = np.log(1.5)  # the prices before and after a jump that comes back
_RUN_BARS = 3

_BLOCK_ROWS = 1 << 15  # the columns and comparisons of a block stay in a core's cache

_SPLIT_FACTORS = np.log(np.array([1.5, 2.0]))
_SPLIT_TOLERANCE = 0.05
_SPLIT_ALWAYS = np.log(2.5)
_STAYS, _STAYS_BARS = np.log(1.2), 3


@dataclass(frozen=True)
class Jumps:
    """Bars with a price that jumps and comes back, row numbers, int64 on the host, rising.

    sure: off by a factor of 10 or more.  doubtful: by 5 to 10.

    >>> Jumps(sure=np.array([4, 5]), doubtful=np.array([], np.int64)).sure.size
    2
    """

    sure: np.ndarray
    doubtful: np.ndarray


def gaps(bars: Bars) -> np.ndarray:
    """Rows, int64 on the host, that a jump or a split may begin at: the open is far from the symbol's close before.

    bars: sorted by symbol and time. Both searches below look at these rows alone, so clean data are compared once.
    """
    device = device_of(bars.close)
    xp, limit = device.xp, np.float32(np.exp(_SPLIT_FACTORS[0] - _SPLIT_TOLERANCE) * 0.999)
    candidates = [xp.zeros(0, xp.int64)]
    for begin, end in blocks(bars):
        opens = bars.open[begin + 1 : end + 1]
        with np.errstate(over="ignore", under="ignore"):
            gap = opens / bars.close[begin : begin + opens.size]
        candidates.append(xp.flatnonzero((gap > limit) | (gap < 1 / limit)) + begin + 1)
    rows = xp.concatenate(candidates)
    return device.to_host(rows[bars.symbol[rows] == bars.symbol[rows - 1]])


def bars_that_jump(bars: Bars, rows: np.ndarray) -> Jumps:
    """Find runs of at most 3 bars whose prices are off by a factor of 5 or more and come back.

    bars: sorted by symbol and time, prices above 0.  rows: of `gaps`. Two cases:

    - The open of a bar is off from the close before, and the open of one of the next 3 bars is within a factor of 1.5
      of that close again: the bars between are off. Their closes must be off, too, but for the last one's.
    - The close alone is off: the bar's open and the next open are within a factor of 1.5 of each other.

    The first and the last bars of a history have no neighbour on one side, so that a jump cannot come back there:
    `possible_splits` flags it.

    >>> prices = dict.fromkeys(("open", "high", "low", "close", "volume"), np.float32([50, 51, 0.5, 51, 52]))
    >>> bars = Bars(np.int32([0] * 5), ("A",), np.arange(5), **prices, sectors=("energy",))
    >>> bars_that_jump(bars, gaps(bars)).sure
    array([2])
    """
    if not rows.size:
        return Jumps(rows, rows)
    near = np.unique((rows[:, None] + np.arange(-1, _RUN_BARS + 1)).clip(0, bars.close.size - 1))
    opens, closes = np.log(_on_host(bars.open, near)), np.log(_on_host(bars.close, near))
    symbol = _on_host(bars.symbol, near)
    factors: dict[int, float] = {}
    for row, at in zip(rows.tolist(), np.searchsorted(near, rows).tolist(), strict=True):
        before, gap = closes[at - 1], opens[at] - closes[at - 1]
        if abs(gap) < np.log(OFF):
            continue
        if abs(opens[at - 1] - opens[at]) < _AGREE:  # the close before was off, alone
            factors[row - 1] = max(factors.get(row - 1, 0.0), abs(gap))
            continue
        for n in range(1, _RUN_BARS + 1):
            after = at + n
            if row + n >= bars.close.size or symbol[after] != symbol[at]:
                break
            if abs(opens[after] - before) < _AGREE:
                factors |= {row + k: abs(gap) for k in range(n)}
                break
            if (closes[after - 1] - before) * np.sign(gap) < np.log(OFF) or n == _RUN_BARS:
                break
    found = np.array(sorted(factors), np.int64)
    sure = np.array([factors[row] >= np.log(_SURE) for row in found.tolist()], bool)
    return Jumps(found[sure], found[~sure])


def _on_host(column: Any, rows: np.ndarray) -> np.ndarray:
    """Some values of a column, float64 (n,), on the host; rows: on the host."""
    device = device_of(column)
    return device.to_host(column[device.asarray(rows)]).astype(np.float64)


def possible_splits(bars: Bars, rows: np.ndarray) -> np.ndarray:
    """Return the rows, int64 on the host, that look like the first bar after an unadjusted split.

    bars: sorted by symbol and time.  rows: of `gaps`.

    The ratio of the open to the previous close is 3/2, 2 or the inverse of one (within 5 %), or more than 2.5 either
    way. In addition, this close and the next three are within 20 % of this open, and the three closes before the
    previous one within 20 % of the previous close (as far as they exist): a bad price reverts, a split does not. A
    takeover can look the same, so the bar is only flagged.

    >>> prices = dict.fromkeys(("open", "high", "low", "close", "volume"), np.float32([20, 20, 10, 10]))
    >>> bars = Bars(np.int32([0] * 4), ("A",), np.arange(4), **prices, sectors=("energy",))
    >>> possible_splits(bars, gaps(bars))
    array([2])
    """
    if not rows.size:
        return rows
    open_, close_before = _on_host(bars.open, rows), _on_host(bars.close, rows - 1)
    size = np.abs(np.log(open_ / close_before))
    possible = (np.abs(size[:, None] - _SPLIT_FACTORS) <= _SPLIT_TOLERANCE).any(axis=1) | (size > _SPLIT_ALWAYS)
    symbol = _on_host(bars.symbol, rows)
    for k in range(_STAYS_BARS + 1):
        later, earlier = np.minimum(rows + k, bars.close.size - 1), np.maximum(rows - 1 - k, 0)
        for others, level in ((later, open_), (earlier, close_before)):
            moved = np.abs(np.log(_on_host(bars.close, others) / level)) > _STAYS
            possible &= ~(moved & (_on_host(bars.symbol, others) == symbol))
    return rows[possible]


def blocks(bars: Bars) -> Iterator[tuple[int, int]]:
    """Yield `(begin, end)` of blocks of rows: on a CPU small enough for a core's cache, on CUDA one block."""
    n = bars.close.size
    step = _BLOCK_ROWS if device_of(bars.close).kind == "cpu" else n
    return ((begin, min(begin + step, n)) for begin in range(0, n, max(step, 1)))
