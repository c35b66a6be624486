"""The labels in plain Python, by lists and loops: the reference for the kernels."""

from __future__ import annotations

import dataclasses
import datetime
import math

import numpy as np

from gpupipe.targets.triple_barrier import AMBIGUOUS
from tests.support.barriers import barriers_of

HORIZONS, THRESHOLDS = (1, 2, 5), (0.05, 0.10)
SELL, HOLD, BUY, UNKNOWN = 0, 1, 2, -1


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of tp_dd_labels after the panel."""

    horizons: tuple = HORIZONS
    thresholds: tuple = THRESHOLDS
    rule: str = "take_profit_first"
    window: str = "bars"
    ambiguous: str = "sell"
    multiples: tuple = ()
    volatility: np.ndarray | None = None


def _window(i, h, stop, dates, window):
    """The rows of the window of row i, or None where the history ends first."""
    if window == "bars":
        return range(i + 1, i + h + 1) if i + h < stop else None
    last_day = dates[i] + datetime.timedelta(days=h)
    rows = []
    for j in range(i + 1, stop):
        if dates[j] > last_day:
            break
        rows.append(j)
    return rows


def _label(i, rows, high, low, up, down, settings):
    """(label, first touch, bars until the touch, exit price; None is the last close)."""
    label, touch, bars, price = HOLD, 0, 0, None
    for j in rows:
        if high[j] >= up or low[j] <= down:
            touch = 3 if high[j] >= up and low[j] <= down else 1 if high[j] >= up else 2
            bars, price = j - i, up if touch == 1 or (touch == 3 and settings.ambiguous == "buy") else down
            label = {1: BUY, 2: SELL, 3: AMBIGUOUS[settings.ambiguous]}[touch]
            break
    if settings.rule == "take_profit_first":
        label = BUY if any(high[j] >= up for j in rows) else SELL if any(low[j] <= down for j in rows) else HOLD
    return label, touch, bars, price


def _decision(i, rows, high, low, up, down, rule):
    """Bars until the label cannot change any more, also where it turns out unknown."""
    for bars, j in enumerate(rows, 1):
        if high[j] >= up or (rule == "first_touch" and low[j] <= down):
            return bars
    return len(rows)


def reference(panel, settings):
    """Every array of Labels, by lists and loops; prices (highest high, lowest low, last close, exit) for returns."""
    high, low, close = panel.high.tolist(), panel.low.tolist(), panel.close.tolist()
    day = datetime.timedelta(days=1)
    with np.errstate(invalid="ignore"):
        sizes = [np.full(panel.n_rows, t) for t in settings.thresholds]
        sizes += [(np.float32(x) * settings.volatility).astype(np.float64) for x in settings.multiples]
        barriers = [[prices.tolist() for prices in barriers_of(panel.close, t)] for t in sizes]
    dates = [datetime.date(1970, 1, 1) + t // 86_400_000_000_000 * day for t in panel.time_ns.tolist()]
    per_label = ("y", "touch", "touch_bars", "decided_bars", "price")
    values = {name: [] for name in (*per_label, "highest", "lowest", "last", "exit_row")}
    for start, stop in zip(panel.offsets[:-1].tolist(), panel.offsets[1:].tolist(), strict=True):
        for i in range(start, stop):
            for h in settings.horizons:
                rows = _window(i, h, stop, dates, settings.window)
                values["exit_row"].append(stop - 1 if rows is None else rows[-1] if len(rows) else i)
                prices = [close[i]] + [column[j] for j in rows or () for column in (high, low, close)]
                known = rows is not None and not any(map(math.isnan, prices)) and close[i] > 0
                values["highest"].append(max(high[j] for j in rows) if known and len(rows) else math.nan)
                values["lowest"].append(min(low[j] for j in rows) if known and len(rows) else math.nan)
                values["last"].append(close[rows[-1]] if known and len(rows) else math.nan)
                for t, (ups, downs) in zip(sizes, barriers, strict=True):
                    label, touch, bars, price, decided = UNKNOWN, UNKNOWN, 0, math.nan, 0
                    if known and t[i] > 0:
                        label, touch, bars, price = _label(i, rows, high, low, ups[i], downs[i], settings)
                        price = values["last"][-1] if price is None else price
                    if close[i] > 0 and t[i] > 0:
                        ahead = range(i + 1, stop) if rows is None else rows
                        decided = _decision(i, ahead, high, low, ups[i], downs[i], settings.rule)
                    for name, value in zip(per_label, (label, touch, bars, decided, price), strict=True):
                        values[name].append(value)
    return {name: np.array(column).reshape(panel.n_rows, -1) for name, column in values.items()}


def reference_weight(decided_bars):
    """Lopez de Prado (2018), snippets 4.1 and 4.2: the mean over a window of 1 / (windows that hold the bar)."""
    n_rows, n_labels = decided_bars.shape
    weight = np.full((n_rows, n_labels), np.nan)
    for k in range(n_labels):
        windows = [slice(i + 1, i + 1 + bars) for i, bars in enumerate(decided_bars[:, k])]
        holding = np.zeros(n_rows)
        for window in windows:
            holding[window] += 1
        for i, window in enumerate(windows):
            if window.stop > window.start:
                weight[i, k] = np.mean(1 / holding[window])
    return weight
