"""Columns from outside (sentiment, funding, macro series), joined to bars by the time at which they were known.

panel, columns = join(panel, "sentiment.csv")
panel.columns["with_sentiment"]  # float32 (n_rows,), NaN before the first value
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data import columns
from gpupipe.data.errors import DataError
from gpupipe.data.panel import NS_PER_DAY, Panel
from gpupipe.data.report import DataReport, data_hash
from gpupipe.data.table_file import read_table
from gpupipe.data.time_column import parse
from gpupipe.data.time_limits import UNKNOWN_TIME

if TYPE_CHECKING:
    import pyarrow

PREFIX = "with_"  # of the columns' names in a panel, and of the features that they become
LEAST_COVERAGE = 0.5
REGULAR = 0.5  # share of the steps between bars that are as long as most are, where that is the length of a bar


@dataclass(frozen=True)
class OutsideColumn:
    """A column of a file, and how much of the bars it is known for.

    name: in the panel.  coverage: share of the rows that have a value.
    median_age, largest_age: between the time of a row's value and the row's end, in bars; NaN without values.
    problem: why it was left out; "" where it was joined.

    >>> OutsideColumn("with_funding", 0.98, 0.5, 12.0).sentence
    'with_funding: known for 98.0 % of the rows; age 0.5 bars (median), 12 at most'
    """

    name: str
    coverage: float = 0.0
    median_age: float = np.nan
    largest_age: float = np.nan
    problem: str = ""

    @property
    def sentence(self) -> str:
        """The column in words."""
        if self.problem:
            return f"{self.name} was left out: {self.problem}"
        return (
            f"{self.name}: known for {100 * self.coverage:.1f} % of the rows; age {self.median_age:.3g} bars (median), "
            f"{self.largest_age:.4g} at most"
        )


def join(
    panel: Panel,
    source: Any,
    least_coverage: float | None = LEAST_COVERAGE,
    names: Sequence[str] | None = None,
) -> tuple[Panel, tuple[OutsideColumn, ...]]:
    """The panel with the columns of a file or frame, and what is known of each.

    source: a Parquet, CSV(.gz) or Arrow file, or a frame of pandas, polars or pyarrow, with a column for the time and
        numbers in others; and with a column for the symbol, where values are those of single symbols.
    least_coverage: share of the rows that a column must be known for; below it, and where all its values are equal, it
        is left out. None: nothing is judged, as for predictions, which need the columns that the models have.
    names: the only columns to join, as the panel names them; all if None.

    A row gets the last value of its symbol that was known before the row's bar ended, at its start + the length of a
    bar (`bar_length_ns`). A value is known from its own time on: one with the time at which a bar ends belongs to the
    next bar. A date without a clock is known at the end of that day (UTC). Rows without a value are NaN. A later
    value, and whether there is one, changes nothing before. Of two values of one time, the later row counts; empty,
    NaN and infinite values count for nothing.

    Raises DataError for a file that cannot be read, has no time or no column of numbers that can be joined, or a
    column that the panel has already; ValueError where `least_coverage` is not between 0 and 1.

    >>> import pyarrow as pa
    >>> from gpupipe.data import simulate
    >>> bars = simulate(n_symbols=1, n_bars=3)
    >>> known_at = [int(bars.time_ns[1]) + 1, int(bars.time_ns[2]) + 1]  # while the second and the third bar last
    >>> funding = pa.table({"time": pa.array(known_at, pa.timestamp("ns")), "funding": [0.25, 0.5]})
    >>> joined, [column] = join(bars, funding)
    >>> joined.columns["with_funding"].tolist(), round(column.coverage, 2)
    ([nan, 0.25, 0.5], 0.67)
    """
    if least_coverage is not None and not 0 <= least_coverage <= 1:
        raise ValueError(f"least_coverage is {least_coverage}, expected a share between 0 and 1")
    table, where = read_table(source)
    known = _Known.of(panel, table, where)
    joined: dict[str, Any] = {}
    described = []
    for column in table.column_names:
        if column in known.keys:
            continue
        name = _name_of(column, where)
        if names is not None and name not in names:
            continue
        if name in panel.columns or name in joined:
            raise DataError(f"{where}: a second column {name}; rename one of them")
        values, problem = _numbers(table[column], f"{where}: column {column!r}")
        if problem:
            described.append(OutsideColumn(name, problem=problem))
            continue
        joined_values, age = known.as_of_end(values)
        about = _judged(OutsideColumn(name), joined_values, age, least_coverage)
        described.append(about)
        if not about.problem:
            joined[name] = panel.device.asarray(joined_values)
    if not joined:
        reasons = "; ".join(about.sentence for about in described) or "it has no column beside time and symbol"
        raise DataError(f"{where}: no column can be joined: {reasons}")
    return panel.replace(columns={**panel.columns, **joined}), tuple(described)


def join_reported(
    panel: Panel,
    report: DataReport,
    source: Any,
    least_coverage: float | None = LEAST_COVERAGE,
    names: Sequence[str] | None = None,
) -> tuple[Panel, DataReport]:
    """`join`, with what is known of each column among the report's notes, and the hash of all columns."""
    joined, described = join(panel, source, least_coverage, names)
    named = pathlib.Path(source).name if isinstance(source, (str, os.PathLike)) else "a frame"
    notes = (f"from {named}, {about.sentence}" for about in described)
    return joined, dataclasses.replace(report, notes=(*report.notes, *notes), data_hash=data_hash(joined))


def names_in(panel: Panel) -> tuple[str, ...]:
    """The columns of a panel that are from outside."""
    return tuple(name for name in panel.columns if name.startswith(PREFIX))


def bar_length_ns(panel: Panel) -> np.ndarray:
    """int64 (n_symbols,), on the host: how long a bar of each symbol is.

    The most frequent step between bars where at least half of the steps are so long, else the smallest step: a length
    that is too small lets a value be used too late, never too early. A symbol of a single bar has the length that most
    symbols have.
    Raises DataError where no symbol has two bars.

    >>> from gpupipe.data import simulate
    >>> (bar_length_ns(simulate(n_symbols=2, n_bars=30)) // NS_PER_DAY).tolist()
    [1, 1]
    """
    time_ns, offsets = panel.device.to_host(panel.time_ns), panel.device.to_host(panel.offsets)
    lengths = np.zeros(panel.n_symbols, np.int64)
    for k in range(panel.n_symbols):
        steps, counts = np.unique(np.diff(time_ns[offsets[k] : offsets[k + 1]]), return_counts=True)
        if len(steps):
            most = int(np.argmax(counts))
            lengths[k] = steps[most] if counts[most] >= REGULAR * counts.sum() else steps[0]
    if not lengths.any():
        raise DataError("columns from outside need the length of a bar, and no symbol has two bars")
    values, counts = np.unique(lengths[lengths > 0], return_counts=True)
    return np.where(lengths > 0, lengths, values[np.argmax(counts)])


@dataclass(frozen=True)
class _Known:
    """The rows of a file by symbol and time, and the ends of a panel's bars.

    keys: the names of its columns of time and symbol.  rows: for each symbol, the file's rows that are for it, in the
    order of time.  time_ns: int64, when each row of the file is known.  end_ns, length_ns: int64, of each bar.
    """

    keys: tuple[str, ...]
    rows: tuple[np.ndarray, ...]
    time_ns: np.ndarray
    offsets: np.ndarray
    end_ns: np.ndarray
    length_ns: np.ndarray

    @classmethod
    def of(cls, panel: Panel, table: pyarrow.Table, where: str) -> _Known:
        """Read the columns of time and symbol; DataError where no time, or no symbol of the panel, is known."""
        matches = columns.find(table.column_names, ("time",), where)
        time_ns = _known_at(table[matches["time"]], f"{where}: column {matches['time']!r}")
        keys = tuple(matches[name] for name in ("time", "symbol") if name in matches)
        has_time = time_ns != UNKNOWN_TIME
        if not has_time.any():
            raise DataError(f"{where}: no time is known in column {matches['time']!r}")
        order = np.argsort(time_ns, kind="stable")
        order = order[has_time[order]]
        if "symbol" in matches:
            code, names = columns.encode_names(table[matches["symbol"]], f"{where}: column {matches['symbol']!r}")
            if not set(names) & set(panel.symbols):
                raise DataError(
                    f"{where}: no symbol of the data: it has {', '.join(names[:3])}, the data {panel.symbols[0]}; "
                    "values of all symbols need no column for the symbol"
                )
            numbers = {name: k for k, name in enumerate(names)}
            rows = tuple(order[code[order] == numbers.get(name, len(names))] for name in panel.symbols)
        else:
            rows = (order,) * panel.n_symbols
        to_host, length = panel.device.to_host, bar_length_ns(panel)
        of_row = length[to_host(panel.symbol_of_row)]
        return cls(keys, rows, time_ns, to_host(panel.offsets), to_host(panel.time_ns) + of_row, of_row)

    def as_of_end(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 (n_rows,): the last value known before each bar ends; float64 (n_rows,): its age in bars."""
        joined = np.full(len(self.end_ns), np.nan, np.float32)
        age = np.full(len(self.end_ns), np.nan)
        finite = np.isfinite(values)
        for k, rows in enumerate(self.rows):
            given = rows[finite[rows]]
            bars = slice(self.offsets[k], self.offsets[k + 1])
            last = np.searchsorted(self.time_ns[given], self.end_ns[bars], side="left") - 1
            found = np.flatnonzero(last >= 0)
            at = given[last[found]]
            joined[bars][found] = values[at]
            age[bars][found] = (self.end_ns[bars][found] - self.time_ns[at]) / self.length_ns[bars][found]
        return joined, age


def _known_at(column: pyarrow.ChunkedArray, where: str) -> np.ndarray:
    """int64 (n,): when a row's values are known; UNKNOWN_TIME where its time is not. A date is known when it is over.

    Whether a time is a date is a matter of each text or of the column's type, never of other rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = columns.decoded(column)
    time_ns = parse(column, where).time_ns
    if columns.is_text(column.type):
        clock = pc.match_substring_regex(column.cast(pa.string()), r"[:T]|\d\s+\d{1,2}|^\s*\d{9,}")
        is_date = ~pc.fill_null(clock, True).to_numpy(zero_copy_only=False).astype(bool)
    elif pa.types.is_integer(column.type):  # 20200131, and not a number of seconds
        digits = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        is_date = (digits >= 10**7) & (digits < 10**8)
    else:
        is_date = np.full(len(time_ns), pa.types.is_date(column.type))
    dated = is_date & (time_ns != UNKNOWN_TIME)
    return np.where(dated, time_ns + NS_PER_DAY - 1, time_ns)


def _numbers(column: pyarrow.ChunkedArray, where: str) -> tuple[np.ndarray, str]:
    """float32 (n,), and why the column holds no numbers; "" where it does."""
    import pyarrow as pa

    kind = columns.decoded(column).type
    if pa.types.is_boolean(kind):
        column = columns.decoded(column).cast(pa.int8())
    elif not (
        columns.is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):  # fmt: skip
        return np.zeros(0, np.float32), f"it holds {kind}, and no numbers"
    values = columns.floats(column, where)
    if np.isfinite(values).any():
        return values, ""
    known = columns.decoded(column).drop_null()
    if columns.is_text(kind) and any(text.strip() for text in known.unique().to_pylist()):
        return values, "it holds text, and no numbers"
    return values, "no value is known"


def _judged(about: OutsideColumn, values: np.ndarray, age: np.ndarray, least: float | None) -> OutsideColumn:
    """The column with its coverage and age, and with the reason to leave it out, if there is one."""
    found = np.isfinite(age)
    coverage = float(found.mean()) if len(found) else 0.0
    if found.any():
        about = dataclasses.replace(
            about, coverage=coverage, median_age=float(np.median(age[found])), largest_age=float(age[found].max())
        )
    if least is None:
        return about
    problem = ""
    if not found.any():
        problem = "no value was known before the last bar ended"
    elif coverage < least:
        problem = f"known for {100 * coverage:.1f} % of the rows, and {100 * least:g} % are required"
    elif float(values[found].min()) == float(values[found].max()):
        problem = f"it is {values[found][0]:g} in all rows"
    return dataclasses.replace(about, problem=problem)


def _name_of(column: str, where: str) -> str:
    """The name of a file's column in a panel."""
    name = re.sub(r"\W+", "_", column.strip()).strip("_").lower()
    if not name:
        raise DataError(f"{where}: column {column!r} has no letter or digit in its name; rename it")
    return f"{PREFIX}{name.removeprefix(PREFIX)}"
