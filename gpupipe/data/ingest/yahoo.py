"""Bars from Yahoo by the package yfinance: a thin adapter from its frame to rows that `gpupipe.data` reads.

Prices come as Yahoo gives them, adjusted for splits and not for dividends, with the adjusted close beside them, so
that `--adjusted` means what it means for every source. Yahoo's terms allow personal use.
"""

from __future__ import annotations

import importlib.util
import pathlib
import warnings
from typing import Any

from gpupipe.data import columns, csv_file
from gpupipe.data.errors import DataError

MISSING = "yfinance is not installed (pip install -e '.[yfinance]')"
_COLUMNS = {
    "Open": "open", "High": "high", "Low": "low", "Close": "close", "Adj Close": "adj_close", "Volume": "volume",
}  # fmt: skip


def symbols_of(words: str) -> tuple[tuple[str, ...], pathlib.Path | None]:
    """`(symbols, file)` of what follows "yfinance:": AAPL,MSFT, or @symbols.csv with a column symbol.

    file: the CSV, which is the sector map as well if it has a column sector; else None. Raises DataError.
    """
    if not words.startswith("@"):
        symbols = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
        if not symbols:
            raise DataError("yfinance: names no symbol; expected yfinance:AAPL,MSFT or yfinance:@symbols.csv")
        return symbols, None
    path = pathlib.Path(words[1:]).expanduser()
    if not path.is_file():
        raise DataError(f"yfinance:{words}: no such file")
    table, found, _ = csv_file.read(path, ("symbol",))
    _, names = columns.encode_names(table[found["symbol"]], f"{path}: column {found['symbol']!r}")
    if not names:
        raise DataError(f"{path}: names no symbol")
    return names, path if "sector" in found else None


def download(symbols: tuple[str, ...], since: str, interval: str) -> Any:
    """yfinance's answer: a pandas DataFrame, index of times, columns (Price, Ticker). DataError if it is not there."""
    if importlib.util.find_spec("yfinance") is None:
        raise DataError(MISSING)
    import yfinance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, about what yfinance does with it
        return yfinance.download(
            list(symbols), start=since, interval=interval, group_by="column", auto_adjust=False, actions=False,
            progress=False, multi_level_index=True,
        )  # fmt: skip


def long_frame(answer: Any) -> tuple[Any, tuple[str, ...]]:
    """`(frame, without)`: one row for each symbol and time, and the symbols for which nothing came.

    answer: of `download`; columns of two levels called Price and Ticker, in either order. Times without any price are
    those of other symbols, and left out. Raises DataError for another shape, or where nothing came at all.
    """
    import pandas as pd

    names = list(getattr(answer.columns, "names", [])) if answer is not None else []
    if answer is None or sorted(map(str, names)) != ["Price", "Ticker"]:
        raise DataError(f"yfinance: expected columns of the levels Price and Ticker, got {names}: another version?")
    level = names.index("Ticker")
    pieces, without = [], []
    for symbol in dict.fromkeys(answer.columns.get_level_values(level)):
        own = answer.xs(symbol, axis=1, level=level)
        own = own[[name for name in _COLUMNS if name in own.columns]].dropna(how="all")
        if own.empty:
            without.append(str(symbol))
            continue
        own = own.rename(columns=_COLUMNS).rename_axis(index="time", columns=None).reset_index()
        pieces.append(own.assign(symbol=str(symbol)))
    if not pieces:
        raise DataError(f"yfinance: no bars came for {', '.join(without) or 'any symbol'}; is there a network?")
    return pd.concat(pieces, ignore_index=True), tuple(without)
