"""Results of the backtest."""

from __future__ import annotations

import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.artifacts.summary import title_of
from gpupipe.backtest import job
from gpupipe.backtest.calling import registry
from gpupipe.backtest.rules import Rules
from gpupipe.backtest.tables import ALL
from gpupipe.report import charts
from gpupipe.report.formatting import title_of_label, to_percent
from gpupipe.report.page import Figure, Section, Table

Row = Mapping[str, Any]
PERCENT = ("cagr", "volatility", "max_drawdown", "exposure", "hit_rate", "mean_trade", "random_mean_trade")
TEXT = ("label", "model", "skill")  # text columns; they come first
MOST_DATES = 260  # points of a line in the charts
LEFT_OUT = ("sector", "horizon", "threshold")  # columns that the table does not show


def backtest(out: pathlib.Path, whole: Mapping[str, Any]) -> Section:
    """Equity, drawdown and statistics of every model; a sentence where OUT/backtest has no backtest of these models.

    out: the folder of the run.  whole: its summary.
    """
    statistics = job.read(out / job.FOLDER)
    title = "Backtest"
    command = f"gpupipe backtest --models {out} --data ..."
    if statistics is None:
        return Section(title, [f"There is no backtest yet. Command: {command}"])
    if statistics["run_key"] != whole["run_key"]:
        return Section(title, [f"The backtest in OUT/backtest tested other models. Test these models with: {command}"])
    rules, n_rules = Rules(**statistics["rules"]), len(statistics["rules_tried"])
    text = [
        f"Out-of-sample rows of the {statistics['source']}, {statistics['from']} to {statistics['to']}; data: "
        f"{statistics['data']}.",
        f"{registry.rule(statistics.get('call', 'f1')).sentence} Rules: "  # older files have no "call"
        f"{'; '.join(rules.sentences())}.",
        *statistics.get("without_calls", ()),
        f"p: the share of {statistics['draws']} draws of random entries whose mean trade is at least as good. A model "
        "has skill if p is at most 5 % and its Deflated Sharpe Ratio, over all models and "
        f"{n_rules} {'set' if n_rules == 1 else 'sets'} of rules tried, is at least 0.95.",
        "Nothing is filled in a halt (no volume, price unchanged), unless the rules say so. Unfilled: calls that "
        "opened nothing because of one; waited: exits that were filled when trading went on.",
    ]
    rows = [row for row in statistics["statistics"] if row["sector"] == ALL]
    rows = rows or statistics["statistics"]  # a run on a single sector has no portfolio of all sectors
    first = [name for name in TEXT if name in rows[0]]
    names = [*first, *(name for name in rows[0] if name not in (*first, *LEFT_OUT))]
    columns = [
        (name.replace("_", " ") + (", %" if name in PERCENT else ""), name not in TEXT) for name in names
    ]  # fmt: skip
    table = [[_cell(row, name) for name in names] for row in rows]
    equity = _equity(out / job.FOLDER / "equity.parquet", rows[0]["sector"])
    return Section(title, text, [
        Figure("Equity, all sectors together; grey: buy and hold of all symbols in equal shares",
               charts.over_time(equity, "equity", "equity")),
        Figure("Drawdown: loss since the last peak of the equity, %",
               charts.over_time(equity, "drawdown", "drawdown, %")),
        Table("Every model, all sectors together", columns, table, digits=3, folded=True),
    ])  # fmt: skip


def _cell(row: Row, name: str) -> Any:
    if name == "label":
        return title_of(dict(row)) if row["horizon"] is not None else ""
    return to_percent(row.get(name)) if name in PERCENT else row.get(name)


def _equity(path: pathlib.Path, sector: str) -> list[dict[str, Any]]:
    """Points of the charts; buy and hold, which has no label, is repeated for every label.

    Lines of more than MOST_DATES dates are thinned; see `thinned`.
    """
    import pyarrow.parquet as pq

    columns = ["model", "label", "time", "equity"]
    lines = pq.read_table(path, columns=columns, filters=[("sector", "==", sector)]).to_pylist()
    labels = list(dict.fromkeys(line["label"] for line in lines if line["label"]))
    points: list[dict[str, Any]] = []
    curves: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for line in lines:
        curves[line["model"], line["label"]].append(line)
    for (model, model_label), curve in curves.items():
        for point in thinned(curve):
            points += [
                {"label": title_of_label(f"label_{label.removeprefix('label_')}"), "model": model, **point}
                for label in ([model_label] if model_label else labels)
            ]
    return points


def thinned(curve: Sequence[Row], most: int = MOST_DATES) -> list[dict[str, Any]]:
    """At most `most` points of an equity curve: "time" (an ISO date), "equity", "drawdown" (percent of the last peak).

    curve: "time" and "equity", ascending in time.  A point stands for several dates where there are more than `most`:
    it has their last time and equity, and their largest drawdown, so that thinning hides no loss.

    >>> import datetime
    >>> days = [datetime.datetime(2020, 1, day) for day in (1, 2, 3, 4)]
    >>> curve = [{"time": day, "equity": equity} for day, equity in zip(days, (1.0, 0.5, 1.0, 1.1))]
    >>> thinned(curve, most=2)[0]
    {'time': '2020-01-02', 'equity': 0.5, 'drawdown': -50.0}
    """
    step = max(1, -(-len(curve) // most))
    points, peak = [], 1.0
    for at in range(0, len(curve), step):
        worst = 0.0
        for row in curve[at : at + step]:
            peak = max(peak, row["equity"])
            worst = min(worst, 100 * (row["equity"] / peak - 1))
        points.append({
            "time": row["time"].date().isoformat(), "equity": round(row["equity"], 5), "drawdown": round(worst, 3),
        })  # fmt: skip
    return points
