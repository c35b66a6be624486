"""Counts by bins of the probability give calibration, and precision by recall, of the rows themselves."""

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


def test_counts_add_up_and_sectors_together_are_their_rows_together():
    probability, y = drawn(4000)
    whole = calibration.of_model("all", "label", "model", probability, y)
    halves = calibration.of_model("a", "label", "model", probability[:1500], y[:1500])
    halves += calibration.of_model("b", "label", "model", probability[1500:], y[1500:])
    for side, c in (("buy", 2), ("sell", 0)):
        own = [line for line in whole if line["side"] == side]
        assert sum(line["rows"] for line in own) == 4000
        assert sum(line["happened"] for line in own) == (y == c).sum()
        mean = sum(line["rows"] * line["probability"] for line in own) / 4000
        assert mean == pytest.approx(probability[:, c].mean(dtype=np.float64), rel=1e-6)
        parts = [line for line in halves if line["side"] == side]
        assert calibration.precision_by_recall(parts) == calibration.precision_by_recall(own)
        for one, two in zip(calibration.calibration(parts), calibration.calibration(own), strict=True):
            assert one == pytest.approx(two)


def test_calibration_of_true_probabilities_and_precision_by_recall_as_scikit_learn():
    probability, y = drawn()
    lines = [line for line in calibration.of_model("a", "l", "m", probability, y) if line["side"] == "buy"]
    found = calibration.calibration(lines)
    assert 5 <= len(found) <= 10 and sum(one["rows"] for one in found) == len(y)
    for one in found:
        spread = np.sqrt(one["probability"] * (1 - one["probability"]) / one["rows"])
        assert abs(one["happened"] - one["probability"]) < 4 * spread + 1e-3
    curve = calibration.precision_by_recall(lines)
    assert curve[-1]["recall"] == 1 and curve[-1]["precision"] == pytest.approx((y == 2).mean())
    recall = np.array([0.0, *(one["recall"] for one in curve)])
    area = (np.diff(recall) * [one["precision"] for one in curve]).sum()
    assert area == pytest.approx(average_precision_score(y == 2, probability[:, 2]), abs=0.02)
    assert (
        calibration.precision_by_recall(calibration.of_model("a", "l", "m", probability[:5], np.ones(5, np.int8))) == []
    )
