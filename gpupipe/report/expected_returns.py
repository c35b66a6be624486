"""What a trade is expected to earn by each model's score, and what it earned on the sealed test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.report import charts
from gpupipe.report.formatting import title_of_label, to_percent
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.shown_model import shown_model

Row = Mapping[str, Any]
COLUMNS = [("label", False), ("model", False), ("side", False), ("level, %", True), ("level's error, %", True),
           ("slope", True), ("slope's error", True), ("lean, errors", True),
           ("furthest group, errors", True)]  # fmt: skip


def expected_returns(whole: Mapping[str, Any]) -> Section | None:
    """Level and slope of every model, and expected against realised returns of one; None where a run has none.

    whole: the summary.
    """
    lines: Sequence[Row] = whole.get("expected_returns") or ()
    if not lines:
        return None
    model = shown_model([line["model"] for line in lines])
    points = [
        {"label": title_of_label(line["label"]), "side": line["side"], "expected": 100 * expected,
         "realised": 100 * realised, "low": None if error is None else 100 * (realised - 2 * error),
         "high": None if error is None else 100 * (realised + 2 * error), "rows": rows}
        for line in lines if line["model"] == model
        for expected, realised, error, rows in zip(
            line["expected"], line["realised"], line["error"], line["rows"], strict=True
        )
    ]  # fmt: skip
    table = [
        [title_of_label(line["label"]), line["model"], line["side"], to_percent(line["level"]),
         to_percent(line["level_error"]), line["slope"], line["slope_error"], _errors(line), line["worst"]]
        for line in lines
    ]  # fmt: skip
    bars = "A bar is two standard errors on each side."
    if all(point["low"] is None for point in points):
        bars = "The test has too few dates for standard errors."
    text = [
        "The score of a row is the return that the trade of a call is expected to earn, learned from out-of-fold and "
        "validation rows. Level: what a trade of any symbol earned. Slope: how much of the return that the "
        "probabilities promise beyond that of a symbol's peers (symbols of similar volatility on the same date) was "
        "realised; 1 is as promised, 0 is nothing. Lean: the return that went with the log-odds of an estimator that "
        "ranks returns, where the run has one, in standard errors. All are shrunk towards 0 by their standard errors.",
        sentence(lines, model),
        f"The figure compares expected with realised returns of {model} on the sealed test, before costs, in up to ten "
        f"groups of rising expected return. {bars} On the dashed line both are equal.",
    ]
    return Section("Expected returns", text, [
        Figure(f"Realised by expected return of a trade, %, by {model} on the sealed test", _spec(points)),
        Table("Level and slope of every model", COLUMNS, table, digits=2, folded=True),
    ])  # fmt: skip


def sentence(lines: Sequence[Row], model: str) -> str:
    """On how many labels a model's order of the symbols was worth something before the test."""
    of_model = [line for line in lines if line["model"] == model and line["side"] == "long"]
    known = [line for line in of_model if line["slope"] is not None]
    ranked = [
        title_of_label(line["label"]) for line in known if line["slope"] > line["slope_error"] or _errors(line) > 1
    ]
    if not known:
        return f"{model} has no slope of its own: the groups were trained apart, and each has its own."
    if not ranked:
        return f"The order of {model} earned nothing beyond its error on any of {len(known)} labels."
    return (
        f"The order of {model} earned more than its error on {len(ranked)} of {len(known)} labels: {'; '.join(ranked)}."
    )


def _errors(line: Row) -> float:
    """The lean in standard errors; NaN where there is none."""
    return line["lean"] / line["lean_error"] if line["lean_error"] else float("nan")


def _spec(points: Sequence[Row]) -> dict[str, Any]:
    import altair as alt

    sides = ["long", "short"]
    base = alt.Chart().encode(
        x=alt.X("expected:Q", title="expected return, %", scale=alt.Scale(zero=False)),
        color=alt.Color("side:N", scale=alt.Scale(domain=sides, range=["var(--buy)", "var(--sell)"]), title=None),
    )
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=alt.Y("realised:Q", title="realised return, %"),
        shape=alt.Shape("side:N", scale=alt.Scale(domain=sides, range=["circle", "square"]), title=None),
        tooltip=["label:N", "side:N", "rows:Q"]
        + [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("expected", "realised", "low", "high")],
    )
    bars = base.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q")
    lowest, highest = min(p["expected"] for p in points), max(p["expected"] for p in points)
    ends = [{"label": label, "x": x} for label in dict.fromkeys(p["label"] for p in points) for x in (lowest, highest)]
    diagonal = (
        alt.Chart().transform_filter("isValid(datum.x)").mark_line(strokeDash=[4, 3], color="var(--base)")
        .encode(x="x:Q", y="x:Q")
    )  # fmt: skip
    return charts._panels(alt, alt.layer(diagonal, bars, dots), [*points, *ends], "label", height=220)
