"""The sections on the models of bonds: gains over the baselines, searches, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.report import bond_charts, bond_words
from gpupipe.report.formatting import significant, to_percent
from gpupipe.report.page import Figure, Section, Shown, Table

Row = Mapping[str, Any]
SHIFTED, DRIFTED = 0.1, 0.2  # stability indices above which an input has shifted, and drifted
SEARCHES = [("step", False), ("family", False), ("trials", True), ("pruned", True), ("best loss", True),
            ("values", False)]  # fmt: skip
FITS = [("step", False), ("family", False), ("columns", True), ("loss on validation", True), ("kept", False)]
DRIFT = [("residuals of", False), ("PSI within validation", True), ("KS", True), ("p", True),
         ("PSI to the test", True), ("KS", True), ("p", True), ("score", True)]  # fmt: skip


def models_and_baselines(whole: Row) -> Section:
    """Gain of every model over each baseline on the sealed test."""
    bonds = whole["bonds"]
    measured = bonds["measured"]
    references = bond_words.baselines(bonds)
    points = [
        {"panel": f"over {reference}", "model": row["model"], "skill": row["skill"],
         **dict(zip(("low", "gain", "high"), map(to_percent, row["gain_over"][reference]), strict=True))}
        for reference in references for row in measured if row["kind"] == "model"
    ]  # fmt: skip
    gains = [(f"over {bond_words.SHORT.get(name, name)}, %", True) for name in references]
    columns = [("", False), ("", False), ("RMSE, bp", True), *gains, ("rank correlation", True)]
    names = {row["model"]: bond_words.SHORT.get(row["model"], row["model"]) for row in measured}
    names[bonds["chosen"]] += ", chosen"
    table: list[list[Any]] = [
        [names[row["model"]], row.get("skill", "baseline"), row["rmse_bp"],
         *(_gain(row["gain_over"][name], row["kind"] == "model") for name in references), row.get("rank_correlation")]
        for row in measured
    ]  # fmt: skip
    first = measured[0]
    text = [
        "Predicted is how a bond's spread moves against the others' until its next date, from columns known before. "
        f"{first['rows']:,} sealed quotes of issuers and dates that no model was trained on. "
        f"{bond_words.gain_sentence(bonds)} A model has skill where "
        "its intervals against all baselines, widened as six models are compared, lie above 0. Baselines: the last "
        "spread, the mean spread of the rating on the date, and a Nelson-Siegel-Svensson curve of the date's yields "
        "for each grade. Gains are of squared errors of moves against the other bonds of the date, relative to the "
        "spread: a move that all bonds share is not predicted. RMSE is of the spread itself, in basis points. The rank "
        "correlation is that of predicted with happened relative moves, averaged over dates.",
    ]
    if bonds["sample"]:
        text.append("Judged, and examined for drift, is a sample of the bonds: " + _sample(bonds["sample"]) + ".")
    shown = [point for point in points if point["gain"] is not None]
    parts: list[Any] = [Table("Models and baselines on the sealed test", columns, table)]
    if shown:
        caption = "Gain in squared error over each baseline, with 95 % intervals, not widened; hollow: no skill"
        parts.insert(0, Figure(caption, bond_charts.gains(shown)))
    return Section("Models and baselines", text, parts)


def compared_models(names: Sequence[str], wholes: Sequence[Row]) -> list[Section]:
    """Gains of two runs of bonds side by side; none without their models.  names: their titles on the page."""
    if not all(whole.get("bonds") and bond_words.has_models(whole["bonds"]) for whole in wholes):
        return []
    runs = [whole["bonds"] for whole in wholes]
    found = [{row["model"]: row["gain_over"] for row in bonds["measured"]} for bonds in runs]
    models = [row["model"] for row in runs[0]["measured"] if row["kind"] == "model"]
    table: list[list[Any]] = [
        [reference, model, *(_gain(gains[model][reference], True) for gains in found)]
        for reference in bond_words.baselines(runs[0]) for model in models
    ]  # fmt: skip
    columns = [("over", False), ("model", False), *((name, True) for name in names)]
    return [Section("Gains of models of bonds", [], [Table("Gain in squared error, %", columns, table)])]


def searches(whole: Row) -> Section:
    """What each model is and what its search found."""
    bonds = whole["bonds"]
    found = [
        [name, search["family"], search["trials"], search["pruned"], significant(search["loss"]),
         ", ".join(f"{key} {_value(value)}" for key, value in search["values"].items())]
        for name, search in _by_step(bonds, "searches")
    ]  # fmt: skip
    fits = [
        [name, fit["kind"], fit["columns"], significant(fit["validation_loss"]), _kept(fit)]
        for name, fit in _by_step(bonds, "fits")
    ]
    text = [
        "Losses are mean squared errors of relative moves of spreads less the mean of their date. Every model stops "
        "early: validation says how many trees, rounds or epochs are kept. A search judges its trials on blocks of "
        "training dates, each predicted from earlier dates and other issuers, and ends trials whose first blocks are "
        "worse than those of most.",
    ]
    return Section("Fits and searches", text, [
        Table("Models", FITS, fits), Table("Searches", SEARCHES, found),
    ])  # fmt: skip


def drift(whole: Row) -> Section:
    """Inputs and residuals of training against those of the test."""
    bonds = whole["bonds"]
    found = bonds["drift"]
    inputs = [
        {"input": name, "psi": of["psi"], "ks": of["ks"]}
        for name, of in found["inputs"].items() if of["psi"] is not None
    ]  # fmt: skip
    inputs.sort(key=lambda row: -row["psi"])
    residuals = [
        [name, *(of[part][measure] for part in ("validation", "test") for measure in ("psi", "ks", "p")), of["score"]]
        for name, of in _by_step({**bonds, **found}, "residuals")
    ]
    text = [
        f"{bond_words.drift(bonds)}.",
        "The population stability index (PSI) compares the shares of rows in ten bins of the earlier sample; above "
        f"{SHIFTED} is a shift, above {DRIFTED} drift. Columns that a date's bonds share, such as the level of the "
        "curve, take few values, so that their index is large. The score is the mean of the share of inputs that "
        "drifted and of the KS statistic of the residuals. The model that is tuned anew has the smallest loss of those "
        "whose residuals did not drift within validation; the test chose nothing.",
    ]
    parts: list[Any] = [Table("Drift of the residuals", DRIFT, residuals, digits=3)]
    if inputs:
        caption = f"Stability of the inputs, training against test rows; dashed: {SHIFTED} and {DRIFTED}"
        parts.insert(0, Figure(caption, bond_charts.stability(inputs, (SHIFTED, DRIFTED))))
        table = [[row["input"], row["psi"], row["ks"], found["inputs"][row["input"]]["p"]] for row in inputs]
        columns = [("input", False), ("PSI", True), ("KS", True), ("p", True)]
        parts.append(Table("Drift of the inputs", columns, table, digits=3, folded=True))
    return Section("Drift", text, parts)


def _by_step(bonds: Row, key: str) -> list[tuple[str, Any]]:
    """The entries of a part of the summary in the order of the steps."""
    return [(step["name"], bonds[key][step["name"]]) for step in bonds["steps"] if step["name"] in bonds[key]]


def _gain(ends: Any, interval: bool) -> Shown | None:
    """A gain as a cell, with its interval or without."""
    shown = ends if interval else (None, ends[1], None)
    return None if ends[1] is None else Shown(ends[1], bond_words.gain(shown))


def _kept(fit: Row) -> str:
    """What early stopping or a search kept, in words.

    >>> _kept({"kind": "forest", "trees": 25, "depth": 16}), _kept({"kind": "stack", "weights": {"forest": 0.219}})
    ('25 trees, depth 16', 'weights: forest 0.22')
    """
    kept = [f"{fit[name]} {name}" for name in ("trees", "rounds", "epochs") if name in fit]
    kept += [f"depth {fit['depth']}"] if "depth" in fit else []
    if "weights" in fit:
        kept.append("weights: " + ", ".join(f"{name} {weight:.2f}" for name, weight in fit["weights"].items()))
    return ", ".join(kept)


def _sample(sample: float) -> str:
    return f"{sample:.0%} of them" if sample < 1 else f"{sample:,.0f}"


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
