"""Equity as a value: its target, the Dataset of a sector, and labels by multiples of a volatility."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.dataset.audit import audit
from gpupipe.features.matrix import compute_features
from gpupipe.targets.classes import CLASSES
from gpupipe.targets.triple_barrier import tp_dd_labels
from gpupipe.workloads import equity
from gpupipe.workloads.equity import recipe
from tests.support.panels import random_panel


def test_the_target_names_each_horizon_and_threshold():
    target = equity.EQUITY.target(equity.make("fast"))
    assert target.names[:3] == ("label_1d_5pct", "label_1d_10pct", "label_2d_5pct") and len(target.names) == 6
    assert target.horizon_rows == (1, 1, 2, 2, 5, 5) and target.class_names == CLASSES and target.kind == "classes"
    assert target.parameters[3] == {"horizon": 2, "threshold": 0.10}
    assert target.folder(5, "energy") == "trained_10pct/energy/5d"


def test_labels_by_multiples_reach_the_dataset_with_their_horizons():
    panel = random_panel((160, 160), sectors=("energy",))
    volatility = compute_features(panel, "volatility_20").values[:, 0]
    labels = tp_dd_labels(panel, (1, 5), (0.05,), multiples=(2.0, 3.0), volatility=volatility)
    dataset = recipe.join(panel, compute_features(panel, "core"), labels, "energy")
    assert dataset.target.names == labels.names == (
        "label_1d_5pct", "label_1d_2vol", "label_1d_3vol", "label_5d_5pct", "label_5d_2vol", "label_5d_3vol",
    )  # fmt: skip
    assert dataset.target.horizon_rows == (1, 1, 1, 5, 5, 5)
    assert dataset.target.parameters[4] == {"horizon": 5, "multiple": 2.0}
    assert dataset.target.folder(4, "energy") == "trained_2vol/energy/5d"
    for k in range(dataset.n_targets):
        # The column's own horizon decides which row it depends on, and what a call of it earns.
        horizon = dataset.target.horizon_rows[k]
        name = equity.EQUITY.returns(dataset.target, k)
        assert name == f"forward_return_{horizon}" and labels.horizons[labels.horizon_of(k)] == horizon
        np.testing.assert_array_equal(dataset.extra[name], labels.forward_return[:, labels.horizon_of(k)])
    known = np.flatnonzero((labels.y >= 0).all(axis=1))
    np.testing.assert_array_equal(dataset.end_time_ns[known], panel.time_ns[labels.exit_row[known].max(axis=1)])


def test_labels_by_multiples_do_not_look_ahead():
    findings = {
        finding.name: finding for finding in audit(random_panel((300, 300)), ["roc_1"], (1, 5), (0.05,), (2.0,))
    }
    assert set(findings) == {"roc_1", "label_1d_5pct", "label_1d_2vol", "label_5d_5pct", "label_5d_2vol"}
    assert all(finding.clean for finding in findings.values())


def test_one_misread_horizon_is_noticed():
    panel = random_panel((160,), sectors=("energy",))
    labels = tp_dd_labels(panel, (1, 5), (0.05,))
    dataset = recipe.join(panel, compute_features(panel, "core"), labels, "energy")
    with pytest.raises(ValueError, match="horizon_rows has 1 entries, expected 2"):
        type(dataset.target)(dataset.target.names, "classes", (1,), CLASSES)
