"""What the pictures of a report need of a run: probabilities counted by what happened, and label shares by year."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.evaluation.metrics import CALLED
from gpupipe.targets.classes import CLASSES

if TYPE_CHECKING:
    from gpupipe.dataset.dataset import Dataset

CURVES, SHARES = "curves.parquet", "label_shares.parquet"
# Edges of the bins of a probability, even in log-odds: rare classes have small probabilities, and many of them.
EDGES = 1.0 / (1.0 + np.exp(-np.linspace(-9.0, 5.0, 57)))


def count(probability: np.ndarray, happened: np.ndarray) -> dict[str, np.ndarray]:
    """Rows, what happened to them, and their probabilities, by bins of the probability, empty bins left out.

    probability: float (n,), of one class.  happened: bool (n,).
    Returns "bin" int64 (from 0, the probabilities below EDGES[0], to len(EDGES)), "rows" int64, "happened" int64 and
    "probability" float64, the mean. Sums of these over sectors are those of the rows together, and calibration and
    precision by recall follow from them, to the width of a bin.
    """
    at = np.searchsorted(EDGES, probability.astype(np.float64), side="right")
    n = len(EDGES) + 1
    rows, hits = np.bincount(at, minlength=n), np.bincount(at[happened], minlength=n)
    total = np.bincount(at, weights=probability.astype(np.float64), minlength=n)
    used = np.flatnonzero(rows)
    return {"bin": used, "rows": rows[used], "happened": hits[used], "probability": total[used] / rows[used]}


def of_model(sector: str, label: str, model: str, probability: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """Lines of curves.parquet: BUY and SELL of one model on its sealed test rows.

    probability: float (n, 3).  y: int8 (n,), all known.
    """
    lines = []
    for side, c in CALLED.items():
        found = count(probability[:, c], y == c)
        about = {"sector": sector, "label": label, "model": model, "side": side}
        columns = (found[name].tolist() for name in ("bin", "rows", "happened", "probability"))
        lines += [
            {**about, "bin": b, "rows": n, "happened": k, "probability": p}
            for b, n, k, p in zip(*columns, strict=True)
        ]  # fmt: skip
    return lines


def label_shares(datasets: Mapping[str, Dataset]) -> list[dict[str, Any]]:
    """Lines of label_shares.parquet: usable rows by sector, label, calendar year (UTC) and class."""
    lines = []
    for sector, dataset in datasets.items():
        to_host = dataset.device.to_host
        usable, y = to_host(dataset.usable), to_host(dataset.y)
        year = to_host(dataset.time_ns).astype("datetime64[ns]").astype("datetime64[Y]").astype(np.int64) + 1970
        for k, label in enumerate(dataset.target.names):
            known = usable & (y[:, k] >= 0)
            for one in np.unique(year[known]):
                counts = np.bincount(y[known & (year == one), k], minlength=len(CLASSES))
                named = {f"n_{name.lower()}": int(n) for name, n in zip(CLASSES, counts, strict=True)}
                lines.append({"sector": sector, "label": label, "year": int(one), **named})
    return lines


def parquet(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Lines as the bytes of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(lines)), buffer, compression="zstd")
    return buffer.getvalue()


def calibration(lines: Sequence[Mapping[str, Any]], most: int = 10) -> list[dict[str, float]]:
    """Mean probability and share that happened, in at most `most` groups of bins of about as many rows each.

    lines: of one class, of any sectors and models that are to be put together.
    """
    order = sorted(lines, key=lambda line: line["bin"])
    total = sum(line["rows"] for line in order)
    groups: list[list[Mapping[str, Any]]] = [[]]
    for k, line in enumerate(order):
        groups[-1].append(line)
        full = sum(one["rows"] for one in groups[-1]) >= total / most
        if full and k + 1 < len(order) and order[k + 1]["bin"] != line["bin"]:
            groups.append([])
    found = []
    for group in groups:
        rows = sum(line["rows"] for line in group)
        if rows:
            expected = sum(line["rows"] * line["probability"] for line in group)
            share = sum(line["happened"] for line in group) / rows
            found.append({"probability": expected / rows, "happened": share, "rows": rows})
    return found


def precision_by_recall(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Recall and precision of calling all rows from a bin on, from the highest bin down; empty without an event."""
    bins = sorted({line["bin"] for line in lines}, reverse=True)
    happened = sum(line["happened"] for line in lines)
    if not happened:
        return []
    called = hits = 0
    found = []
    for one in bins:
        own = [line for line in lines if line["bin"] == one]
        called += sum(line["rows"] for line in own)
        hits += sum(line["happened"] for line in own)
        found.append({"recall": hits / happened, "precision": hits / called, "rows": called})
    return found
