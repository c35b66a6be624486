"""Reading against other libraries: `python -m bench.job.reading [--data FILE --sector-map FILE] [--times 15]`.

FILE is a Parquet file of bars; without one a simulated market of 500 symbols is written and read. Its bars also go
into an SQLite table `candles`. Every comparison first checks that both sides hold the same values, then times both in
this process, alternately, from a warm page cache; reported are medians. A peer that is not installed is skipped with a
word. The last lines are JSON, one for each comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import pathlib
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bench.timing import alternate
from gpupipe.data import bars, data_hash, load, simulate, sources, sqlite_file, validate
from gpupipe.data.panel import COLUMNS, Panel
from gpupipe.runtime.device import pick

NS_OF_DAY = 86_400 * 10**9
Line = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--sector-map")
    parser.add_argument("--times", type=int, default=15)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.data or pathlib.Path(folder, "bars.parquet")
        if chosen.data is None:
            pq.write_table(simulate(500, 1250).to_arrow(), path, compression="zstd")
        panel, report = load(path, chosen.sector_map, device="cpu")
        about = {
            "rows": panel.n_rows, "symbols": panel.n_symbols, "times": chosen.times,
            "cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "python": platform.python_version(),
        }  # fmt: skip
        lines = []
        for line in (
            *parquet(path, chosen.sector_map, panel, report.data_hash, chosen.times),
            *sqlite(pathlib.Path(folder, "candles.db"), panel, max(3, chosen.times // 3)),
        ):
            words = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items())
            print(", ".join(words), flush=True)
            lines.append({"benchmark": "reading", **about, **line})
    for line in lines:
        print(json.dumps(line))
    return 0


def compared(what: str, n_rows: int, peer: str, seconds: dict[str, float], ours: str, theirs: str) -> Line:
    return {
        "what": what, "peer": peer, "seconds": seconds[ours], "peer_seconds": seconds[theirs],
        "ratio": seconds[theirs] / seconds[ours], "rows_per_s": n_rows / seconds[ours],
    }  # fmt: skip


def parquet(path: pathlib.Path, sector_map: Any, panel: Panel, digest: str, times: int) -> Iterator[Line]:
    """A Parquet file: its columns, a whole Panel, and where the time goes between the two."""
    n = panel.n_rows
    (part,) = sources.of_path(path, None)[1]
    mapping = dict(zip(panel.symbols, panel.sector, strict=True))
    rows = bars.of_parts([part], mapping, None, adjusted=False)
    sides = {
        "decode": lambda: sources.of_path(path, None),
        "whole": lambda: load(path, sector_map, device="cpu"),
        "arrays": lambda: bars.of_parts([part], mapping, None, adjusted=False),
        "judge": lambda: validate.judge(rows),
        "hash": lambda: data_hash(panel),
    }
    if importlib.util.find_spec("polars") is None:
        print("polars is not installed: skipped (pip install polars)")
    else:
        import polars as pl

        names = list(part.found.values())
        texts = pl.col(pl.Categorical).cast(pl.String)
        frame = pl.read_parquet(path, columns=names).with_columns(texts)
        if not frame.equals(pl.from_arrow(part.table).with_columns(texts)):
            raise SystemExit("polars says otherwise")
        sides["polars"] = lambda: pl.read_parquet(path, columns=names)
        sides["polars, contiguous"] = lambda: pl.read_parquet(path, columns=names).rechunk()
        if _sorted_days(frame, part.found):
            if data_hash(of_polars(path, part.found, mapping)) != digest:
                raise SystemExit("the Panel that polars makes is another one")
            sides["polars, the same work"] = lambda: data_hash(of_polars(path, part.found, mapping))
        else:
            print("polars, the same work: skipped, it is written for sorted daily bars without a finding")
    seconds = in_turn(times, **sides)
    if "polars" in seconds:
        peer = f"polars {pl.__version__} read_parquet of the needed columns"
        yield compared("Parquet decoded, nothing judged", n, peer, seconds, "decode", "polars")
        yield compared("Parquet to Panel, judged and hashed", n, peer, seconds, "whole", "polars")
        peer += ", then rechunk"
        yield compared("Parquet to Panel, judged and hashed", n, peer, seconds, "whole", "polars, contiguous")
        if "polars, the same work" in seconds:
            peer = f"polars {pl.__version__}, prices checked, hashed by our data_hash"
            yield compared("Parquet to Panel, judged and hashed", n, peer, seconds, "whole", "polars, the same work")
    parts = {name: seconds[name] for name in ("decode", "arrays", "judge", "hash")}
    yield {
        "what": "Parquet to Panel, judged and hashed", "seconds": seconds["whole"], "rows_per_s": n / seconds["whole"],
        **{f"{name}_seconds": value for name, value in parts.items()},
    }  # fmt: skip


def _sorted_days(frame: Any, found: dict[str, str]) -> bool:
    import polars as pl

    if "symbol" not in found or frame.schema[found["time"]] != pl.Date or frame.null_count().sum_horizontal().item():
        return False
    keys = frame.select(found["symbol"], found["time"])
    return keys.equals(keys.sort(keys.columns))


def of_polars(path: pathlib.Path, found: dict[str, str], sector_of: dict[str, str]) -> Panel:
    """The Panel of sorted daily bars, by polars: its values, and the first of our checks alone."""
    import polars as pl

    column = {meaning: pl.col(name) for meaning, name in found.items()}
    frame = pl.read_parquet(path, columns=list(found.values())).select(
        column["symbol"],
        column["time"].cast(pl.Int64).alias("time_ns") * NS_OF_DAY,
        *(column[name].cast(pl.Float32).alias(name) for name in COLUMNS),
    )
    bottom, top = pl.min_horizontal("open", "close"), pl.max_horizontal("open", "close")
    low, high, volume = pl.col("low"), pl.col("high"), pl.col("volume")
    if not frame.select(((low > 0) & (low <= bottom) & (high >= top) & high.is_finite() & (volume > 0)).all()).item():
        raise SystemExit("a bar is not fine")
    code = frame[found["symbol"]].rle_id()
    symbols = tuple(frame[found["symbol"]].cast(pl.String).gather(code.is_first_distinct().arg_true()))
    edges = np.searchsorted(code.to_numpy(), np.arange(len(symbols) + 1))
    return Panel(
        **{name: frame[name].to_numpy() for name in (*COLUMNS, "time_ns")}, offsets=edges, symbols=symbols,
        sector=tuple(sector_of[name] for name in symbols),
    )  # fmt: skip


def sqlite(path: pathlib.Path, panel: Panel, times: int) -> Iterator[Line]:
    """A table `candles` of SQLite: as columns, and a whole Panel."""
    if importlib.util.find_spec("pandas") is None:
        print("pandas is not installed: skipped (pip install pandas)")
        return
    import pandas as pd

    names = ("symbol", "timestamp", "timeframe", *COLUMNS)
    written(path, panel, names)
    mapping = dict(zip(panel.symbols, panel.sector, strict=True))

    def of_pandas() -> Any:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return pd.read_sql(f"SELECT {', '.join(names)} FROM candles", connection)

    table, _, reader = sqlite_file.read(path, None)
    frame = of_pandas()
    for name in names:
        if not np.array_equal(frame[name].to_numpy(), table[name].to_pandas().to_numpy()):
            raise SystemExit(f"column {name}: pandas says otherwise")
    if data_hash(load(path, mapping, device="cpu")[0]) != data_hash(panel):
        raise SystemExit("the Panel of the SQLite table is another one")
    seconds = in_turn(
        times, table=lambda: sqlite_file.read(path, None), whole=lambda: load(path, mapping, device="cpu"),
        pandas=of_pandas,
    )  # fmt: skip
    peer = f"pandas {pd.__version__} read_sql of the same columns"
    what = f"SQLite table by {reader}"
    for name, side in (("nothing judged", "table"), ("to Panel, judged and hashed", "whole")):
        yield compared(f"{what}, {name}", panel.n_rows, peer, seconds, side, "pandas") | {"times": times}


def written(path: pathlib.Path, panel: Panel, names: tuple[str, ...]) -> None:
    """The panel as a table `candles`, times in milliseconds."""
    kinds = ("TEXT", "INTEGER", "TEXT", *["REAL"] * len(COLUMNS))
    symbols = np.array(panel.symbols, object)[panel.symbol_of_row].tolist()
    columns = [(getattr(panel, name)).astype(np.float64).tolist() for name in COLUMNS]
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE candles ({', '.join(map(' '.join, zip(names, kinds, strict=True)))})")
        connection.executemany(
            f"INSERT INTO candles VALUES ({', '.join('?' * len(names))})",
            zip(symbols, (panel.time_ns // 10**6).tolist(), ["1d"] * panel.n_rows, *columns, strict=True),
        )


def in_turn(times: int, **sides: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of each side, after one run of each to warm up."""
    for side in sides.values():
        side()
    return alternate(times, math.inf, pick("cpu"), sides)[0]


if __name__ == "__main__":
    sys.exit(main())
