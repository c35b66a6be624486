"""Labels: what the highs and lows after each row did, as BUY, HOLD or SELL, for every horizon and threshold."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.panel import Panel, check_columns, row_table

if TYPE_CHECKING:
    import pyarrow

CLASSES = ("SELL", "HOLD", "BUY")
SELL, HOLD, BUY, UNKNOWN = 0, 1, 2, -1
RULES = ("take_profit_first", "first_touch")
WINDOWS = ("bars", "calendar")
# What a bar that reaches both barriers is called under "first_touch": its highs and lows do not say which came first.
AMBIGUOUS = {"sell": SELL, "hold": HOLD, "buy": BUY, "unknown": UNKNOWN}
DAY_NS = 86_400_000_000_000
WORKERS = 512  # tiles in work at once, at most
_DTYPES = {"y": "int8", "tp": "float32", "dd": "float32", "forward_return": "float32", "exit_row": "int64"}


@dataclass(frozen=True)
class Labels:
    """Labels of every row of a panel, on the panel's device.

    y: int8 (n_rows, n_labels); 0 SELL, 1 HOLD, 2 BUY, -1 not known. Column k * n_thresholds + m is horizon k
        with threshold m; `names` says the same in words.
    tp, dd: float32 (n_rows, n_horizons); highest high and lowest low of the window over the row's close, minus 1.
    forward_return: float32 (n_rows, n_horizons); close of the window's last row over the row's close, minus 1.
    exit_row: int64 (n_rows, n_horizons); the last row whose data the row's labels of this horizon depend on: the
        end of the window, also where a barrier was reached before it, because a later NaN would make the label
        unknown. Always a row of the same symbol at or after the row itself; where the history ends first, its
        last row. Purge by time_ns[exit_row].

    NaN in tp, dd and forward_return: the window is not known (y is -1) or empty.
    Raises ValueError when a shape, dtype or device is not as above.
    """

    y: Any
    tp: Any
    dd: Any
    forward_return: Any
    exit_row: Any
    horizons: tuple[int, ...]
    thresholds: tuple[float, ...]
    panel: Panel = field(repr=False)

    def __post_init__(self) -> None:
        check_columns({**{name: getattr(self, name) for name in _DTYPES}, "close": self.panel.close},
                      {**_DTYPES, "close": "float32"})  # fmt: skip
        for name in _DTYPES:
            n_columns = self.n_labels if name == "y" else len(self.horizons)
            if getattr(self, name).shape != (self.n_rows, n_columns):
                shape = getattr(self, name).shape
                raise ValueError(f"{name!r} has shape {shape}, expected ({self.n_rows}, {n_columns})")

    @property
    def n_rows(self) -> int:
        """Number of rows, those of the panel."""
        return self.panel.n_rows

    @property
    def n_labels(self) -> int:
        """Number of columns of y."""
        return len(self.horizons) * len(self.thresholds)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of y: label_1d_5pct, label_1d_10pct, label_2d_5pct, ..."""
        return tuple(f"label_{h}d_{percent(t)}pct" for h in self.horizons for t in self.thresholds)

    def horizon_of(self, label: int) -> int:
        """The position in `horizons` of column `label` of y: the column of tp, dd, forward_return and exit_row."""
        return label // len(self.thresholds)

    def to_arrow(self) -> pyarrow.Table:
        """A table with columns symbol, time, the labels, then tp_1d, dd_1d, forward_return_1d, exit_row_1d, ..."""
        host = {name: self.panel.device.to_host(getattr(self, name)) for name in _DTYPES}
        columns = {name: np.ascontiguousarray(host["y"][:, k]) for k, name in enumerate(self.names)}
        for k, h in enumerate(self.horizons):
            for name in ("tp", "dd", "forward_return", "exit_row"):
                columns[f"{name}_{h}d"] = np.ascontiguousarray(host[name][:, k])
        return row_table(self.panel, columns)


def percent(threshold: float) -> str:
    """A threshold as it stands in names: 0.05 is "5", 0.025 is "2.5"."""
    return f"{threshold * 100:g}"


def tp_dd_labels(
    panel: Panel,
    horizons: Sequence[int] = (1, 2, 5),
    thresholds: Sequence[float] = (0.05, 0.10),
    rule: str = "take_profit_first",
    window: str = "bars",
    ambiguous: str = "sell",
) -> Labels:
    """Take-profit / draw-down labels of every row, all horizons and thresholds in one pass over high, low and close.

    With i the row and the window of horizon h all bars after it up to h:

        tp = max(high[i+1 .. i+h]) / close[i] - 1        dd = min(low[i+1 .. i+h]) / close[i] - 1

    rule: "take_profit_first": BUY if max high >= close[i] * (1 + t), else SELL if min low <= close[i] * (1 - t),
        else HOLD. "first_touch": the bar that reaches one of the two prices first decides, none is HOLD.
    window: "bars": the next h bars of the symbol; a row with fewer left is -1 under either rule, also when a
        barrier was reached, or the end of the history would hold touched rows only. "calendar": bars dated (UTC)
        entry < d <= entry + h days; an empty window is HOLD and the end of the history is not marked.
    ambiguous: what "first_touch" calls a bar that reaches both prices: "sell" (the careful one), "buy", "hold"
        or "unknown" (-1). "take_profit_first" does not use it.
    horizons: whole numbers >= 1, rising; bars or days.  thresholds: fractions inside (0, 1), rising.

    The factors 1 + t and 1 - t are rounded once to float32 and the barrier price is one float32 product, so a CPU
    and a GPU give the same labels. A row whose close, or a high, low or close of whose window, is NaN is -1.

    Raises ValueError for a parameter that is not as above.
    Source: the triple barrier of Lopez de Prado (2018), section 3.4, with highs and lows in place of closes.
    """
    horizons, thresholds = _checked_horizons(horizons), _checked_thresholds(thresholds)
    _check_choice("rule", rule, RULES)
    _check_choice("window", window, WINDOWS)
    _check_choice("ambiguous", ambiguous, tuple(AMBIGUOUS))
    from gpupipe.kernels.labels import tp_dd  # here, because it loads numba

    device, xp, n_rows = panel.device, panel.device.xp, panel.n_rows
    y = xp.empty((n_rows, len(horizons) * len(thresholds)), xp.int8)
    tp, dd, forward_return = (xp.empty((n_rows, len(horizons)), xp.float32) for _ in range(3))
    exit_row = xp.empty((n_rows, len(horizons)), xp.int64)
    tp_dd(
        n_rows, panel.high, panel.low, panel.close,
        panel.time_ns // DAY_NS if window == "calendar" else xp.arange(n_rows, dtype=xp.int64),
        panel.symbol_of_row, panel.offsets,
        device.asarray(np.array(horizons, np.int64)),
        device.asarray(np.array([1.0 + t for t in thresholds], np.float32)),
        device.asarray(np.array([1.0 - t for t in thresholds], np.float32)),
        np.int64(window == "calendar"), np.int64(rule == "first_touch"), np.int64(AMBIGUOUS[ambiguous]),
        y, tp, dd, forward_return, exit_row,
    )  # fmt: skip
    return Labels(y, tp, dd, forward_return, exit_row, horizons, thresholds, panel)


def barrier_classes(
    panel: Panel, horizons: Sequence[int] = (1, 2, 5), thresholds: Sequence[float] = (0.05, 0.10)
) -> Any:  # fmt: skip
    """The y of `tp_dd_labels` under "take_profit_first" over bars, alone and much faster: int8 (n_rows, n_labels).

    Its columns are contiguous (Fortran order).
    Raises ValueError as tp_dd_labels does.
    """
    horizons, thresholds = _checked_horizons(horizons), _checked_thresholds(thresholds)
    from gpupipe.kernels.labels import TILE_ROWS, barrier_labels  # here, because it loads numba

    device, xp = panel.device, panel.device.xp
    y = xp.empty((len(horizons) * len(thresholds), panel.n_rows), xp.int8)
    n_tiles = -(-panel.n_rows // TILE_ROWS)
    scratch = xp.empty((min(n_tiles, WORKERS), 4 + 2 * len(thresholds), TILE_ROWS + horizons[-1]), xp.float32)
    barrier_labels(
        n_tiles, scratch, panel.high, panel.low, panel.close, panel.offsets,
        device.asarray(np.array(horizons, np.int64)),
        device.asarray(np.array([1.0 + t for t in thresholds], np.float32)),
        device.asarray(np.array([1.0 - t for t in thresholds], np.float32)), y,
    )  # fmt: skip
    return y.T


def _checked_horizons(horizons: Sequence[int]) -> tuple[int, ...]:
    try:
        # A bool is an int to Python, but never a horizon.
        checked = tuple(operator.index(h) for h in horizons if not isinstance(h, bool))
    except TypeError:
        checked = ()
    if not checked or len(checked) != len(horizons) or checked[0] < 1 or list(checked) != sorted(set(checked)):
        raise ValueError(f"horizons {horizons!r}: expected whole numbers >= 1 that rise, like (1, 2, 5)")
    return checked


def _checked_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    try:
        checked = tuple(float(t) for t in thresholds)
    except (TypeError, ValueError):
        checked = ()
    rising = list(checked) == sorted(set(checked)) and len({percent(t) for t in checked}) == len(checked)
    if not checked or not all(0.0 < t < 1.0 for t in checked) or not rising:
        raise ValueError(f"thresholds {thresholds!r}: expected fractions inside (0, 1) that rise, like (0.05, 0.10)")
    return checked


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown; expected {' or '.join(repr(choice) for choice in choices)}")
