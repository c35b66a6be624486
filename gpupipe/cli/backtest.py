"""`gpupipe backtest`: its options, and the tables that it prints."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpupipe.backtest.calling.registry import DEFAULT, rule, rule_help
from gpupipe.backtest.choices import (
    BUY_AND_HOLD,
    CROSSED,
    HALTS,
    RULE_HELP,
    SEALED,
    SOURCE_HELP,
    WALKED,
)
from gpupipe.backtest.rank_rules import RankRules
from gpupipe.backtest.rules import CHOICES, COSTS, Rules
from gpupipe.cli import portfolio, positions
from gpupipe.cli.job_request import OUT
from gpupipe.cli.options import ALL, DataRequest, add_data_arguments, add_device, add_output, data_request, words
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class BacktestRequest:
    """A backtest. models: the folder of a finished run.  families: all that were trained if None.

    source, call: see `backtest.job.Request`.  since: from this day on only.  seed: of the random entries.
    portfolio: the rules of portfolios of ranks, which then take the place of calls.

        >>> BacktestRequest("OUT", rules=Rules(side="both")).rules.sides
        (1, 2)
    """

    models: str = OUT
    data: DataRequest = field(default_factory=DataRequest)
    rules: Rules = field(default_factory=Rules)
    families: tuple[str, ...] | None = None
    source: str = SEALED
    call: str = DEFAULT
    since: str | None = None
    seed: int = 0
    device: str = "auto"
    quiet: bool = False
    json: bool = False
    portfolio: RankRules | None = None

    @property
    def folder(self) -> str:
        """Where it writes."""
        return self.models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe backtest`."""
    default = Rules()
    parser.add_argument("--models", default=OUT, metavar="OUT", help="the folder of a finished run (default: OUT)")
    parser.add_argument("--families", help="xgb_joint,linear,...; all that were trained if left out")
    add_data_arguments(parser, "as for gpupipe run: the data trained on, or the same with later bars")
    parser.add_argument("--sectors", default=ALL, help="all, or names separated by commas")
    parser.add_argument("--source", default=SEALED, choices=(SEALED, WALKED, CROSSED), help=SOURCE_HELP)
    parser.add_argument("--since", metavar="DATE", help="from then on only; dates in sample are refused")
    for name, choices in CHOICES.items():
        value = getattr(default, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", choices=choices, default=value, help=f"{RULE_HELP[name]} (default {value})"
        )
    add_costs(parser)
    add_call(parser)
    parser.add_argument("--overlapping", action="store_true", help="open a position at every call, not one a symbol")
    parser.add_argument("--exit-on-opposite", action="store_true", help="an opposite call closes a position")
    parser.add_argument("--seed", type=int, default=0, help="of the random entries")
    add_device(parser)
    add_output(parser, "print statistics.json, and nothing else")
    portfolio.add_arguments(parser)
    positions.add_arguments(parser)


def add_costs(parser: argparse.ArgumentParser, more: str = "") -> None:
    """The costs of a fill, for `gpupipe scan` too."""
    for name in COSTS:
        kind, default = name.removesuffix("_bps"), getattr(Rules(), name)
        what = "between bid and ask, half of it a fill" if kind == "spread" else "of each fill"
        text = f"basis points {what}{more} (default {default:g})"
        parser.add_argument(f"--{kind}", dest=name, type=float, default=default, metavar="BPS", help=text)


def add_call(parser: argparse.ArgumentParser) -> None:
    """Which rows are called, for `gpupipe scan` too."""
    parser.add_argument("--call", default=DEFAULT, metavar="RULE", help=rule_help().replace("%", "%%"))


def request_of(chosen: argparse.Namespace) -> BacktestRequest | positions.PositionsRequest:
    """What the options ask for; UserError for rules that cannot be."""
    if (of_positions := positions.request_of(chosen)) is not None:
        return of_positions
    rules = Rules(**{name: getattr(chosen, name) for name in Rules().as_dict()})
    return BacktestRequest(
        models=chosen.models,
        data=data_request(chosen, chosen.sectors),
        rules=rules,
        portfolio=portfolio.request_of(chosen, rules),
        families=words(chosen.families or None),
        source=chosen.source,
        call=rule(chosen.call).text,
        since=chosen.since,
        seed=chosen.seed,
        device=chosen.device,
        quiet=chosen.quiet,
        json=chosen.json,
    )


def run(request: BacktestRequest | positions.PositionsRequest) -> int:
    """Do the backtest and print it; UserError for what the user must mend."""
    if isinstance(request, positions.PositionsRequest):
        return positions.run(request)
    from gpupipe.artifacts.manifest import read_manifest
    from gpupipe.backtest import job, rank_job
    from gpupipe.cli.console import console, show_data
    from gpupipe.cli.output import print_json_file
    from gpupipe.runtime.device import pick

    to = console(request.quiet or request.json)
    data = request.data.of_run(read_manifest(request.models) or {})
    panel, report = data.load(pick(request.device))
    show_data(to, report)
    try:
        choices = job.Request(
            request.rules, request.families, request.since, request.seed, request.source, request.call
        )
        if request.portfolio is None:
            whole, worked = job.execute(panel, report.data_hash, request.models, choices)
        else:
            whole, worked = rank_job.execute(panel, report.data_hash, request.models, request.portfolio, choices)
    except ValueError as error:  # a family that was not trained
        raise UserError(str(error)) from None
    folder = pathlib.Path(request.models) / (job if request.portfolio is None else rank_job).FOLDER
    if request.json:
        print_json_file(folder / job.JSON)
    (show if request.portfolio is None else portfolio.show)(to, whole, folder)
    if not worked:
        to.print("Nothing to do: these models, data and rules were backtested before; every file checked.")
    return 0


def show(to: Console, whole: dict[str, Any], folder: pathlib.Path) -> None:
    """The rules, a table of the portfolios of all sectors, another of sectors, and where the files are."""
    from rich.padding import Padding

    from gpupipe.cli.plain_console import styled

    rules = Rules(**whole["rules"])
    when = f"  {whole['source']}, {whole['from']} to {whole['to']}, {whole['dates']:,} dates"
    to.print("\n", styled("Backtest", "bold"), when, sep="")
    for sentence in [rule(whole["call"]).sentence, *rules.sentences(), *halts_of(whole), whole["data"]]:
        to.print(Padding(sentence, (0, 0, 0, 10)))
    rows = whole["statistics"]
    names = list(dict.fromkeys(row["sector"] for row in rows))
    _portfolio_table(to, names[0], [row for row in rows if row["sector"] == names[0]])
    if len(names) > 1:
        _sector_table(to, [row for row in rows if row["sector"] != ALL])
    for sentence in whole["without_calls"]:
        to.print(sentence)
    tried = len(whole["tried"])
    to.print(
        f"A model has skill where its mean trade beats that of the same calls on other dates ({whole['draws']} draws, "
        f"blocks of {whole['block']} dates) in all but 5 % of draws (p), and the Deflated Sharpe Ratio (DSR) over all "
        f"models of the {tried} {'backtest' if tried == 1 else 'backtests'} tried here, of other rules, rows or models,"
        " is at least 0.95; ± is one standard error."
    )
    to.print(f"In {folder}: trades, equity, by_year and statistics as Parquet, statistics.json.")


def halts_of(whole: Mapping[str, Any]) -> list[str]:
    """What halts did to the orders of all models, in a sentence; none where they did nothing.

    whole: the content of statistics.json.
    """
    rows = whole["statistics"]
    first = rows[0]["sector"]  # all sectors together, or the single one
    unfilled, waited = (sum(row.get(name) or 0 for row in rows if row["sector"] == first) for name in HALTS)
    if not unfilled and not waited:
        return []
    return [
        f"halts: {unfilled:,} {'order' if unfilled == 1 else 'orders'} of all models opened nothing, {waited:,} "
        f"{'exit' if waited == 1 else 'exits'} waited for the next trade (--halts fill fills them)"
    ]


def _portfolio_table(to: Console, title: str, rows: list[dict[str, Any]]) -> None:
    """One row a model, the best Sharpe ratio first, buy and hold among them."""
    from rich.table import Table

    from gpupipe.backtest.statistics import NO_SKILL, NOT_KNOWN, SKILL
    from gpupipe.cli.tables import print_whole

    title = "all sectors together" if title == ALL else title
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None,
                  padding=(0, 1, 0, 0))  # fmt: skip
    table.add_column("model", no_wrap=True)
    table.add_column("label", no_wrap=True)
    heads = ("trades", "mean\n%", "random\n%", "p", "hit\n%", "profit\nfactor", "CAGR\n%", "Sharpe", "DSR",
             "draw-\ndown %", "expo-\nsure %", "turn-\nover")  # fmt: skip
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    acting = [row for row in rows if row.get("trades") != 0]
    for row in sorted(acting, key=lambda row: -_or(row["sharpe"], -1e9)):
        skill, held = row.get("skill") or "", row["model"] == BUY_AND_HOLD
        style = "bold" if skill == SKILL or held else "dim" if skill in (NO_SKILL, NOT_KNOWN) else ""
        table.add_row(*_portfolio_cells(row), skill, style=style)
    print_whole(to, table)
    if idle := len(rows) - len(acting):
        to.print(f"{idle} of {sum('trades' in row for row in rows)} models made no trade and have no row.")


def _portfolio_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a portfolio but the last."""
    from gpupipe.cli.tables import short_name

    name = "buy and hold" if row["model"] == BUY_AND_HOLD else short_name(row["model"])
    label = f"{row['horizon']}d {row['threshold'] * 100:g}%" if row["horizon"] else ""
    count = f"{row['trades']:,}" if row.get("trades") is not None else ""
    ratio = "-" if row["sharpe"] is None else f"{row['sharpe']:.2f} ± {row['sharpe_error']:.2f}"
    return (
        name, label, count, _text(row.get("mean_trade"), 2, 100), _text(row.get("random_mean_trade"), 2, 100),
        _text(row.get("p_value"), 3), _text(row.get("hit_rate"), 0, 100), _text(row.get("profit_factor"), 2),
        _text(row["cagr"], 1, 100), ratio, _text(row.get("deflated_sharpe"), 2), _text(row["max_drawdown"], 1, 100),
        _text(row["exposure"], 0, 100), _text(row["turnover"], 1),
    )  # fmt: skip


def _sector_table(to: Console, rows: list[dict[str, Any]]) -> None:
    """Of each sector how many models have skill, and the spread of their Sharpe ratios, whose highest is luck."""
    from rich.table import Table

    from gpupipe.backtest.statistics import SKILL
    from gpupipe.cli.tables import print_whole

    table = Table(title="sectors", title_justify="left", title_style="bold", header_style="dim", box=None)
    table.add_column("sector", no_wrap=True)
    for name in ("models", "skill", "p <= 5 %", "trades", "Sharpe\nmedian", "lowest", "highest", "buy and\nhold"):
        table.add_column(name, justify="right", no_wrap=True)
    for sector in dict.fromkeys(row["sector"] for row in rows):
        portfolios = [row for row in rows if row["sector"] == sector]
        acting = [row for row in portfolios if row["model"] != BUY_AND_HOLD]
        ratios = sorted(row["sharpe"] for row in acting if row["sharpe"] is not None)
        held = next(row["sharpe"] for row in portfolios if row["model"] == BUY_AND_HOLD)
        spread = [_text(ratios[k], 2) for k in (len(ratios) // 2, 0, -1)] if ratios else ["-"] * 3
        table.add_row(
            sector, f"{len(acting)}", f"{sum(row['skill'] == SKILL for row in acting)}",
            f"{sum(_or(row['p_value'], 1) <= 0.05 for row in acting)}", f"{sum(row['trades'] for row in acting):,}",
            *spread, _text(held, 2),
        )  # fmt: skip
    print_whole(to, table)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _text(value: float | None, digits: int, factor: float = 1) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"
