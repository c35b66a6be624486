"""The section on tail risk: losses of all bonds under past moves, VaR and CVaR, by rating and sector."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpupipe.report import bond_charts, bond_words
from gpupipe.report.bond_fair_values import is_known, read
from gpupipe.report.formatting import to_percent
from gpupipe.report.page import Figure, Section, Table

Row = Mapping[str, Any]
LOSSES, RISK = "bonds/losses.parquet", "bonds/risk.parquet"  # in OUT, written by the workload
# Portfolios of the summary and what the page calls them: what moves the bonds in a scenario.
PORTFOLIOS = {
    "all": "curve and issuers together", "curve alone": "curve alone", "issuers independent": "issuers independent",
}  # fmt: skip
MEASURES = {"VaR 95 %": "var_95%", "CVaR 95 %": "cvar_95%", "VaR 99 %": "var_99%", "CVaR 99 %": "cvar_99%"}
BINS = 30


def tail_risk(out: pathlib.Path, whole: Row) -> Section:
    """Distribution of losses with VaR and CVaR, and both by rating and sector."""
    bonds = whole["bonds"]
    risk = bonds["tail_risk"]
    if not risk["scenarios"]:
        return Section("Tail risk", [f"{bond_words.tail_risk(bonds)}."])
    groups = {
        "what moves": {title: risk[name] for name, title in PORTFOLIOS.items()},
        "by rating": {name: risk["rating"][name] for name in sorted(risk["rating"], key=_rank_of(out))},
        "by sector": {name.replace("_", " "): of for name, of in risk["sector"].items()},
    }
    points = [
        {"panel": panel, "group": name, "what": what, "loss": 100 * of[MEASURES[what]]}
        for panel, found in groups.items() for name, of in found.items() for what in bond_charts.TAILS
        if of[MEASURES[what]] is not None
    ]  # fmt: skip
    columns = [("", False), ("", False), *((name, True) for name in MEASURES)]
    table = [
        [panel, name, *(to_percent(of[measure]) for measure in MEASURES.values())]
        for panel, found in groups.items() for name, of in found.items()
    ]  # fmt: skip
    text = [
        f"{bond_words.of_kind(whole['data'])}{bond_words.tail_risk(bonds)}.",
        "Each bond is valued again at its yield plus the change that the par curve and the spread of its issuer had on "
        "a past date. Issuers move together as they did on that date; independent, each moves as on a date of its own: "
        "what they lose more together is the effect of their correlation, with each other and with the curve. "
        "VaR is the quantile of the losses of equal par of each bond; CVaR is the mean of the losses from there on. "
        "Defaults count only as far as they moved spreads.",
    ]
    parts: list[Any] = _distribution(out, risk)
    if points:
        parts.append(Figure("VaR and CVaR at 95 % by what moves, by rating and by sector", bond_charts.tails(points)))
    parts.append(Table("Tail risk, % of the value; empty where no bond has a price in every scenario", columns, table))
    return Section("Tail risk", text, parts)


def _distribution(out: pathlib.Path, risk: Row) -> list[Any]:
    """The histogram of the losses of each portfolio whose losses are kept."""
    rows = read(out, LOSSES)
    if not rows:
        return []
    bars: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    losses = {
        portfolio_of(column): 100 * np.array([row[column] for row in rows])
        for column in rows[0] if all(is_known(row, column) for row in rows)
    }  # fmt: skip
    if not losses:
        return []
    edges = np.histogram_bin_edges(np.concatenate(list(losses.values())), bins=BINS)
    for name, values in losses.items():
        bars += [{"panel": PORTFOLIOS[name], **bar} for bar in histogram(values, edges)]
        marks += [
            {"panel": PORTFOLIOS[name], "at": 100 * risk[name][MEASURES[what]], "what": what}
            for what in bond_charts.TAILS
        ]
    caption = f"Losses of equal par of all bonds in {len(rows):,} scenarios of the past; below 0 are gains"
    return [Figure(caption, bond_charts.losses(bars, marks))]


def _rank_of(out: pathlib.Path) -> Callable[[str], int]:
    """The rank of a rating, the best first; ratings that no bond has are last."""
    ranks = {row["rating"]: row["rating_rank"] for row in read(out, RISK)}
    return lambda name: ranks.get(name, len(ranks) + 100)


def portfolio_of(column: str) -> str:
    """The portfolio of the summary whose losses a column has.

    >>> portfolio_of("loss"), portfolio_of("loss_curve_alone")
    ('all', 'curve alone')
    """
    return column.removeprefix("loss").strip("_").replace("_", " ") or "all"


def histogram(values: np.ndarray, edges: np.ndarray) -> list[dict[str, Any]]:
    """Bins with any value: "low", "high", "scenarios".

    >>> histogram(np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.5, 0.8, 1.0]))[0]["scenarios"]
    2
    """
    counts, _ = np.histogram(values, bins=edges)
    return [
        {"low": float(low), "high": float(high), "scenarios": int(n)}
        for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True) if n
    ]  # fmt: skip
