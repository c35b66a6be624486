"""Results of the portfolios of ranks."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from gpupipe.backtest import job, rank_job
from gpupipe.backtest.rank_rules import RankRules
from gpupipe.backtest.rank_statistics import money, sentences
from gpupipe.backtest.tables import ALL
from gpupipe.report import charts
from gpupipe.report.formatting import to_percent
from gpupipe.report.page import Figure, Section, Shown, Table
from gpupipe.report.trading import _cell, _equity

TITLE = "Portfolios of ranks"
# Columns of the table: the name in statistics.json, and its title; percent and money are formatted as such.
COLUMNS = {
    "label": "label", "model": "model", "skill": "skill", "total_return": "return, %", "cagr": "CAGR, %",
    "sharpe": "Sharpe", "sharpe_error": "its error", "deflated_sharpe": "DSR", "p_value": "p moved",
    "p_names": "p names", "max_drawdown": "max drawdown, %", "turnover": "turnover", "costs": "costs a year, %",
    "capacity": "capacity, median", "capacity_low": "capacity, 1 in 10", "rebalance": "dates between decisions",
    "names": "names", "volatility": "volatility, %", "information_ratio": "information ratio", "trials": "trials",
    "exposure": "gross exposure, %", "net_exposure": "net exposure, %", "trades": "trades",
    "mean_trade": "mean trade, %", "hit_rate": "hit rate, %", "profit_factor": "profit factor",
    "unfilled": "unfilled", "waited": "waited",
}  # fmt: skip
TEXT, MONEY = ("label", "model", "skill"), ("capacity", "capacity_low")


def portfolio(out: pathlib.Path, whole: Mapping[str, Any]) -> Section:
    """Equity, drawdown and statistics of every portfolio; a sentence where OUT has none of these models.

    out: the folder of the run.  whole: its summary.
    """
    statistics = job.read(out / rank_job.FOLDER)
    command = f"gpupipe backtest --portfolio long --models {out} --data ..."
    if statistics is None:
        return Section(TITLE, [f"There is no portfolio of ranks yet. Command: {command}"])
    if statistics["run_key"] != whole["run_key"]:
        return Section(TITLE, [f"The portfolios in OUT/backtest are of other models. Command for these: {command}"])
    rules = RankRules.of_dict(statistics["rules"])
    text = [
        f"Out-of-sample rows of the {statistics['source']}, {statistics['from']} to {statistics['to']}; data: "
        f"{statistics['data']}. Names are ranked by {statistics['score']}.",
        f"Rules: {'; '.join(rules.sentences())}.",
        *sentences(statistics),
    ]
    rows = statistics["statistics"]
    columns = [(title, name not in TEXT) for name, title in COLUMNS.items()]
    table = [[_figure(row, name) for name in COLUMNS] for row in rows]
    equity = _equity(out / rank_job.FOLDER / "equity.parquet", ALL)
    return Section(TITLE, text, [
        Figure("Equity of the portfolios; grey: buy and hold of all symbols in equal shares",
               charts.over_time(equity, "equity", "equity")),
        Figure("Drawdown of the portfolios: loss since the last peak of the equity, %",
               charts.over_time(equity, "drawdown", "drawdown, %")),
        Table("Every portfolio of ranks", columns, table, folded=True),
    ])  # fmt: skip


def _figure(row: Mapping[str, Any], name: str) -> Any:
    """A cell of the table."""
    value = row.get(name)
    if name in MONEY:
        return None if value is None else Shown(value, money(value))
    return to_percent(value) if COLUMNS[name].endswith(", %") else _cell(row, name)
