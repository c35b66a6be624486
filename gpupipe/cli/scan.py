"""The command `gpupipe scan`."""

from __future__ import annotations

import argparse
import json
import math
import pathlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpupipe.backtest.choices import F1, PROFIT
from gpupipe.backtest.rules import COSTS, Rules
from gpupipe.cli.backtest import add_costs, add_cutoff
from gpupipe.cli.job_request import OUT
from gpupipe.cli.options import DataRequest, add_data_arguments, add_device, add_output, data_request
from gpupipe.runtime.errors import UserError
from gpupipe.serving.levels import MAX_AGE, Levels

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.serving.display import Display
    from gpupipe.serving.scan import Scanned, Signal


@dataclass(frozen=True)
class ScanRequest:
    """A scan. models: the folder of a finished run.  family: whose signals.  as_of, max_age: see `serving.scan.scan`.

    top: how many symbols are printed.  rules: of the trades by which --cutoff profit judges.
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
    cutoff: str = F1
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
        "--top", type=int, default=default.top, help="how many symbols to print, the strongest (default 100)"
    )
    for name, what in (
        ("stop_atr", "stop, in average true ranges"), ("target", "target, in distances of the stop"),
        ("band_atr", "entry, around the close"),
    ):  # fmt: skip
        value = getattr(levels, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=value, help=f"{what} (default {value})")
    add_cutoff(parser)
    add_costs(parser, f", for --cutoff {PROFIT}")
    parser.add_argument("--to", metavar="FILE", help="every signal, of every label, as .parquet, .csv, .json")
    parser.add_argument("--active", metavar="FILE", help="SQLite file with one active signal a symbol")
    add_device(parser)
    add_output(parser, "print the strongest signals as JSON, and nothing else")


def request_of(chosen: argparse.Namespace) -> ScanRequest:
    """What the options ask for; UserError for what could not be done."""
    levels = Levels(chosen.stop_atr, chosen.target, chosen.band_atr)
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
        cutoff=chosen.cutoff,
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
    from gpupipe.backtest import cutoffs
    from gpupipe.cli.console import console, show_data
    from gpupipe.runtime.device import pick
    from gpupipe.serving import signal_table
    from gpupipe.serving.scan import keep_active, no_family, scan

    if request.to is not None:
        signal_table.check_name(pathlib.Path(request.to))
    models = load(request.models, threads=1)
    if request.family not in models.families:  # before the data are read
        raise UserError(no_family(request.family, models.families, request.models))
    to = console(request.quiet or request.json)
    panel, report = request.data.load(pick(request.device))
    show_data(to, report)
    paying = cutoffs.kept(models, panel, request.rules) if request.cutoff == PROFIT else None
    if paying is not None:
        models = paying.of(models)
    scanned = scan(models, panel, request.family, request.as_of, request.levels, request.max_age)
    if request.to is not None:
        signal_table.write(pathlib.Path(request.to), scanned, signal_table.about(models, scanned, request.cutoff))
    events = keep_active(request.active, scanned, panel) if request.active is not None else None
    if request.json:
        print(json.dumps([signal_table.plain(signal) for signal in scanned.top(request.top)], indent=1))
    show(to, scanned, request.top, request.cutoff)
    if paying is not None:
        to.print("\n".join(cutoffs.sentences(paying, request.family)), soft_wrap=True)
    if events is not None:
        counts = Counter(event for event, _ in events)
        changes = ", ".join(f"{n:,} {event}" for event, n in counts.items()) or "nothing changed"
        to.print(f"{request.active}: {changes}.")
    return 0


def show(to: Console, scanned: Scanned, top: int, cutoff: str = F1) -> None:
    """The strongest signals as a table, and in words which symbols were left out and what looks wrong."""
    from gpupipe.backtest.cutoffs import CALLS_MOST
    from gpupipe.cli.plain_console import styled
    from gpupipe.serving import signal_table

    signals = scanned.top(top)
    if signals:
        _show_signals(to, signals, scanned.display)
    to.print(signal_table.called_sentence(scanned))
    called, n_symbols = signal_table.n_called(scanned)
    if cutoff == F1 and called > n_symbols / 2:
        to.print(CALLS_MOST)
    for sentence in signal_table.left_out_sentences(scanned):
        to.print(sentence)
    for sentence in scanned.degenerate:
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
    for name in ("at %", "p %", "strength", "agree %"):
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
        table.add_row(
            signal.symbol, signal.sector, display.bar(signal.symbol, signal.time), signal.side, str(signal.horizon),
            percent(signal.threshold), f"{100 * signal.probability:.1f}", f"{signal.strength:.2f}", agree,
            *prices,
        )  # fmt: skip
    print_whole(to, table)
