"""The last date of a run in tables: curves and what fits them, key-rate durations and tail risk of each bond."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.runtime.device import pick
from gpupipe.workloads.bonds import recipe, schema
from gpupipe.workloads.bonds.baselines import FEWEST, GRADES, svensson
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.ratings import NAMES
from gpupipe.workloads.bonds.steps.tail_risk import PORTFOLIOS

PAR = "par curve"
GRADE_NAMES = ("Treasuries", "investment grade", "high yield")  # of the ratings up to each of GRADES, and the others
KEY_RATE = "key_rate_"  # before the tenor, in the names of columns
GRID = 60  # points of a fitted curve


def grades_of(rating: np.ndarray) -> np.ndarray:
    """Names of the grades, texts (n,), of ratings int64 (n,): bonds of one grade share a fitted curve.

    >>> grades_of(np.array([0, 4, 5])).tolist()
    ['Treasuries', 'investment grade', 'high yield']
    """
    return np.asarray(GRADE_NAMES, object)[np.searchsorted(GRADES, rating)]


def curves(values: Mapping[str, Found]) -> dict[str, np.ndarray]:
    """Columns `curve` (its name), `fitted` (whether it is a Nelson-Siegel-Svensson curve), `years`, `rate` (percent).

    The par curve's own tenors and its fit, and for each grade the fit of its bonds' yields. A grade with fewer bonds
    than a fit needs has none.
    """
    found = values[recipe.ROWS]
    rows = values["tail_risk"]["row"]
    par_years, par = found["tenor_years"], _par(found, rows)
    known = np.isfinite(par)
    pieces = [(PAR, False, par_years[known], par[known])]
    samples = {PAR: (par_years[known], par[known])}
    years, yields = found["years"][rows], (found["spread"] + found["at_maturity"])[rows]
    grade = grades_of(found["rating"][rows])
    for name in GRADE_NAMES:
        own = (grade == name) & np.isfinite(years) & np.isfinite(yields)
        samples[name] = years[own], yields[own]
    for name, (x, y) in samples.items():
        if len(x) >= (FEWEST if name != PAR else 1):
            at = np.geomspace(max(x.min(), 1 / 12), max(x.max(), 1 / 6), GRID)
            pieces.append((name, True, at, svensson(x, y, at)))
    return {
        "curve": np.concatenate([np.full(len(x), name, object) for name, _, x, _ in pieces]),
        "fitted": np.concatenate([np.full(len(x), fitted) for _, fitted, x, _ in pieces]),
        "years": np.concatenate([x for _, _, x, _ in pieces]),
        "rate": np.concatenate([y for _, _, _, y in pieces]),
    }


def _par(found: Found, rows: np.ndarray) -> np.ndarray:
    """float64 (n_tenors,), percent: the par curve of the date of rows."""
    rates: np.ndarray = found["curve"][found["date"][rows[0]] if len(rows) else -1]
    return rates


def risk(panel: Panel, values: Mapping[str, Found], convention: str) -> dict[str, np.ndarray]:
    """A row for each bond with a yield on the last date.

    bond, grade, rating, type: texts.  rating_rank: int64, see `ratings.RANKS`.  years: to maturity.
    yield: percent; of a floating bond the spread over the curve at its maturity, so that bonds compare.
    fitted: percent, the yield with the spread of a Nelson-Siegel-Svensson curve, see `curve_fit.fitted_spreads`.
    value: percent of par, the dirty price.  modified: years.
    key_rate_m1, ...: years, as `bonds.key_rate_durations`, at the quoted price; without a curve they are left out.
    var, cvar: of its value, at the first level of the tail risk.
    """
    found, fair, tail = values[recipe.ROWS], values[recipe.VALUES], values["tail_risk"]
    panel, rows = panel.to(pick("cpu")), tail["row"]  # one date is too few bonds for a device
    symbol, rating, clean = panel.symbol_of_row[rows], found["rating"][rows], panel.columns["clean"][rows]
    return {
        "bond": np.asarray(panel.symbols, object)[symbol],
        "grade": grades_of(rating),
        "rating": np.asarray([NAMES[int(rank)] for rank in rating], object),
        "rating_rank": rating,
        "type": np.asarray(panel.attributes["type"], object)[symbol],
        "years": found["years"][rows],
        "yield": (found["spread"] + found["at_maturity"])[rows],
        "fitted": (found["fitted"] + found["at_maturity"])[rows],
        "value": clean + fair["accrued"][rows],
        "modified": fair["modified"][rows],
        **key_rates(panel, rows, clean, found, convention),
        "var": tail["bond_var"],
        "cvar": tail["bond_cvar"],
    }


def key_rates(
    panel: Panel, rows: np.ndarray, clean: np.ndarray, found: Found, convention: Any
) -> dict[str, np.ndarray]:
    """Key-rate durations of rows on the last date's par curve, float64 (n_rows,) in years, by name of the column.

    panel: on the host.  clean: float64 (n_rows,), percent of par.
    The spread that makes the curve's price the quoted one, `clean`, stays. Floating bonds are valued as such: their
    coupons follow the curve.
    """
    from gpupipe.workloads.bonds.valuation import Curve, key_rate_durations, value

    rates = _par(found, rows)
    if not len(rows) or not np.isfinite(rates).any():
        return {}
    curve = Curve(found["tenor_years"], rates)
    types = np.asarray(panel.attributes["type"])[panel.symbol_of_row[rows]]
    table = {**schema.bond_table(panel, rows), "type": types, "clean": clean}
    spread = value(table, given="clean", convention=convention, curve=curve, errors="ignore")["spread"]
    made = key_rate_durations({**table, "spread": spread}, curve, convention, errors="ignore")
    return {
        f"{KEY_RATE}{name}": np.asarray(made[name])
        for name in made if name not in ("curve_clean", "duration", "status")
    }  # fmt: skip


def losses(tail: Found) -> dict[str, np.ndarray]:
    """Losses of equal par of all bonds by scenario, float64 (n_scenarios,), shares of value: see `tail_risk.run`."""
    return {column: tail[column] for column in PORTFOLIOS.values()}
