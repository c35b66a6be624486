"""The section on positions by the predicted return: their equity after costs, beside buy and hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.report import sequence_charts
from gpupipe.report.formatting import significant
from gpupipe.report.kept_returns import KeptReturns
from gpupipe.report.next_return import SPOKEN
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.sequence_charts import HELD, POSITIONS

MOST_POINTS = 300  # of a line
DECADE = 10.0  # largest over smallest equity from which on the axis is logarithmic
COLUMNS = [("symbol", False), ("equity at the end", True), ("of buy and hold", True), ("largest loss, %", True),
           ("of buy and hold, %", True), ("fills", True), ("long, % of bars", True), ("short, % of bars", True),
           ("flat, % of bars", True), ("bars", True)]  # fmt: skip


def position_paths(whole: Mapping[str, Any], returns: Mapping[str, KeptReturns] | None) -> Section | None:
    """Equity of positions by the predicted return; None without the rows or their measures.

    whole: the summary.  returns: by symbol, rows of returns.parquet.
    """
    measures: Mapping[str, Mapping[str, Any]] = whole.get("returns") or {}
    known = {symbol: rows for symbol, rows in (returns or {}).items() if rows.n and symbol in measures}
    if not known:
        return None
    points: list[dict[str, Any]] = [
        {"symbol": symbol, "what": what, "time": time, "equity": value}
        for symbol, rows in known.items()
        for what, equity in ((POSITIONS, rows.equity), (HELD, rows.buy_and_hold))
        for time, value in thinned(rows.time_ns, equity)
    ]  # fmt: skip
    log = any(spans_decades(point["equity"] for point in points if point["symbol"] == symbol) for symbol in known)
    if log:
        points = [point for point in points if point["equity"] > 0]  # a logarithmic axis has no place for 0
    cost = next(iter(measures.values()))["positions"]["cost_of_a_fill"]
    text = [
        "A position is long or short by the sign of the last predicted return that exceeds the cost of a fill, and "
        "flat before the first. It is decided at the close of a bar and filled at the open of the next one. Each fill "
        f"costs {100 * cost:.3g} % of its value; turning from long to short takes two fills. Buy and hold pays for "
        "one. All of the equity is at stake at an entry, and the position is marked at each close.",
        *(sentence(symbol, measures[symbol]["positions"]) for symbol in known if len(known) <= SPOKEN),
    ]
    scale = ", on a logarithmic axis" if log else ""
    table = [_row(symbol, rows, measures[symbol]["positions"]) for symbol, rows in known.items()]
    return Section("Positions by the predicted return", text, [
        Figure(f"Equity after costs, of 1 at the beginning{scale}", sequence_charts.equity(points, log)),
        Table("Positions of each symbol", COLUMNS, table, digits=1),
    ])  # fmt: skip


def sentence(symbol: str, positions: Mapping[str, Any]) -> str:
    """How the positions of a symbol ended.

    positions: of the symbol's measures in the summary.

    >>> positions = {"cost_of_a_fill": 0.0003, "final_equity": 0.4, "final_buy_and_hold": 3.39, "fills": 195}
    >>> sentence("BTC", positions)
    'BTC: positions by the predicted return turn 1 into 0.400 after 195 fills of 0.03 % each, buy and hold into 3.390.'
    """
    fills, cost = positions["fills"], f"{100 * positions['cost_of_a_fill']:.3g} %"
    after = f"after {fills:,} fills of {cost} each" if fills != 1 else f"after one fill of {cost}"
    return (
        f"{symbol}: positions by the predicted return turn 1 into {positions['final_equity']:.3f} {after}, buy and "
        f"hold into {positions['final_buy_and_hold']:.3f}."
    )


def thinned(time_ns: np.ndarray, equity: np.ndarray, most: int = MOST_POINTS) -> list[tuple[str, float]]:
    """At most `most` points (ISO time, equity) of a line, equally spaced, the last one among them.

    time_ns: int64 (n,), rising.  equity: float64 (n,).

    >>> hours = np.arange(5) * 3_600_000_000_000
    >>> thinned(hours, np.arange(5.0), most=3)
    [('1970-01-01T00:00', 0.0), ('1970-01-01T02:00', 2.0), ('1970-01-01T04:00', 4.0)]
    """
    n = len(time_ns)
    at = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
    times = np.datetime_as_string(time_ns[at].astype("datetime64[ns]"), unit="m")
    return [(str(time), float(value)) for time, value in zip(times, equity[at], strict=True)]


def spans_decades(values: Any) -> bool:
    """Whether the largest value is at least ten times the smallest that is above 0.

    >>> spans_decades([0.5, 4.9]), spans_decades([0.5, 5.0]), spans_decades([0.0])
    (False, True, False)
    """
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) >= DECADE * min(positive)


def largest_loss(equity: np.ndarray) -> float:
    """The largest loss since the last peak, as a share of it, at most 0; the equity began at 1.

    >>> largest_loss(np.array([1.0, 2.0, 1.0, 3.0])), largest_loss(np.array([]))
    (-0.5, 0.0)
    """
    if not len(equity):
        return 0.0
    return float(np.min(equity / np.maximum.accumulate(np.maximum(equity, 1.0)) - 1))


def _row(symbol: str, rows: KeptReturns, positions: Mapping[str, Any]) -> list[Any]:
    shares = [100 * float((rows.position == side).mean()) for side in (1, -1, 0)]
    losses = [100 * largest_loss(equity) for equity in (rows.equity, rows.buy_and_hold)]
    ends = [significant(positions[name]) for name in ("final_equity", "final_buy_and_hold")]
    return [symbol, *ends, *losses, positions["fills"], *shares, rows.n]
