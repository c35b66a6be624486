"""The three sources of a bond market as they were read: instruments, quotes and the curve, with columns by meaning."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data import columns, sources
from gpupipe.data.errors import DataError, printable
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.report import counted
from gpupipe.data.table_file import read_table
from gpupipe.data.time_column import parse
from gpupipe.data.time_limits import UNKNOWN_TIME
from gpupipe.workloads.bonds.par_curve import tenor_of, tenor_years
from gpupipe.workloads.bonds.schema import NO_DAY

if TYPE_CHECKING:
    import pyarrow

_ID = ("id", "bondid", "instrumentid", "securityid", "isin", "cusip", "sedol", "figi", "symbol", "ticker", "bond",
       "instrument", "security")  # fmt: skip
_DATE = ("date", "quotedate", "tradedate", "valuationdate", "pricingdate", "asofdate", "asof", "day", "datetime",
         "timestamp", "time", "observationdate")  # fmt: skip
_RATING = ("rating", "creditrating", "ratingsp", "sprating", "moodysrating", "fitchrating", "compositerating")
# Accepted column names as `columns.spelling` writes them; the first one that is present wins.
INSTRUMENTS = {
    "id": _ID,
    "type": ("type", "bondtype", "coupontype", "instrumenttype", "securitytype"),
    "coupon": ("coupon", "couponrate", "cpn", "interestrate", "rate"),
    "frequency": ("frequency", "freq", "couponfrequency", "paymentfrequency", "paymentsperyear", "couponsperyear"),
    "issue": ("dated", "dateddate", "interestaccrualdate", "accrualdate", "issue", "issuedate", "startdate"),
    "maturity": ("maturity", "maturitydate", "redemptiondate", "matures"),
    "rating": _RATING,
    "issuer": ("issuer", "issuername", "issuerid", "company", "obligor"),
    "sector": ("sector", "sectorname", "gicssector", "industry"),
    "callable": ("callable", "iscallable", "callflag"),
    "day_count": ("daycount", "daycountconvention", "daycountbasis", "basis", "dcc"),
    "first_coupon": ("firstcoupon", "firstcoupondate", "firstinterestdate", "firstpaymentdate"),
    "call_date": ("calldate", "nextcalldate", "firstcalldate"),
    "call_price": ("callprice", "nextcallprice"),
    "margin": ("margin", "quotedmargin", "floatermargin"),
}
QUOTES = {
    "id": _ID,
    "date": _DATE,
    "clean": ("clean", "cleanprice", "price", "pxlast", "pxclean", "closeprice", "close", "midprice", "mid",
              "priceper100"),
    "yield": ("yield", "ytm", "yieldtomaturity", "yld", "pxyield", "midyield"),
    "rating": _RATING,
    "coupon": ("coupon", "couponrate", "cpn", "currentcoupon"),
    "traded": ("traded", "auctiondate"),
}  # fmt: skip
CURVE = {"date": _DATE}
_NULLS = ("na", "n/a", "nan", "null", "none", "#n/a", "-")  # texts that are no value, but of ids
LATEST_NS = int(np.datetime64("2100-01-01", "ns").astype(np.int64))  # of dates written as numbers


@dataclass(frozen=True)
class SourceTables:
    """The tables of one source: a file, the files of a folder, or a frame.

    what: "bonds", "quotes" or "curve", for messages.  tables: in the order of reading.
    description: the name of the file or folder, or the type of the frame.  path: "" for a frame.
    notes: sentences on columns that were not used.  tenors: of a curve, `{tenor: column's name}`, by length.

    >>> import pyarrow as pa
    >>> table = pa.table({"Bond ID": ["A", "B"], "Date": ["2024-01-02", "2024-01-03"], "Price": [99.5, None]})
    >>> quotes = open_source("quotes", table, QUOTES, ("id", "date"))
    >>> quotes.numbers("clean"), quotes.days("date").astype("M8[D]")
    (array([99.5,  nan]), array(['2024-01-02', '2024-01-03'], dtype='datetime64[D]'))
    """

    what: str
    tables: tuple[sources.RawTable, ...]
    description: str
    path: str = ""
    notes: tuple[str, ...] = ()
    tenors: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """Number of rows of all tables, without malformed ones."""
        return sum(map(len, self.tables))

    @property
    def malformed(self) -> tuple[tuple[str, str], ...]:
        """`(origin, description)` of rows that could not be split into fields."""
        return tuple((table.origin, text) for table in self.tables for text in table.malformed)

    def has(self, meaning: str) -> bool:
        """Whether any table has a column with this meaning."""
        return any(meaning in table.columns for table in self.tables)

    def names(self, meaning: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """`(code int32 (n_rows,), sorted texts)`; -1 where a text is null, blank or missing.

        Of all but ids, texts such as NA and null are missing ones.
        """
        code, texts = columns.concatenate_codes([_codes(table, meaning) for table in self.tables])
        if meaning != "id":
            is_null = np.array([*(text.lower() in _NULLS for text in texts), True])
            code = np.where(is_null[code], -1, code).astype(np.int32)
        return code, texts

    def numbers(self, meaning: str) -> np.ndarray:
        """float64 (n_rows,); NaN where a number is null, unreadable or missing."""
        parts = []
        for table in self.tables:
            if meaning in table.columns:
                parts.append(columns.floats(table.column(meaning), _where(table, meaning), np.float64))
            else:
                parts.append(np.full(len(table), np.nan))
        return np.concatenate(parts)

    def days(self, meaning: str, latest_ns: int | None = None) -> np.ndarray:
        """int64 (n_rows,), days since 1970-01-01; NO_DAY where a date is null, unreadable or missing.

        latest_ns: see `time_column.parse`. Of a time with a zone, the date on that zone's clock counts.
        """
        parts = []
        for table in self.tables:
            if meaning not in table.columns:
                parts.append(np.full(len(table), NO_DAY))
                continue
            clock_ns = parse(table.column(meaning), _where(table, meaning), latest_ns).clock_ns
            parts.append(np.where(clock_ns == UNKNOWN_TIME, NO_DAY, clock_ns // NS_PER_DAY))
        return np.concatenate(parts)

    def texts_of_row(self, row: int, meanings: Sequence[str]) -> str:
        """What a row holds in the columns of some meanings, for messages."""
        for table in self.tables:
            if row < len(table):
                named = [meaning for meaning in meanings if meaning in table.columns]
                cells = (columns.decoded(table.column(meaning))[row] for meaning in named)
                return printable(" ".join("nothing" if not c.is_valid else repr(columns.shown(c)) for c in cells))
            row -= len(table)
        raise IndexError(row)


def _where(table: sources.RawTable, meaning: str) -> str:
    return f"{table.origin}: column {table.columns[meaning]!r}"


def _codes(table: sources.RawTable, meaning: str) -> tuple[np.ndarray, tuple[str, ...]]:
    import pyarrow as pa

    if meaning not in table.columns:
        return columns.encode_constant(None, len(table))
    column = columns.decoded(table.column(meaning))
    columns.require_utf8(column, _where(table, meaning))
    if pa.types.is_boolean(column.type) or (pa.types.is_floating(column.type) and meaning != "id"):
        column = column.cast(pa.string())
    return columns.encode_names(column, _where(table, meaning))


def open_source(
    what: str, source: Any, spellings: Mapping[str, Sequence[str]], required: Sequence[str]
) -> SourceTables:
    """Read a file (Parquet, CSV, CSV.gz, Arrow, Feather), a folder of them, or a frame of pandas, polars or pyarrow.

    spellings, required: see `columns.find`. Of two columns with one meaning the first of the spellings is used, and a
    note says so. Raises DataError for what cannot be read or lacks a required column.
    """
    if isinstance(source, (str, os.PathLike)):
        path = pathlib.Path(source).expanduser()
        if not path.exists():
            raise DataError(f"{what}: {path}: no such file or folder")
        with sources.require_unchanged(path):
            tables = tuple(_table(file, spellings, required) for file in sources.list_files(path))
        size = f" ({counted(len(tables), 'file')})" if path.is_dir() else ""
        described, named = f"{path.name}{size}", str(path)
    else:
        tables = (_table(source, spellings, required),)
        described, named = f"a {tables[0].origin}", ""
    notes = dict.fromkeys(note for table in tables for note in table.notes)
    opened = SourceTables(what, tables, described, named, tuple(notes), _tenors(tables) if what == "curve" else ())
    if not opened.n_rows and not opened.malformed:
        raise DataError(f"{what}: {described} holds no rows")
    return opened


def _table(source: Any, spellings: Mapping[str, Sequence[str]], required: Sequence[str]) -> sources.RawTable:
    """One file or frame, with the columns that have a meaning; of a curve, also those that are named like tenors."""
    malformed: list[str] = []
    table, where = read_table(source, malformed, nulls=("",))
    matches = columns.find(table.column_names, required, where, spellings)
    notes = list(_not_used(table, matches, spellings))
    if spellings is CURVE:
        matches |= _tenor_columns(table, set(matches.values()), where)
    table = columns.without_views(table.select(list(matches.values())))
    return sources.RawTable(table, matches, where, malformed=tuple(sorted(malformed)), notes=tuple(notes))


def _not_used(
    table: pyarrow.Table, matches: Mapping[str, str], spellings: Mapping[str, Sequence[str]]
) -> Sequence[str]:
    """Sentences on columns that give what another column gives, too."""
    notes = []
    for meaning, name in matches.items():
        others = [
            other
            for other in table.column_names
            if other not in matches.values() and columns.spelling(other) in spellings[meaning]
        ]
        if others:
            words = meaning.replace("_", " ")
            notes.append(printable(f"column {name!r} gives the {words}; {', '.join(map(repr, others))} was not used"))
    return notes


def _tenor_columns(table: pyarrow.Table, taken: set[str], where: str) -> dict[str, str]:
    """`{tenor: column}` of a curve; DataError without one, or for two columns of one tenor."""
    found: dict[str, str] = {}
    for name in table.column_names:
        tenor = tenor_of(name)
        if not tenor or name in taken:
            continue
        if tenor in found:
            raise DataError(f"{where}: columns {found[tenor]!r} and {name!r} are both the tenor {tenor}; leave out one")
        found[tenor] = name
    if not found:
        shown = ", ".join(repr(name) for name in table.column_names[:20])
        raise DataError(f"{where}: no column is a tenor such as 1m, 10Y, y10 or DGS10; found {shown}")
    return found


def _tenors(tables: Sequence[sources.RawTable]) -> tuple[str, ...]:
    """The tenors of all tables of a curve, by length."""
    names = list(dict.fromkeys(name for table in tables for name in table.columns if name != "date"))
    years = tenor_years(names)
    return tuple(names[k] for k in np.argsort(years, kind="stable"))
