"""`gpupipe backtest --positions`: its options, and the table that is printed."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpupipe.backtest.calling.registry import DEFAULT
from gpupipe.backtest.choices import BUY_AND_HOLD, SEALED
from gpupipe.backtest.position_rules import FILLS, PositionRules
from gpupipe.backtest.rules import Rules
from gpupipe.cli.job_request import OUT
from gpupipe.cli.options import ALL, DataRequest, data_request
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

# Options that go with --positions, as argparse names them; without it they are refused.
OPTIONS = ("fill", "size", "trials", "out")
# Options that do not go with it, and what each is where it was not given.
OF_MODELS: dict[str, Any] = {
    "models": OUT, "families": None, "sectors": ALL, "sector_map": None, "no_sector": None, "outside": [],
    "source": SEALED, "since": None, "entry": Rules().entry, "side": Rules().side, "sizing": Rules().sizing,
    "both_in_bar": Rules().both_in_bar, "call": DEFAULT, "overlapping": False, "exit_on_opposite": False,
    "portfolio": None, "hold": None, "rebalance": None, "weighting": None, "volume_share": None,
}  # fmt: skip
INSTEAD = {"entry": ": --fill open or close says where the next bar fills a position"}


@dataclass(frozen=True)
class PositionsRequest:
    """A backtest of positions from a file.  file, trials, seed, out: see `backtest.position_job.PositionJob`.

    >>> PositionsRequest("positions.csv", out="DIR").folder
    'DIR'
    """

    file: str
    data: DataRequest = field(default_factory=DataRequest)
    rules: PositionRules = field(default_factory=PositionRules)
    trials: int | None = None
    seed: int = 0
    out: str | None = None
    device: str = "auto"
    quiet: bool = False
    json: bool = False

    @property
    def folder(self) -> str:
        """Where it writes."""
        return self.out or ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of positions."""
    group = parser.add_argument_group(
        "positions", "instead of models: follow positions from a file; halts, costs, --seed and --data apply"
    )
    group.add_argument(
        "--positions", metavar="FILE", help="Parquet or CSV: symbol (optional if the data hold one), time, position"
    )
    group.add_argument("--fill", choices=FILLS, help="at the open (default) or the close of the bar after a decision")
    group.add_argument("--size", type=float, metavar="TIMES", help="the stake of an entry over the balance (default 1)")
    group.add_argument(
        "--trials", type=int, metavar="N", help="paths that were tried to get this one, for the Deflated Sharpe Ratio"
    )
    group.add_argument(
        "--out", metavar="DIR", help="write trades, equity and statistics there; else nothing is written"
    )


def request_of(chosen: argparse.Namespace) -> PositionsRequest | None:
    """What the options ask for, or None without --positions; UserError for options that do not go together."""
    given = {name: getattr(chosen, name) for name in OPTIONS if getattr(chosen, name) is not None}
    if chosen.positions is None:
        if given:
            raise UserError(f"{_spelled(given)}: only with --positions FILE")
        return None
    others = [name for name, default in OF_MODELS.items() if getattr(chosen, name) != default]
    if others:
        instead = INSTEAD.get(others[0], "") if len(others) == 1 else ""
        raise UserError(f"{_spelled(others)}: does not go with --positions, which needs no model{instead}")
    rules = PositionRules(
        fill=given.get("fill", PositionRules.fill), size=given.get("size", PositionRules.size), halts=chosen.halts,
        commission_bps=chosen.commission_bps, spread_bps=chosen.spread_bps, slippage_bps=chosen.slippage_bps,
    )  # fmt: skip
    data = dataclasses.replace(data_request(chosen), group_by="symbol")
    return PositionsRequest(
        chosen.positions, data, rules, chosen.trials, chosen.seed, chosen.out, chosen.device, chosen.quiet, chosen.json
    )


def _spelled(names: Any) -> str:
    spelled = {"outside": "--with"}
    return ", ".join(spelled.get(name, f"--{name.replace('_', '-')}") for name in names)


def run(request: PositionsRequest) -> int:
    """Do the backtest and print it; UserError for what the user must mend."""
    import json

    from gpupipe.backtest import position_job
    from gpupipe.cli.console import console, show_data
    from gpupipe.runtime.device import pick

    job = position_job.PositionJob(request.file, request.rules, request.trials, request.seed, request.out)
    to = console(request.quiet or request.json)
    panel, report = request.data.load(pick(request.device))
    show_data(to, report)
    whole = position_job.execute(panel, report.data_hash, job)
    if request.json:
        print(json.dumps(whole, indent=1))
    show(to, whole, request.out)
    return 0


def show(to: Console, whole: dict[str, Any], out: str | None) -> None:
    """The rules, a table of the paths and of buy and hold, what the figures mean, and where the files are."""
    from rich.padding import Padding

    from gpupipe.cli.plain_console import styled

    when = f"  {whole['source']}, {whole['from']} to {whole['to']}, {whole['bars']:,} bars on {whole['days']:,} days"
    to.print("\n", styled("Positions", "bold"), when, sep="")
    rules = PositionRules(**whole["rules"])
    for sentence in [*rules.sentences(), *_notes(whole)]:
        to.print(Padding(sentence, (0, 0, 0, 10)))
    _table(to, whole["statistics"])
    trials = "1 path" if whole["trials"] == 1 else f"{whole['trials']:,} paths"
    to.print(
        f"A path has skill where its mean trade beats that of as many trades of the same sides and lengths at random "
        f"places ({whole['draws']} draws) in all but 5 % of draws (p), and the Deflated Sharpe Ratio (DSR) over "
        f"{trials} tried (--trials) is at least 0.95; ± is one standard error. A day: the mean log-return, and that "
        f"beyond buy and hold, with 95 % intervals by blocks of {whole['block']} days."
    )
    for row in whole["statistics"]:
        if (sentence := _verdict(row)) and row["group"] == whole["statistics"][0]["group"]:
            to.print(sentence)
    if out is not None:
        to.print(f"In {out}: trades, equity and statistics as Parquet, statistics.json.")


def _notes(whole: dict[str, Any]) -> list[str]:
    """What the file leaves open and what halts did, in sentences."""
    rows = [row for row in whole["statistics"] if row["group"] == whole["statistics"][0]["group"]]
    unfilled, waited = (sum(row.get(name) or 0 for row in rows) for name in ("unfilled", "waited"))
    notes = [f"annualised by {whole['bars_per_year']:,.0f} bars a year"] if whole["bars_per_year"] else []
    if kept := whole["positions"]["kept"]:
        notes.append(f"{kept:,} bars without a row in the file keep the position of the row before")
    if unfilled or waited:
        notes.append(f"halts and unknown prices: {unfilled:,} positions were never entered, {waited:,} exits waited")
    return notes


def _verdict(row: dict[str, Any]) -> str:
    """Whether a path has skill, in words; "" for buy and hold."""
    from gpupipe.backtest.statistics import NO_SKILL, SKILL

    if row["path"] == BUY_AND_HOLD:
        return ""
    words = {SKILL: "skill", NO_SKILL: "no skill"}.get(row["skill"], "whether it has skill is not known: too few days")
    return f"{row['path']}: {words}."


def _table(to: Console, rows: list[dict[str, Any]]) -> None:
    """A row for each path and for its buy and hold, portfolio by portfolio."""
    from rich.table import Table

    from gpupipe.backtest.statistics import SKILL
    from gpupipe.cli.tables import print_whole

    table = Table(header_style="dim", box=None, padding=(0, 1, 0, 0))
    several = len({row["group"] for row in rows}) > 1
    for name in ("group", "path") if several else ("path",):
        table.add_column(name, no_wrap=True)
    heads = ("trades", "mean\n%", "random\n%", "p", "hit\n%", "profit\nfactor", "total\n%", "Sharpe", "DSR",
             "draw-\ndown %", "expo-\nsure %", "turn-\nover", "a day\n%", "beyond\nhold %")  # fmt: skip
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        skill, held = row.get("skill") or "", row["path"] == BUY_AND_HOLD
        cells = (row["group"], *_cells(row)) if several else _cells(row)
        table.add_row(*cells, skill, style="bold" if held or skill == SKILL else "")
    print_whole(to, table)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a path but the last."""
    from gpupipe.cli.backtest import _text

    name = "buy and hold" if row["path"] == BUY_AND_HOLD else row["path"]
    count = f"{row['trades']:,}" if row.get("trades") is not None else ""
    ratio = "-" if row["sharpe"] is None else f"{row['sharpe']:.2f} ± {row['sharpe_error']:.2f}"
    return (
        name, count, _text(row.get("mean_trade"), 3, 100), _text(row.get("random_mean_trade"), 3, 100),
        _text(row.get("p_value"), 3), _text(row.get("hit_rate"), 0, 100), _text(row.get("profit_factor"), 2),
        _text(row["total_return"], 1, 100), ratio, _text(row.get("deflated_sharpe"), 2),
        _text(row["max_drawdown"], 1, 100), _text(row["exposure"], 0, 100), _text(row["turnover"], 1),
        _interval(row, "day_return"), _interval(row, "over_hold"),
    )  # fmt: skip


def _interval(row: dict[str, Any], name: str) -> str:
    """A figure in percent with its interval, as "0.13 (-0.10, 0.42)"."""
    if row.get(name) is None:
        return "-"
    ends = [row[f"{name}_{end}"] for end in ("low", "high")]
    shown = "" if None in ends else f" ({100 * ends[0]:.2f}, {100 * ends[1]:.2f})"
    return f"{100 * row[name]:.2f}{shown}"
