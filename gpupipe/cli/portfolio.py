"""`gpupipe backtest --portfolio`: options of portfolios of ranks, and the table that is printed."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from gpupipe.backtest.calling.registry import DEFAULT
from gpupipe.backtest.choices import BUY_AND_HOLD
from gpupipe.backtest.rank_rules import EQUAL, SIDES, WEIGHTINGS, RankRules
from gpupipe.backtest.rank_selection import DEFAULT_HOLD, HOLD_HELP
from gpupipe.backtest.rules import Rules
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

VOLUME_SHARE = "1%"
# Options that go with --portfolio, as argparse names them; without it they are refused.
OPTIONS = ("hold", "rebalance", "weighting", "volume_share")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of portfolios of ranks."""
    group = parser.add_argument_group(
        "portfolio of ranks", "instead of acting on calls: own the names that each model ranks highest on a date"
    )
    group.add_argument(
        "--portfolio", choices=SIDES, help="long the best names; or also short the worst, dollar neutral"
    )
    group.add_argument("--hold", metavar="WAY", help=f"{HOLD_HELP} (default {DEFAULT_HOLD})".replace("%", "%%"))
    group.add_argument(
        "--rebalance", type=int, metavar="N", help="dates between decisions (default: the label's horizon)"
    )
    group.add_argument("--weighting", choices=WEIGHTINGS, help=f"shares within a side (default {EQUAL})")
    group.add_argument(
        "--volume-share", metavar="SHARE",
        help="capacity: the share of a symbol's median daily dollar volume that a fill may be (default 1%%)",
    )  # fmt: skip


def request_of(chosen: argparse.Namespace, fills: Rules) -> RankRules | None:
    """The rules that the options ask for, or None without --portfolio; UserError for rules that cannot be.

    fills: entry, halts and costs.
    """
    given = {name: getattr(chosen, name) for name in OPTIONS if getattr(chosen, name) is not None}
    if chosen.portfolio is None:
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UserError(f"{options}: only with --portfolio {' or '.join(SIDES)}")
        return None
    if chosen.call != DEFAULT:
        raise UserError(f"--call {chosen.call}: goes with calls, not with --portfolio, which ranks every score")
    share = _share(given.pop("volume_share", VOLUME_SHARE))
    return RankRules(side=chosen.portfolio, volume_share=share, fills=fills, **given)


def _share(text: str) -> float:
    """A share written as 1% or as 0.01."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UserError(f"--volume-share {text}: expected a share, as 1% or 0.01") from None


def show(to: Console, whole: dict[str, Any], folder: pathlib.Path) -> None:
    """The rules, a table of the portfolios, what its figures mean, and where the files are."""
    from rich.padding import Padding

    from gpupipe.backtest.rank_statistics import sentences
    from gpupipe.cli.plain_console import styled

    rules = RankRules.of_dict(whole["rules"])
    when = f"  {whole['source']}, {whole['from']} to {whole['to']}, {whole['dates']:,} dates"
    to.print("\n", styled("Portfolios of ranks", "bold"), when, sep="")
    for sentence in [f"ranked by {whole['score']}", *rules.sentences(), whole["data"]]:
        to.print(Padding(sentence, (0, 0, 0, 10)))
    _table(to, whole["statistics"])
    for sentence in sentences(whole):
        to.print(sentence)
    to.print(f"In {folder}: trades, equity and statistics as Parquet, statistics.json.")


def _table(to: Console, rows: list[dict[str, Any]]) -> None:
    """One row a model, the best Sharpe ratio first, buy and hold among them."""
    from rich.table import Table

    from gpupipe.backtest.statistics import NO_SKILL, NOT_KNOWN, SKILL
    from gpupipe.cli.backtest import _or
    from gpupipe.cli.tables import print_whole

    table = Table(title="all sectors together", title_justify="left", title_style="bold", header_style="dim", box=None,
                  padding=(0, 1, 0, 0))  # fmt: skip
    for name in ("model", "label"):
        table.add_column(name, no_wrap=True)
    heads = ("names", "trades", "CAGR\n%", "Sharpe", "DSR", "p\nmoved", "p\nnames", "draw-\ndown %", "gross\n%",
             "net\n%", "turn-\nover", "costs\n% a year", "capacity\nmedian", "capacity\n1 in 10")  # fmt: skip
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in sorted(rows, key=lambda row: -_or(row["sharpe"], -1e9)):
        skill, held = row.get("skill") or "", row["model"] == BUY_AND_HOLD
        style = "bold" if skill == SKILL or held else "dim" if skill in (NO_SKILL, NOT_KNOWN) else ""
        table.add_row(*_cells(row), skill, style=style)
    print_whole(to, table)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a portfolio but the last."""
    from gpupipe.backtest.rank_statistics import money
    from gpupipe.cli.backtest import _text
    from gpupipe.cli.tables import short_name

    name = "buy and hold" if row["model"] == BUY_AND_HOLD else short_name(row["model"])
    label = f"{row['horizon']}d {row['threshold'] * 100:g}%" if row["horizon"] else ""
    ratio = "-" if row["sharpe"] is None else f"{row['sharpe']:.2f} ± {row['sharpe_error']:.2f}"
    trades = f"{row['trades']:,}" if row.get("trades") is not None else ""
    return (
        name, label, _text(row.get("names"), 1), trades, _text(row["cagr"], 1, 100), ratio,
        _text(row.get("deflated_sharpe"), 2), _text(row.get("p_value"), 3), _text(row.get("p_names"), 3),
        _text(row["max_drawdown"], 1, 100), _text(row["exposure"], 0, 100), _text(row.get("net_exposure"), 0, 100),
        _text(row["turnover"], 1), _text(row.get("costs"), 1, 100), money(row.get("capacity")),
        money(row.get("capacity_low")),
    )  # fmt: skip
