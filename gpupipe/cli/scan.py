"""The command `gpupipe scan`."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpupipe.backtest.choices import F1, PROFIT
from gpupipe.backtest.cutoffs import CALLS_MOST, kept, sentences
from gpupipe.backtest.rules import COSTS, Rules
from gpupipe.cli import backtest
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.artifacts.load import Models
    from gpupipe.serving.scan import Scanned, Signal

FORMATS = (".parquet", ".csv", ".json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe scan`."""
    parser.add_argument("--models", default="OUT", metavar="OUT", help="the folder of a finished run (default: OUT)")
    parser.add_argument("--family", default="meta_learner", help="whose signals (default: meta_learner)")
    parser.add_argument("--data", help="as for gpupipe run: with bars enough before the latest for every feature")
    parser.add_argument("--sector-map", help="as for gpupipe run")
    parser.add_argument("--timeframe", help="as for gpupipe run")
    parser.add_argument("--adjusted", action="store_true", help="as for gpupipe run")
    parser.add_argument("--as-of", metavar="DATE", help="leave out later bars")
    parser.add_argument("--max-age", type=int, default=5, metavar="N",
                        help="leave out symbols without a bar at the last N times of the data (default 5)")  # fmt: skip
    parser.add_argument("--top", type=int, default=100, help="how many symbols to print, the strongest (default 100)")
    parser.add_argument("--stop-atr", type=float, default=1.5, help="stop, in average true ranges (default 1.5)")
    parser.add_argument("--target", type=float, default=2.5, help="target, in distances of the stop (default 2.5)")
    parser.add_argument("--band-atr", type=float, default=0.25, help="entry, around the close (default 0.25)")
    backtest.add_cutoff(parser)
    backtest.add_costs(parser, f", for --cutoff {PROFIT}")
    parser.add_argument("--to", metavar="FILE", help=f"every signal, of every label, as {', '.join(FORMATS)}")
    parser.add_argument("--active", metavar="FILE", help="SQLite file with one active signal a symbol")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the strongest signals as JSON, and nothing else")


def run(chosen: argparse.Namespace) -> int:
    """Scan, print, and write what was asked for; UserError for what the user must mend."""
    from gpupipe.artifacts.load import load as load_models
    from gpupipe.cli.console import console, show_data
    from gpupipe.data import load
    from gpupipe.runtime.device import pick
    from gpupipe.serving.levels import Levels
    from gpupipe.serving.scan import keep_active, scan

    levels = Levels(chosen.stop_atr, chosen.target, chosen.band_atr)
    rules = Rules(**{name: getattr(chosen, name) for name in COSTS})
    if chosen.top < 1:
        raise UserError(f"--top {chosen.top}: expected 1 or more")
    if chosen.to is not None and pathlib.Path(chosen.to).suffix not in FORMATS:
        raise UserError(f"--to {chosen.to}: expected a name that ends in {', '.join(FORMATS)}")
    models = load_models(chosen.models, threads=1)
    to = console(chosen.quiet or chosen.json)
    panel, report = load(
        chosen.data, chosen.sector_map, "all", pick(chosen.device), timeframe=chosen.timeframe, adjusted=chosen.adjusted
    )
    show_data(to, report)
    if chosen.cutoff == PROFIT:
        acting = kept(models, panel, rules)
        models = acting.of(models)
    found = scan(models, panel, chosen.family, chosen.as_of, levels, chosen.max_age)
    if chosen.to is not None:
        write(pathlib.Path(chosen.to), found, about(models, found, chosen.cutoff))
    events = keep_active(chosen.active, found, panel) if chosen.active is not None else None
    if chosen.json:
        print(json.dumps([plain(one) for one in found.top(chosen.top)], indent=1))
    show(to, found, chosen.top, chosen.cutoff)
    if chosen.cutoff == PROFIT:
        to.print("\n".join(sentences(acting, chosen.family)), soft_wrap=True, highlight=False)
    if events is not None:
        counts = {kind: sum(event == kind for event, _ in events) for kind in dict.fromkeys(e for e, _ in events)}
        said = ", ".join(f"{n:,} {kind}" for kind, n in counts.items()) or "nothing changed"
        to.print(f"{chosen.active}: {said}.")
    return 0


def plain(one: Signal) -> dict[str, Any]:
    """A signal as JSON holds it: NaN, which JSON has not, becomes null."""
    fields = ((field.name, getattr(one, field.name)) for field in dataclasses.fields(one))
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields}


def about(models: Models, found: Scanned, cutoff: str) -> dict[str, Any]:
    """What a reader of the signals should know: whose models called, from which cutoffs on, and what looks wrong."""
    return {"run_key": models.manifest["run_key"], "cutoff": cutoff, "degenerate": list(found.degenerate)}


def write(path: pathlib.Path, found: Scanned, about: Mapping[str, Any]) -> None:
    """All signals as a table, atomically, in the format that the name says; `about` is in a Parquet file's metadata."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    from gpupipe.serving.scan import ABOUT
    from gpupipe.store.content_store import write_atomic

    rows = [plain(one) for one in found.signals]
    buffer = io.BytesIO()
    if path.suffix == ".json":
        buffer.write((json.dumps(rows, indent=1) + "\n").encode())
    else:
        table = pa.Table.from_pylist(rows).replace_schema_metadata({ABOUT: json.dumps(about, sort_keys=True)})
        (pyarrow.csv.write_csv if path.suffix == ".csv" else pyarrow.parquet.write_table)(table, buffer)
    write_atomic(path, buffer.getvalue())


def show(to: Console, found: Scanned, top: int, cutoff: str = F1) -> None:
    """The strongest signals as a table, and in words what was left out or looks wrong."""
    import numpy as np
    from rich.table import Table

    from gpupipe.data.report import counted
    from gpupipe.targets.classes import percent

    signals = found.top(top)
    table = Table(box=None, header_style="dim")
    for name in ("symbol", "sector", "bar", "side", "bars"):
        table.add_column(name)
    for name in ("at %", "p %", "strength", "agree %", "close", "entry", "stop", "target"):
        table.add_column(name, justify="right")
    for one in signals:
        agree = f"{100 * one.agreement:.0f}" if math.isfinite(one.agreement) else "–"
        table.add_row(
            one.symbol, one.sector, one.time[:10], one.side, str(one.horizon), percent(one.threshold),
            f"{100 * one.probability:.1f}", f"{one.strength:.2f}", agree, _price(one.close),
            f"{_price(one.entry_low)} – {_price(one.entry_high)}", _price(one.stop), _price(one.target),
        )  # fmt: skip
    if signals:
        to.print(table)
    n = len({one.symbol for one in found.signals})
    called = len(found.top(len(found.signals)))
    to.print(f"{called:,} of {n:,} symbols are called BUY or SELL by {found.signals[0].model}." if n else "No signal.")
    if cutoff == F1 and called > n / 2:
        to.print(CALLS_MOST)
    if found.stale:
        day = str(np.datetime64(found.since_ns, "ns").astype("datetime64[m]")).replace("T00:00", "")
        to.print(
            f"{counted(len(found.stale), 'symbol')} without a bar at the last {found.max_age} times of the data (since "
            f"{day}), not scanned: {_some(found.stale)}. --max-age sets how many times."
        )
    if found.unpredicted:
        n_symbols = counted(len(found.unpredicted), "symbol")
        to.print(f"No model, or too few bars: {n_symbols} ({_some(found.unpredicted)}).")
    for sentence in found.degenerate:
        to.print(f"[bold]{sentence}[/bold]")


def _some(symbols: tuple[str, ...]) -> str:
    return ", ".join(symbols[:5]) + (", ..." if len(symbols) > 5 else "")


def _price(value: float) -> str:
    return f"{value:,.2f}" if math.isfinite(value) else "–"
