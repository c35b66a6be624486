"""Ingesting: `python -m bench.job.ingest [--data FILE --sector-map FILE] [--nights 20] [--calendar XNYS]`.

FILE is a file of bars; without one a simulated market of 500 symbols and daily bars is taken. 10 M minute bars:
`--data simulated:symbols=500,bars=20000,bar=1min --nights 5 --calendar none`. Measured, once each: ingesting all bars
into a new store, and the same in a new process, for its peak memory over that of its imports; all but the last
nights; then night after night, each with five days that overlap (one night in 16 writes its sectors whole); the last
night again; a 2:1 split of one symbol. At the end the store must hold the data, bar for bar, and it is read by the
job's reader in turn with the file. Parquet encoding on the cores binds, not the disk. The last lines are JSON, one for
each measurement.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import runs
from bench.timing import alternate, timed
from gpupipe.data import data_hash, load
from gpupipe.data.ingest import IngestReport, ingest
from gpupipe.data.panel import PRICES, Panel

OVERLAP_DAYS, DAY_NS = 5, 86_400_000_000_000
# Not getrusage: what the parent had at most would be counted.
ALONE = """
import pathlib, re, sys
from gpupipe.data.ingest import ingest
import gpupipe.data, pyarrow.parquet
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
before = peak()
ingest(sys.argv[1], sys.argv[2], calendar=sys.argv[3] or None)
print(before, peak())
"""


def main() -> int:
    parser = runs.options(__doc__, data="simulated:symbols=500,bars=1250", times=9)
    parser.add_argument("--nights", type=int, default=20)
    parser.add_argument("--calendar", help="as for gpupipe ingest")
    chosen = parser.parse_args()
    panel, _ = runs.read(chosen)
    with tempfile.TemporaryDirectory() as folder:
        lines = measured(panel, pathlib.Path(folder), chosen)
        return runs.report("ingest", lines, rows=panel.n_rows, symbols=panel.n_symbols)


def measured(panel: Panel, folder: pathlib.Path, chosen: argparse.Namespace) -> Iterator[runs.Line]:
    table, day_of = panel.to_arrow(), panel.time_ns // DAY_NS
    days = np.unique(day_of)
    if len(days) < chosen.nights + 2 * OVERLAP_DAYS:
        raise SystemExit(f"--nights {chosen.nights}: the data have {len(days)} days")

    def between(first: int, last: int) -> pathlib.Path:
        """Rows of days first <= d < last, in a file."""
        path = folder / "arriving.parquet"
        kept = (day_of >= days[first]) & (day_of <= days[last - 1])
        pq.write_table(table.filter(pa.array(kept)), path)
        return path

    def arrive(source: pathlib.Path, store: str) -> tuple[float, IngestReport]:
        return timed(lambda: ingest(source, folder / store, calendar=chosen.calendar))

    whole, n_days = between(0, len(days)).rename(folder / "whole.parquet"), len(days)
    seconds, report = arrive(whole, "once")
    yield line("the whole into a new store", seconds, report) | {
        "rows_per_s": panel.n_rows / seconds, "bytes_per_row": report.bytes_written / report.rows,
        "largest_file": max(path.stat().st_size for path in (folder / "once").glob("sector=*/*.parquet")),
        "source_bytes": whole.stat().st_size,
    }  # fmt: skip
    yield alone(whole, folder / "alone", chosen.calendar, panel.n_rows)
    arrive(between(0, n_days - chosen.nights), "store")
    nights = []
    for day in range(n_days - chosen.nights, n_days):
        source = between(day - OVERLAP_DAYS, day + 1)
        nights.append(arrive(source, "store"))
        if nights[-1][1].changes:
            raise SystemExit(f"night {day}: {nights[-1][1].changes}")
    each = sorted(seconds for seconds, _ in nights)
    plain, *_, compacting = sorted((report for _, report in nights), key=lambda report: report.bytes_written)
    yield line("a night", statistics.median(each), plain) | {
        "times": len(each), "longest_seconds": each[-1], "most_bytes_written": compacting.bytes_written,
    }  # fmt: skip
    yield line("the last night again", *arrive(source, "store"))
    if data_hash(load(folder / "store", None, "all", "cpu")[0]) != data_hash(panel):
        raise SystemExit("the store is not the data")
    files = len(list((folder / "store").glob("sector=*/*.parquet")))
    readings = {name: folder / name for name in ("whole.parquet", "once", "store")}
    sides = {name: (lambda path=path: load(path, None, "all", "cpu")) for name, path in readings.items()}
    for side in sides.values():
        side()
    seconds_of, times = alternate(chosen.times, sides)
    yield {
        "what": "the store read as a Panel", "seconds": seconds_of["store"], "files": files,
        "of_one_file_a_sector_seconds": seconds_of["once"], "of_the_one_file_seconds": seconds_of["whole.parquet"],
        "times": times,
    }  # fmt: skip
    yield line("a 2:1 split of one symbol, with five days that overlap", *arrive(halved(between(
        n_days - OVERLAP_DAYS, n_days), panel.symbols[0]), "store"))  # fmt: skip


def alone(source: pathlib.Path, store: pathlib.Path, calendar: str | None, n_rows: int) -> runs.Line:
    """The whole into a new store, then the same again (stored and arriving bars at once), each in a new process."""
    result: runs.Line = {"what": "memory of another process"}
    for name in ("new", "again"):
        command = [sys.executable, "-c", ALONE, str(source), str(store), calendar or ""]
        imported, peak = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        result |= {f"{name}_peak_bytes": peak, f"{name}_bytes_per_row": (peak - imported) / n_rows}
    return result


def line(what: str, seconds: float, report: IngestReport) -> runs.Line:
    return {
        "what": what, "seconds": seconds, "new_bars": report.new_bars, "changes": len(report.changes),
        "files_written": report.files_written, "bytes_written": report.bytes_written,
    }  # fmt: skip


def halved(path: pathlib.Path, symbol: str) -> pathlib.Path:
    """The file again, with half the prices of one symbol."""
    table = pq.read_table(path)
    factor = np.where(np.array(table["symbol"].to_pylist()) == symbol, np.float32(0.5), np.float32(1))
    for name in PRICES:
        table = table.set_column(table.column_names.index(name), name, pa.array(table[name].to_numpy() * factor))
    pq.write_table(table, path)
    return path


if __name__ == "__main__":
    sys.exit(main())
