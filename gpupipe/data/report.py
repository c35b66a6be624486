"""DataReport: the outcome of reading and validation; the data hash, and the two files that store them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.store.content_store import write_atomic

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Finding:
    """One kind of problem in the rows, and the action taken.

    kind: the problem.  action: quarantined, merged, sorted, repaired, adjusted, flagged, skipped or left out.
    rows, symbols: number of rows and symbols affected.  example: the first affected row, as "SYMBOL TIME", or a file.

    >>> Finding("high is below open or close", "quarantined", rows=2, symbols=1, example="A 2020-01-02").rows
    2
    """

    kind: str
    action: str
    rows: int
    symbols: int
    example: str


@dataclass(frozen=True)
class DataReport:
    """The source, the row counts and the findings of one read.

    description: a sentence that names the data.  path: the file or folder; "" for any other source.
    kind: parquet, csv, arrow, sqlite, frame, demo or simulated; bonds or treasuries of the workload bonds.
    reader: a sentence that names the library and device.
    notes: further sentences (columns not used, prices adjusted).  rows_read: all rows of the timeframe;
    rows_selected: rows of the requested sectors; rows_kept: rows of the panel.  sectors: number of symbols in each;
    empty without any.  first_time, last_time: ISO 8601, UTC.  data_hash: SHA-256 of the panel (`data_hash`).
    quarantine: the rejected rows, see `quarantine_table`; not part of the JSON.

    >>> from gpupipe.data import load
    >>> report = load("simulated:symbols=2,bars=3", device="cpu")[1]
    >>> report.rows_read, report.rows_kept, report.sectors
    (6, 6, {'communication_services': 1, 'consumer_discretionary': 1})
    """

    description: str
    kind: str
    path: str
    reader: str
    notes: tuple[str, ...]
    rows_read: int
    rows_selected: int
    rows_kept: int
    symbols: int
    sectors: dict[str, int]
    first_time: str
    last_time: str
    data_hash: str
    findings: tuple[Finding, ...]
    quarantine: Any = field(repr=False, compare=False)

    @property
    def clean(self) -> bool:
        """Whether there are no findings."""
        return not self.findings

    def to_json(self) -> str:
        """The report without the quarantined rows, as JSON with sorted keys; equal data give equal bytes."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "quarantine"}
        fields["findings"] = [dataclasses.asdict(finding) for finding in self.findings]
        fields["rows_quarantined"] = self.quarantine.num_rows
        return json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def data_hash(panel: Panel) -> str:
    """Return the SHA-256 of a panel: little-endian columns, offsets, symbols and attributes.

    A panel is sorted, so the order of the input does not matter. Validation gives zero and NaN volumes one bit pattern
    each, so their spelling in the input does not matter either. A panel on a GPU is copied to the host, and the
    device's ledger counts the bytes.
    """
    digest = hashlib.sha256(b"gpupipe panel 1\n")
    digest.update(json.dumps([panel.symbols, *panel.attributes.values()]).encode())
    clock = {} if panel.local_ns is None else {"local_ns": panel.local_ns}
    for name, array in {**panel.columns, "time_ns": panel.time_ns, **clock, "offsets": panel.offsets}.items():
        values = panel.device.to_host(array)
        digest.update(f"\n{name} {values.dtype} {values.shape[0]}\n".encode())
        digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).view(np.uint8).data)
    return digest.hexdigest()


def time_text(time_ns: int) -> str:
    """Format a time, UTC nanoseconds since 1970, as ISO 8601; at midnight the date only.

    >>> time_text(0), time_text(90 * 60 * 10**9)
    ('1970-01-01', '1970-01-01T01:30:00Z')
    """
    moment = np.datetime64(int(time_ns), "ns")
    if time_ns % 86_400_000_000_000 == 0:
        return str(moment.astype("datetime64[D]"))
    return str(moment if time_ns % 10**9 else moment.astype("datetime64[s]")) + "Z"


HEADER = ("finding", "what was done", "rows", "symbols", "example")


def table_rows(report: DataReport) -> list[tuple[str, str, str, str, str]]:
    """Format the findings as texts under HEADER; without findings, one row "nothing to report"."""
    if report.clean:
        return [("nothing to report", "", f"{0:,}", f"{0:,}", "")]
    return [(f.kind, f.action, f"{f.rows:,}", f"{f.symbols:,}", f.example) for f in report.findings]


def counted(n: int, word: str) -> str:
    """Format a count with its noun: "1 sector", "11 sectors"."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def summary(report: DataReport) -> str:
    """Summarise a report in one line: rows, symbols, sectors (where they are known), first and last time."""
    sectors = f"{counted(len(report.sectors), 'sector')}, " if report.sectors else ""
    return (
        f"{report.rows_kept:,} of {counted(report.rows_read, 'row')}, {counted(report.symbols, 'symbol')}, "
        f"{sectors}{report.first_time} to {report.last_time}"
    )


def counted_over(report: DataReport) -> str:
    """Say which rows the findings and notes count; empty if the rows of all symbols are read."""
    if report.rows_selected == report.rows_read:
        return ""
    return (
        f"adjusted and unreadable rows, and the notes, refer to all {report.rows_read:,} rows read; other findings to "
        f"the {report.rows_selected:,} rows of the sectors read"
    )


def save(report: DataReport, folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Write `data_report.json` and, if rows were quarantined, `quarantine.parquet`; return the paths written.

    Each file is written under a temporary name, synced and renamed. Without quarantined rows, the quarantine.parquet
    of an earlier run is removed.
    """
    import pyarrow.parquet as pq

    target = pathlib.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    quarantine = target / "quarantine.parquet"
    if report.quarantine.num_rows:
        buffer = io.BytesIO()
        pq.write_table(report.quarantine, buffer, compression="zstd")
        write_atomic(quarantine, buffer.getvalue())
        written.append(quarantine)
    else:
        quarantine.unlink(missing_ok=True)
    write_atomic(target / "data_report.json", report.to_json().encode())
    return [*written, target / "data_report.json"]


def quarantine_table(tables: list[tuple[str, Any]], rows: np.ndarray, reasons: list[str]) -> pyarrow.Table:
    """Build the table of quarantined rows: source, row, reason, then the columns as text, as they were read.

    tables: `(origin, table)` in the order of reading, of pyarrow or cuDF.  rows: int64 (n,), row numbers among all
    rows read.  reasons: one for each.  The column `row` counts from 0 within its source and skips malformed rows.
    """
    import pyarrow as pa

    from gpupipe.data.columns import as_text, without_views

    pieces, start = [], 0
    reason_of_row = {int(row): reason for row, reason in zip(rows, reasons, strict=True)}
    ordered = np.sort(rows)
    for origin, table in tables:
        chosen = ordered[(ordered >= start) & (ordered < start + len(table))]
        if chosen.size:
            table = without_views(table) if isinstance(table, pa.Table) else table
            taken = table.take(chosen - start)  # few rows, so a copy from a GPU to the host is cheap
            texts = as_text(taken if isinstance(taken, pa.Table) else taken.to_arrow(preserve_index=False))
            heading = {
                "source": pa.array([origin] * chosen.size, pa.string()),
                "row": pa.array(chosen - start, pa.int64()),
                "reason": pa.array([reason_of_row[int(row)] for row in chosen], pa.string()),
            }
            pieces.append(pa.table(heading | {name: texts[name] for name in texts.column_names if name not in heading}))
        start += len(table)
    empty = pa.schema([("source", pa.string()), ("row", pa.int64()), ("reason", pa.string())]).empty_table()
    return pa.concat_tables([empty, *pieces], promote_options="default")
