"""The command `gpupipe audit`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpupipe.cli.features import columns
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.dataset.audit import Finding


@dataclass(frozen=True)
class AuditRequest:
    """names, modules: features, as for `gpupipe features`.  n_symbols: how many are looked at, spread over the data.

    >>> AuditRequest(names=("rsi_14",), n_symbols=20).source
    'demo'
    """

    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    source: str = "demo"
    sector_map: str | None = None
    n_symbols: int = 60
    json: bool = False

    @property
    def folder(self) -> str:
        """It only looks."""
        return ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe audit`."""
    default = AuditRequest()
    parser.add_argument("--features", nargs="+", default=[], metavar="NAME", help="as for gpupipe features")
    parser.add_argument("--module", action="append", default=[], metavar="FILE", help="Python code with your features")
    parser.add_argument("--data", default=default.source, help="as for gpupipe run")
    parser.add_argument("--sector-map", help="as for gpupipe run")
    parser.add_argument(
        "--symbols", type=int, default=default.n_symbols, help="how many symbols, spread over the data (default 60)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def request_of(chosen: argparse.Namespace) -> AuditRequest:
    """What the options ask for."""
    if chosen.symbols < 1:
        raise UserError(f"--symbols {chosen.symbols}: expected 1 or more")
    return AuditRequest(
        tuple(chosen.features), tuple(chosen.module), chosen.data, chosen.sector_map, chosen.symbols, chosen.json
    )


def run(request: AuditRequest) -> int:
    """Exit code 0 if nothing looks ahead, 1 if something does; UserError if it cannot be looked at."""
    import numpy as np

    from gpupipe.cli.console import console
    from gpupipe.data import load
    from gpupipe.data.report import counted
    from gpupipe.dataset.audit import audit
    from gpupipe.runtime.device import pick

    names = columns(request.names, request.modules)
    panel, _ = load(request.source, request.sector_map, "all", pick("cpu"))
    n_symbols = min(request.n_symbols, panel.n_symbols)
    chosen = set(np.unique(np.linspace(0, panel.n_symbols - 1, n_symbols).astype(int)))
    panel = panel.where([k in chosen for k in range(panel.n_symbols)])
    audited = audit(panel, names)
    leaks = [column.name for column in audited if column.n_changed]
    unseen = [column.name for column in audited if not column.n_compared]
    if request.json:
        print(json.dumps([{**column.__dict__, "clean": column.clean} for column in audited], indent=1))
    else:
        to = console(quiet=False)
        _show(to, audited)
        if leaks:
            to.print(f"{len(leaks)} of {len(audited)} columns LOOK AHEAD: {', '.join(leaks)}")
        elif not unseen:
            where = f"{counted(panel.n_rows, 'row')} of {counted(len(chosen), 'symbol')}"
            to.print(f"None of {len(audited)} columns looks ahead, on {where}.")
    if unseen and not leaks:
        raise UserError(f"nothing to compare for {', '.join(unseen)}: audit them on data with more bars")
    return int(bool(leaks))


def _show(to: Console, audited: Sequence[Finding]) -> None:
    from rich.table import Table

    table = Table("column", "kind", "values compared", "changed", "", box=None, header_style="dim")
    for column in sorted(audited, key=lambda column: column.clean):
        note = column.where or ("" if column.n_compared else "nothing to compare")
        table.add_row(column.name, column.kind, f"{column.n_compared:,}", f"{column.n_changed:,}", note)
    to.print(table)
