"""The stored values of QuantLib in bond_reference.npz, as tables that `bonds.value` takes."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).with_name("bond_reference.npz")
NONE = -(2**31)  # a first coupon that is not given


def stored(prefix: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The table of bonds, with their yields, and all that is stored of them; prefix: made or auction."""
    with np.load(FILE) as file:
        rows = {name.removeprefix(f"{prefix}_"): file[name] for name in file.files if name.startswith(f"{prefix}_")}
        rows |= {name: file[name] for name in file.files if name.startswith("published_") and prefix == "auction"}
    first_coupon = rows["first_coupon"].astype("datetime64[D]")
    first_coupon[rows["first_coupon"] == NONE] = np.datetime64("NaT")
    table = {name: rows[name].astype("datetime64[D]") for name in ("issue", "maturity", "settlement")}
    table |= {"first_coupon": first_coupon, "day_count": rows["day_count"]}
    table |= {"coupon": rows["coupon"] / 1e3, "frequency": rows["frequency"].astype(np.int64)}
    return table | {"yield": rows["rate"] / 1e3}, rows
