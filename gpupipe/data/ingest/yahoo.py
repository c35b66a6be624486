"""Download bars from Yahoo with the package yfinance, and convert its frame to rows that `gpupipe.data` reads.

Prices are Yahoo's: adjusted for splits and not for dividends, together with the adjusted close, so `--adjusted` works
as for any other source. Yahoo's terms allow personal use.
"""

from __future__ import annotations

import importlib.util
import pathlib
import warnings
from typing import Any

from gpupipe.data import columns, csv_file, frames
from gpupipe.data.errors import DataError

MISSING = "yfinance is not installed (pip install -e '.[yfinance]')"


def parse_symbols(text: str) -> tuple[tuple[str, ...], pathlib.Path | None]:
    """Parse the text after "yfinance:", which is AAPL,MSFT or @symbols.csv: `(symbols, file)`.

    The CSV has a column symbol. If it also has a column sector, `file` is its path, to be used as the sector map;
    otherwise `file` is None. Raises DataError.

    >>> parse_symbols("AAPL, MSFT,AAPL")
    (('AAPL', 'MSFT'), None)
    """
    if not text.startswith("@"):
        symbols = tuple(dict.fromkeys(symbol.strip() for symbol in text.split(",") if symbol.strip()))
        if not symbols:
            raise DataError("yfinance: names no symbol; expected yfinance:AAPL,MSFT or yfinance:@symbols.csv")
        return symbols, None
    path = pathlib.Path(text[1:]).expanduser()
    if not path.is_file():
        raise DataError(f"yfinance:{text}: no such file")
    table, matches, _ = csv_file.read(path, ("symbol",))
    _, symbols = columns.encode_names(table[matches["symbol"]], f"{path}: column {matches['symbol']!r}")
    if not symbols:
        raise DataError(f"{path}: names no symbol")
    return symbols, path if "sector" in matches else None


def download(symbols: tuple[str, ...], since: str, interval: str) -> Any:
    """Return yfinance's pandas DataFrame: rows are times, columns (Price, Ticker). DataError without the package."""
    if importlib.util.find_spec("yfinance") is None:
        raise DataError(MISSING)
    import yfinance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns about yfinance's use of it
        return yfinance.download(
            list(symbols),
            start=since,
            interval=interval,
            group_by="column",
            auto_adjust=False,
            actions=False,
            progress=False,
            multi_level_index=True,
        )


def to_rows(answer: Any) -> tuple[Any, tuple[str, ...]]:
    """Reshape to one row for each symbol and time: `(Arrow table, symbols without bars)`.

    answer: the frame of `download`, with column levels Price and Ticker in either order; `column_levels.to_rows` drops
    the blank rows of each symbol. Raises DataError for another shape, or if there are no bars.
    """
    levels = list(getattr(answer.columns, "names", [])) if answer is not None else []
    if answer is None or sorted(map(str, levels)) != ["Price", "Ticker"]:
        raise DataError(f"yfinance: expected columns of the levels Price and Ticker, got {levels}: another version?")
    reshaped = frames.from_levels(answer, "yfinance")
    if reshaped is None:
        raise DataError(f"yfinance: its frame has no prices of tickers, but the columns {list(answer.columns)[:5]}")
    table, _, without = reshaped
    if not len(table):
        raise DataError(f"yfinance: no bars came for {', '.join(without) or 'any symbol'}; is there a network?")
    return table, without
