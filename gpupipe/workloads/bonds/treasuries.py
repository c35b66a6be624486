"""The default market: US Treasury notes and bonds at their auctions, with the Treasury's par curve. Real data."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport
from gpupipe.workloads.bonds.market.make import AUCTIONS, PAR_CURVE
from gpupipe.workloads.bonds.ratings import TREASURY
from gpupipe.workloads.bonds.reading import read_bonds

if TYPE_CHECKING:
    import pyarrow

DESCRIPTION = (
    "US Treasury notes and bonds, quoted at their auctions, and the Treasury's daily par curve: real data, public "
    "domain, shipped with gpupipe"
)
NOTES = (
    "a quote is the result of an auction, dated and settled on the issue date; its yield and price were set on the day "
    "of the auction, 1 to 15 days before, and the curve of a row is that of the auction's day",
    "bonds that were auctioned again have several quotes",
)
SECTOR = "treasury"


def treasury_market(*, group_by: str = "sector", strict: bool = False) -> tuple[Panel, DataReport]:
    """The panel of US Treasury notes and bonds, quoted at their auctions, and the report on it.

    400 auctions of 342 nominal notes and bonds, issued from 2008-04-30 to 2018-01-02, of 2, 3, 5, 7, 10 and 30 years,
    63 of them reopenings of a bond that was auctioned before; and 7,006 days of the par curve, 1990-01-02 to
    2017-12-29, 1 month to 30 years. Bills, inflation-indexed and floating-rate securities are not in it.

    A row is an auction, on its issue date, which is its settlement. `clean` and `yield` are the auction's: all bidders
    pay the price that follows from the highest accepted yield. They were set on the day of the auction, 1 to 15 days
    before (5 at the median), and a row's curve is that of the auction's day, so that curve_age is 0. Yields lie 0.016 %
    from that curve at the median, and 0.062 % from the curve of the issue date. `issue` is the earliest dated date that
    any auction of the bond gives, from which interest runs; it may lie before the first quote. A bond that was first
    auctioned before 2008 is quoted by its reopenings only.

    All bonds pay twice a year, by act/act. The attributes are type fixed, rating Treasury (rating_rank 0), issuer
    US Treasury, sector treasury, callable no.

    Source: US Department of the Treasury, auction results and daily par yield curve, works of the US government
    (`market.make`).

    >>> panel, report = treasury_market()
    >>> panel.n_rows, panel.n_symbols, report.kind, report.clean
    (400, 342, 'treasuries', True)
    """
    bonds, quotes, curve = treasury_tables()
    panel, report = read_bonds(
        bonds, quotes, curve, price_of_yield=_all_are_priced, rates="percent", group_by=group_by, strict=strict
    )
    return panel, dataclasses.replace(
        report, description=DESCRIPTION, kind="treasuries", reader="shipped with gpupipe", notes=NOTES
    )


def treasury_tables() -> tuple[pyarrow.Table, pyarrow.Table, pyarrow.Table]:
    """`(instruments, quotes, curve)` of `treasury_market`, as `read_bonds` takes them."""
    import pyarrow as pa

    auctions = _shipped(AUCTIONS)
    bonds = auctions.group_by("cusip", use_threads=False).aggregate(
        [("coupon", "min"), ("dated_date", "min"), ("maturity_date", "min")]
    )
    n_bonds = bonds.num_rows
    texts = {
        "type": "fixed", "rating": TREASURY, "issuer": "US Treasury", "sector": SECTOR, "callable": "no",
        "day_count": "act/act",
    }  # fmt: skip
    instruments = pa.table(
        {
            "id": bonds["cusip"],
            "coupon": bonds["coupon_min"],
            "frequency": pa.array([2] * n_bonds, pa.int64()),
            "issue": bonds["dated_date_min"],
            "maturity": bonds["maturity_date_min"],
            **{name: pa.array([text] * n_bonds, pa.string()) for name, text in texts.items()},
        }
    )
    quotes = pa.table(
        {
            "id": auctions["cusip"],
            "date": auctions["issue_date"],
            "clean": auctions["price_per_100"],
            "yield": auctions["high_yield"],
            "traded": auctions["auction_date"],
        }
    )
    return instruments, quotes, par_curve_table()


def par_curve_table() -> pyarrow.Table:
    """The Treasury's par curve: date, m1, m3, m6, y1, ... y30, percent; null where the Treasury published none."""
    return _shipped(PAR_CURVE)


def _shipped(name: str) -> pyarrow.Table:
    import pyarrow.parquet as pq

    file = importlib.resources.files("gpupipe.workloads.bonds.market") / name
    with importlib.resources.as_file(file) as path:
        return pq.read_table(path, page_checksum_verification=True)


def _all_are_priced(table: Mapping[str, np.ndarray]) -> np.ndarray:
    raise AssertionError("every auction has a price")
