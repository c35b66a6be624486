"""Calibration, and precision by recall, on the sealed test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.evaluation import calibration
from gpupipe.report import charts
from gpupipe.report.page import Figure, Section, Table
from gpupipe.report.words import title_of_label
from gpupipe.training.score import BASELINES

Row = Mapping[str, Any]
FEWEST_CALLS = 20  # rows of which a precision is shown


def probabilities(lines: Sequence[Row] | None) -> Section | None:
    """Of BUY and SELL. lines: of curves.parquet."""
    if lines is None:
        return None
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for line in lines:
        if line["model"] not in BASELINES:
            groups[line["side"], line["label"], line["model"]].append(line)
    parts: list[Any] = []
    for side in ("buy", "sell"):
        own = {(label, model): found for (this, label, model), found in groups.items() if this == side}
        parts += _of_side(side.upper(), own) if own else []
    text = [
        "On the sealed test, the rows of all sectors together. A curve of calibration has at most ten bins of about as "
        "many rows each; on the dashed line, what was said is what happened. The dashed line beside precision is the "
        "share of the class among all rows: what calling at random would come to; precision is drawn where at least "
        f"{FEWEST_CALLS} rows are called.",
    ]
    return Section("Probabilities", text, parts)


def _of_side(name: str, groups: Mapping[tuple[str, str], Sequence[Row]]) -> list[Any]:
    calibrated = _drawn(groups, calibration.calibration)
    precise = _drawn(groups, calibration.precision_by_recall)
    base = {}
    for (label, _), own in groups.items():
        base[title_of_label(label)] = sum(line["happened"] for line in own) / sum(line["rows"] for line in own)
    precise = [{**row, "base": base[row["label"]]} for row in precise if row["rows"] >= FEWEST_CALLS]
    columns = [("label", False), ("model", False), ("bin", True), ("mean probability, %", True), ("happened, %", True),
               ("rows", True), ("of them happened", True)]  # fmt: skip
    table, k, before = [], 0, None
    for row in calibrated:
        k = k + 1 if (row["label"], row["model"]) == before else 1
        before = row["label"], row["model"]
        happened = round(row["happened"] * row["rows"])
        shares = [100 * row["probability"], 100 * row["happened"]]
        table.append([row["label"], row["model"], k, *shares, row["rows"], happened])
    return [
        Figure(f"Calibration of {name}: what happened, by what was said",
               charts.curve(calibrated, "probability", "happened", ("mean probability", "share that happened"),
                            diagonal=True, log=True)),
        Figure(f"How many rows were given which probability of {name}", charts.counts(_drawn(groups, spread))),
        Table(f"Calibration of {name}, bin by bin", columns, table, digits=2, folded=True),
        Figure(f"Precision of calling {name}, by recall",
               charts.curve(precise, "recall", "precision", ("recall", "precision"))),
    ]  # fmt: skip


def _drawn(groups: Mapping[tuple[str, str], Sequence[Row]], of: Any) -> list[dict[str, Any]]:
    return [
        {"label": title_of_label(label), "model": model, **point}
        for (label, model), own in groups.items() for point in of(own)
    ]  # fmt: skip


def spread(lines: Sequence[Row]) -> list[dict[str, float]]:
    """Rows and their mean probability, by two bins of the counts each: half a unit of log-odds."""
    groups: dict[int, list[Row]] = defaultdict(list)
    for line in lines:
        groups[line["bin"] // 2].append(line)
    found = []
    for _, own in sorted(groups.items()):
        rows = sum(line["rows"] for line in own)
        if rows:
            found.append({"probability": sum(line["rows"] * line["probability"] for line in own) / rows, "rows": rows})
    return found
