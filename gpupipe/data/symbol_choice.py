"""The rows of some symbols of what was read, and the report on them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

from gpupipe.data.errors import DataError
from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport, counted, data_hash, time_text


def select_symbols(panel: Panel, report: DataReport, symbols: Sequence[str] | None) -> tuple[Panel, DataReport]:
    """The rows of some symbols, and the report on them; all where `symbols` is None.

    Raises DataError, with the nearest name, for a symbol that the panel does not have.

    >>> from gpupipe.data import load
    >>> panel, report = select_symbols(*load("simulated:symbols=3,bars=4,seed=1", device="cpu"), ("SIM0001",))
    >>> panel.symbols, report.rows_kept, report.data_hash == data_hash(panel)
    (('SIM0001',), 4, True)
    """
    if symbols is None:
        return panel, report
    for name in symbols:
        if name not in panel.symbols:
            close = difflib.get_close_matches(name, panel.symbols, 1, 0.5)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            shown = ", ".join(panel.symbols[:6]) + (", ..." if panel.n_symbols > 6 else "")
            raise DataError(f"no symbol {name!r} in the data{guess} (they have {shown})")
    if not symbols:
        raise DataError("no symbol is named")
    chosen = panel.where([name in symbols for name in panel.symbols])
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
