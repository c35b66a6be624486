"""Triple-barrier labels: BUY, HOLD or SELL by the highs and lows after each row, for every horizon and threshold.

labels = tp_dd_labels(panel, horizons=(1, 2, 5), thresholds=(0.05, 0.10))
labels.y  # int8 (n_rows, 6): label_1d_5pct, label_1d_10pct, label_2d_5pct, ...
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data.panel import Panel, check_columns, row_table
from gpupipe.targets.barriers import factors
from gpupipe.targets.classes import BUY, HOLD, SELL, UNKNOWN, percent

if TYPE_CHECKING:
    import pyarrow

RULES = ("take_profit_first", "first_touch")
WINDOWS = ("bars", "calendar")
# The class of a bar that reaches both barriers under "first_touch": high and low do not tell which came first.
AMBIGUOUS = {"sell": SELL, "hold": HOLD, "buy": BUY, "unknown": UNKNOWN}
DAY_NS = 86_400_000_000_000
WORKERS = 512  # tiles computed at once, at most
MOST_BARS = 32_767  # longest window: touch_bars is int16
_DTYPES = {
    "y": "int8", "touch": "int8", "touch_bars": "int16", "decided_bars": "int16", "realised_return": "float32",
    "tp": "float32", "dd": "float32", "forward_return": "float32", "exit_row": "int64",
}  # fmt: skip
_WHOLE = "_whole"  # of a part of some labels: these, and which of their rows it is
PER_LABEL = ("y", "touch", "touch_bars", "decided_bars", "realised_return")  # the other columns are per horizon


@dataclass(frozen=True)
class Labels:
    """Labels of every row of a panel, on the panel's device. Columns are contiguous (Fortran order).

    y: int8 (n_rows, n_labels); 0 SELL, 1 HOLD, 2 BUY, -1 unknown. Column k * n_thresholds + m is horizon k with
        threshold m, fixed thresholds before multiples; `names` has the names of the columns.
    touch: int8 (n_rows, n_labels); the first barrier reached: 0 none, 1 the upper, 2 the lower, 3 both in one bar (its
        high and low do not tell which came first), -1 unknown.
    touch_bars: int16 (n_rows, n_labels); bars until the first touch, 1 for the next bar; 0 for touch 0 and -1.
    decided_bars: int16 (n_rows, n_labels); bars after which no later bar could change the label. Under "first_touch"
        this is touch_bars, or the whole window where no barrier is reached. Under "take_profit_first" a BUY is decided
        when a high reaches the upper barrier, a SELL or HOLD only at the end of the window, because a later
        take-profit would win. It depends on no bar after the decision, and is also given where a later NaN or the end
        of the history makes y -1. 0 where the window is empty, or the row has no close or no threshold.
    realised_return: float32 (n_rows, n_labels); price / close - 1 of a long position that exits at the first barrier
        reached, else at the window's last close. Both barriers in one bar count as the lower one, or as the upper one
        with ambiguous="buy". If a bar opens beyond a barrier, the exit price is still the barrier.
    tp, dd: float32 (n_rows, n_horizons); highest high / close - 1 and lowest low / close - 1 over the window.
    forward_return: float32 (n_rows, n_horizons); close of the window's last row / close - 1.
    exit_row: int64 (n_rows, n_horizons); the last row that the row's labels of this horizon depend on. This is the end
        of the window, even after an earlier touch, because a later NaN would make the label unknown. It is a row of
        the same symbol at or after the row; the symbol's last row where the history ends first. Purge by
        time_ns[exit_row].

    NaN: floats are NaN where the window is unknown (y is -1) or empty.
    Raises ValueError when a shape, dtype or device is not as above.

        >>> from gpupipe import simulate, tp_dd_labels
        >>> labels = tp_dd_labels(simulate(11, 30, seed=1), horizons=(1, 5), thresholds=(0.05,))
        >>> labels.y.shape, labels.names
        ((330, 2), ('label_1d_5pct', 'label_5d_5pct'))
    """

    y: Any
    touch: Any
    touch_bars: Any
    decided_bars: Any
    realised_return: Any
    tp: Any
    dd: Any
    forward_return: Any
    exit_row: Any
    horizons: tuple[int, ...]
    thresholds: tuple[float, ...]
    multiples: tuple[float, ...]
    panel: Panel = field(repr=False)

    def __post_init__(self) -> None:
        arrays = {name: getattr(self, name) for name in _DTYPES}
        check_columns({**arrays, "close": self.panel.close}, {**_DTYPES, "close": "float32"})
        for name in _DTYPES:
            n_columns = self.n_labels if name in PER_LABEL else len(self.horizons)
            if getattr(self, name).shape != (self.n_rows, n_columns):
                shape = getattr(self, name).shape
                raise ValueError(f"{name!r} has shape {shape}, expected ({self.n_rows}, {n_columns})")

    @property
    def n_rows(self) -> int:
        """Number of rows of the panel."""
        return self.panel.n_rows

    @property
    def n_thresholds(self) -> int:
        """Number of labels for each horizon."""
        return len(self.thresholds) + len(self.multiples)

    @property
    def n_labels(self) -> int:
        """Number of columns of y."""
        return len(self.horizons) * self.n_thresholds

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of y: label_1d_5pct, label_1d_10pct, label_2d_5pct, ...; for multiples label_1d_2vol."""
        return label_names(self.horizons, self.thresholds, self.multiples)

    def horizon_of(self, label: int) -> int:
        """The position in `horizons` of column `label` of y: the column of tp, dd, forward_return and exit_row."""
        return label // self.n_thresholds

    @functools.cached_property
    def weight(self) -> Any:
        """float32 (n_rows, n_labels): average uniqueness of each row's window, a sample weight in (0, 1].

        The window runs from the next bar to the bar that decides the label (decided_bars). The weight is the mean over
        these bars of 1 / (number of windows of the same symbol and label that hold the bar): 1 without overlap, about
        1 / h where h windows overlap. Windows of rows whose label turns out unknown count too, up to decided_bars, so
        that a weight depends on nothing after its own window.

        NaN: where the window is empty or y is -1.
        Source: Lopez de Prado (2018), chapter 4, sections 4.3 and 4.4.
        """
        if _WHOLE in self.__dict__:
            labels, rows = self.__dict__[_WHOLE]
            return self.panel.device.xp.asfortranarray(labels.weight[rows])
        from gpupipe.kernels.labels import average_uniqueness

        xp, shape = self.panel.device.xp, (self.n_labels, self.n_rows)
        weight, scratch = xp.empty(shape, xp.float32), xp.empty(shape, xp.float64)
        n_items = self.panel.n_symbols * self.n_labels
        average_uniqueness(n_items, self.panel.offsets, self.decided_bars.T, scratch, weight)
        return xp.where(self.y >= 0, weight.T, np.float32(np.nan))

    def part(self, rows: slice, panel: Panel) -> Labels:
        """The labels of consecutive rows that are all rows of some symbols; panel: that of these rows."""
        xp = self.panel.device.xp
        arrays = {name: getattr(self, name)[rows] for name in _DTYPES}
        arrays["exit_row"] = arrays["exit_row"] - rows.start
        arrays = {name: xp.asfortranarray(array) for name, array in arrays.items()}
        part = replace(self, **arrays, panel=panel)
        part.__dict__[_WHOLE] = (self, rows)  # no field: a copy with other windows has other weights
        return part

    def to_arrow(self) -> pyarrow.Table:
        """A table: symbol, time, labels, touch_1d_5pct, ..., weight_1d_5pct, ..., tp_1d, ..., exit_row_1d, ..."""
        columns = dict(zip(self.names, self._columns("y"), strict=True))
        for name in (*PER_LABEL[1:], "weight"):
            column_names = (label.replace("label", name, 1) for label in self.names)
            columns |= dict(zip(column_names, self._columns(name), strict=True))
        for name in (name for name in _DTYPES if name not in PER_LABEL):
            columns |= dict(zip((f"{name}_{h}d" for h in self.horizons), self._columns(name), strict=True))
        return row_table(self.panel, columns)

    def _columns(self, name: str) -> list[np.ndarray]:
        return list(np.ascontiguousarray(self.panel.device.to_host(getattr(self, name)).T))


def label_names(
    horizons: Sequence[int], thresholds: Sequence[float], multiples: Sequence[float] = ()
) -> tuple[str, ...]:
    """Names of labels: label_1d_5pct, label_1d_10pct, label_2d_5pct, ...; of multiples label_1d_2vol."""
    sizes = [f"{percent(t)}pct" for t in thresholds] + [f"{x:g}vol" for x in multiples]
    return tuple(f"label_{h}d_{size}" for h in horizons for size in sizes)


def tp_dd_labels(
    panel: Panel,
    horizons: Sequence[int] = (1, 2, 5),
    thresholds: Sequence[float] = (0.05, 0.10),
    rule: str = "take_profit_first",
    window: str = "bars",
    ambiguous: str = "sell",
    multiples: Sequence[float] = (),
    volatility: Any = None,
) -> Labels:
    """Take-profit / draw-down labels of every row: all horizons and thresholds in one pass over high, low and close.

    For row i, the window of horizon h holds the next h bars:

        tp = max(high[i+1 .. i+h]) / close[i] - 1        dd = min(low[i+1 .. i+h]) / close[i] - 1

    horizons: whole numbers >= 1, rising; bars, or days of a calendar window.
    thresholds: t, fractions inside (0, 1), rising.
    rule: "take_profit_first": BUY if max high >= close[i] * (1 + t), else SELL if min low <= close[i] * (1 - t), else
        HOLD. "first_touch": the first bar that reaches a barrier decides; HOLD if none does.
    window: "bars": the next h bars of the symbol. A row with fewer bars left is -1 even if it has reached a barrier:
        otherwise the end of the history would hold touched rows only. "calendar": bars of the session dates
        entry < d <= entry + h days; an empty window is HOLD, and the end of the history is not marked.
    ambiguous: the class of a bar that reaches both barriers under "first_touch": "sell" (conservative), "buy", "hold"
        or "unknown" (-1).
    multiples: further thresholds, above 0, rising: t = multiple * volatility[i], different in every row.
    volatility: float32 (n_rows,), per bar and from the past only, such as compute_features(panel,
        "volatility_20").values[:, 0]. A row whose volatility is NaN or not above 0 is -1 in these labels.

    The barrier prices close * (1 + t) and close * (1 - t) are those of decimal arithmetic, as far as `targets.barriers`
    says. CPU and GPU give equal labels.
    NaN: a row is -1 if its close, or a high, low or close of its window, is NaN.

    Raises ValueError for a parameter that is not as above.
    Source: Lopez de Prado (2018), section 3.4, with highs and lows in place of closes.
    """
    horizons, multiples = _checked_horizons(horizons), _checked_multiples(multiples)
    thresholds = _checked_thresholds(thresholds, may_be_empty=bool(multiples))
    choices = {"rule": (rule, RULES), "window": (window, WINDOWS), "ambiguous": (ambiguous, tuple(AMBIGUOUS))}
    for name, (value, allowed) in choices.items():
        _check_choice(name, value, allowed)
    from gpupipe.kernels.labels import BARRIERS, label_cube  # imported late: it loads numba

    xp, n_rows, calendar = panel.device.xp, panel.n_rows, np.int64(window == "calendar")
    bars = panel.device.asarray(np.array(horizons, np.int64))
    exit_row = xp.empty((len(horizons), n_rows), xp.int64)
    longest = _calendar_window(panel, bars, exit_row) if calendar and n_rows else horizons[-1]
    if longest > MOST_BARS:
        raise ValueError(f"horizons {horizons!r}: a window of {longest:,} bars, expected at most {MOST_BARS:,}")

    n_thresholds = len(thresholds) + len(multiples)
    outputs = _empty_outputs(panel, len(horizons), n_thresholds)
    n_tiles, scratch = _tiles(panel, 2 * longest.bit_length() + BARRIERS + 4 * n_thresholds, longest)
    label_cube(
        n_tiles, scratch, panel.high, panel.low, panel.close, panel.offsets, bars, np.int64(longest), exit_row,
        *factors(panel.device, thresholds), _scaled(panel, multiples, volatility), calendar,
        np.int64(rule == "first_touch"), np.int64(AMBIGUOUS[ambiguous]), *outputs.values(),
    )  # fmt: skip
    columns = {name: array.T for name, array in outputs.items()}
    columns["exit_row"] = exit_row.T
    return Labels(**columns, horizons=horizons, thresholds=thresholds, multiples=multiples, panel=panel)


def barrier_classes(
    panel: Panel, horizons: Sequence[int] = (1, 2, 5), thresholds: Sequence[float] = (0.05, 0.10)
) -> Any:
    """The classes alone, much faster: `tp_dd_labels(panel, horizons, thresholds).y`.

    Returns int8 (n_rows, n_labels) with contiguous columns (Fortran order), for the rule "take_profit_first" and
    windows of bars; -1 is unknown. Raises ValueError as tp_dd_labels does.
    """
    horizons, thresholds = _checked_horizons(horizons), _checked_thresholds(thresholds)
    from gpupipe.kernels.labels import barrier_labels  # imported late: it loads numba

    device, xp = panel.device, panel.device.xp
    y = xp.empty((len(horizons) * len(thresholds), panel.n_rows), xp.int8)
    n_tiles, scratch = _tiles(panel, 4 + 2 * len(thresholds), horizons[-1])
    barrier_labels(
        n_tiles, scratch, panel.high, panel.low, panel.close, panel.offsets,
        device.asarray(np.array(horizons, np.int64)), *factors(panel.device, thresholds), y,
    )  # fmt: skip
    return y.T


def _calendar_window(panel: Panel, days: Any, exit_row: Any) -> int:
    """Write the last row of each calendar window to exit_row (n_horizons, n_rows); returns the longest, in bars."""
    from gpupipe.kernels.labels import calendar_ends  # imported late: it loads numba

    calendar_ends(panel.n_rows, panel.session_day, panel.symbol_of_row, panel.offsets, days, exit_row)
    return max(1, int((exit_row[-1] - panel.device.xp.arange(panel.n_rows)).max()))


def _empty_outputs(panel: Panel, n_horizons: int, n_thresholds: int) -> dict[str, Any]:
    """Arrays for the outputs of the kernel label_cube, (n_columns, n_rows), in the order of its arguments."""
    n_columns = {name: n_horizons * n_thresholds if name in PER_LABEL else n_horizons for name in _DTYPES}
    return {
        name: panel.device.xp.empty((n_columns[name], panel.n_rows), np.dtype(_DTYPES[name]))
        for name in (*PER_LABEL, "tp", "dd", "forward_return")
    }


def _tiles(panel: Panel, n_vectors: int, longest: int) -> tuple[int, Any]:
    """The number of tiles of rows of the panel, and scratch memory for the tiles computed at once."""
    from gpupipe.kernels.labels import TILE_ROWS

    n_tiles = -(-panel.n_rows // TILE_ROWS)
    shape = (min(n_tiles, WORKERS), n_vectors, TILE_ROWS + longest)
    return n_tiles, panel.device.xp.empty(shape, np.float32)


def _scaled(panel: Panel, multiples: Sequence[float], volatility: Any) -> Any:
    """float32 (n_multiples, n_rows): the thresholds of each row."""
    xp = panel.device.xp
    if not multiples:
        if volatility is not None:
            raise ValueError("volatility is given without multiples: pass multiples=, such as (1, 2)")
        return xp.empty((0, panel.n_rows), np.float32)
    if volatility is None:
        raise ValueError("multiples need a volatility: pass volatility=, float32 (n_rows,), from the past only")
    check_columns({"volatility": volatility, "close": panel.close}, {"volatility": "float32", "close": "float32"})
    if volatility.shape != (panel.n_rows,):
        raise ValueError(f"volatility has shape {volatility.shape}, expected ({panel.n_rows},)")
    return xp.stack([volatility * np.float32(multiple) for multiple in multiples])


def _checked_horizons(horizons: Sequence[int]) -> tuple[int, ...]:
    try:
        # A bool is an int to Python, but never a horizon.
        checked = tuple(operator.index(h) for h in horizons if not isinstance(h, bool))
    except TypeError:
        checked = ()
    if not checked or len(checked) != len(horizons) or checked[0] < 1 or list(checked) != sorted(set(checked)):
        raise ValueError(f"horizons {horizons!r}: expected whole numbers >= 1 that rise, such as (1, 2, 5)")
    return checked


def _checked_thresholds(thresholds: Sequence[float], may_be_empty: bool = False) -> tuple[float, ...]:
    checked = _rising(thresholds)
    same_name = len({percent(t) for t in checked}) < len(checked)
    if not checked and may_be_empty and not len(thresholds):
        return checked
    if not checked or not all(0.0 < t < 1.0 for t in checked) or same_name:
        raise ValueError(f"thresholds {thresholds!r}: expected fractions inside (0, 1) that rise, such as (0.05, 0.10)")
    return checked


def _checked_multiples(multiples: Sequence[float]) -> tuple[float, ...]:
    checked = _rising(multiples)
    same_name = len({f"{x:g}" for x in checked}) < len(checked)
    complete = hasattr(multiples, "__len__") and len(checked) == len(multiples)
    if not complete or same_name or not all(0.0 < x < math.inf for x in checked):
        raise ValueError(f"multiples {multiples!r}: expected numbers above 0 that rise, such as (1, 2)")
    return checked


def _rising(values: Sequence[float]) -> tuple[float, ...]:
    """The values as floats; empty if one is not a number or they do not rise."""
    try:
        checked = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return ()
    return checked if list(checked) == sorted(set(checked)) else ()


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown; expected {' or '.join(repr(choice) for choice in choices)}")
