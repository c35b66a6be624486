"""`read` and `load`: from whatever was named to a validated Panel and the report on it."""

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

from gpupipe.data import bars as bars_of
from gpupipe.data import csv_file, demo, on_cuda, simulate, sources, validate
from gpupipe.data import sectors as sector_names
from gpupipe.data.bars import Bars
from gpupipe.data.errors import DataError, printable
from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport, Finding, counted, data_hash, quarantine_table, time_text
from gpupipe.runtime.device import Device, device_of, pick
from gpupipe.runtime.run_log import event

log = logging.getLogger("gpupipe")


@dataclass(frozen=True)
class _Opened:
    """What was read, before it is judged."""

    bars: Bars
    tables: list[tuple[str, Any]]  # as read, for the quarantine
    description: str
    kind: str
    reader: str
    path: str = ""
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()  # made while reading
    malformed: tuple[tuple[str, str], ...] = ()  # (origin, what was wrong)


def read(
    source: Any = None,
    sector_map: Any = None,
    sectors: str | Iterable[str] = "all",
    device: str | Device = "auto",
    *,
    strict: bool = False,
    timeframe: str | None = None,
    adjusted: bool = False,
    report: Callable[[DataReport], object] | None = None,
) -> Panel:
    """Read and validate bars; see `load`. `report`, if given, is called with the DataReport."""
    panel, found = load(source, sector_map, sectors, device, strict=strict, timeframe=timeframe, adjusted=adjusted)
    if report is not None:
        report(found)
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
    unknown_sector: str = "",
) -> tuple[Panel, DataReport]:
    """Read bars, judge every row (`validate.judge`) and return the Panel and the report; nothing is written.

    source: a path (Parquet, CSV or CSV.gz, Arrow or Feather, SQLite with a table `candles`, or a folder of one of
        these, hive folders `sector=` and `symbol=` included; a file without a symbol column is named after its
        symbol); a pandas, polars, pyarrow or cuDF frame; "demo"; "simulated", with options as
        "simulated:symbols=500,bars=1000,seed=1,signal=0.5,bar=1min"; or None, which is the demo if its package is
        installed and else a simulated market (the report's description and the log say which).
    sector_map: {symbol: sector}, or a file or frame with these two columns; goes before a sector column.
        Every symbol needs a sector; unknown_sector, if given, is that of those without.
    sectors: "all", or names; what is not asked for is not judged.
    device: "auto", "cpu", "cuda" or a Device.  timeframe: which bars, where the data hold several.
    strict: whatever validation finds is an error.
    adjusted: scale open, high, low and close by adj_close / close. Without it prices are taken as they are, and a
        note says when an adjusted close was left unused.

    On CUDA a Parquet file or cuDF frame with plainly typed columns is read by cuDF and judged on the device; the
    data hash then copies the panel to the host once. Everything else is read and judged on the host and copied to
    the device once. `DataReport.reader` says which; the device's ledger counts the bytes.

    Raises DataError (a ValueError) for what the user must mend, DeviceError for a device that cannot be had.
    """
    started = time.perf_counter()
    wanted = sector_names.asked_for(sectors)
    target = device if isinstance(device, Device) else pick(device)
    mapping = _sector_map(sector_map)
    with target.stage("read"):
        opened = _open(source, mapping, wanted, timeframe, target, adjusted=adjusted)
        if unknown_sector:
            named = tuple(name or unknown_sector for name in opened.bars.sector_of)
            opened = dataclasses.replace(opened, bars=dataclasses.replace(opened.bars, sector_of=named))
        rows_read = int(opened.bars.close.size)
        if not rows_read and not opened.malformed:
            raise DataError(f"{opened.description}: the data hold no rows")
        selected = bars_of.of_sectors(opened.bars, wanted)
        verdict = validate.judge(selected)
        findings = (*opened.findings, *verdict.findings)
        if strict and findings:
            raise DataError("strict: " + "; ".join(_in_words(f) for f in findings))
        if not verdict.bars.close.size:
            raise DataError(f"{opened.description}: no row is left; " + "; ".join(_in_words(f) for f in findings))
        panel = _panel(verdict.bars)
        digest = data_hash(panel)
        panel = panel.to(target)
    report = DataReport(
        description=opened.description,
        kind=opened.kind,
        path=opened.path,
        reader=opened.reader,
        notes=opened.notes,
        rows_read=rows_read,
        rows_selected=int(selected.close.size),
        rows_kept=panel.n_rows,
        symbols=panel.n_symbols,
        sectors={name: panel.sector.count(name) for name in panel.sectors},
        first_time=time_text(int(panel.time_ns.min())),
        last_time=time_text(int(panel.time_ns.max())),
        data_hash=digest,
        findings=findings,
        quarantine=_quarantine(opened, verdict),
    )
    log.info("%s; %s", report.description, report.reader)
    elapsed_s = time.perf_counter() - started
    event("read", stage="read", seconds=elapsed_s, rows=rows_read, reader=report.reader, device=target.kind)
    return panel, report


def _in_words(finding: Finding) -> str:
    rows = "1 row" if finding.rows == 1 else f"{finding.rows:,} rows"
    return f"{rows} {finding.action}: {finding.kind}" + (f" (first {finding.example})" if finding.example else "")


def _open(
    source: Any, mapping: Mapping[str, str], wanted: Sequence[str] | None, timeframe: str | None, device: Device, *,
    adjusted: bool,
) -> _Opened:  # fmt: skip
    word = source.strip().partition(":")[0].lower() if isinstance(source, str) else None
    if source is None or word in ("demo", "simulated"):
        if timeframe is not None or adjusted:
            raise DataError("timeframe and adjusted are for data that are read, not for the demo or a simulated market")
        return _open_word(source, word, mapping)
    if isinstance(source, (str, os.PathLike)):
        path = pathlib.Path(source).expanduser()
        return _open_path(path, mapping, wanted, timeframe, device, adjusted=adjusted)
    if on_cuda.is_frame(source) and (device.kind == "cpu" or adjusted or timeframe is not None):
        source = source.to_arrow()
    if on_cuda.is_frame(source):
        part = on_cuda.of_frame(source)
    else:
        part = sources.of_frame(source)
    return _of_parts([part], "frame", f"a {part.origin}", "", mapping, timeframe, device, adjusted=adjusted)


def _open_word(source: str | None, word: str | None, mapping: Mapping[str, str]) -> _Opened:
    why = ""
    if source is None:
        word, why = ("demo", "no data were named: ") if demo.installed() else ("simulated", f"{demo.MISSING}: ")
    if word == "demo":
        part, findings = demo.part()
        found = bars_of.of_parts([part], mapping, None, adjusted=False)
        return _Opened(
            found,
            [(part.origin, part.table)],
            why + demo.DESCRIPTION,
            "demo",
            "read by pyarrow",
            notes=demo.NOTES,
            findings=findings,
        )
    options = simulate.options(source.partition(":")[2] if source else "")
    panel = simulate.simulate(**options)
    rows = np.asarray(panel.symbol_of_row)
    columns_ = {name: getattr(panel, name) for name in (*bars_of.PRICES, "volume", "time_ns")}
    sector_of = tuple(mapping.get(name) or own for name, own in zip(panel.symbols, panel.sector, strict=True))
    found = Bars(symbol=rows, names=panel.symbols, sector_of=tuple(map(sector_names.canonical, sector_of)), **columns_)
    return _Opened(found, [], why + simulate.describe(**options), "simulated", "made on the host")


def _open_path(
    path: pathlib.Path, mapping: Mapping[str, str], wanted: Sequence[str] | None, timeframe: str | None,
    device: Device, *, adjusted: bool,
) -> _Opened:  # fmt: skip
    wanted = None if mapping else wanted  # a map may give a symbol another sector than the store does
    with sources.unchanging(path):
        kind = "parquet"
        parts = on_cuda.of_path(path, wanted) if device.kind == "cuda" and not adjusted and timeframe is None else []
        if not parts:
            kind, parts = sources.of_path(path, timeframe, wanted)
    n_parts = f", {counted(len(parts), 'sector' if parts[0].reader == 'cuDF' else 'file')}" if path.is_dir() else ""
    title = f"{path.name} ({sources.TITLES[kind]}{n_parts})"
    return _of_parts(parts, kind, title, str(path), mapping, timeframe, device, adjusted=adjusted)


def _of_parts(
    parts: list[sources.Part],
    kind: str,
    description: str,
    path: str,
    mapping: Mapping[str, str],
    timeframe: str | None,
    device: Device,
    *,
    adjusted: bool,
) -> _Opened:
    on_device = on_cuda.is_frame(parts[0].table)
    if on_device:
        found = on_cuda.bars(parts, mapping, device)
        reader = "read by cuDF, judged on the device"
    else:
        found = bars_of.of_parts(parts, mapping, timeframe, adjusted=adjusted)
        reader = "read by " + " and ".join(dict.fromkeys(part.reader for part in parts))
        if device.kind == "cuda":
            reader += f", judged on the host and copied to the device once ({on_cuda.why_host()})"
    malformed = tuple((part.origin, text) for part in parts for text in part.malformed)
    findings: tuple[Finding, ...] = ()
    if malformed:
        findings = (Finding("is not a row", "quarantined", len(malformed), 0, printable(malformed[0][1])),)
    notes = []
    if any("adj_close" in part.found for part in parts):
        notes.append(
            "open, high, low and close were scaled by adj_close / close"
            if adjusted
            else "an adjusted close is there and was not used: prices are taken as they are (adjusted=True uses it)"
        )
    if any("symbol" not in part.found for part in parts) and kind != "frame":
        notes.append("without a symbol column, a file's folder symbol= or its name is its symbol")
    return _Opened(
        found,
        [(part.origin, part.table) for part in parts],
        description,
        kind,
        reader,
        path,
        tuple(notes),
        findings,
        malformed,
    )


def _sector_map(source: Any) -> dict[str, str]:
    """`{symbol: sector}` of a mapping, a file or a frame; DataError if it is none of these."""
    if source is None:
        return {}
    if isinstance(source, Mapping):
        return {str(symbol): str(sector) for symbol, sector in source.items()}
    required = ("symbol", "sector")
    if not isinstance(source, (str, os.PathLike)):
        return bars_of.read_sector_map(*sources.table_of_frame(source, required, "sector map"), "sector map")
    path = pathlib.Path(source).expanduser()
    if not path.is_file():
        raise DataError(f"sector map {path}: no such file")
    if sources.kind_of(path) != "csv":
        raise DataError(f"sector map {path}: expected a CSV file with columns symbol and sector")
    table, found, malformed = csv_file.read(path, required)
    if malformed:
        raise DataError(f"sector map {path}: a row has {malformed[0]}")
    return bars_of.read_sector_map(table, found, str(path))


def _panel(bars: Bars) -> Panel:
    """A Panel of sorted bars, on the device they are on; symbols without a row are left out."""
    own = device_of(bars.close)
    edges = own.xp.searchsorted(bars.symbol, own.xp.arange(len(bars.names) + 1, dtype=bars.symbol.dtype))
    counts = np.diff(own.to_host(edges))
    kept = np.flatnonzero(counts)
    return Panel.of_bars(
        **{name: getattr(bars, name) for name in (*bars_of.PRICES, "volume", "time_ns")},
        offsets=own.asarray(np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64)),
        symbols=tuple(bars.names[k] for k in kept),
        sector=tuple(bars.sector_of[k] for k in kept),
    )


def _quarantine(opened: _Opened, verdict: validate.Verdict) -> Any:
    import pyarrow as pa

    table = quarantine_table(opened.tables, verdict.rows, verdict.reasons)
    if not opened.malformed:
        return table
    broken = pa.table(
        {
            "source": pa.array([origin for origin, _ in opened.malformed], pa.string()),
            "row": pa.nulls(len(opened.malformed), pa.int64()),
            "reason": pa.array([f"is not a row: {text}" for _, text in opened.malformed], pa.string()),
        }
    )
    return pa.concat_tables([table, broken], promote_options="default")
