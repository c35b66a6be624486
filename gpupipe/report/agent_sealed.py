"""The sections on the sealed tests of an agent: equity beside buy and hold and random entries, and drawdown."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.backtest.choices import BUY_AND_HOLD
from gpupipe.evaluation.block_bootstrap import FEWEST_BLOCKS, NOT_KNOWN, SKILL
from gpupipe.report import agent_charts
from gpupipe.report.agent_charts import AGENT, HELD, ORIGINAL
from gpupipe.report.formatting import significant, to_percent
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.position_paths import MOST_POINTS, spans_decades, thinned

Row = Mapping[str, Any]
FILE, RANDOM = "equity.parquet", "random.parquet"  # in OUT, written by the workload
NAMES = {AGENT: AGENT, ORIGINAL: ORIGINAL, BUY_AND_HOLD: HELD}  # of the paths
COLUMNS = [("", False), ("return, %", True), ("a day, bps", True), ("from", True), ("to", True),
           ("over buy and hold, bps", True), ("from", True), ("to", True), ("largest loss, %", True), ("trades", True),
           ("mean trade, %", True), ("of random entries, %", True), ("p", True), ("Deflated Sharpe", True),
           ("skill", False)]  # fmt: skip
ITERATION_COLUMNS = [("", False), ("test from", False), ("to", False), ("validation score, %", True),
                     ("sealed test, %", True), ("steps", True), ("stopped", False)]  # fmt: skip


def sealed_tests(out: pathlib.Path, whole: Row) -> Section | None:
    """Equity of the chain of sealed tests, its statistics and its iterations; None without an agent or its equity."""
    agent, curves = whole.get("agent"), read_curves(out)
    if not agent or not curves:
        return None
    band = _band(out)
    lines = [
        {"what": NAMES[path], "time": time, "equity": value}
        for path, (time_ns, equity) in curves.items() for time, value in thinned(time_ns, equity)
    ]  # fmt: skip
    log = spans_decades([row["equity"] for row in lines] + [row[end] for row in band for end in ("low", "high")])
    if log:  # a logarithmic axis has no place for 0
        lines, band = [row for row in lines if row["equity"] > 0], [row for row in band if row["low"] > 0]
    sealed, iterations = agent["sealed"], agent["iterations"]
    text = [
        f"Each of {_count(len(iterations), 'iteration')} trains on the bars of its window, chooses a policy on the "
        "validation bars after them, and trades the next bars, which no choice has seen. The tests follow each other "
        f"as one account from {_date(sealed['from'])} to {_date(sealed['to'])}, after costs. It begins and ends each "
        "test without a position.",
        *verdict_sentences(whole),
    ]
    shade = f" Shaded: {_draws(sealed)}, each after its closed trades." if band else ""
    caption = (
        f"Equity{', on a logarithmic axis' if log else ''}; 1, the solid line across, is doing nothing; dotted upright "
        f"lines: the tests of the iterations begin.{shade}"
    )
    return Section("Sealed tests", text, [
        Figure(caption, agent_charts.equity(lines, band, _begins(iterations), log)),
        Table("Sealed tests, one after the other", COLUMNS, [_row(row) for row in sealed["statistics"]]),
        Table("Iterations", ITERATION_COLUMNS, [_iteration(row) for row in iterations], folded=len(iterations) > 12),
    ])  # fmt: skip


def drawdowns(out: pathlib.Path, whole: Row) -> Section | None:
    """Drawdown of the chain of sealed tests and of buy and hold; None without an agent or its equity."""
    agent, curves = whole.get("agent"), read_curves(out)
    if not agent or not curves:
        return None
    lines = [
        {"what": NAMES[path], "time": time, "drawdown": value}
        for path, (time_ns, equity) in curves.items() for time, value in drawdown(time_ns, equity)
    ]  # fmt: skip
    worst = {NAMES[row["path"]]: row["max_drawdown"] for row in agent["sealed"]["statistics"]}
    losses = ", ".join(f"{name} {100 * value:.1f} %" for name, value in worst.items())
    return Section("Drawdown of the sealed tests", [f"Largest loss since a peak: {losses}."], [
        Figure("Drawdown: loss since the last peak of the equity at closes, %",
               agent_charts.drawdown(lines, _begins(agent["iterations"]))),
    ])  # fmt: skip


def read_curves(out: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Times (int64, UTC ns) and equity (float64) of each path of OUT/equity.parquet; empty without the file."""
    import pyarrow.parquet as pq

    if not (out / FILE).exists():
        return {}
    table = pq.read_table(out / FILE, columns=["path", "time", "equity"])
    path = np.array(table["path"].to_pylist(), dtype=object)
    time_ns, equity = table["time"].cast("int64").to_numpy(), table["equity"].to_numpy()
    return {name: (time_ns[path == name], equity[path == name]) for name in NAMES if (path == name).any()}


def drawdown(time_ns: np.ndarray, equity: np.ndarray, most: int = MOST_POINTS) -> list[tuple[str, float]]:
    """At most `most` points (ISO time, loss since the last peak in percent) of an equity that began with 1.

    A point stands for several times where there are more: it has the last time and the largest loss of them.

    >>> drawdown(np.arange(4) * 3_600_000_000_000, np.array([1.0, 0.5, 1.0, 1.25]), most=2)
    [('1970-01-01T01:00', -50.0), ('1970-01-01T03:00', 0.0)]
    """
    loss = 100 * (equity / np.maximum.accumulate(np.maximum(equity, 1.0)) - 1)
    begins = np.arange(0, len(loss), max(1, -(-len(loss) // most)))
    ends = np.append(begins[1:], len(loss)) - 1
    times = np.datetime_as_string(time_ns[ends].astype("datetime64[ns]"), unit="m")
    return [(str(time), float(value)) for time, value in zip(times, np.minimum.reduceat(loss, begins), strict=True)]


def verdict_sentences(whole: Row) -> list[str]:
    """What the sealed tests say of the agent, and of the original way where it ran; none without an agent.

    whole: the summary.

    >>> held = {"path": "buy_and_hold", "total_return": 0.1, "day_return": 0.002, "day_return_low": -0.001,
    ...         "day_return_high": 0.005}
    >>> still = {"path": "agent", "trades": 0}
    >>> for line in verdict_sentences({"agent": {"sealed": {"statistics": [still, held]}}}):
    ...     print(line)
    The agent made no trade in the sealed tests: it kept 1, as doing nothing does.
    Buy and hold returned 10.00 %, 20.0 bps a day with a 95 % interval of -10.0 to 50.0, which includes 0.
    """
    agent = whole.get("agent")
    if not agent:
        return []
    sealed = agent["sealed"]
    return [_sentence(row, sealed) for row in sealed["statistics"]]


def _sentence(row: Row, sealed: Row) -> str:
    name = NAMES[row["path"]]
    subject = name.capitalize() if name == HELD else f"The {name}"
    if row.get("trades") == 0:
        return f"{subject} made no trade in the sealed tests: it kept 1, as doing nothing does."
    earned = f"{subject} returned {100 * row['total_return']:.2f} %{_interval(row, 'day_return', ' a day')}"
    if name == HELD:
        return f"{earned}."
    over = f"; over buy and hold{_interval(row, 'over_hold', ' a day')[1:]}" if row.get("over_hold") is not None else ""
    trades = _count(row["trades"], "trade")
    if row["skill"] == NOT_KNOWN:
        why = f"the tests have fewer than {FEWEST_BLOCKS} blocks of days, or no spread of returns"
        return f"{earned} in {trades}{over}. Whether it has skill is not known: {why}."
    chance = (
        f"p = {row['p_value']:.3f} against {_draws(sealed)}, and a Deflated Sharpe Ratio of "
        f"{row['deflated_sharpe']:.2f} for {_count(row['trials'], 'trained policy', 'trained policies')}"
    )
    return f"{earned} in {trades}{over}. {'Skill' if row['skill'] == SKILL else 'No skill'}: {chance}."


def _interval(row: Row, name: str, each: str) -> str:
    """A mean in basis points with its interval, and where that lies."""
    if row.get(name) is None:
        return ""
    text, (low, high) = f", {1e4 * row[name]:z.1f} bps{each}", (row.get(f"{name}_{end}") for end in ("low", "high"))
    if low is None or high is None:
        return text
    where = "lies above 0" if low > 0 else "lies below 0" if high < 0 else "includes 0"
    return f"{text} with a 95 % interval of {1e4 * low:z.1f} to {1e4 * high:z.1f}, which {where}"


def _draws(sealed: Row) -> str:
    return f"{sealed['draws']} draws of random entries, as many trades of the same sides and lengths"


def _band(out: pathlib.Path) -> list[dict[str, Any]]:
    """Rows of OUT/random.parquet with ISO times; none where there is no file, or no trade was made."""
    import pyarrow.parquet as pq

    if not (out / RANDOM).exists():
        return []
    table = pq.read_table(out / RANDOM)
    times = np.datetime_as_string(table["time"].cast("int64").to_numpy().astype("datetime64[ns]"), unit="m")
    columns = [table[name].to_pylist() for name in ("low", "median", "high")]
    return [
        {"time": str(time), "low": low, "median": median, "high": high}
        for time, low, median, high in zip(times, *columns, strict=True)
    ]


def _row(row: Row) -> list[Any]:
    def bps(name: str) -> list[float | None]:
        return [None if row.get(key) is None else 1e4 * row[key] for key in (name, f"{name}_low", f"{name}_high")]

    trade = [to_percent(row.get(name)) for name in ("mean_trade", "random_mean_trade")]
    return [
        NAMES[row["path"]], to_percent(row["total_return"]), *bps("day_return"), *bps("over_hold"),
        -100 * row["max_drawdown"], row.get("trades"), *(significant(value, 2) for value in trade),
        significant(row.get("p_value"), 2), row.get("deflated_sharpe"), row.get("skill", ""),
    ]  # fmt: skip


def _iteration(row: Row) -> list[Any]:
    begin, end = (time[:16].replace("T", " ") for time in row["test"])
    stopped = ", ".join(dict.fromkeys(row["stopped"]))
    return [row["name"].replace("_", " "), begin, end, to_percent(row["validation_score"]),
            to_percent(row["test_growth"]), sum(row["steps"]), stopped]  # fmt: skip


def _begins(iterations: Sequence[Row]) -> list[str]:
    return [row["test"][0].removesuffix("Z") for row in iterations]


def _date(time: str) -> str:
    return time[:10]


def _count(n: int, noun: str, plural: str = "") -> str:
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"
