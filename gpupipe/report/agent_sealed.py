"""The sections on the sealed tests of an agent: equity beside buy and hold and random entries, and drawdown."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.backtest.choices import BUY_AND_HOLD
from gpupipe.evaluation.block_bootstrap import FEWEST_BLOCKS, NO_SKILL, NOT_KNOWN, SKILL
from gpupipe.report import agent_charts
from gpupipe.report.agent_charts import AGENT, HELD, ORIGINAL
from gpupipe.report.formatting import to_percent
from gpupipe.report.page import Figure, Section, Shown, Table
from gpupipe.report.position_paths import MOST_POINTS, spans_decades, thinned

Row = Mapping[str, Any]
FILE, RANDOM = "equity.parquet", "random.parquet"  # in OUT, written by the workload
NAMES = {AGENT: AGENT, ORIGINAL: ORIGINAL, BUY_AND_HOLD: HELD}  # of the paths
BPS, PERCENT = 1e4, 1e2
MEASURES = {
    "total_return": ("return, %", PERCENT, 2), "day_return": ("mean log-return of a day, bps", BPS, 1),
    "over_hold": ("the same less buy and hold, bps", BPS, 1), "max_drawdown": ("largest loss, %", -PERCENT, 2),
    "exposure": ("mean exposure, %", PERCENT, 1), "trades": ("trades", 1, 0), "hit_rate": ("trades won, %", PERCENT, 1),
    "mean_trade": ("mean trade, %", PERCENT, 3), "random_mean_trade": ("mean trade of random entries, %", PERCENT, 3),
    "p_value": ("p against random entries", 1, 3), "deflated_sharpe": ("Deflated Sharpe Ratio", 1, 3),
}  # fmt: skip
SPOKEN = {SKILL: "Skill", NO_SKILL: "No skill", NOT_KNOWN: "Skill is not known"}
ITERATION_COLUMNS = [("", False), ("test from", False), ("to", False), ("validation score, %", True),
                     ("sealed test, %", True), ("steps", True), ("stopped", False)]  # fmt: skip


def sealed_tests(out: pathlib.Path, whole: Row) -> Section | None:
    """Equity of the chain of sealed tests, its statistics and its iterations; None without an agent or its equity."""
    agent, curves = whole.get("agent"), read_curves(out)
    if not agent or not curves:
        return None
    band = _band(out)
    lines: list[dict[str, Any]] = [
        {"what": NAMES[path], "time": time, "equity": value}
        for path, (time_ns, equity) in curves.items() for time, value in thinned(time_ns, equity)
    ]  # fmt: skip
    values = [row["equity"] for row in lines] + [row[end] for row in band for end in ("low", "high")]
    log = spans_decades(values)
    if log:  # a logarithmic axis has no place for 0
        lines, band = [row for row in lines if row["equity"] > 0], [row for row in band if row["low"] > 0]
    sealed, iterations = agent["sealed"], agent["iterations"]
    text = [
        "An iteration trains on the bars of its window, chooses a policy on the validation bars after them, and trades "
        f"the next bars, which no choice has seen. The tests of {_count(len(iterations), 'iteration')} make one "
        f"account from {_date(sealed['from'])} to {_date(sealed['to'])}, after costs. Each begins and ends without a "
        "position.",
        *sentences(sealed),
    ]
    shade = f" Shaded: 95 % of {_draws(sealed)}, at each time." if band else ""
    caption = (
        f"Equity{', on a logarithmic axis' if log else ''}; 1, the solid line across, is doing nothing; dotted upright "
        f"lines: the tests of the iterations begin.{shade}"
    )
    return Section("Sealed tests", text, [
        Figure(caption, agent_charts.equity(lines, band, _begins(iterations), log)),
        _measures(sealed["statistics"]),
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


def dates_of_tests(whole: Row) -> str:
    """The first and the last date of an agent's sealed tests; empty without an agent.  whole: the summary.

    >>> dates_of_tests({"agent": {"sealed": {"from": "2024-02-08T22:15:00Z", "to": "2024-04-01T23:45:00Z"}}})
    '2024-02-08 to 2024-04-01'
    """
    agent = whole.get("agent")
    return f"{_date(agent['sealed']['from'])} to {_date(agent['sealed']['to'])}" if agent else ""


def lead_sentence(whole: Row) -> str:
    """Which bars the sealed tests of an agent have; empty without an agent.  whole: the summary."""
    agent = whole.get("agent")
    if not agent:
        return ""
    sealed = agent["sealed"]
    return (
        f"{_count(len(agent['iterations']), 'iteration')} of training, validation and sealed test. The sealed tests "
        f"have {sealed['bars']:,} bars, {dates_of_tests(whole)}: no policy was chosen on those that it trades."
    )


def verdict_sentence(whole: Row) -> str:
    """What came of an agent, beside buy and hold; empty without an agent.  whole: the summary.

    >>> rows = [{"path": "agent", "trades": 6, "total_return": -0.08, "skill": "no skill"},
    ...         {"path": "buy_and_hold", "total_return": 0.1065}]
    >>> verdict_sentence({"agent": {"sealed": {"statistics": rows}}})
    'No skill: in the sealed tests the agent returned -8.00 % in 6 trades, buy and hold 10.65 %.'
    """
    agent = whole.get("agent")
    if not agent:
        return ""
    first, *_, held = agent["sealed"]["statistics"]
    beside = f"buy and hold {100 * held['total_return']:z.2f} %"
    if not first["trades"]:
        return f"No trade: in the sealed tests the agent stayed out of the market and kept 1; {beside}."
    return (
        f"{SPOKEN[first['skill']]}: in the sealed tests the agent returned {100 * first['total_return']:z.2f} % in "
        f"{_count(first['trades'], 'trade')}, {beside}."
    )


def sentences(sealed: Row) -> list[str]:
    """What the sealed tests say of each path: its return with its interval, and skill.

    sealed: the chain's statistics, as the summary has them.

    >>> held = {"path": "buy_and_hold", "total_return": 0.1, "day_return": 0.002, "day_return_low": -0.001,
    ...         "day_return_high": 0.005}
    >>> for line in sentences({"statistics": [{"path": "agent", "trades": 0}, held]}):
    ...     print(line)
    The agent made no trade in the sealed tests: it kept 1, as doing nothing does.
    Buy and hold returned 10.00 %, 20.0 bps a day with a 95 % interval of -10.0 to 50.0, which includes 0.
    """
    return [_sentence(row, sealed) for row in sealed["statistics"]]


def _sentence(row: Row, sealed: Row) -> str:
    name = NAMES[row["path"]]
    subject = name.capitalize() if name == HELD else f"The {name}"
    if row.get("trades") == 0:
        return f"{subject} made no trade in the sealed tests: it kept 1, as doing nothing does."
    trades = f" in {_count(row['trades'], 'trade')}" if name != HELD else ""
    earned = f"{subject} returned {100 * row['total_return']:z.2f} %{trades}{_interval(row, 'day_return', ' a day')}"
    if name == HELD:
        return f"{earned}."
    earned += _interval(row, "over_hold", " a day", "; against buy and hold")
    if row["skill"] == NOT_KNOWN:
        why = f"the tests have fewer than {FEWEST_BLOCKS} blocks of days, or no spread of returns"
        return f"{earned}. Whether it has skill is not known: {why}."
    chance = (
        f"p = {row['p_value']:.3f} against {_draws(sealed)}, and a Deflated Sharpe Ratio of "
        f"{row['deflated_sharpe']:.2f} for {_count(row['trials'], 'trained policy', 'trained policies')}"
    )
    return f"{earned}. {SPOKEN[row['skill']]}: {chance}."


def _interval(row: Row, name: str, each: str, before: str = ",") -> str:
    """A mean in basis points with its interval, and where that lies; empty where it is not known."""
    if row.get(name) is None:
        return ""
    text, (low, high) = (
        f"{before} {1e4 * row[name]:z.1f} bps{each}",
        (row.get(f"{name}_{end}") for end in ("low", "high")),
    )
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


def _measures(statistics: Sequence[Row]) -> Table:
    """A row for each measure, and a column for each path; means of days with their intervals."""
    columns = [("", False), *((NAMES[row["path"]], True) for row in statistics)]
    cells = [[title, *(_cell(row, name) for row in statistics)] for name, (title, _, _) in MEASURES.items()]
    return Table("Sealed tests, one after the other", columns, [*cells, ["skill", *(row.get("skill")
                                                                                  for row in statistics)]])  # fmt: skip


def _cell(row: Row, name: str) -> Shown | None:
    value, (_, scale, digits) = row.get(name), MEASURES[name]
    if value is None:
        return None
    ends = [row.get(f"{name}_{end}") for end in ("low", "high")]
    shown = [f"{scale * number:z,.{digits}f}" for number in (value, *ends) if number is not None]
    return Shown(value, shown[0] if len(shown) < 3 else f"{shown[0]} [{shown[1]}, {shown[2]}]")


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
