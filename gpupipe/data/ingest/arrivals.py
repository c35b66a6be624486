"""What arrives: a source of any kind as rows that `gpupipe.data` has judged, each symbol with its sector."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data import DataReport, load
from gpupipe.data.errors import DataError
from gpupipe.data.ingest import yahoo
from gpupipe.data.ingest.rows import Rows, of_panel

NO_SECTOR = "?"  # no name of a sector: those are slugs
_YAHOO = "yfinance:"
_DAY_NS = 86_400_000_000_000
_STILL_TRADED_DAYS = 30  # symbols that ended before that do not make it ask for years
_OVERLAP_DAYS = 14  # asked of Yahoo again, so that a restatement is seen: a week has four or five sessions


@dataclass(frozen=True)
class Arrival:
    """rows: judged, with sectors.  report: of `gpupipe.data.load`.  without_sector, without_bars: symbols left out."""

    rows: Rows
    report: DataReport
    without_sector: tuple[str, ...]
    without_bars: tuple[str, ...]


def arrive(source: Any, stored: Rows, *, sector_map: Any = None, timeframe: str | None = None,
           adjusted: bool = False, strict: bool = False, since: str | None = None) -> Arrival:  # fmt: skip
    """Read and judge a source, on the host.

    source: whatever `gpupipe.data.load` reads, or "yfinance:AAPL,MSFT" or "yfinance:@symbols.csv".  sector_map: as
    there. A symbol's sector is that of the map, else of the source's column, else of the store; symbols without one
    are left out.  since: bars before this day (UTC) are left out.  Raises DataError.
    """
    first_day = _day(since) if since is not None else None
    without_bars: tuple[str, ...] = ()
    if isinstance(source, str) and source.startswith(_YAHOO):
        symbols, file = yahoo.symbols_of(source.removeprefix(_YAHOO))
        start = since or _asked_from(stored, symbols)
        source, without_bars = yahoo.long_frame(yahoo.download(symbols, start, timeframe or "1d"))
        sector_map, timeframe = (file if sector_map is None else sector_map), None
    panel, report = load(
        source, sector_map, "all", "cpu", strict=strict, timeframe=timeframe, adjusted=adjusted,
        unknown_sector=NO_SECTOR,
    )  # fmt: skip
    rows, without_sector = _with_sectors(of_panel(panel), dict(zip(stored.names, stored.sector, strict=True)))
    if first_day is not None:
        rows = rows.take(np.flatnonzero(rows.time_ns >= first_day.astype("datetime64[ns]").astype(np.int64)))
    return Arrival(_without_empty(rows), report, without_sector, without_bars)


def _with_sectors(rows: Rows, stored: Mapping[str, str]) -> tuple[Rows, tuple[str, ...]]:
    """The rows whose symbols have a sector, and the names of the others."""
    sector = tuple(
        stored.get(name, "") if own == NO_SECTOR else own for name, own in zip(rows.names, rows.sector, strict=True)
    )
    known = np.array([bool(name) for name in sector])
    without = tuple(name for name, own in zip(rows.names, sector, strict=True) if not own)
    return dataclasses.replace(rows, sector=sector).take(np.flatnonzero(known[rows.symbol])), without


def _without_empty(rows: Rows) -> Rows:
    """The same rows; names without one are left out."""
    kept = np.unique(rows.symbol)
    return dataclasses.replace(
        rows, names=tuple(rows.names[k] for k in kept), sector=tuple(rows.sector[k] for k in kept),
        symbol=np.searchsorted(kept, rows.symbol).astype(np.int32),
    )  # fmt: skip


def _asked_from(stored: Rows, symbols: tuple[str, ...]) -> str:
    """The day from which to ask for bars of these symbols: some before the last that is stored of each."""
    new = [name for name in symbols if name not in stored.names]
    if new:
        raise DataError(f"the store has no bars of {', '.join(new[:5])}: say from when with --since YYYY-MM-DD")
    last = stored.time_ns[stored.edges[1:] - 1][[stored.names.index(name) for name in symbols]]
    earliest = int(last[last >= last.max() - _STILL_TRADED_DAYS * _DAY_NS].min())
    return str(np.datetime64(earliest, "ns").astype("datetime64[D]") - np.timedelta64(_OVERLAP_DAYS, "D"))


def _day(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "D")
    except ValueError:
        raise DataError(f"--since {text}: expected a day as 2024-01-31") from None
