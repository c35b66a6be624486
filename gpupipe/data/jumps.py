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
# The prices before and after a jump that comes back differ by a factor of 1.5 at most; after a jump of 100 by one of 3,
# as a split or a takeover may fall on the same days.
_AGREE, _AGREE_OF_JUMP = np.log(1.5), 0.25
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


def wide(bars: Bars) -> np.ndarray:
    """Rows, int64 on the host, of bars whose close is 5 times their open or more, or a fifth of it or less."""
    device = device_of(bars.close)
    xp = device.xp
    candidates = [xp.zeros(0, xp.int64)]
    for begin, end in blocks(bars):
        with np.errstate(over="ignore"):
            is_wide = bars.high[begin:end] >= np.float32(OFF) * bars.low[begin:end]
        if bool(is_wide.any()):
            candidates.append(xp.flatnonzero(is_wide) + begin)
    rows = device.to_host(xp.concatenate(candidates))
    return rows[np.abs(np.log(_on_host(bars.close, rows) / _on_host(bars.open, rows))) >= np.log(OFF)]


def bars_that_jump(bars: Bars, rows: np.ndarray, wide_rows: np.ndarray | None = None) -> Jumps:
    """Find runs of at most 3 bars whose prices are off by a factor of 5 or more and come back.

    bars: sorted by symbol and time, prices above 0.  rows: of `gaps`.  wide_rows: of `wide`. Three cases:

    - The open of a bar is off from the close before, and the open of one of the next 3 bars is within a factor of 1.5
      of that close again: the bars between are off. Their closes must be off, too, but for the last one's.
    - The close alone is off: the bar's open and the next open are within a factor of 1.5 of each other.
    - The close is off, and the next open with it, as where opens are made from the closes before: one of the next 2
      closes is within a factor of 1.5 of the bar's open. All bars up to that one have a price that is off.

    The first and the last bars of a history have no neighbour on one side, so that a jump cannot come back there:
    `possible_splits` flags it.

    >>> prices = dict.fromkeys(("open", "high", "low", "close", "volume"), np.float32([50, 51, 0.5, 51, 52]))
    >>> bars = Bars(np.int32([0] * 5), ("A",), np.arange(5), **prices, sectors=("energy",))
    >>> bars_that_jump(bars, gaps(bars)).sure
    array([2])
    """
    wide_rows = rows[:0] if wide_rows is None else wide_rows
    if not rows.size and not wide_rows.size:
        return Jumps(rows, rows)
    begins = np.concatenate([rows, wide_rows])
    near = np.unique((begins[:, None] + np.arange(-1, _RUN_BARS + 1)).clip(0, bars.close.size - 1))
    opens, closes = np.log(_on_host(bars.open, near)), np.log(_on_host(bars.close, near))
    symbol = _on_host(bars.symbol, near)
    factors = _within_bars(wide_rows, near, opens, closes, symbol)
    for row, at in zip(rows.tolist(), np.searchsorted(near, rows).tolist(), strict=True):
        before, gap = closes[at - 1], opens[at] - closes[at - 1]
        if abs(gap) < np.log(OFF):
            continue
        agree = max(_AGREE, _AGREE_OF_JUMP * abs(gap))
        if abs(opens[at - 1] - opens[at]) < agree:  # the close before was off, alone
            factors[row - 1] = max(factors.get(row - 1, 0.0), abs(gap))
            continue
        for n in range(1, _RUN_BARS + 1):
            after = at + n
            if row + n >= bars.close.size or symbol[after] != symbol[at]:
                break
            if abs(opens[after] - before) < agree:
                factors |= {row + k: abs(gap) for k in range(n)}
                break
            if (closes[after - 1] - before) * np.sign(gap) < np.log(OFF) or n == _RUN_BARS:
                break
    found = np.array(sorted(factors), np.int64)
    sure = np.array([factors[row] >= np.log(_SURE) for row in found.tolist()], bool)
    return Jumps(found[sure], found[~sure])


def _within_bars(
    rows: np.ndarray, near: np.ndarray, opens: np.ndarray, closes: np.ndarray, symbol: np.ndarray
) -> dict[int, float]:
    """Logarithms of the factor by which bars are off, by row, where a jump begins between an open and its close.

    rows: of `wide`.  near: rows that opens, closes (logarithms) and symbol are of, rising.
    """
    factors: dict[int, float] = {}
    for row, at in zip(rows.tolist(), np.searchsorted(near, rows).tolist(), strict=True):
        jump = closes[at] - opens[at]
        agree = max(_AGREE, _AGREE_OF_JUMP * abs(jump))
        for after in range(at + 1, min(at + _RUN_BARS, len(near))):
            if near[after] != row + after - at or symbol[after] != symbol[at]:
                break
            if abs(opens[after] - closes[after - 1]) >= agree:
                break  # it comes back between two bars, which the other cases see
            if abs(closes[after] - opens[at]) < agree:
                factors |= {row + k: abs(jump) for k in range(after - at + 1)}
                break
    return factors


def at_the_end(bars: Bars, wide_rows: np.ndarray) -> np.ndarray:
    """Those of the rows of `wide` that are the last bar of their symbol: nothing has come back yet."""
    following = np.minimum(wide_rows + 1, bars.close.size - 1)
    last = (following == wide_rows) | (_on_host(bars.symbol, following) != _on_host(bars.symbol, wide_rows))
    return wide_rows[last]


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
