"""The section on what an agent did: its positions over the price of the sealed bars."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.report import agent_charts
from gpupipe.report.agent_charts import AGENT
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.position_paths import thinned

FILE, TRADES = "positions.parquet", "trades.parquet"  # in OUT, written by the workload
MOST_SPANS = 300  # shaded parts of the chart
MOST_POINTS = 600  # of the price
MOST_MARKS = 150  # trades up to which each entry has a mark
SIDES = {1: "long", -1: "short"}
COLUMNS = [("side", False), ("bars, %", True), ("trades", True), ("won, %", True), ("mean net return, %", True),
           ("mean hours", True)]  # fmt: skip


def positions(out: pathlib.Path, whole: Mapping[str, Any]) -> Section | None:
    """The price with the positions that were held; None without an agent or its positions.  whole: the summary."""
    import pyarrow.parquet as pq

    if not whole.get("agent") or not (out / FILE).exists():
        return None
    table = pq.read_table(out / FILE, columns=["time", "position", "close"])
    time_ns, close = table["time"].cast("int64").to_numpy(), table["close"].to_numpy().astype(np.float64)
    path = table["position"].to_numpy()
    trades = [row for row in pq.read_table(out / TRADES).to_pylist() if row["path"] == AGENT]
    shaded = spans(time_ns, path)
    entries = [
        {"time": _iso(row["entry_time"]), "price": float(row["entry_price"]), "side": row["side"]}
        for row in trades if len(trades) <= MOST_MARKS
    ]  # fmt: skip
    prices = [{"time": time, "price": value} for time, value in thinned(time_ns, close, MOST_POINTS)]
    caption = "Close of the sealed bars"
    if shaded:
        caption += ", shaded where the agent is long or short"
    if any(row["share"] < 1 for row in shaded):
        caption += "; the paler, the fewer of a span's bars"
    if entries:
        caption += "; triangles: entries"
    parts: list[Any] = [Figure(caption, agent_charts.positions(prices, shaded, entries))]
    if trades:
        parts.append(Table("Positions and trades", COLUMNS, [_row(name, side, path, trades)
                                                             for side, name in SIDES.items()]))  # fmt: skip
    return Section("Positions of the agent", [_sentence(path, len(trades))], parts)


def spans(time_ns: np.ndarray, path: np.ndarray, most: int = MOST_SPANS) -> list[dict[str, Any]]:
    """Where a position is held: "begin", "end" (ISO times), "side", and "share", of the span's bars.

    time_ns: int64 (n,).  path: int8 (n,), decided at each bar; it is held from the next bar on.
    At most `most` runs are spans of their own; of more, equal parts of the bars are, with the side of most of its bars.

    >>> hours = np.arange(6) * 3_600_000_000_000
    >>> spans(hours, np.int8([0, 1, 1, 0, -1, 0]))[0]
    {'begin': '1970-01-01T02:00', 'end': '1970-01-01T04:00', 'side': 'long', 'share': 1.0}
    >>> [(span["side"], round(span["share"], 2)) for span in spans(hours, np.int8([1, 0, -1, -1, 1, 0]), most=2)]
    [('long', 0.33), ('short', 0.67)]
    """
    n = len(path)
    held = np.append(0, path[:-1]) if n else path
    edges = np.flatnonzero(np.diff(held)) + 1
    begins = np.append(0, edges)
    if np.count_nonzero(held[begins]) > most:
        begins = np.unique(np.linspace(0, n, most, endpoint=False).astype(np.int64))
    ends = np.append(begins[1:], n)
    last = np.minimum(ends, n - 1)
    times = np.datetime_as_string(time_ns.astype("datetime64[ns]"), unit="m")
    found = []
    for begin, end, at in zip(begins.tolist(), ends.tolist(), last.tolist(), strict=True):
        shares = {side: float((held[begin:end] == side).mean()) for side in SIDES}
        side = max(SIDES, key=lambda side: shares[side])
        if shares[side]:
            found.append({"begin": str(times[begin]), "end": str(times[at]), "side": SIDES[side],
                          "share": shares[side]})  # fmt: skip
    return found


def _sentence(path: np.ndarray, n_trades: int) -> str:
    if not n_trades:
        return "The agent stayed out of the market: it decided on no position in any sealed bar."
    long, short, flat = (100 * float((path == side).mean()) for side in (1, -1, 0))
    return (
        f"{n_trades:,} trade{'' if n_trades == 1 else 's'}; long in {long:.0f} %, short in {short:.0f} % and flat in "
        f"{flat:.0f} % of {len(path):,} sealed bars. A position is decided at a bar's close and filled in the next bar."
    )


def _row(name: str, side: int, path: np.ndarray, trades: list[dict[str, Any]]) -> list[Any]:
    own = [row for row in trades if row["side"] == name]
    net = np.array([row["net_return"] for row in own])
    hours = [(row["exit_time"] - row["entry_time"]).total_seconds() / 3600 for row in own]
    means = [100 * float((net > 0).mean()), 100 * float(net.mean()), float(np.mean(hours))] if own else [None] * 3
    return [name, 100 * float((path == side).mean()), len(own), *means]


def _iso(time: Any) -> str:
    return time.strftime("%Y-%m-%dT%H:%M")
