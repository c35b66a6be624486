"""Tables whose columns have two levels, prices and symbols, as yfinance makes them: reshape them to rows.

Price   Close  Close  Open  Open  ...           symbol  time        open  close  ...
Ticker  AAPL   MSFT   AAPL  MSFT         ->     AAPL    2024-01-02  1.5   1.6
Date                                            MSFT    2024-01-02  2.5   2.6
2024-01-02  1.6  2.6  1.5   2.5
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data import columns
from gpupipe.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow

PRICES = ("open", "high", "low", "close")
MEANINGS = (*PRICES, "volume", "adj_close")
NOTE = "the columns have two levels, prices and symbols: every symbol was given rows of its own, without blank ones"

_MEANING_OF = {spelling: meaning for meaning in MEANINGS for spelling in columns.SPELLINGS[meaning]}
_NOT_USED = ("dividends", "stocksplits", "capitalgains", "repaired")  # further columns of yfinance
_TUPLE = re.compile(r"\(\s*['\"].*\)")


@dataclass(frozen=True)
class Levels:
    """Which column holds what.

    time: position of the time column.  symbols: `{symbol: {meaning: position}}`, meanings as in `columns.SPELLINGS`.

    >>> pairs = [("Date", ""), *((price, "AAPL") for price in ("Open", "High", "Low", "Close", "Volume"))]
    >>> find(pairs, "example").symbols["AAPL"]["close"]
    4
    """

    time: int
    symbols: Mapping[str, Mapping[str, int]]

    @property
    def positions(self) -> list[int]:
        """The columns that are needed, in order."""
        return sorted({self.time, *(k for cells in self.symbols.values() for k in cells.values())})

    @property
    def value_names(self) -> list[str]:
        """The names of columns of numbers in a table whose columns are named by position."""
        return [str(k) for k in self.positions if k != self.time]


def find(pairs: Sequence[tuple[str, str]], where: str) -> Levels | None:
    """Find prices and symbols in the two names of each column; None unless one level names prices.

    pairs: the two names of each column, in either order; the time column has a name of its own. Raises DataError if
    open, high, low, close or volume is missing, if a column occurs twice, and if no column is the time.
    """
    both = [_of_level(pairs, level) for level in (0, 1)]
    complete = [any(set(PRICES) <= set(cells) for cells in symbols.values()) for symbols in both]
    if True not in complete:
        return None
    level = complete.index(True)
    symbols = both[level]
    missing = set(columns.REQUIRED) - {"symbol", "time"} - {name for cells in symbols.values() for name in cells}
    if missing:
        raise DataError(f"{where}: no column for {', '.join(sorted(missing))} of any symbol")
    for k, pair in enumerate(pairs):
        meaning, symbol = _meaning(pair[level]), pair[1 - level].strip()
        if meaning and symbol and symbols[symbol][meaning] != k:
            raise DataError(f"{where}: column {meaning!r} of symbol {symbol!r} occurs 2 times")
    others = [k for k, pair in enumerate(pairs) if not (pair[0].strip() and pair[1].strip() and _price(pair[level]))]
    named = [k for k in others if any(_plain(name) in columns.SPELLINGS["time"] for name in pairs[k])]
    outside = [k for k in others if not all(map(str.strip, pairs[k]))]  # of the levels, such as an index without a name
    if not others:
        raise DataError(f"{where}: no column for time beside the columns of {', '.join(list(symbols)[:5])}")
    return Levels((named or outside or others)[0], symbols)


def _of_level(pairs: Sequence[tuple[str, str]], level: int) -> dict[str, dict[str, int]]:
    """`{symbol: {meaning: position}}` if this level names the prices."""
    symbols: dict[str, dict[str, int]] = {}
    for k, pair in enumerate(pairs):
        meaning, symbol = _meaning(pair[level]), pair[1 - level].strip()
        if meaning and symbol:
            symbols.setdefault(symbol, {}).setdefault(meaning, k)
    return symbols


_plain = functools.lru_cache(maxsize=1 << 14)(columns.spelling)


def _meaning(name: str) -> str | None:
    return _MEANING_OF.get(_plain(name))


def _price(name: str) -> bool:
    """Whether a name is one of the price level."""
    return _plain(name) in _MEANING_OF or _plain(name) in _NOT_USED


def of_lines(rows: Sequence[Sequence[str]], where: str) -> tuple[Levels, int] | None:
    """Find levels in the first three lines of a CSV file: `(levels, number of header lines)`, or None.

    The first two lines are the levels. A third line, if it has nothing but the name of the index, belongs to them.
    """
    if len(rows) < 2 or len(rows[0]) != len(rows[1]):
        return None
    pairs = [(top.strip(), bottom.strip()) for top, bottom in zip(rows[0], rows[1], strict=True)]
    levels = find(pairs, where)
    if levels is None and tuple(map(_plain, pairs[0])) in (("price", "ticker"), ("ticker", "price")):
        raise DataError(
            f"{where}: two lines, Price and Ticker, name the columns, and no ticker has open, high, low and close: "
            "write all prices of yfinance's frame"
        )
    if levels is None:
        return None
    label = pairs[levels.time]
    values = [bottom for k, (_, bottom) in enumerate(pairs) if k != levels.time]
    if re.search(r"[0-9]", label[1]) or (label[0] and not label[1] and all(map(_is_number, values))):
        return None  # the second line is a bar, maybe one without a date
    third = rows[2] if len(rows) > 2 else []
    is_name = bool(third) and not any(re.search(r"[0-9]", cell) for cell in third) and any(map(str.strip, third))
    return levels, 3 if is_name else 2


def _is_number(text: str) -> bool:
    return not text or re.fullmatch(r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?", text) is not None


def of_names(names: Sequence[str], where: str) -> Levels | None:
    """Find levels in names that pandas makes of tuples for a file, such as "('Close', 'AAPL')"; None without any.

    >>> of_names(["Date", "('Close', 'AAPL')"], "example") is None  # no open, high and low
    True
    """
    if not any(map(_TUPLE.fullmatch, names)):
        return None
    pairs = []
    for name in names:
        try:
            value = ast.literal_eval(name) if _TUPLE.fullmatch(name) else name
        except (ValueError, SyntaxError):
            value = name
        pair = isinstance(value, tuple) and len(value) == 2
        pairs.append((str(value[0]), str(value[1])) if pair else (name, ""))
    return find(pairs, where)


def to_rows(table: pyarrow.Table, levels: Levels) -> tuple[pyarrow.Table, dict[str, str], tuple[str, ...]]:
    """Reshape to one row for each symbol and time: `(table, {meaning: column name}, symbols without a row)`.

    table: its columns are named by their position, "0", "1", and so on. A row in which all values of a symbol are blank
    belongs to other symbols, and is left out. Order: by symbol, as the columns come; within a symbol as in the table.
    """
    import pyarrow as pa

    table = columns.without_views(table).combine_chunks()  # a wide CSV file comes in many chunks of few rows
    meanings = [name for name in MEANINGS if any(name in cells for cells in levels.symbols.values())]
    time = table[str(levels.time)]
    pieces: dict[str, list[Any]] = {name: [] for name in ("time", *meanings)}
    counts = []
    for cells in levels.symbols.values():
        values = {name: table[str(k)] for name, k in cells.items()}
        keep = _any_known(list(values.values()))
        counts.append(int(keep.sum()))
        if not counts[-1]:
            continue
        every, mask = bool(keep.all()), pa.array(keep)
        pieces["time"].append(time if every else time.filter(mask))
        for name in meanings:
            column = values.get(name, pa.chunked_array([pa.nulls(len(table), pa.float64())]))
            pieces[name].append(column if every else column.filter(mask))
    symbols = list(levels.symbols)
    code = np.repeat(np.arange(len(symbols), dtype=np.int32), counts)
    reshaped = {"symbol": pa.DictionaryArray.from_arrays(pa.array(code), pa.array(symbols, pa.string()))}
    reshaped["time"] = pa.chunked_array([c for p in pieces.pop("time") for c in p.chunks], time.type)
    reshaped |= {name: _concatenated(columns_of_name) for name, columns_of_name in pieces.items()}
    without = tuple(symbol for symbol, count in zip(symbols, counts, strict=True) if not count)
    return pa.table(reshaped), {name: name for name in reshaped}, without


def _any_known(values: Sequence[Any]) -> np.ndarray:
    """bool (n,): whether any of the columns has a value that is not null, NaN or blank."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = np.zeros(len(values[0]), bool)
    for column in values:
        column = columns.decoded(column)
        if columns.is_text(column.type):
            blank = pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column.cast(pa.string()))), 0), True)
        else:
            blank = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type))
        known |= ~blank.to_numpy().astype(bool)
    return known


def _concatenated(pieces: Sequence[Any]) -> Any:
    """One column: numbers as float64; where the types differ otherwise, as text."""
    import pyarrow as pa

    kinds = {piece.type for piece in pieces} or {pa.float64()}
    if len(kinds) > 1:
        numeric = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds)
        kinds = {pa.float64() if numeric else pa.string()}
    (kind,) = kinds
    return pa.chunked_array([chunk for piece in pieces for chunk in piece.cast(kind, safe=False).chunks], kind)
