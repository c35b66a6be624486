"""The section on the states of dates: regimes over time, and factors of the curve."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.report import bond_charts, bond_words
from gpupipe.report.bond_fair_values import is_known, read
from gpupipe.report.page import Figure, Section, Table

Row = Mapping[str, Any]
DATES, LOADINGS = "bonds/dates.parquet", "bonds/loadings.parquet"  # in OUT, written by the workload
LINES = {
    "market_spread": "mean spread of all bonds, %", "curve_level": "par yield of 10 years, %",
    "curve_slope": "10 years less 2 years, %",
}  # fmt: skip
SPLIT = {"validation_from": "validation begins", "test_from": "the sealed test begins"}
STATES = {
    "market_spread": "mean spread, %", "spread_deviation": "deviation of spreads, %", "curve_level": "10 years, %",
    "curve_slope": "slope, %", "curve_change": "change of 10 years, %",
}  # fmt: skip


def regimes(out: pathlib.Path, whole: Row) -> Section | None:
    """Regimes over time with the market's spread and the curve, and the factors; None without rows."""
    rows, bonds = read(out, DATES), whole["bonds"]
    if not rows:
        return None
    n = bonds["regimes"]["regimes"]
    names = [name_of(k, n) for k in range(n)]
    points: list[dict[str, Any]] = []
    for name, panel in LINES.items():
        points += [{"panel": panel, "kind": "band", **span} for span in bands(rows, names)]
        points += [
            {"panel": panel, "kind": "line", "time": _iso(row), "value": row[name]}
            for row in rows if is_known(row, name)
        ]  # fmt: skip
        points += [
            {"panel": panel, "kind": "split", "time": bonds["split"][key], "text": text}
            for key, text in SPLIT.items()
            if key in bonds["split"]
        ]
    columns = [("regime", False), ("dates", True), *((title, True) for title in STATES.values())]
    own = [[row for row in rows if row["regime"] == k] for k in range(n)]
    marked = "; dotted upright: validation begins, the sealed test begins" if bonds["split"] else ""
    table = [[names[k], len(of), *(_mean(of, name) for name in STATES)] for k, of in enumerate(own)]
    parts: list[Any] = [
        Figure(f"Market and curve, shaded by regime{marked}",
               bond_charts.over_dates(points, names)),
        Table("Means of the regimes", columns, table, digits=3),
    ]  # fmt: skip
    return Section("Regimes and factors", [_sentence(bonds), *_factor_text(bonds)],
                   [*parts, *_factor_parts(out, bonds)])  # fmt: skip


def name_of(regime: int, n: int) -> str:
    """The name of a regime, which are numbered by rising spread.

    >>> name_of(0, 3), name_of(1, 3), name_of(2, 3), name_of(0, 1)
    ('1, lowest spread', '2', '3, highest spread', '1')
    """
    end = {0: ", lowest spread", n - 1: ", highest spread"}.get(regime, "") if n > 1 else ""
    return f"{regime + 1}{end}"


def bands(rows: Sequence[Row], names: Sequence[str]) -> list[dict[str, str]]:
    """Spans of dates in one regime: "begin", "end" (ISO dates), "regime". A span ends where the next begins.

    >>> import datetime
    >>> rows = [{"date": datetime.date(2020, k, 1), "regime": r} for k, r in ((1, 0), (2, 0), (3, 1))]
    >>> bands(rows, ("calm", "wide"))[0]
    {'begin': '2020-01-01', 'end': '2020-03-01', 'regime': 'calm'}
    """
    runs = [list(run) for _, run in itertools.groupby(rows, key=lambda row: row["regime"])]
    ends = [_iso(run[0]) for run in runs[1:]] + [_iso(rows[-1])]
    return [
        {"begin": _iso(run[0]), "end": end, "regime": names[run[0]["regime"]]}
        for run, end in zip(runs, ends, strict=True)
    ]


def _sentence(bonds: Row) -> str:
    found = bonds["regimes"]
    dates = f"{found['dates_fitted']} {_fitted_on(bonds)}"
    scores = ", ".join(f"{k}: {value:.2f}" for k, value in found["silhouettes"].items())
    if found["regimes"] == 1:
        return f"One regime: no number of clusters separates the {dates}."
    return (
        f"{found['regimes']} regimes: clusters of the {dates} by level, slope, bend and change of the curve and by "
        "level, change and deviation of the spreads. Their number has the largest "
        f"silhouette ({scores}). Later dates belong to the nearest cluster and move none."
    )


def _fitted_on(bonds: Row) -> str:
    return "training dates" if bond_words.has_models(bonds) else "dates"


def _factor_text(bonds: Row) -> list[str]:
    shares = bonds["factors"]["explained"]
    if not shares:
        return []
    listed = ", ".join(f"{100 * share:.1f} %" for share in shares)
    return [f"Factors of the curve's changes between {_fitted_on(bonds)} (PCA) explain {listed} of their variance."]


def _factor_parts(out: pathlib.Path, bonds: Row) -> list[Any]:
    points = [
        {"factor": name.replace("_", " "), "years": row["years"], "loading": row[name]}
        for name in (f"factor_{k + 1}" for k in range(len(bonds["factors"]["explained"])))
        for row in read(out, LOADINGS) if is_known(row, name)
    ]  # fmt: skip
    if not points:
        return []
    return [Figure("Loading of each factor by tenor: how the curve moves with it", bond_charts.loadings(points))]


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if is_known(row, name)]
    return float(np.mean(values)) if values else None


def _iso(row: Row) -> str:
    return f"{row['date']:%Y-%m-%d}"
