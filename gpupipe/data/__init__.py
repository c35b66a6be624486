"""Data: from OHLCV files and frames to a validated Panel and the report on it."""

from gpupipe.data.errors import DataError
from gpupipe.data.reading import load, read
from gpupipe.data.report import HEADER, DataReport, Finding, data_hash, save, summary, table_rows
from gpupipe.data.simulate import simulate

__all__ = [
    "HEADER",
    "DataError",
    "DataReport",
    "Finding",
    "data_hash",
    "load",
    "read",
    "save",
    "simulate",
    "summary",
    "table_rows",
]
