"""What came in and what became of it: DataReport, the data hash, and the two files that keep them."""

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

from gpupipe.data.panel import COLUMNS, Panel
from gpupipe.store.content_store import write_atomic

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Finding:
    """One kind of thing that validation met.

    kind: what it is.  action: what was done: quarantined, merged, sorted, repaired, adjusted or flagged.
    rows, symbols: how many of each.  example: the first, as "SYMBOL TIME".
    """

    kind: str
    action: str
    rows: int
    symbols: int
    example: str


@dataclass(frozen=True)
class DataReport:
    """What was read, and the verdict on it.

    description: a sentence that says which data these are.  path: the file or folder, "" for anything else.
    kind: parquet, csv, arrow, sqlite, frame, demo or simulated.  reader: a sentence on what read them and where to.
    notes: further sentences (columns not used, prices adjusted).  rows_read: all rows found in the timeframe;
    rows_selected: those of the sectors asked for; rows_kept: those in the panel.  sectors: symbols in each.
    first_time, last_time: ISO 8601, UTC.  data_hash: SHA-256 of the panel (`data_hash`).
    quarantine: the rows that were set aside, see `quarantine_table`; not part of the JSON.
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
        """Whether validation found nothing at all."""
        return not self.findings

    def to_json(self) -> str:
        """The report without the quarantined rows, as JSON with sorted keys; the same data give the same bytes."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "quarantine"}
        fields["findings"] = [dataclasses.asdict(finding) for finding in self.findings]
        fields["rows_quarantined"] = self.quarantine.num_rows
        return json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def data_hash(panel: Panel) -> str:
    """SHA-256 of the panel's values: little-endian columns, offsets, symbols and sectors; -0.0 and NaN have one form.

    A panel is sorted, so the order of the input does not matter. A panel on a GPU is copied to the host for it,
    which its ledger counts.
    """
    digest = hashlib.sha256(b"gpupipe panel 1\n")
    digest.update(json.dumps([panel.symbols, panel.sector]).encode())
    for name in (*COLUMNS, "time_ns", "offsets"):
        values = panel.device.to_host(getattr(panel, name))
        digest.update(f"\n{name} {values.dtype} {values.shape[0]}\n".encode())
        digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).view(np.uint8).data)
    return digest.hexdigest()


def time_text(time_ns: int) -> str:
    """A time as ISO 8601: the date alone at midnight UTC, else to the second (or nanosecond) with a Z."""
    moment = np.datetime64(int(time_ns), "ns")
    if time_ns % 86_400_000_000_000 == 0:
        return str(moment.astype("datetime64[D]"))
    return str(moment if time_ns % 10**9 else moment.astype("datetime64[s]")) + "Z"


HEADER = ("finding", "what was done", "rows", "symbols", "example")


def table_rows(report: DataReport) -> list[tuple[str, str, str, str, str]]:
    """The findings as texts under HEADER, for display; one row that says so when there are none."""
    if report.clean:
        return [("nothing to report", "", f"{0:,}", f"{0:,}", "")]
    return [(f.kind, f.action, f"{f.rows:,}", f"{f.symbols:,}", f.example) for f in report.findings]


def counted(n: int, word: str) -> str:
    """A number of things in words: "1 sector", "11 sectors"."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def summary(report: DataReport) -> str:
    """One line: how much was kept, of what, from when to when."""
    return (
        f"{report.rows_kept:,} of {counted(report.rows_read, 'row')}, {counted(report.symbols, 'symbol')}, "
        f"{counted(len(report.sectors), 'sector')}, {report.first_time} to {report.last_time}"
    )


def counted_over(report: DataReport) -> str:
    """Which rows the findings and notes are of, where only some sectors were asked for; else empty."""
    if report.rows_selected == report.rows_read:
        return ""
    return (
        f"what was adjusted, noted or not readable is of all {report.rows_read:,} rows read; all else is of the "
        f"{report.rows_selected:,} rows of the sectors asked for"
    )


def save(report: DataReport, folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Write `data_report.json` and, if rows were set aside, `quarantine.parquet`; return what was written.

    Each file is written under a temporary name, synced and renamed. A quarantine.parquet of an earlier run is
    removed when there is none now.
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
    """The rows that were set aside: source, row, reason, then the columns as text, as they were read.

    tables: `(origin, table)` in the order of reading, of pyarrow or cuDF.  rows: int64, numbers among all rows read,
    -1 for a row that could not be split into fields.  `row` counts from 0 within its source, among the rows that could
    be read.
    """
    import pyarrow as pa

    from gpupipe.data.columns import as_text

    parts, start = [], 0
    row_of = {int(row): reason for row, reason in zip(rows, reasons, strict=True)}
    ordered = np.sort(rows)
    for origin, table in tables:
        mine = ordered[(ordered >= start) & (ordered < start + len(table))]
        if mine.size:
            own = table.take(mine - start)  # few, so that those of a GPU may come to the host
            taken = as_text(own if isinstance(own, pa.Table) else own.to_arrow(preserve_index=False))
            parts.append(
                pa.table(
                    {
                        "source": pa.array([origin] * mine.size, pa.string()),
                        "row": pa.array(mine - start, pa.int64()),
                        "reason": pa.array([row_of[int(row)] for row in mine], pa.string()),
                    }
                    | {name: taken[name] for name in taken.column_names if name not in ("source", "row", "reason")}
                )
            )
        start += len(table)
    empty = pa.schema([("source", pa.string()), ("row", pa.int64()), ("reason", pa.string())]).empty_table()
    return pa.concat_tables([empty, *parts], promote_options="default")
