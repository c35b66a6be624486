"""Labels: what the highs and lows after each row did, as BUY, HOLD or SELL, for every horizon and threshold."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data.panel import Panel, check_columns, row_table
from gpupipe.targets.classes import BUY, HOLD, SELL, UNKNOWN, percent

if TYPE_CHECKING:
    import pyarrow

RULES = ("take_profit_first", "first_touch")
WINDOWS = ("bars", "calendar")
# What a bar that reaches both barriers is called under "first_touch": its highs and lows do not say which came first.
AMBIGUOUS = {"sell": SELL, "hold": HOLD, "buy": BUY, "unknown": UNKNOWN}
DAY_NS = 86_400_000_000_000
WORKERS = 512  # tiles in work at once, at most
MOST_BARS = 32_767  # of a window: touch_bars is int16
_DTYPES = {
    "y": "int8", "touch": "int8", "touch_bars": "int16", "decided_bars": "int16", "realised_return": "float32",
    "tp": "float32", "dd": "float32", "forward_return": "float32", "exit_row": "int64",
}  # fmt: skip
OF_LABEL = ("y", "touch", "touch_bars", "decided_bars", "realised_return")  # for each label; others: of a horizon


@dataclass(frozen=True)
class Labels:
    """Labels of every row of a panel, on the panel's device. Columns are contiguous (Fortran order).

    y: int8 (n_rows, n_labels); 0 SELL, 1 HOLD, 2 BUY, -1 not known. Column k * n_thresholds + m is horizon k
        with threshold m, the multiples after the fixed thresholds; `names` says the same in words.
    touch: int8 (n_rows, n_labels); what is reached first: 0 neither price, 1 the upper, 2 the lower, 3 both in one
        bar, whose high and low do not say which came first; -1 not known.
    touch_bars: int16 (n_rows, n_labels); bars until then, 1 for the next one; 0 where neither is reached or not known.
    decided_bars: int16 (n_rows, n_labels); bars until nothing that follows could change the label. Under "first_touch"
        that is touch_bars, or the whole window where neither price is reached. Under "take_profit_first" a BUY is
        decided when a high reaches the target; a SELL and a HOLD only when the window ends, as a later take-profit
        would win. Also where y is -1 because something is not known later, or the history ends before: it depends on
        no bar after the decision. 0 where the window is empty, or the row has no close or no threshold.
    realised_return: float32 (n_rows, n_labels); of a long position that is left at the first of the two prices, or at
        the window's last close: price / close - 1. Both in one bar counts as the lower, or as the upper with
        ambiguous="buy". A bar that opens beyond a price is left at the price.
    tp, dd: float32 (n_rows, n_horizons); highest high and lowest low of the window over the row's close, minus 1.
    forward_return: float32 (n_rows, n_horizons); close of the window's last row over the row's close, minus 1.
    exit_row: int64 (n_rows, n_horizons); the last row whose data the row's labels of this horizon depend on: the
        end of the window, also where a barrier was reached before it, because a later NaN would make the label
        unknown. Always a row of the same symbol at or after the row itself; where the history ends first, its
        last row. Purge by time_ns[exit_row].

    NaN in the floats: the window is not known (y is -1) or empty.
    Raises ValueError when a shape, dtype or device is not as above.
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
        check_columns({**{name: getattr(self, name) for name in _DTYPES}, "close": self.panel.close},
                      {**_DTYPES, "close": "float32"})  # fmt: skip
        for name in _DTYPES:
            n_columns = self.n_labels if name in OF_LABEL else len(self.horizons)
            if getattr(self, name).shape != (self.n_rows, n_columns):
                shape = getattr(self, name).shape
                raise ValueError(f"{name!r} has shape {shape}, expected ({self.n_rows}, {n_columns})")

    @property
    def n_rows(self) -> int:
        """Number of rows, those of the panel."""
        return self.panel.n_rows

    @property
    def n_thresholds(self) -> int:
        """Number of labels of a horizon."""
        return len(self.thresholds) + len(self.multiples)

    @property
    def n_labels(self) -> int:
        """Number of columns of y."""
        return len(self.horizons) * self.n_thresholds

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of y: label_1d_5pct, label_1d_10pct, label_2d_5pct, ...; of multiples label_1d_2vol."""
        return label_names(self.horizons, self.thresholds, self.multiples)

    def horizon_of(self, label: int) -> int:
        """The position in `horizons` of column `label` of y: the column of tp, dd, forward_return and exit_row."""
        return label // self.n_thresholds

    @functools.cached_property
    def weight(self) -> Any:
        """float32 (n_rows, n_labels): average uniqueness of each row's window; NaN where it is empty or y is not known.

        The window is the bars from the next one to the one that decides the label (decided_bars). The weight is the
        mean over them of 1 / how many windows of the symbol's rows, of the same label, hold that bar: 1 for windows
        that do not overlap, about 1 / h where h of them do. Windows of rows whose label is never known count too, as
        long as they could still decide one, so that a weight depends on nothing after its own window.

        Source: Lopez de Prado (2018), chapter 4, sections 4.3 and 4.4.
        """
        from gpupipe.kernels.labels import average_uniqueness

        xp, shape = self.panel.device.xp, (self.n_labels, self.n_rows)
        weight, passed = xp.empty(shape, xp.float32), xp.empty(shape, xp.float64)
        average_uniqueness(
            self.panel.n_symbols * self.n_labels, self.panel.offsets, self.decided_bars.T, passed, weight
        )  # fmt: skip
        return xp.where(self.y >= 0, weight.T, np.float32(np.nan))

    def to_arrow(self) -> pyarrow.Table:
        """A table: symbol, time, labels, touch_1d_5pct, ..., weight_1d_5pct, ..., tp_1d, ..., exit_row_1d, ..."""
        columns = dict(zip(self.names, self._columns("y"), strict=True))
        for name in (*OF_LABEL[1:], "weight"):
            of = (label.replace("label", name, 1) for label in self.names)
            columns |= dict(zip(of, self._columns(name), strict=True))
        for name in (name for name in _DTYPES if name not in OF_LABEL):
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
    multiples: more thresholds, above 0, rising: t = multiple * volatility[i], a fraction of its own for each row.
    volatility: float32 (n_rows,), of a bar, and of the past only: compute_features(panel,
        "volatility_20").values[:, 0], say. A row without a volatility above 0 is -1 in these labels.

    The factors 1 + t and 1 - t are rounded once to float32 and the barrier price is one float32 product, so a CPU
    and a GPU give the same labels. A row whose close, or a high, low or close of whose window, is NaN is -1.

    Raises ValueError for a parameter that is not as above.
    Source: the triple barrier of Lopez de Prado (2018), section 3.4, with highs and lows in place of closes.
    """
    horizons, multiples = _checked_horizons(horizons), _checked_multiples(multiples)
    thresholds = _checked_thresholds(thresholds, may_be_none=bool(multiples))
    _check_choice("rule", rule, RULES)
    _check_choice("window", window, WINDOWS)
    _check_choice("ambiguous", ambiguous, tuple(AMBIGUOUS))
    from gpupipe.kernels.labels import BARRIERS, calendar_ends, label_cube  # here, because it loads numba

    xp, n_rows, calendar = panel.device.xp, panel.n_rows, np.int64(window == "calendar")
    bars, factors = panel.device.asarray(np.array(horizons, np.int64)), _factors(panel, thresholds)
    exit_row = xp.empty((len(horizons), n_rows), xp.int64)
    longest = horizons[-1]
    if calendar and n_rows:  # horizons are days: as many bars as the fullest window has
        calendar_ends(n_rows, panel.time_ns // DAY_NS, panel.symbol_of_row, panel.offsets, bars, exit_row)
        longest = max(1, int((exit_row[-1] - xp.arange(n_rows)).max()))
    if longest > MOST_BARS:
        raise ValueError(f"horizons {horizons!r}: a window of {longest:,} bars, expected at most {MOST_BARS:,}")

    n_thresholds = len(thresholds) + len(multiples)
    dtypes = {name: np.dtype(_DTYPES[name]) for name in (*OF_LABEL, "tp", "dd", "forward_return")}
    made = {
        name: xp.empty((len(horizons) * (n_thresholds if name in OF_LABEL else 1), n_rows), dtype)
        for name, dtype in dtypes.items()
    }
    n_tiles, scratch = _tiles(panel, 2 * longest.bit_length() + BARRIERS + 4 * n_thresholds, longest)
    label_cube(
        n_tiles, scratch, panel.high, panel.low, panel.close, panel.offsets, bars, np.int64(longest), exit_row,
        *factors, _scaled(panel, multiples, volatility), calendar, np.int64(rule == "first_touch"),
        np.int64(AMBIGUOUS[ambiguous]), *made.values(),
    )  # fmt: skip
    columns = {name: array.T for name, array in made.items()}
    return Labels(**columns, exit_row=exit_row.T, horizons=horizons, thresholds=thresholds, multiples=multiples,
                  panel=panel)  # fmt: skip


def barrier_classes(
    panel: Panel, horizons: Sequence[int] = (1, 2, 5), thresholds: Sequence[float] = (0.05, 0.10)
) -> Any:  # fmt: skip
    """The y of `tp_dd_labels` under "take_profit_first" over bars, alone and much faster: int8 (n_rows, n_labels).

    Its columns are contiguous (Fortran order).
    Raises ValueError as tp_dd_labels does.
    """
    horizons, thresholds = _checked_horizons(horizons), _checked_thresholds(thresholds)
    from gpupipe.kernels.labels import barrier_labels  # here, because it loads numba

    device, xp = panel.device, panel.device.xp
    y = xp.empty((len(horizons) * len(thresholds), panel.n_rows), xp.int8)
    n_tiles, scratch = _tiles(panel, 4 + 2 * len(thresholds), horizons[-1])
    barrier_labels(
        n_tiles, scratch, panel.high, panel.low, panel.close, panel.offsets,
        device.asarray(np.array(horizons, np.int64)), *_factors(panel, thresholds), y,
    )  # fmt: skip
    return y.T


def _tiles(panel: Panel, n_vectors: int, longest: int) -> tuple[int, Any]:
    """How many tiles of rows the panel has, and scratch memory for those in work at once."""
    from gpupipe.kernels.labels import TILE_ROWS

    n_tiles = -(-panel.n_rows // TILE_ROWS)
    shape = (min(n_tiles, WORKERS), n_vectors, TILE_ROWS + longest)
    return n_tiles, panel.device.xp.empty(shape, np.float32)


def _factors(panel: Panel, thresholds: Sequence[float]) -> tuple[Any, Any]:
    """1 + t and 1 - t, float32 (n_thresholds,)."""
    up, down = ([1.0 + sign * t for t in thresholds] for sign in (1, -1))
    return panel.device.asarray(np.array(up, np.float32)), panel.device.asarray(np.array(down, np.float32))


def _scaled(panel: Panel, multiples: Sequence[float], volatility: Any) -> Any:
    """float32 (n_multiples, n_rows): the threshold of each row."""
    xp = panel.device.xp
    if not multiples:
        if volatility is not None:
            raise ValueError("volatility is given and no multiples of it: pass multiples=, like (1, 2)")
        return xp.empty((0, panel.n_rows), np.float32)
    if volatility is None:
        raise ValueError("multiples are of a volatility: pass volatility=, float32 (n_rows,), of the past only")
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
        raise ValueError(f"horizons {horizons!r}: expected whole numbers >= 1 that rise, like (1, 2, 5)")
    return checked


def _checked_thresholds(thresholds: Sequence[float], may_be_none: bool = False) -> tuple[float, ...]:
    checked = _rising(thresholds)
    alike = len({percent(t) for t in checked}) < len(checked)
    if not checked and may_be_none and not len(thresholds):
        return checked
    if not checked or not all(0.0 < t < 1.0 for t in checked) or alike:
        raise ValueError(f"thresholds {thresholds!r}: expected fractions inside (0, 1) that rise, like (0.05, 0.10)")
    return checked


def _checked_multiples(multiples: Sequence[float]) -> tuple[float, ...]:
    checked = _rising(multiples)
    alike = len({f"{x:g}" for x in checked}) < len(checked)
    whole = hasattr(multiples, "__len__") and len(checked) == len(multiples)
    if not whole or alike or not all(0.0 < x < math.inf for x in checked):
        raise ValueError(f"multiples {multiples!r}: expected numbers above 0 that rise, like (1, 2)")
    return checked


def _rising(values: Sequence[float]) -> tuple[float, ...]:
    """As floats; none if one is no number or they do not rise."""
    try:
        checked = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return ()
    return checked if list(checked) == sorted(set(checked)) else ()


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} {value!r} is unknown; expected {' or '.join(repr(choice) for choice in choices)}")
