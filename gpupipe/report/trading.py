"""The backtest's part of the report."""

from __future__ import annotations

import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.artifacts.summary import title_of
from gpupipe.backtest import job
from gpupipe.backtest.cutoffs import CALLED, F1
from gpupipe.report import charts
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.words import times_100, title_of_label

Row = Mapping[str, Any]
PERCENT = ("cagr", "volatility", "max_drawdown", "exposure", "hit_rate", "mean_trade", "random_mean_trade")
TEXT = ("label", "model", "skill")  # and first
MOST_DATES = 260  # points of a line
LEFT_OUT = ("sector", "horizon", "threshold")


def backtest(out: pathlib.Path, whole: Mapping[str, Any]) -> Section:
    """Equity and drawdown of every model, and what trades came to."""
    found = job.read(out / job.FOLDER)
    title = "Backtest"
    if found is None:
        return Section(title, [f"There is none yet: gpupipe backtest --models {out} --data ... makes it."])
    if found["run_key"] != whole["run_key"]:
        return Section(title, ["The one in OUT/backtest is of other models than these: give gpupipe backtest again."])
    rules = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found["rules"].items())
    text = [
        f"On the {found['source']} alone, {found['from']} to {found['to']}, {found['data']}. Rows are "
        f"{CALLED[found.get('cutoff', F1)]}. Rules: {rules}.",  # there was no other before there was a choice
        f"p: the share of {found['draws']} draws of random entries that did as well. Skill asks for p of at most 5 % "
        f"and a Deflated Sharpe Ratio of 0.95, over all models and {len(found['rules_tried'])} set(s) of rules tried.",
    ]
    own = [row for row in found["statistics"] if row["sector"] == job.ALL]
    own = own or found["statistics"]  # one sector alone has no portfolio of all
    first = [name for name in TEXT if name in own[0]]
    names = [*first, *(name for name in own[0] if name not in (*first, *LEFT_OUT))]
    columns = [
        (name.replace("_", " ") + (", %" if name in PERCENT else ""), name not in TEXT) for name in names
    ]  # fmt: skip
    table = [[_cell(row, name) for name in names] for row in own]
    equity = _equity(out / job.FOLDER / "equity.parquet", own[0]["sector"])
    return Section(title, text, [
        Figure("Equity, all sectors together; grey: buy and hold of all symbols in equal shares",
               charts.over_time(equity, "equity", "equity")),
        Figure("Loss from the last peak, %", charts.over_time(equity, "drawdown", "drawdown, %")),
        Table("Every model, all sectors together", columns, table, digits=3, folded=True),
    ])  # fmt: skip


def _cell(row: Row, name: str) -> Any:
    if name == "label":
        return title_of(dict(row)) if row["horizon"] is not None else ""
    return times_100(row.get(name)) if name in PERCENT else row.get(name)


def _equity(path: pathlib.Path, sector: str) -> list[dict[str, Any]]:
    """Lines of the chart: buy and hold stands beside the models of each label.

    Of more than MOST_DATES dates each line has about so many points: the last equity and the largest loss of some.
    """
    import pyarrow.parquet as pq

    columns = ["model", "label", "time", "equity"]
    lines = pq.read_table(path, columns=columns, filters=[("sector", "==", sector)]).to_pylist()
    labels = list(dict.fromkeys(line["label"] for line in lines if line["label"]))
    found: list[dict[str, Any]] = []
    own: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for line in lines:
        own[line["model"], line["label"]].append(line)
    for (model, of), line in own.items():
        for point in thinned(line):
            found += [
                {"label": title_of_label(f"label_{label.removeprefix('label_')}"), "model": model, **point}
                for label in ([of] if of else labels)
            ]
    return found


def thinned(line: Sequence[Row], most: int = MOST_DATES) -> list[dict[str, Any]]:
    """ "time" as an ISO date, "equity" and "drawdown" in percent of the peak before, of at most about `most` dates.

    line: "time" and "equity", in the order of time. Of dates put together the last equity and the largest loss count.
    """
    step = max(1, -(-len(line) // most))
    found, peak = [], 1.0
    for at in range(0, len(line), step):
        worst = 0.0
        for one in line[at : at + step]:
            peak = max(peak, one["equity"])
            worst = min(worst, 100 * (one["equity"] / peak - 1))
        found.append({
            "time": one["time"].date().isoformat(), "equity": round(one["equity"], 5), "drawdown": round(worst, 3),
        })  # fmt: skip
    return found
