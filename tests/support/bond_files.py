"""The small simulated market of `bond_run` as the three files of a user: instruments, quotes, curve."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from gpupipe.workloads.bonds import schema
from tests.support.bond_run import market

NAMES = ("bonds", "quotes", "curve")


def tables() -> dict[str, dict[str, list[Any]]]:
    """Columns by name of each file; dates are texts. Floating bonds are left out."""
    panel = market().panel
    panel = panel.take((np.array(panel.attributes["type"]) != schema.FLOATING)[panel.symbol_of_row])
    first = panel.offsets[:-1]

    def days(name):
        return panel.columns[name][first].astype("datetime64[D]").astype(str).tolist()

    bonds = {
        "id": list(panel.symbols), **{name: list(column) for name, column in panel.attributes.items()},
        "coupon": panel.columns["coupon"][first].tolist(), "frequency": panel.columns["frequency"][first].tolist(),
        "issue": days("issue"), "maturity": days("maturity"),
    }  # fmt: skip
    quotes = {
        "id": [panel.symbols[k] for k in panel.symbol_of_row],
        "date": panel.time_ns.astype("datetime64[ns]").astype("datetime64[D]").astype(str).tolist(),
        "clean": panel.columns["clean"].tolist(),
    }
    dates, at = np.unique(panel.time_ns, return_index=True)
    curve = {"date": dates.astype("datetime64[ns]").astype("datetime64[D]").astype(str).tolist()} | {
        tenor: panel.columns[schema.COLUMN_PREFIX + tenor][at].tolist() for tenor in schema.curve_tenors(panel)
    }
    return {"bonds": bonds, "quotes": quotes, "curve": curve}


def write(folder: pathlib.Path, made: dict[str, dict[str, list[Any]]], stem: str = "") -> tuple[str, ...]:
    """Write CSV files; the options that name them."""
    options: list[str] = []
    for name in NAMES:
        path = folder / f"{stem}{name}.csv"
        pa.csv.write_csv(pa.table(made[name]), path)
        options += [f"--{name}", str(path)]
    return tuple(options)
