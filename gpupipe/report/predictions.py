"""Calibration curves, and precision by recall, of the predicted probabilities on the sealed test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from gpupipe.evaluation import calibration
from gpupipe.report import charts
from gpupipe.report.formatting import title_of_label
from gpupipe.report.page import Figure, Section, Table

Row = Mapping[str, Any]
FEWEST_CALLS = 20  # called rows below which no precision is drawn


def probabilities(lines: Sequence[Row] | None, baselines: Collection[str] = ()) -> Section | None:
    """Calibration and precision of BUY and SELL; None without lines.

    lines: rows of curves.parquet, as evaluation.calibration writes them.  baselines: models that are left out.
    """
    if lines is None:
        return None
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for line in lines:
        if line["model"] not in baselines:
            groups[line["side"], line["label"], line["model"]].append(line)
    parts: list[Any] = []
    for side in ("buy", "sell"):
        side_groups = {(label, model): rows for (name, label, model), rows in groups.items() if name == side}
        parts += _side_parts(side.upper(), side_groups) if side_groups else []
    text = [
        "Rows: the sealed test, all sectors together. A calibration curve has at most ten bins with about equally many "
        "rows each. On its dashed line, predicted probability and observed frequency are equal. The dashed line of a "
        "precision chart is the share of the class among all rows, which is the precision of random calls. Precision "
        f"is drawn where at least {FEWEST_CALLS} rows are called.",
    ]
    return Section("Probabilities", text, parts)


def _side_parts(name: str, groups: Mapping[tuple[str, str], Sequence[Row]]) -> list[Any]:
    """Figures and the table of one class; groups: lines by label and model."""
    calibrated = _points(groups, calibration.calibration)
    precise = _points(groups, calibration.precision_by_recall)
    base = {}
    for (label, _), rows in groups.items():
        base[title_of_label(label)] = sum(row["happened"] for row in rows) / sum(row["rows"] for row in rows)
    precise = [{**point, "base": base[point["label"]]} for point in precise if point["rows"] >= FEWEST_CALLS]
    columns = [("label", False), ("model", False), ("bin", True), ("mean predicted probability, %", True),
               ("observed frequency, %", True), ("rows", True), (f"rows labelled {name}", True)]  # fmt: skip
    table, k, before = [], 0, None
    for point in calibrated:
        k = k + 1 if (point["label"], point["model"]) == before else 1
        before = point["label"], point["model"]
        events = round(point["happened"] * point["rows"])
        shares = [100 * point["probability"], 100 * point["happened"]]
        table.append([point["label"], point["model"], k, *shares, point["rows"], events])
    return [
        Figure(f"Calibration of {name}: observed frequency by predicted probability",
               charts.curve(calibrated, "probability", "happened",
                            ("mean predicted probability", "observed frequency"), diagonal=True, log=True)),
        Figure(f"Number of rows by predicted probability of {name}", charts.counts(_points(groups, spread))),
        Table(f"Calibration of {name}: table of the bins", columns, table, digits=2, folded=True),
        Figure(f"Precision of {name} calls by recall",
               charts.curve(precise, "recall", "precision", ("recall", "precision"))),
    ]  # fmt: skip


def _points(
    groups: Mapping[tuple[str, str], Sequence[Row]], curve: Callable[[Sequence[Row]], list[dict[str, float]]]
) -> list[dict[str, Any]]:
    """Points of a curve for each label and model."""
    return [
        {"label": title_of_label(label), "model": model, **point}
        for (label, model), lines in groups.items() for point in curve(lines)
    ]  # fmt: skip


def spread(lines: Sequence[Row]) -> list[dict[str, float]]:
    """Number of rows and their mean probability, in bins of half a unit of log-odds: two bins of `lines` each."""
    groups: dict[int, list[Row]] = defaultdict(list)
    for line in lines:
        groups[line["bin"] // 2].append(line)
    points = []
    for _, group in sorted(groups.items()):
        rows = sum(line["rows"] for line in group)
        if rows:
            total = sum(line["rows"] * line["probability"] for line in group)
            points.append({"probability": total / rows, "rows": rows})
    return points
