"""Calibration, and precision by recall, from counts of predicted probabilities in bins; label shares by year.

Counts are small and additive: counts of several sectors add up. A run stores them as Parquet for the charts of the
report.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.evaluation.metrics import outer_classes

if TYPE_CHECKING:
    from gpupipe.dataset.dataset import Dataset

CURVES, SHARES = "curves.parquet", "label_shares.parquet"
# Bin edges, equidistant in log-odds: rare classes have many small probabilities.
EDGES = 1.0 / (1.0 + np.exp(-np.linspace(-9.0, 5.0, 57)))


def count(probability: np.ndarray, happened: np.ndarray) -> dict[str, np.ndarray]:
    """Rows, events and mean probability by bin of the predicted probability; empty bins are left out.

    probability: float (n,), of one class, without NaN (it would count in the highest bin).
    happened: bool (n,), whether the class was observed.
    Returns "bin" int64 (0 for probabilities below EDGES[0], up to len(EDGES)), "rows" int64, "happened" int64 (events)
    and "probability" float64 (the mean). Calibration and precision by recall follow, up to the width of a bin.

        >>> counts = count(np.array([0.5, 0.5, 1.0]), np.array([True, False, True]))
        >>> {name: values.tolist() for name, values in counts.items()}
        {'bin': [37, 57], 'rows': [2, 1], 'happened': [1, 1], 'probability': [0.5, 1.0]}
    """
    position = np.searchsorted(EDGES, probability.astype(np.float64), side="right")
    n = len(EDGES) + 1
    rows, hits = np.bincount(position, minlength=n), np.bincount(position[happened], minlength=n)
    total = np.bincount(position, weights=probability.astype(np.float64), minlength=n)
    used = np.flatnonzero(rows)
    return {"bin": used, "rows": rows[used], "happened": hits[used], "probability": total[used] / rows[used]}


def curve_lines(sector: str, label: str, model: str, probability: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """Lines of curves.parquet: the counts of the outer classes ("buy", "sell") for one model on its sealed test rows.

    probability: float (n, n_classes), without NaN.  y: int8 (n,), class numbers: all labels must be known.
    """
    lines = []
    for side, c in outer_classes(probability.shape[1]).items():
        counts = count(probability[:, c], y == c)
        key = {"sector": sector, "label": label, "model": model, "side": side}
        columns = (counts[name].tolist() for name in ("bin", "rows", "happened", "probability"))
        for bin_number, rows, events, mean in zip(*columns, strict=True):
            lines.append({**key, "bin": bin_number, "rows": rows, "happened": events, "probability": mean})
    return lines


def label_shares(datasets: Mapping[str, Dataset]) -> list[dict[str, Any]]:
    """Lines of label_shares.parquet: the number of usable rows by sector, label, calendar year (UTC) and class.

    Rows whose label is not known (-1) are left out.
    """
    lines = []
    for sector, dataset in datasets.items():
        to_host = dataset.device.to_host
        usable, y = to_host(dataset.usable), to_host(dataset.y)
        year = to_host(dataset.time_ns).astype("datetime64[ns]").astype("datetime64[Y]").astype(np.int64) + 1970
        names = dataset.target.class_names
        for k, label in enumerate(dataset.target.names):
            known = usable & (y[:, k] >= 0)
            for calendar_year in np.unique(year[known]):
                counts = np.bincount(y[known & (year == calendar_year), k], minlength=len(names))
                by_class = {f"n_{name.lower()}": int(n) for name, n in zip(names, counts, strict=True)}
                lines.append({"sector": sector, "label": label, "year": int(calendar_year), **by_class})
    return lines


def parquet(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Lines as the bytes of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(lines)), buffer, compression="zstd")
    return buffer.getvalue()


def calibration(lines: Sequence[Mapping[str, Any]], most: int = 10) -> list[dict[str, float]]:
    """The calibration curve: mean probability and observed frequency in at most `most` groups of about equal counts.

    lines: of a single class; lines of several sectors and models are pooled. A group is a range of bins with rows, so
    no value is NaN.
    """
    order = sorted(lines, key=lambda line: line["bin"])
    total = sum(line["rows"] for line in order)
    groups: list[list[Mapping[str, Any]]] = [[]]
    for k, line in enumerate(order):
        groups[-1].append(line)
        full = sum(member["rows"] for member in groups[-1]) >= total / most
        if full and k + 1 < len(order) and order[k + 1]["bin"] != line["bin"]:
            groups.append([])
    points = []
    for group in groups:
        rows = sum(line["rows"] for line in group)
        if rows:
            expected = sum(line["rows"] * line["probability"] for line in group)
            frequency = sum(line["happened"] for line in group) / rows
            points.append({"probability": expected / rows, "happened": frequency, "rows": rows})
    return points


def precision_by_recall(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Recall and precision of calling every row whose bin is at least b, for b from the highest bin down.

    lines: of a single class; lines of several sectors and models are pooled. Empty if the class was never observed.
    """
    bins = sorted({line["bin"] for line in lines}, reverse=True)
    happened = sum(line["happened"] for line in lines)
    if not happened:
        return []
    called = hits = 0
    points = []
    for bin_number in bins:
        bin_lines = [line for line in lines if line["bin"] == bin_number]
        called += sum(line["rows"] for line in bin_lines)
        hits += sum(line["happened"] for line in bin_lines)
        points.append({"recall": hits / happened, "precision": hits / called, "rows": called})
    return points
