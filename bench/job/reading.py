"""Reading against other libraries: `python -m bench.job.reading [--data FILE --sector-map FILE] [--times 15]`.

FILE is a Parquet file of bars; without one a simulated market of 500 symbols is written and read. Its bars also go
into an SQLite table `candles`. Every comparison first checks that both sides have the same values, then times both in
this process, alternately, from a warm page cache; reported are medians. Decoding on the cores binds. A peer that is not
installed is reported as skipped. The last lines are JSON, one for each comparison.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bench import runs
from bench.timing import alternate
from gpupipe.data import bars, data_hash, load, simulate, sources, sqlite_file, validate
from gpupipe.data.panel import BARS, Panel

NS_OF_DAY = 86_400 * 10**9
WHOLE = "Parquet to Panel, judged and hashed"


def main() -> int:
    parser = runs.options(__doc__, data=None, times=15)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(chosen.data or pathlib.Path(folder, "bars.parquet"))
        if chosen.data is None:
            pq.write_table(simulate(500, 1250).to_arrow(), path, compression="zstd")
        panel, report = load(path, chosen.sector_map, device="cpu")

        def lines() -> Iterator[runs.Line]:
            yield from parquet(path, chosen.sector_map, panel, report.data_hash, chosen.times)
            yield from sqlite(pathlib.Path(folder, "candles.db"), panel, max(3, chosen.times // 3))

        return runs.report("reading", lines(), rows=panel.n_rows, symbols=panel.n_symbols)


def parquet(path: pathlib.Path, sector_map: Any, panel: Panel, digest: str, times: int) -> Iterator[runs.Line]:
    """A Parquet file: its columns, a whole Panel, and where the time goes between the two."""
    (table,) = sources.read_path(path, None)[1]
    mapping = dict(zip(panel.symbols, panel.sector, strict=True))
    rows = bars.from_tables([table], mapping, None, adjusted=False)
    sides = {
        "decode": lambda: sources.read_path(path, None),
        "whole": lambda: load(path, sector_map, device="cpu"),
        "arrays": lambda: bars.from_tables([table], mapping, None, adjusted=False),
        "judge": lambda: validate.validate_bars(rows),
        "hash": lambda: data_hash(panel),
    }
    peers: list[Compared] = []
    with runs.skipping():
        polars, name = runs.library("polars", "polars")
        sides |= polars_sides(polars, path, table, mapping, digest)
        peers = [
            ("Parquet decoded, nothing judged", "decode", "polars", f"{name} read_parquet of the needed columns"),
            (WHOLE, "whole", "polars", f"{name} read_parquet of the needed columns"),
            (WHOLE, "whole", "polars, the same work", f"{name}, prices checked, hashed by our data_hash"),
        ]
    lines, seconds = in_turn(times, panel.n_rows, sides, peers)
    yield from lines
    yield {
        "what": WHOLE, "seconds": seconds["whole"], "rows_per_s": panel.n_rows / seconds["whole"],
        **{f"{name}_seconds": seconds[name] for name in ("decode", "arrays", "judge", "hash")},
    }  # fmt: skip


def polars_sides(
    pl: Any, path: pathlib.Path, raw: sources.RawTable, mapping: dict[str, str], digest: str
) -> dict[str, Any]:
    """What polars is timed for, after the check that it reads the same values."""
    names = list(raw.columns.values())
    texts = pl.col(pl.Categorical).cast(pl.String)
    frame = pl.read_parquet(path, columns=names).with_columns(texts)
    if not frame.equals(pl.from_arrow(raw.table).with_columns(texts)):
        raise SystemExit("polars reads other values")
    sides = {"polars": lambda: pl.read_parquet(path, columns=names)}
    if not _sorted_days(frame, raw.columns):
        print("polars, the same work: skipped, it is written for sorted daily bars without a finding")
        return sides
    if data_hash(polars_panel(path, raw.columns, mapping)) != digest:
        raise SystemExit("the Panel that polars makes is another one")
    return sides | {"polars, the same work": lambda: data_hash(polars_panel(path, raw.columns, mapping))}


def _sorted_days(frame: Any, name_of: dict[str, str]) -> bool:
    import polars as pl

    if "symbol" not in name_of or frame.schema[name_of["time"]] != pl.Date:
        return False
    if frame.null_count().sum_horizontal().item():
        return False
    keys = frame.select(name_of["symbol"], name_of["time"])
    return keys.equals(keys.sort(keys.columns))


def polars_panel(path: pathlib.Path, name_of: dict[str, str], sector_of: dict[str, str]) -> Panel:
    """The Panel of sorted daily bars, by polars: its values, and the first of our checks alone."""
    import polars as pl

    column = {meaning: pl.col(name) for meaning, name in name_of.items()}
    frame = pl.read_parquet(path, columns=list(name_of.values())).select(
        column["symbol"],
        column["time"].cast(pl.Int64).alias("time_ns") * NS_OF_DAY,
        *(column[name].cast(pl.Float32).alias(name) for name in BARS),
    )
    bottom, top = pl.min_horizontal("open", "close"), pl.max_horizontal("open", "close")
    low, high, volume = pl.col("low"), pl.col("high"), pl.col("volume")
    if not frame.select(((low > 0) & (low <= bottom) & (high >= top) & high.is_finite() & (volume > 0)).all()).item():
        raise SystemExit("a bar is not fine")
    code = frame[name_of["symbol"]].rle_id()
    symbols = tuple(frame[name_of["symbol"]].cast(pl.String).gather(code.is_first_distinct().arg_true()))
    edges = np.searchsorted(code.to_numpy(), np.arange(len(symbols) + 1))
    return Panel.of_bars(
        **{name: frame[name].to_numpy() for name in (*BARS, "time_ns")}, offsets=edges, symbols=symbols,
        sector=tuple(sector_of[name] for name in symbols),
    )  # fmt: skip


def sqlite(path: pathlib.Path, panel: Panel, times: int) -> Iterator[runs.Line]:
    """A table `candles` of SQLite: as columns, and a whole Panel."""
    with runs.skipping():
        pd, name = runs.library("pandas", "pandas")
        names = ("symbol", "timestamp", "timeframe", *BARS)
        written(path, panel, pd)
        mapping = dict(zip(panel.symbols, panel.sector, strict=True))

        def read_sql() -> Any:
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                return pd.read_sql(f"SELECT {', '.join(names)} FROM candles", connection)

        table, _, reader = sqlite_file.read(path, None)
        frame = read_sql()
        for column in names:
            if not np.array_equal(frame[column].to_numpy(), table[column].to_pandas().to_numpy()):
                raise SystemExit(f"column {column}: pandas reads other values")
        if data_hash(load(path, mapping, device="cpu")[0]) != data_hash(panel):
            raise SystemExit("the Panel of the SQLite table is another one")
        sides = {
            "table": lambda: sqlite_file.read(path, None), "whole": lambda: load(path, mapping, device="cpu"),
            "pandas": read_sql,
        }  # fmt: skip
        what, peer = f"SQLite table by {reader}", f"{name} read_sql of the same columns"
        yield from in_turn(times, panel.n_rows, sides, [
            (f"{what}, nothing judged", "table", "pandas", peer),
            (f"{what}, to Panel, judged and hashed", "whole", "pandas", peer),
        ])[0]  # fmt: skip


def written(path: pathlib.Path, panel: Panel, pd: Any) -> None:
    """The panel as a table `candles`, times in milliseconds."""
    frame = pd.DataFrame({
        "symbol": np.array(panel.symbols, object)[panel.symbol_of_row], "timestamp": panel.time_ns // 10**6,
        "timeframe": "1d", **{name: getattr(panel, name).astype(np.float64) for name in BARS},
    })  # fmt: skip
    with contextlib.closing(sqlite3.connect(path)) as connection:
        frame.to_sql("candles", connection, index=False)


Compared = tuple[str, str, str, str]  # what both do, our side, the peer's side, the peer


def in_turn(
    times: int, n_rows: int, sides: dict[str, Callable[[], Any]], pairs: list[Compared]
) -> tuple[list[runs.Line], dict[str, float]]:
    """A line for each pair of sides that are there, and the median seconds of each side."""
    for side in sides.values():
        side()  # to warm up
    seconds, _ = alternate(times, sides)
    return [
        {"what": what, "peer": peer, "seconds": seconds[ours], "peer_seconds": seconds[theirs],
         "ratio": seconds[theirs] / seconds[ours], "rows_per_s": n_rows / seconds[ours], "times": times}
        for what, ours, theirs, peer in pairs if theirs in seconds
    ], seconds  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
