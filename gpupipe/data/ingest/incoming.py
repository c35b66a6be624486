"""Read a source of any kind into validated bars with a sector for each symbol."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data import DataReport, load, symbol_sectors
from gpupipe.data.errors import DataError
from gpupipe.data.ingest import session_keys, yahoo
from gpupipe.data.ingest.bar_table import BarTable, from_panel
from gpupipe.data.report import counted

_YAHOO = "yfinance:"
_DAY_NS = 86_400_000_000_000
_STILL_TRADED_DAYS = 30  # a symbol whose last bar is older does not extend the download by years
_OVERLAP_DAYS = 14  # requested from Yahoo again, to detect restatements: a week has only four or five sessions


@dataclass(frozen=True)
class SourceOptions:
    """How to read a source.

    sector_map, timeframe, adjusted, strict, max_quarantined: see `gpupipe.data.load`.  since: bars before this day are
    dropped.  no_sector: what is done with symbols of which neither the source nor the store knows a sector: "drop",
    "error", or "other", which is the sector that they get.

    >>> SourceOptions(timeframe="1d", since="2024-01-31").adjusted
    False
    """

    sector_map: Any = None
    timeframe: str | None = None
    adjusted: bool = False
    strict: bool = False
    since: str | None = None
    max_quarantined: float = 0.05
    no_sector: str = symbol_sectors.DROP


@dataclass(frozen=True)
class IncomingBars:
    """Validated bars of a source.

    bars: with a sector for each symbol.  report: of `gpupipe.data.load`.  without_sector: symbols dropped because no
    sector is known.  without_bars: symbols for which Yahoo sent no bars.

    >>> from gpupipe.data.ingest.bar_table import empty
    >>> incoming = read_incoming("simulated:symbols=2,bars=3,seed=1", empty(), SourceOptions())
    >>> incoming.bars.names, incoming.bars.n_rows, incoming.without_sector
    (('SIM0000', 'SIM0001'), 6, ())
    """

    bars: BarTable
    report: DataReport
    without_sector: tuple[str, ...]
    without_bars: tuple[str, ...]


def read_incoming(source: Any, stored: BarTable, options: SourceOptions) -> IncomingBars:
    """Read and validate a source on the host.

    source: any source of `gpupipe.data.load`, or "yfinance:AAPL,MSFT" or "yfinance:@symbols.csv".  stored: the bars of
    the store. A symbol's sector comes from the map, else from the source's column, else from the store;
    `options.no_sector` says what is done with symbols without one. Bars for a store that has bars already keep the
    times of the source: `session_keys.align` tells whether they are days. Raises DataError.
    """
    symbol_sectors.check_no_sector(options.no_sector)
    if options.since is not None:
        _parse_day(options.since)
    sector_map, timeframe = options.sector_map, options.timeframe
    without_bars: tuple[str, ...] = ()
    if isinstance(source, str) and source.startswith(_YAHOO):
        symbols, file = yahoo.parse_symbols(source.removeprefix(_YAHOO))
        start = options.since or _first_day_to_request(stored, symbols)
        source, without_bars = yahoo.to_rows(yahoo.download(symbols, start, timeframe or "1d"))
        sector_map, timeframe = (file if sector_map is None else sector_map), None
    panel, report = load(
        source,
        sector_map,
        "all",
        "cpu",
        strict=options.strict,
        timeframe=timeframe,
        adjusted=options.adjusted,
        max_quarantined=options.max_quarantined,
        no_sector=symbol_sectors.UNKNOWN,
        daily=False if stored.n_rows else None,
    )
    sector_of_stored = dict(zip(stored.names, stored.sectors, strict=True))
    bars, without_sector = _fill_sectors(from_panel(panel), sector_of_stored, options.no_sector)
    return IncomingBars(bars.without_unused_names(), report, without_sector, without_bars)


def align_incoming(
    incoming: IncomingBars, stored: BarTable, options: SourceOptions, calendar: str, zone: str | None
) -> tuple[IncomingBars, session_keys.Aligned]:
    """`(the incoming bars at the store's session dates from `since` on, what `session_keys.align` did)`.

    calendar, zone: see `session_keys.align`. Raises DataError for bars of another length, and, if `strict` is set, for
    a day that came twice.
    """
    aligned = session_keys.align(stored, incoming.bars, calendar, zone)
    if options.strict and aligned.findings:
        finding = aligned.findings[0]
        raise DataError(f"strict: {counted(finding.rows, 'row')} {finding.kind} (first {finding.example})")
    bars, report = aligned.incoming, incoming.report
    if options.since is not None:
        first_ns = _parse_day(options.since).astype("datetime64[ns]").astype(np.int64)
        bars = bars.take(np.flatnonzero(bars.clock_ns >= first_ns)).without_unused_names()
    report = dataclasses.replace(
        report, notes=(*report.notes, *aligned.notes), findings=(*report.findings, *aligned.findings)
    )
    return dataclasses.replace(incoming, bars=bars, report=report), aligned


def _fill_sectors(
    bars: BarTable, sector_of_stored: Mapping[str, str], no_sector: str
) -> tuple[BarTable, tuple[str, ...]]:
    """`(the rows of symbols with a sector, the other symbols)`."""
    unknown = symbol_sectors.OTHER if no_sector == symbol_sectors.OTHER else ""
    sectors = tuple(
        sector_of_stored.get(name, unknown) if sector == symbol_sectors.UNKNOWN else sector
        for name, sector in zip(bars.names, bars.sectors, strict=True)
    )
    known = np.array([bool(sector) for sector in sectors])
    without = tuple(name for name, sector in zip(bars.names, sectors, strict=True) if not sector)
    if without and no_sector == symbol_sectors.ERROR:
        shown = ", ".join(map(repr, without[:5])) + (", ..." if len(without) > 5 else "")
        raise DataError(
            f"neither the source nor the store knows the sector of {counted(len(without), 'symbol')} ({shown}): give "
            "--sector-map, or leave these symbols out with --no-sector drop"
        )
    return dataclasses.replace(bars, sectors=sectors).take(np.flatnonzero(known[bars.symbol])), without


def _first_day_to_request(stored: BarTable, symbols: tuple[str, ...]) -> str:
    """The earliest last stored day of the symbols still traded, less the overlap."""
    new = [name for name in symbols if name not in stored.names]
    if new:
        raise DataError(f"the store has no bars of {', '.join(new[:5])}: give the first day with --since YYYY-MM-DD")
    last = stored.time_ns[stored.offsets[1:] - 1][[stored.names.index(name) for name in symbols]]
    earliest = int(last[last >= last.max() - _STILL_TRADED_DAYS * _DAY_NS].min())
    return str(np.datetime64(earliest, "ns").astype("datetime64[D]") - np.timedelta64(_OVERLAP_DAYS, "D"))


def _parse_day(text: str) -> np.datetime64:
    try:
        return np.datetime64(text, "D")
    except ValueError:
        raise DataError(f"--since {text}: expected a day as 2024-01-31") from None
