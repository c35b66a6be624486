"""The sections on the last date's curve: its fit, and how bonds answer to the rate of each tenor."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.report import bond_charts, bond_words
from gpupipe.report.bond_charts import PAR, QUOTE
from gpupipe.report.bond_fair_values import MOST_POINTS, is_known, read, spread_out
from gpupipe.report.page import Figure, Section, Table

Row = Mapping[str, Any]
CURVES, RISK, QUOTES = (f"bonds/{name}.parquet" for name in ("curves", "risk", "quotes"))  # in OUT, by the workload
KEY_RATE = "key_rate_"  # before the tenor, in the names of columns
ALL = "all bonds"
FIT = [("", False), ("bonds, or tenors", True), ("RMSE of the fit, bp", True),
       ("largest residual, bp", True), ("mean yield, %", True)]  # fmt: skip


def curve_fit(out: pathlib.Path, whole: Row) -> Section | None:
    """The par curve of the last date, yields by grade and what fits them; None without lines of them."""
    lines, bonds = read(out, CURVES), read(out, RISK)
    if not lines:
        return None
    known = [row for row in bonds if is_known(row, "years", "yield", "fitted")]
    points = [
        {"grade": row["grade"], "years": row["years"], "yield": row["yield"], "bond": row["bond"]}
        for row in spread_out(known, MOST_POINTS)
    ]  # fmt: skip
    par = [row for row in lines if not row["fitted"]]
    points += [{"grade": PAR, "years": row["years"], "yield": row["rate"], "bond": PAR} for row in par]
    fitted = [{"grade": row["curve"], "years": row["years"], "yield": row["rate"]} for row in lines if row["fitted"]]
    table = [_fit_of_par(par, fitted), *_fit_of_grades(known)]
    text = [
        f"{bond_words.of_kind(whole['data'])}Nelson-Siegel-Svensson curves of {whole['bonds']['last_date']}, "
        "fitted by least squares to the par curve and to the yields of each grade. What a curve leaves of a bond's "
        "yield is its liquidity, its issuer and its rating within the grade.",
    ]
    return Section("Curve fit", text, [*_all_quotes(out),
        Figure("Yields of bonds (points) and par curve (squares) by years to maturity, with the curve that fits each",
               bond_charts.curves(points, fitted)),
        Table("Residuals of the fits", FIT, [row for row in table if row], digits=1),
    ])  # fmt: skip


def _all_quotes(out: pathlib.Path) -> list[Figure]:
    """Quoted against fitted yields of all dates, where the run has no models and so keeps them."""
    known = [row for row in read(out, QUOTES) if is_known(row, "yield", "fitted")]
    points = [
        {"panel": "yield, %", "x": row["yield"], "y": row["fitted"], "kind": QUOTE,
         "bond": f"{row['bond']}, {row['date']:%Y-%m-%d}"}
        for row in spread_out(known, MOST_POINTS)
    ]  # fmt: skip
    if not points:
        return []
    caption = f"Quoted yields of all dates and those of the curves that fit their dates: {len(known):,} quotes"
    return [Figure(caption, bond_charts.scatter(points, ("quoted", "fitted")))]


def key_rate_risk(out: pathlib.Path, whole: Row) -> Section | None:
    """Key-rate durations of the last date's bonds by grade; None without their curve."""
    rows = read(out, RISK)
    tenors = [name.removeprefix(KEY_RATE) for name in (rows[0] if rows else {}) if name.startswith(KEY_RATE)]
    known = [row for row in rows if is_known(row, "value", *(KEY_RATE + tenor for tenor in tenors))]
    if not tenors or not known:
        return None
    grades = list(dict.fromkeys(row["grade"] for row in known))
    groups = {ALL: known} | ({g: [row for row in known if row["grade"] == g] for g in grades} if grades[1:] else {})
    means = {name: _means(own, tenors) for name, own in groups.items()}
    points = [
        {"panel": name, "tenor": tenor, "years": value}
        for name, of in means.items() for tenor, value in zip(tenors, of, strict=True)
    ]  # fmt: skip
    total = float(means[ALL].sum())
    worst = tenors[int(np.argmax(means[ALL]))]
    text = [
        f"{bond_words.of_kind(whole['data'])}{len(known):,} bonds with equal par on the par curve of "
        f"{whole['bonds']['last_date']}: if the rate of one tenor rises by 1 %, the value falls by about its "
        "key-rate duration in percent. The spread to the curve that gives each bond its quoted price stays; coupons of "
        f"floating bonds follow the curve. All tenors together: {total:.2f} years, most of it at {worst}.",
    ]
    columns = [("", False), *((tenor, True) for tenor in tenors), ("all", True), ("bonds", True)]
    table = [[name, *of.tolist(), float(of.sum()), len(groups[name])] for name, of in means.items()]
    return Section("Key-rate risk", text, [
        Figure("Mean key-rate duration by tenor, weighted by value", bond_charts.key_rates(points, tenors)),
        Table("Key-rate durations, years", columns, table, digits=3),
    ])  # fmt: skip


def _means(rows: Sequence[Row], tenors: Sequence[str]) -> np.ndarray:
    """float64 (n_tenors,): durations of the rows together, each weighted by its value."""
    weight = np.array([row["value"] for row in rows])
    durations = np.array([[row[KEY_RATE + tenor] for tenor in tenors] for row in rows])
    means: np.ndarray = weight @ durations / weight.sum()
    return means


def _fit_of_par(par: Sequence[Row], fitted: Sequence[Row]) -> list[Any]:
    """A row of the table of fits; empty without a par curve. Between the fitted points the curve is a line."""
    line = [row for row in fitted if row["grade"] == PAR]
    if not par or not line:
        return []
    years, yields = (np.array([row[name] for row in line]) for name in ("years", "yield"))
    at = np.interp(np.array([row["years"] for row in par]), years, yields)
    return _fit(PAR, np.array([row["rate"] for row in par]), at)


def _fit_of_grades(rows: Sequence[Row]) -> list[list[Any]]:
    return [
        _fit(grade, *(np.array([row[k] for row in rows if row["grade"] == grade]) for k in ("yield", "fitted")))
        for grade in dict.fromkeys(row["grade"] for row in rows)
    ]


def _fit(name: str, yields: np.ndarray, fitted: np.ndarray) -> list[Any]:
    residual = 100 * (yields - fitted)
    root = float(np.sqrt((residual**2).mean()))
    return [name, len(yields), root, float(np.abs(residual).max()), float(yields.mean())]
