"""The section on calibration by month and by volatility: expected against observed frequencies on the sealed test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.evaluation.calibration_slices import MONTH, VOLATILITY, errors_off, furthest_off
from gpupipe.report import rank_charts
from gpupipe.report.formatting import title_of_label
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.shown_model import shown_model

Row = Mapping[str, Any]
NORMAL = 1.96
TITLES = {MONTH: "month", VOLATILITY: "volatility quintile"}
WORDS = {MONTH: "in", VOLATILITY: "in volatility quintile"}


def calibration_by_slice(lines: Sequence[Row] | None) -> Section | None:
    """Expected and observed frequencies of the model that is shown, by month and by volatility; a table of all models.

    lines: rows of calibration_slices.parquet; None or empty gives None.
    """
    if not lines:
        return None
    shown = shown_model([line["model"] for line in lines])
    of_model = [line for line in lines if line["model"] == shown]
    parts: list[Any] = []
    for by in (MONTH, VOLATILITY):
        points = [_point(line) for line in of_model if line["by"] == by]
        if points:
            caption = (
                f"Expected (tick) and observed (triangle) frequency of SELL and BUY by {by}, {shown}; the interval of "
                "the observed frequency is 1.96 standard errors to each side, where there is one"
            )
            parts.append(Figure(caption, rank_charts.expected_and_observed(points, TITLES[by])))
    columns = [("label", False), ("model", False), ("class", False), ("by", False), ("slice", False), ("rows", True),
               ("dates", True), ("expected, %", True), ("observed, %", True), ("standard error", True),
               ("standard errors off", True)]  # fmt: skip
    table = []
    for line in lines:
        point = _point(line)
        shares = [point["expected"], point["observed"], _percent(line["error"]), point["off"]]
        table.append([point["label"], line["model"], point["class"], line["by"], line["slice"], line["rows"],
                      line["dates"], *shares])  # fmt: skip
    parts.append(Table("Calibration of every model by month and by volatility", columns, table, folded=True))
    text = [
        "Are the probabilities right in every month, and on calm and turbulent rows alike? Rows: the sealed test, all "
        "sectors together. Standard errors are of sums by date, since rows of one date share its shocks and label "
        "windows overlap; a slice with fewer than ten dates, or five expected events, has none. Quintile 1 of "
        "volatility is the calmest; quintiles are cut on the training rows.",
        *furthest_sentences(of_model),
    ]
    return Section("Calibration by month and volatility", text, parts)


def furthest_sentences(lines: Sequence[Row]) -> list[str]:
    """A sentence on the slice that is most standard errors off, and on how many are more than two.

    lines: of one model. Without any standard error the sentence says so.
    """
    worst = furthest_off(lines)
    if worst is None:
        return ["No slice has enough dates and events for a standard error."]
    known = [line for line in lines if not math.isnan(errors_off(line))]
    far = sum(abs(errors_off(line)) > 2 for line in known)
    off = errors_off(worst)
    return [
        f"{worst['model']} is furthest off {WORDS[worst['by']]} {worst['slice']}, {worst['side'].upper()} of "
        f"{title_of_label(worst['label'])}: expected {_share(worst, 'expected')} %, observed "
        f"{_share(worst, 'happened')} %, {abs(off):.1f} standard errors {'above' if off > 0 else 'below'} the "
        f"expected frequency. {far} of {len(known)} slices are more than two standard errors off; of calibrated ones "
        "about one in twenty would be, of months somewhat more, whose errors rest on few dates."
    ]


def _share(line: Row, name: str) -> str:
    return f"{100 * line[name] / line['rows']:.2f}"


def _point(line: Row) -> dict[str, Any]:
    """What the chart and the table show of a line, in percent."""
    observed = 100 * line["happened"] / line["rows"]
    error, off = _percent(line["error"]), errors_off(line)
    return {
        "label": title_of_label(line["label"]), "slice": line["slice"], "class": line["side"].upper(),
        "expected": 100 * line["expected"] / line["rows"], "observed": observed, "rows": line["rows"],
        "low": None if error is None else max(0.0, observed - NORMAL * error),
        "high": None if error is None else observed + NORMAL * error,
        "off": None if math.isnan(off) else off,
    }  # fmt: skip


def _percent(error: float | None) -> float | None:
    """A standard error in percent; None without one."""
    return None if error is None or math.isnan(error) else 100 * error
