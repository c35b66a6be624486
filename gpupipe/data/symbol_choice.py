"""The rows of some symbols of what was read, and the report on them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

from gpupipe.data.errors import DataError
from gpupipe.data.file_symbols import without_interval
from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport, counted, data_hash, time_text


def select_symbols(panel: Panel, report: DataReport, symbols: Sequence[str] | None) -> tuple[Panel, DataReport]:
    """The rows of some symbols, and the report on them; all where `symbols` is None.

    A name that no symbol has also stands for the only one that differs from it in case, or in the length of a bar at
    its end, as files are named: BTCUSD for btcusd_1h.
    Raises DataError, with the nearest name, for a symbol that the panel does not have.

    >>> from gpupipe.data import load
    >>> panel, report = select_symbols(*load("simulated:symbols=3,bars=4,seed=1", device="cpu"), ("SIM0001",))
    >>> panel.symbols, report.rows_kept, report.data_hash == data_hash(panel)
    (('SIM0001',), 4, True)
    """
    if symbols is None:
        return panel, report
    if not symbols:
        raise DataError("no symbol is named")
    wanted = {symbol_named(name, panel.symbols) for name in symbols}
    if len(wanted) == panel.n_symbols:
        return panel, report
    chosen = panel.where([name in wanted for name in panel.symbols])
    return chosen, dataclasses.replace(
        report,
        notes=(*report.notes, f"{counted(chosen.n_symbols, 'symbol')} of {panel.n_symbols} chosen"),
        rows_kept=chosen.n_rows,
        symbols=chosen.n_symbols,
        sectors={name: chosen.sector.count(name) for name in chosen.sectors if name in report.sectors},
        first_time=time_text(int(chosen.time_ns.min())),
        last_time=time_text(int(chosen.time_ns.max())),
        data_hash=data_hash(chosen),
    )


def symbol_named(name: str, symbols: Sequence[str]) -> str:
    """The symbol that a name stands for, as in `select_symbols`; DataError where there is none, or more than one.

    >>> symbol_named("BTCUSD", ("btcusd_1h", "eurusd_1h"))
    'btcusd_1h'
    """
    if name in symbols:
        return name
    alike = [
        symbol for symbol in symbols if name.casefold() in (symbol.casefold(), without_interval(symbol).casefold())
    ]
    if len(alike) == 1:
        return alike[0]
    close = alike[:2] or difflib.get_close_matches(name, symbols, 1, 0.5)
    guess = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    shown = ", ".join(symbols[:6]) + (", ..." if len(symbols) > 6 else "")
    raise DataError(f"no symbol {name!r} in the data{guess} (they have {shown})")
