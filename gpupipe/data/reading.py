"""`read` and `load`: from any source to a validated Panel and the report on it."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data import bars as bars_module
from gpupipe.data import (
    csv_file,
    demo,
    file_symbols,
    frames,
    on_cuda,
    quarantine_limit,
    session_dates,
    simulate,
    sources,
    symbol_sectors,
    time_limits,
    validate,
)
from gpupipe.data import sectors as sector_names
from gpupipe.data.bars import PRICES, Bars
from gpupipe.data.errors import DataError, printable
from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport, Finding, counted, data_hash, quarantine_table, time_text
from gpupipe.runtime.device import Device, device_of, pick
from gpupipe.runtime.run_log import event

log = logging.getLogger("gpupipe")


@dataclass(frozen=True)
class _Request:
    """How to read a source: the arguments of `load`, resolved."""

    sector_map: Mapping[str, str]
    sectors: Sequence[str] | None
    timeframe: str | None
    adjusted: bool
    device: Device


@dataclass(frozen=True)
class _RawData:
    """The rows of a source before validation, and their description."""

    bars: Bars
    tables: list[tuple[str, Any]]  # (origin, table as it was read), for the quarantine
    description: str
    kind: str
    reader: str
    path: str = ""
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()  # of reading
    malformed: tuple[tuple[str, str], ...] = ()  # (origin, description of the row)
    columns: tuple[dict[str, str], ...] = ()  # of each table, see `columns.find`


def read(
    source: Any = None,
    sector_map: Any = None,
    sectors: str | Iterable[str] = "all",
    device: str | Device = "auto",
    *,
    strict: bool = False,
    timeframe: str | None = None,
    adjusted: bool = False,
    max_quarantined: float = quarantine_limit.DEFAULT,
    no_sector: str = symbol_sectors.ERROR,
    group_by: str = "sector",
    report: Callable[[DataReport], object] | None = None,
) -> Panel:
    """Read and validate bars; see `load`. `report`, if given, is called with the DataReport."""
    options: dict[str, Any] = {
        "strict": strict, "timeframe": timeframe, "adjusted": adjusted, "no_sector": no_sector, "group_by": group_by,
    }  # fmt: skip
    panel, data_report = load(source, sector_map, sectors, device, max_quarantined=max_quarantined, **options)
    if report is not None:
        report(data_report)
    return panel


def load(
    source: Any = None,
    sector_map: Any = None,
    sectors: str | Iterable[str] = "all",
    device: str | Device = "auto",
    *,
    strict: bool = False,
    timeframe: str | None = None,
    adjusted: bool = False,
    max_quarantined: float = quarantine_limit.DEFAULT,
    no_sector: str = symbol_sectors.ERROR,
    group_by: str = "sector",
    daily: bool | None = None,
) -> tuple[Panel, DataReport]:
    """Read bars, validate every row (`validate.validate_bars`) and return the Panel and the report; writes nothing.

    source: a path (Parquet, CSV or CSV.gz, Arrow or Feather, SQLite with a table `candles`, or a folder of one of
        these, with or without Hive folders `sector=` and `symbol=`); a pandas, polars, pyarrow or cuDF frame; "demo";
        or "simulated", with options as in "simulated:symbols=500,bars=1000,seed=1,signal=0.5,bar=1min". None is the
        demo if its package is installed, else a simulated market; the report's description and the log say which.
        A file without a symbol column is named after its symbol.
    sector_map: {symbol: sector}, or a file or frame with these two columns; has precedence over a sector column.
    no_sector: what is done with symbols that have no sector: "error"; "drop" leaves them out, with a finding; "other"
        makes them a sector `other`; "?" the same with a name that no sector of the data can have.
    group_by: "sector", or "symbol": each symbol is a group of its own (`Panel.group_by`), and none needs a sector.
    sectors: "all", or names; rows of other sectors are not validated.
    device: "auto", "cpu", "cuda" or a Device.  timeframe: which bars, if the data hold several timeframes.
    strict: any finding is an error.
    adjusted: scale open, high, low and close by adj_close / close, and volumes by the splits in it (`adjust.adjust`).
        Otherwise prices are taken as they are, and a note says so if there is an adjusted close.
    max_quarantined: the share of rows of the requested sectors that may be quarantined; with more, and at least 3 rows,
        nothing is read. 1 lets any number of rows go.
    daily: whether a bar is a day or longer, and is keyed by its session date; None judges by the bars, see
        `session_dates.by_session`.

    On CUDA, cuDF reads a Parquet file, a bar store or a cuDF frame with plainly typed columns; it is validated on the
    device, and the data hash copies the panel to the host once. All other data are read and validated on the host and
    copied to the device once. `DataReport.reader` says which; the device's ledger counts the bytes.

    Raises DataError (a ValueError) for data that the user must correct, DeviceError for an unavailable device.

    >>> panel, report = load("simulated:symbols=2,bars=3,seed=1", device="cpu")
    >>> panel.n_rows, report.quarantine.num_rows, report.last_time
    (6, 0, '2015-01-06')
    """
    started = time.perf_counter()
    requested = sector_names.parse_requested(sectors)
    quarantine_limit.check_share(max_quarantined)
    if group_by not in ("sector", "symbol"):
        raise DataError(f"group_by is {group_by!r}, expected sector or symbol")
    if group_by == "symbol" and no_sector == symbol_sectors.ERROR:
        no_sector = symbol_sectors.UNKNOWN
    symbol_sectors.check_no_sector(no_sector)
    target = device if isinstance(device, Device) else pick(device)
    request = _Request(_sector_map(sector_map), requested, timeframe, adjusted, target)
    with target.stage("read"):
        raw = _open(source, request)
        rows_read = int(raw.bars.close.size)
        raw = _changed(raw, *session_dates.by_session(raw.bars, daily=daily))
        if not raw.bars.close.size and not raw.malformed:
            raise DataError(f"{raw.description}: the data hold no rows")
        raw = _changed(raw, *symbol_sectors.settle_sectors(raw.bars, no_sector))
        selected = symbol_sectors.select_sectors(raw.bars, requested)
        validated = _validate(raw, selected, strict=strict, max_quarantined=max_quarantined)
        panel = _to_panel(validated.bars).replace(group_by=group_by)
        digest = data_hash(panel)
        panel = panel.to(target)
    report = _report(raw, validated, panel, digest, rows_read=rows_read, rows_selected=int(selected.close.size))
    log.info("%s; %s", report.description, report.reader)
    elapsed_s = time.perf_counter() - started
    event("read", stage="read", seconds=elapsed_s, rows=report.rows_read, reader=report.reader, device=target.kind)
    return panel, report


def _changed(raw: _RawData, bars: Bars, notes: tuple[str, ...], findings: tuple[Finding, ...]) -> _RawData:
    """The same with other bars, and with the notes and findings on what was done to them."""
    return dataclasses.replace(raw, bars=bars, notes=(*raw.notes, *notes), findings=(*raw.findings, *findings))


def _validate(raw: _RawData, selected: Bars, *, strict: bool, max_quarantined: float) -> validate.Validated:
    """Validate the rows of the requested sectors; DataError for what `strict` and `max_quarantined` do not allow."""
    # A simulated market may reach into the future.
    limits = time_limits.ANY_TIME if raw.kind == "simulated" else time_limits.limits_of(selected)
    validated = _with_texts(raw, validate.validate_bars(selected, limits))
    _check(raw, validated, strict=strict)
    _check_quarantine(raw, validated, int(selected.close.size), max_quarantined)
    return validated


def _check(raw: _RawData, validated: validate.Validated, *, strict: bool) -> None:
    """Raise DataError if no row is left, or if there is any finding and `strict` is set."""
    findings = "; ".join(map(_in_words, (*raw.findings, *validated.findings)))
    if strict and findings:
        raise DataError(f"strict: {findings}")
    if not validated.bars.close.size:
        raise DataError(f"{raw.description}: no row is left; {findings}{_first_quarantined(raw, validated)}")


def _with_texts(raw: _RawData, validated: validate.Validated) -> validate.Validated:
    """Show the text of the first time that could not be read: there is no time to show."""
    reason = validate.TIME_NOT_KNOWN
    rows, reasons = validated.quarantined_rows, validated.reasons
    texts = quarantine_limit.first_texts(raw.tables, raw.columns, rows, reasons, reason) if reason in reasons else []
    if not texts:
        return validated
    findings = (
        dataclasses.replace(f, example=f"{f.example.removesuffix('?')}{texts[0]}") if f.kind == reason else f
        for f in validated.findings
    )
    return dataclasses.replace(validated, findings=tuple(findings))


def _check_quarantine(raw: _RawData, validated: validate.Validated, n_selected: int, allowed: float) -> None:
    """Raise DataError if more rows are quarantined than allowed. n_selected: rows of the requested sectors."""
    n_quarantined, n_rows = len(validated.reasons) + len(raw.malformed), n_selected + len(raw.malformed)
    if not quarantine_limit.is_exceeded(n_quarantined, n_rows, allowed):
        return
    reported = (*raw.findings, *validated.findings)  # two files of one symbol may be why its rows are in conflict
    shown = (finding for finding in reported if finding.action == "quarantined" or finding.kind == file_symbols.SAME)
    reasons = "; ".join(map(_in_words, shown)) + _first_quarantined(raw, validated)
    raise DataError(f"{raw.description}: {quarantine_limit.in_words(n_quarantined, n_rows, allowed, reasons)}")


def _first_quarantined(raw: _RawData, validated: validate.Validated) -> str:
    """The texts of the first rows with the most frequent reason, as the end of a sentence; "" without a row."""
    texts = quarantine_limit.first_texts(raw.tables, raw.columns, validated.quarantined_rows, validated.reasons)
    return f"; it reads {', '.join(texts)}" if texts else ""


def _in_words(finding: Finding) -> str:
    rows = "1 row" if finding.rows == 1 else f"{finding.rows:,} rows"
    return f"{rows} {finding.action}: {finding.kind}" + (f" (first {finding.example})" if finding.example else "")


def _report(
    raw: _RawData, validated: validate.Validated, panel: Panel, digest: str, *, rows_read: int, rows_selected: int
) -> DataReport:
    return DataReport(
        description=raw.description,
        kind=raw.kind,
        path=raw.path,
        reader=raw.reader,
        notes=raw.notes,
        rows_read=rows_read,
        rows_selected=rows_selected,
        rows_kept=panel.n_rows,
        symbols=panel.n_symbols,
        sectors={name: panel.sector.count(name) for name in panel.sectors if name != symbol_sectors.UNKNOWN},
        first_time=time_text(int(panel.time_ns.min())),
        last_time=time_text(int(panel.time_ns.max())),
        data_hash=digest,
        findings=(*raw.findings, *validated.findings),
        quarantine=_quarantine(raw, validated),
    )


def _open(source: Any, request: _Request) -> _RawData:
    word = source.strip().partition(":")[0].lower() if isinstance(source, str) else None
    if source is None or word in ("demo", "simulated"):
        if request.timeframe is not None or request.adjusted:
            raise DataError("timeframe and adjusted apply to files and frames, not to the demo or a simulated market")
        return _open_built_in(source, word, request.sector_map)
    if isinstance(source, (str, os.PathLike)):
        return _open_path(pathlib.Path(source).expanduser(), request)
    if on_cuda.is_frame(source) and (request.device.kind == "cpu" or request.adjusted or request.timeframe is not None):
        source = source.to_arrow()
    table = on_cuda.from_frame(source) if on_cuda.is_frame(source) else frames.from_frame(source)
    return _from_tables([table], "frame", f"a {table.origin}", "", request)


def _open_built_in(source: str | None, word: str | None, sector_map: Mapping[str, str]) -> _RawData:
    """The demo or a simulated market."""
    reason = ""
    if source is None:
        word, reason = ("demo", "no data were named: ") if demo.installed() else ("simulated", f"{demo.MISSING}: ")
    if word == "demo":
        table, findings = demo.read()
        bars = bars_module.from_tables([table], sector_map, None, adjusted=False)
        tables = [(table.origin, table.table)]
        description = reason + demo.DESCRIPTION
        return _RawData(bars, tables, description, "demo", "read by pyarrow", notes=demo.NOTES, findings=findings)
    options = simulate.options(source.partition(":")[2] if source else "")
    panel = simulate.simulate(**options)
    sectors = [sector_map.get(name) or sector for name, sector in zip(panel.symbols, panel.sector, strict=True)]
    bars = Bars(
        symbol=np.asarray(panel.symbol_of_row),
        names=panel.symbols,
        sectors=tuple(map(sector_names.distinct(sectors).__getitem__, sectors)),
        **{name: getattr(panel, name) for name in (*PRICES, "volume", "time_ns")},
    )
    return _RawData(bars, [], reason + simulate.describe(**options), "simulated", "made on the host")


def _open_path(path: pathlib.Path, request: _Request) -> _RawData:
    requested = None if request.sector_map else request.sectors  # a map may override the sectors of a store
    by_cudf = request.device.kind == "cuda" and not request.adjusted and request.timeframe is None
    with sources.require_unchanged(path):
        kind = "parquet"
        tables = on_cuda.read_path(path, requested) if by_cudf else []
        if not tables:
            kind, tables = sources.read_path(path, request.timeframe, requested)
    unit = "sector" if tables[0].reader == "cuDF" else "file"
    size = f", {counted(len(tables), unit)}" if path.is_dir() else ""
    return _from_tables(tables, kind, f"{path.name} ({sources.TITLES[kind]}{size})", str(path), request)


def _from_tables(tables: list[sources.RawTable], kind: str, description: str, path: str, request: _Request) -> _RawData:
    if on_cuda.is_frame(tables[0].table):
        bars = on_cuda.to_bars(tables, request.sector_map, request.device)
        reader = "read by cuDF, validated on the device"
    else:
        bars = bars_module.from_tables(tables, request.sector_map, request.timeframe, adjusted=request.adjusted)
        reader = "read by " + " and ".join(dict.fromkeys(table.reader for table in tables))
        if request.device.kind == "cuda":
            reader += f", validated on the host and copied to the device once ({on_cuda.host_reason()})"
    malformed = tuple((table.origin, text) for table in tables for text in table.malformed)
    findings = (*sources.findings(tables), *bars.findings)
    if malformed:
        findings += (Finding("is not a row", "quarantined", len(malformed), 0, printable(malformed[0][1])),)
    return _RawData(
        bars,
        [(table.origin, table.table) for table in tables],
        description,
        kind,
        reader,
        path,
        (*_notes(tables, kind, adjusted=request.adjusted), *bars.notes),
        findings,
        malformed,
        tuple(table.columns for table in tables),
    )


def _notes(tables: list[sources.RawTable], kind: str, *, adjusted: bool) -> tuple[str, ...]:
    notes = list(dict.fromkeys(note for table in tables for note in table.notes))
    if any("adj_close" in table.columns for table in tables):
        notes.append(
            "open, high, low and close were scaled by adj_close / close"
            if adjusted
            else "there is an adjusted close, and it was not used: prices are taken as they are (adjusted=True uses it)"
        )
    if any("symbol" not in table.columns for table in tables) and kind != "frame":
        notes.append("without a symbol column, a file's folder symbol= or its name is its symbol")
    return tuple(notes)


def _sector_map(source: Any) -> dict[str, str]:
    """Read `{symbol: sector}` from a mapping, a file or a frame; DataError for anything else."""
    if source is None:
        return {}
    if isinstance(source, Mapping):
        return symbol_sectors.of_mapping(source)
    required = ("symbol", "sector")
    if not isinstance(source, (str, os.PathLike)):
        return symbol_sectors.parse_sector_map(*frames.frame_columns(source, required, "sector map"), "sector map")
    path = pathlib.Path(source).expanduser()
    if not path.is_file():
        raise DataError(f"sector map {path}: no such file")
    if sources.file_kind(path) != "csv":
        raise DataError(f"sector map {path}: expected a CSV file with columns symbol and sector")
    table, matches, malformed = csv_file.read(path, required)
    if malformed:
        raise DataError(f"sector map {path}: a row has {malformed[0]}")
    return symbol_sectors.parse_sector_map(table, matches, str(path))


def _to_panel(bars: Bars) -> Panel:
    """Build the Panel of sorted bars on their device; symbols without a row are left out."""
    device = device_of(bars.close)
    edges = device.xp.searchsorted(bars.symbol, device.xp.arange(len(bars.names) + 1, dtype=bars.symbol.dtype))
    counts = np.diff(device.to_host(edges))
    kept = np.flatnonzero(counts)
    return Panel.of_bars(
        **{name: getattr(bars, name) for name in (*PRICES, "volume", "time_ns", "local_ns")},
        offsets=device.asarray(np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64)),
        symbols=tuple(bars.names[k] for k in kept),
        sector=tuple(bars.sectors[k] for k in kept),
    )


def _quarantine(raw: _RawData, validated: validate.Validated) -> Any:
    import pyarrow as pa

    table = quarantine_table(raw.tables, validated.quarantined_rows, validated.reasons)
    if not raw.malformed:
        return table
    malformed = pa.table(
        {
            "source": pa.array([origin for origin, _ in raw.malformed], pa.string()),
            "row": pa.nulls(len(raw.malformed), pa.int64()),
            "reason": pa.array([f"is not a row: {text}" for _, text in raw.malformed], pa.string()),
        }
    )
    return pa.concat_tables([table, malformed], promote_options="default")
