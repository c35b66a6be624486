"""The command `gpupipe scan`."""

from __future__ import annotations

import argparse
import json
import math
import pathlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpupipe.backtest.calling import registry
from gpupipe.backtest.rules import COSTS, Rules
from gpupipe.cli.backtest import add_call, add_costs
from gpupipe.cli.job_request import OUT
from gpupipe.cli.options import DataRequest, add_data_arguments, add_device, add_output, data_request
from gpupipe.runtime.errors import UserError
from gpupipe.serving.levels import MAX_AGE, Levels

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.serving.display import Display
    from gpupipe.serving.scan import Scanned, Signal


NEAREST = 10  # symbols that are shown where none is called


@dataclass(frozen=True)
class ScanRequest:
    """A scan. models: the folder of a finished run.  family: whose signals.  as_of, max_age: see `serving.scan.scan`.

    top: how many symbols are printed.  call: the calling rule.  rules: of the trades, for their costs.
    to: where every signal is written; active: the SQLite file with one active signal a symbol; None for neither.

        >>> ScanRequest("OUT", top=20, levels=Levels(stop_atr=2.0)).levels.stop_atr
        2.0
    """

    models: str = OUT
    data: DataRequest = field(default_factory=DataRequest)
    family: str = "meta_learner"
    as_of: str | None = None
    max_age: int = MAX_AGE
    top: int = 100
    levels: Levels = field(default_factory=Levels)
    call: str = registry.DEFAULT
    rules: Rules = field(default_factory=Rules)
    to: str | None = None
    active: str | None = None
    device: str = "auto"
    quiet: bool = False
    json: bool = False

    @property
    def folder(self) -> str:
        """The folder of the run."""
        return self.models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe scan`."""
    default, levels = ScanRequest(), Levels()
    parser.add_argument("--models", default=OUT, metavar="OUT", help="the folder of a finished run (default: OUT)")
    parser.add_argument("--family", default=default.family, help="whose signals (default: meta_learner)")
    add_data_arguments(parser, "as for gpupipe run: with bars enough before the latest for every feature")
    parser.add_argument("--as-of", metavar="DATE", help="leave out later bars")
    parser.add_argument(
        "--max-age", type=int, default=MAX_AGE, metavar="N",
        help="leave out symbols without a bar at the last N times of the data (default 5)",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=int, default=default.top, help="how many symbols to print, the best (default 100)"
    )
    for name, what in (
        ("stop_atr", "stop, in average true ranges"), ("target", "target, in distances of the stop"),
        ("band_atr", "entry, around the close"),
    ):  # fmt: skip
        value = getattr(levels, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=value, help=f"{what} (default {value})")
    parser.add_argument(
        "--stop-moves", type=float, metavar="K",
        help="stop, in moves that the model expects over the label's bars, in place of average true ranges",
    )  # fmt: skip
    add_call(parser)
    add_costs(parser)
    parser.add_argument("--to", metavar="FILE", help="every signal, of every label, as .parquet, .csv, .json")
    parser.add_argument("--active", metavar="FILE", help="SQLite file with one active signal a symbol")
    add_device(parser)
    add_output(parser, "print the best signals as JSON, and nothing else")


def request_of(chosen: argparse.Namespace) -> ScanRequest:
    """What the options ask for; UserError for what could not be done."""
    levels = Levels(chosen.stop_atr, chosen.target, chosen.band_atr, chosen.stop_moves)
    rules = Rules(**{name: getattr(chosen, name) for name in COSTS})
    if chosen.top < 1:
        raise UserError(f"--top {chosen.top}: expected 1 or more")
    return ScanRequest(
        models=chosen.models,
        data=data_request(chosen),
        family=chosen.family,
        as_of=chosen.as_of,
        max_age=chosen.max_age,
        top=chosen.top,
        levels=levels,
        call=registry.rule(chosen.call).text,
        rules=rules,
        to=chosen.to,
        active=chosen.active,
        device=chosen.device,
        quiet=chosen.quiet,
        json=chosen.json,
    )


def run(request: ScanRequest) -> int:
    """Scan, print, and write what is asked for; UserError for what the user must mend."""
    from gpupipe.artifacts.load import load
    from gpupipe.cli.console import console, show_data
    from gpupipe.runtime.device import pick
    from gpupipe.serving import signal_table
    from gpupipe.serving.active_signals import keep_active
    from gpupipe.serving.scan import no_family, scan

    if request.to is not None:
        signal_table.check_name(pathlib.Path(request.to))
    models = load(request.models, threads=1)
    if request.family not in models.families:  # before the data are read
        raise UserError(no_family(request.family, models.families, request.models))
    to = console(request.quiet or request.json)
    panel, report = request.data.of_run(models.manifest).load(pick(request.device))
    show_data(to, report)
    rule = registry.rule(request.call)
    models = rule.prepared(models, panel, request.rules)
    scanned = scan(models, panel, request.family, request.as_of, request.levels, request.max_age, rule, request.rules)
    moves = [signal.expected_move for signal in scanned.signals]
    if request.levels.stop_moves is not None and moves and all(map(math.isnan, moves)):
        raise UserError(f"--stop-moves: {request.models} has no expected moves; train again, or leave it out")
    if request.to is not None:
        signal_table.write(pathlib.Path(request.to), scanned, signal_table.about(models, scanned, rule.text))
    events = keep_active(request.active, scanned, panel) if request.active is not None else None
    if request.json:
        print(json.dumps([signal_table.plain(signal) for signal in scanned.top(request.top)], indent=1))
    show(to, scanned, request.top)
    if explanation := rule.explain(models, panel, request.rules, request.family):
        to.print("\n".join(explanation), soft_wrap=True)
    if events is not None:
        counts = Counter(event for event, _ in events)
        changes = ", ".join(f"{n:,} {event}" for event, n in counts.items()) or "nothing changed"
        to.print(f"{request.active}: {changes}.")
    return 0


def show(to: Console, scanned: Scanned, top: int) -> None:
    """The best signals as a table, and in words which labels and symbols were left out and what looks wrong."""
    from gpupipe.cli.plain_console import styled
    from gpupipe.serving import signal_table
    from gpupipe.serving.expected_moves import likely_sentence
    from gpupipe.targets.classes import untraded_sentence

    signals = scanned.top(top)
    nearest = [] if signals else scanned.nearest(min(top, NEAREST))
    if nearest:
        to.print(styled("nearest to a call", "bold"))
    if signals or nearest:
        _show_signals(to, signals or nearest, scanned.display)
    to.print(signal_table.called_sentence(scanned))
    if not signals and (sentence := likely_sentence(scanned)):
        to.print(sentence)
    for sentence in scanned.without_calls:
        to.print(sentence)
    for sentence in (*signal_table.left_out_sentences(scanned), *filter(None, [untraded_sentence(scanned.untraded)])):
        to.print(sentence)
    for sentence in (*scanned.degenerate, *filter(None, [signal_table.seen_sentence(scanned)])):
        to.print(styled(sentence, "bold"))


def _show_signals(to: Console, signals: list[Signal], display: Display) -> None:
    from rich.table import Table
    from rich.text import Text

    from gpupipe.cli.tables import print_whole
    from gpupipe.serving.price_text import UNKNOWN, aligned
    from gpupipe.targets.classes import percent

    table = Table(box=None, header_style="dim")
    for name in ("symbol", "sector", "bar", "side", "bars"):
        table.add_column(name, no_wrap=True)
    for name in ("at %", "buy %", "base buy", "sell %", "base sell", "net %", "±", "move %", "agree %"):
        table.add_column(name, justify="right", no_wrap=True)
    heads = ("close", "entry", "stop", "target")
    for name in heads:
        table.add_column(Text(name, justify="right"), no_wrap=True)  # its cells are aligned at their decimal points
    rows = [
        display.prices(signal.symbol, (signal.close, signal.entry_low, signal.entry_high, signal.stop, signal.target))
        for signal in signals
    ]
    close, low, high, stop, target = map(aligned, zip(*rows, strict=True))
    entry = [f"{first} – {last}" for first, last in zip(low, high, strict=True)]
    columns = zip(*(
        [cell.rjust(len(head)) for cell in cells]
        for head, cells in zip(heads, (close, entry, stop, target), strict=True)
    ), strict=True)  # fmt: skip
    for signal, prices in zip(signals, columns, strict=True):
        agree = f"{100 * signal.agreement:.0f}" if math.isfinite(signal.agreement) else UNKNOWN
        shares = (signal.p_buy, signal.base_buy, signal.p_sell, signal.base_sell)
        money = (signal.expected_net_return, signal.uncertainty)
        figures = [_percent(value, 1) for value in shares] + [_percent(value, 2) for value in money]
        figures.append(_percent(signal.expected_move, 1))
        table.add_row(
            signal.symbol, signal.sector, display.bar(signal.symbol, signal.time), signal.side, str(signal.horizon),
            percent(signal.threshold), *figures, agree, *prices,
        )  # fmt: skip
    print_whole(to, table)
    to.print(
        "buy %, sell %: probabilities that the price reaches the barrier; base: the shares of the sector's training "
        "rows that did; net %: what the trade is expected to earn after costs, ± its standard error; move %: how far "
        "the price is expected to move over the bars, up or down (one standard deviation); agree %: the share of the "
        "other model families with the same call.", style="dim",
    )  # fmt: skip


def _percent(value: float, digits: int) -> str:
    from gpupipe.serving.price_text import UNKNOWN

    return f"{100 * value:.{digits}f}" if math.isfinite(value) else UNKNOWN
