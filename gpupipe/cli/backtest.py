"""`gpupipe backtest`: its options, and the tables that it prints."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from gpupipe.backtest.choices import BUY_AND_HOLD, CROSSED, F1, PROFIT, SEALED, WALKED
from gpupipe.backtest.cutoffs import CUTOFF_SENTENCES
from gpupipe.backtest.job import FOLDER, JSON, Request, execute
from gpupipe.backtest.rules import CHOICES, COSTS, Rules
from gpupipe.backtest.statistics import NO_SKILL, NOT_KNOWN, SKILL
from gpupipe.backtest.tables import ALL

if TYPE_CHECKING:
    from rich.console import Console

NAMES = {
    "xgb_joint": "joint", "xgb_hist": "hist", "xgb_leafwise": "leafwise", "random_forest": "forest",
    "meta_learner": "meta", BUY_AND_HOLD: "buy and hold",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe backtest`."""
    usual = Rules()
    parser.add_argument("--models", default="OUT", metavar="OUT", help="the folder of a finished run (default: OUT)")
    parser.add_argument("--families", help="xgb_joint,linear,...; all that were trained if left out")
    parser.add_argument("--data", help="as for gpupipe run: the data trained on, or the same with later bars")
    parser.add_argument("--sector-map", help="as for gpupipe run")
    parser.add_argument("--timeframe", help="as for gpupipe run")
    parser.add_argument("--adjusted", action="store_true", help="as for gpupipe run")
    parser.add_argument("--sectors", default="all", help="all, or names separated by commas")
    parser.add_argument("--source", default=SEALED, choices=(SEALED, WALKED, CROSSED),
                        help="whose out-of-sample rows: the sealed test's, or those of all folds of a run with "
                             f"--walk-forward, each by models that have not seen it; {CROSSED} is refused")  # fmt: skip
    parser.add_argument("--since", metavar="DATE", help="from then on only; dates in sample are refused")
    said = {
        "entry": "at the open after the call, or (optimistic) at the close that it was computed from",
        "side": "long acts on BUY calls, short on SELL calls", "both_in_bar": "a bar that reaches target and stop",
        "sizing": "shares of the equity: one for each symbol, or all of it over open positions",
    }  # fmt: skip
    for name, choices in CHOICES.items():
        words = f"{said[name]} (default {getattr(usual, name)})"
        parser.add_argument(f"--{name.replace('_', '-')}", choices=choices, default=getattr(usual, name), help=words)
    add_costs(parser)
    add_cutoff(parser)
    parser.add_argument("--overlapping", action="store_true", help="open a position at every call, not one a symbol")
    parser.add_argument("--exit-on-opposite", action="store_true", help="an opposite call closes a position")
    parser.add_argument("--seed", type=int, default=0, help="of the random entries")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print statistics.json, and nothing else")


def add_costs(parser: argparse.ArgumentParser, more: str = "") -> None:
    """The costs of a fill, for `gpupipe scan` too."""
    for name in COSTS:
        kind, default = name.removesuffix("_bps"), getattr(Rules(), name)
        of = "between bid and ask, half of it a fill" if kind == "spread" else "of each fill"
        words = f"basis points {of}{more} (default {default:g})"
        parser.add_argument(f"--{kind}", dest=name, type=float, default=default, metavar="BPS", help=words)


def add_cutoff(parser: argparse.ArgumentParser) -> None:
    """From which probability on a row is called, for `gpupipe scan` too."""
    parser.add_argument("--cutoff", default=F1, choices=(F1, PROFIT),
                        help="from which probability on a row is called BUY or SELL, chosen on validation: f1, the "
                             "best F1 of the label; profit, what paid best after costs, or never")  # fmt: skip


def run(chosen: argparse.Namespace) -> int:
    """Do the backtest and print it; UserError for what the user must mend."""
    from gpupipe.cli.console import console, show_data
    from gpupipe.data import load
    from gpupipe.runtime.device import pick
    from gpupipe.runtime.errors import UserError

    rules = Rules(**{name: getattr(chosen, name) for name in Rules().as_dict()})
    families = [word for word in chosen.families.split(",") if word] if chosen.families else None
    to = console(chosen.quiet or chosen.json)
    panel, report = load(
        chosen.data, chosen.sector_map, chosen.sectors, pick(chosen.device), timeframe=chosen.timeframe,
        adjusted=chosen.adjusted,
    )  # fmt: skip
    show_data(to, report)
    try:
        request = Request(rules, families, chosen.since, chosen.seed, chosen.source, chosen.cutoff)
        whole, worked = execute(panel, report.data_hash, chosen.models, request)
    except ValueError as error:  # a family that was not trained
        raise UserError(str(error)) from None
    folder = pathlib.Path(chosen.models) / FOLDER
    if chosen.json:
        print((folder / JSON).read_text(), end="")
    show(to, whole, folder)
    if not worked:
        to.print("Nothing to do: these models, data and rules were backtested before; every file checked.")
    return 0


def show(to: Console, whole: dict[str, Any], folder: pathlib.Path) -> None:
    """What was done under which rules, a table of the portfolios of all sectors, one of sectors, and where to look."""
    from rich.markup import escape
    from rich.padding import Padding

    rules = Rules(**whole["rules"])
    to.print(f"\n[bold]Backtest[/bold]  {whole['source']}, {whole['from']} to {whole['to']}, {whole['dates']:,} dates")
    for sentence in [CUTOFF_SENTENCES[whole["cutoff"]], *rules.sentences(), whole["data"]]:
        to.print(Padding(escape(sentence), (0, 0, 0, 10)))
    rows = whole["statistics"]
    names = list(dict.fromkeys(row["sector"] for row in rows))
    _portfolio_table(to, names[0], [row for row in rows if row["sector"] == names[0]])
    if len(names) > 1:
        _sector_table(to, [row for row in rows if row["sector"] != ALL])
    tried = len(whole["tried"])
    to.print(
        f"A model has skill where its mean trade beats that of the same calls on other dates ({whole['draws']} draws, "
        f"blocks of {whole['block']} dates) in all but 5 % of draws (p), and the Deflated Sharpe Ratio (DSR) over all "
        f"models of the {tried} {'backtest' if tried == 1 else 'backtests'} tried here, of other rules, rows or models,"
        " is at least 0.95; ± is one standard error."
    )
    to.print(f"In {escape(str(folder))}: trades, equity, by_year and statistics as Parquet, statistics.json.")


def _portfolio_table(to: Console, title: str, rows: list[dict[str, Any]]) -> None:
    """One row a model, the best Sharpe ratio first, buy and hold among them."""
    from rich.table import Table

    from gpupipe.cli.console import print_whole

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
    for row in sorted(rows, key=lambda row: -_or(row["sharpe"], -1e9)):
        ratio = "-" if row["sharpe"] is None else f"{row['sharpe']:.2f} ± {row['sharpe_error']:.2f}"
        label = f"{row['horizon']}d {row['threshold'] * 100:g}%" if row["horizon"] else ""
        count = f"{row['trades']:,}" if row.get("trades") is not None else ""
        skill, held = row.get("skill") or "", row["model"] == BUY_AND_HOLD
        style = "bold" if skill == SKILL or held else "dim" if skill in (NO_SKILL, NOT_KNOWN) else ""
        table.add_row(
            NAMES.get(row["model"], row["model"]), label, count, _text(row.get("mean_trade"), 2, 100),
            _text(row.get("random_mean_trade"), 2, 100), _text(row.get("p_value"), 3),
            _text(row.get("hit_rate"), 0, 100), _text(row.get("profit_factor"), 2), _text(row["cagr"], 1, 100), ratio,
            _text(row.get("deflated_sharpe"), 2), _text(row["max_drawdown"], 1, 100), _text(row["exposure"], 0, 100),
            _text(row["turnover"], 1), skill, style=style,
        )  # fmt: skip
    print_whole(to, table)


def _sector_table(to: Console, rows: list[dict[str, Any]]) -> None:
    """Of each sector how many models have skill, and the spread of their Sharpe ratios, whose highest is luck."""
    from rich.table import Table

    table = Table(title="sectors", title_justify="left", title_style="bold", header_style="dim", box=None)
    table.add_column("sector", no_wrap=True)
    for name in ("models", "skill", "p <= 5 %", "trades", "Sharpe\nmedian", "lowest", "highest", "buy and\nhold"):
        table.add_column(name, justify="right", no_wrap=True)
    for sector in dict.fromkeys(row["sector"] for row in rows):
        own = [row for row in rows if row["sector"] == sector]
        acting = [row for row in own if row["model"] != BUY_AND_HOLD]
        ratios = sorted(row["sharpe"] for row in acting if row["sharpe"] is not None)
        held = next(row["sharpe"] for row in own if row["model"] == BUY_AND_HOLD)
        shown = [_text(ratios[k], 2) for k in (len(ratios) // 2, 0, -1)] if ratios else ["-"] * 3
        table.add_row(
            sector, f"{len(acting)}", f"{sum(row['skill'] == SKILL for row in acting)}",
            f"{sum(_or(row['p_value'], 1) <= 0.05 for row in acting)}", f"{sum(row['trades'] for row in acting):,}",
            *shown, _text(held, 2),
        )  # fmt: skip
    to.print(table)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _text(value: float | None, digits: int, factor: float = 1) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"
