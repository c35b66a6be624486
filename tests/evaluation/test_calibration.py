"""Calibration, and precision by recall, from counts in bins of the probability equal those of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from gpupipe.evaluation import calibration


def drawn(n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    probability = rng.dirichlet((0.3, 8.0, 0.6), n).astype(np.float32)
    y = np.array([rng.choice(3, p=row / row.sum()) for row in probability.astype(np.float64)], np.int8)
    return probability, y


def test_counts_add_up_over_sectors():
    probability, y = drawn(4000)
    whole = calibration.curve_lines("all", "label", "model", probability, y)
    halves = calibration.curve_lines("a", "label", "model", probability[:1500], y[:1500])
    halves += calibration.curve_lines("b", "label", "model", probability[1500:], y[1500:])
    for side, c in (("buy", 2), ("sell", 0)):
        side_lines = [line for line in whole if line["side"] == side]
        assert sum(line["rows"] for line in side_lines) == 4000
        assert sum(line["happened"] for line in side_lines) == (y == c).sum()
        mean = sum(line["rows"] * line["probability"] for line in side_lines) / 4000
        assert mean == pytest.approx(probability[:, c].mean(dtype=np.float64), rel=1e-6)
        parts = [line for line in halves if line["side"] == side]
        assert calibration.precision_by_recall(parts) == calibration.precision_by_recall(side_lines)
        curves = zip(calibration.calibration(parts), calibration.calibration(side_lines), strict=True)
        for pooled_point, point in curves:
            assert pooled_point == pytest.approx(point)


def test_true_probabilities_are_calibrated_and_precision_by_recall_equals_scikit_learn():
    probability, y = drawn()
    lines = [line for line in calibration.curve_lines("a", "l", "m", probability, y) if line["side"] == "buy"]
    points = calibration.calibration(lines)
    assert 5 <= len(points) <= 10 and sum(point["rows"] for point in points) == len(y)
    for point in points:
        standard_error = np.sqrt(point["probability"] * (1 - point["probability"]) / point["rows"])
        assert abs(point["happened"] - point["probability"]) < 4 * standard_error + 1e-3
    curve = calibration.precision_by_recall(lines)
    assert curve[-1]["recall"] == 1 and curve[-1]["precision"] == pytest.approx((y == 2).mean())
    recall = np.array([0.0, *(point["recall"] for point in curve)])
    area = (np.diff(recall) * [point["precision"] for point in curve]).sum()
    assert area == pytest.approx(average_precision_score(y == 2, probability[:, 2]), abs=0.02)
    assert (
        calibration.precision_by_recall(calibration.curve_lines("a", "l", "m", probability[:5], np.ones(5, np.int8)))
        == []
    )
