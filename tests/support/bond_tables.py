"""Small tables of bonds, quotes and a curve, and their reading, for tests."""

import pyarrow as pa

from gpupipe.workloads.bonds.reading import read_bonds
from tests.support.street_price import price_of_yield

BONDS = {
    "id": ["A", "B", "C"],
    "type": ["fixed", "zero", "floating"],
    "coupon": [5.0, 0.0, None],
    "frequency": [2, 2, 4],
    "issue": ["2018-02-15", "2019-06-30", "2019-01-15"],
    "maturity": ["2028-02-15", "2029-06-30", "2026-01-15"],
    "rating": ["AA", "BBB-", "Ba1"],
    "issuer": ["X Corp", "Y Corp", "X Corp"],
    "sector": ["Energy", "Utilities", "Energy"],
    "callable": ["no", "no", "no"],
    "day_count": ["30/360", "act/act", "act/360"],
    "margin": [None, None, 1.5],
}
QUOTES = {
    "id": ["A", "A", "B", "C", "C"],
    "date": ["2020-01-02", "2020-01-06", "2020-01-02", "2020-01-02", "2020-01-06"],
    "price": [101.5, 102.25, 79.0, 99.5, 99.75],
}
CURVE = {
    "date": ["2020-01-02", "2020-01-03", "2020-01-06"],
    "3m": [1.54, 1.52, 1.57],
    "1Y": [1.56, 1.55, 1.46],
    "10Y": [1.88, 1.80, 1.54],
}


def changed(table, **columns):
    """A table of columns with some of them changed; None leaves one out."""
    return {name: values for name, values in {**table, **columns}.items() if values is not None}


def read(bonds=BONDS, quotes=QUOTES, curve=CURVE, **options):
    """`read_bonds` of tables of columns; any number of rows may be quarantined unless told otherwise."""
    tables = [pa.table(table) if isinstance(table, dict) else table for table in (bonds, quotes, curve)]
    return read_bonds(*tables, price_of_yield=price_of_yield, **{"max_quarantined": 1.0, **options})


def findings(report):
    """`{kind: (action, rows, symbols, example)}` of a report."""
    return {f.kind: (f.action, f.rows, f.symbols, f.example) for f in report.findings}
