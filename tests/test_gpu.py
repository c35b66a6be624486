"""What only a GPU can show: both halves give the same labels, features, bins and (nearly) the same models."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe import compute_bins, compute_features, load, pick, simulate, tp_dd_labels, train
from gpupipe.runtime.device import why_no_cuda
from gpupipe.targets.triple_barrier import PER_LABEL

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def panels():
    if problem := why_no_cuda():
        pytest.skip(problem)
    host = simulate(n_symbols=60, n_bars=400, seed=3, signal=0.5)
    return host, host.to(pick("cuda"))


@pytest.mark.parametrize("rule", ["take_profit_first", "first_touch"])
@pytest.mark.parametrize("horizons", [(1, 2, 5), (7, 30, 250)])
def test_labels_are_equal(panels, horizons, rule):
    host, device = (
        tp_dd_labels(panel, horizons, rule=rule, multiples=(1, 3), volatility=panel.high / panel.low - np.float32(1))
        for panel in panels
    )
    to_host = panels[1].device.to_host
    for name in (*PER_LABEL, "tp", "dd", "forward_return", "exit_row", "weight"):
        np.testing.assert_array_equal(getattr(host, name), to_host(getattr(device, name)), err_msg=name)


def test_features_are_equal(panels):
    host, device = (compute_features(panel) for panel in panels)
    assert host.hash == device.hash
    np.testing.assert_array_equal(panels[1].device.to_host(device.values), host.values)


def test_bins_are_equal(panels):
    floats = compute_features(panels[0]).values
    cuts = [np.unique(x[~np.isnan(x)])[:: max(1, len(np.unique(x)) // 60)] for x in floats.T]
    host, device = (compute_bins(panel, "default", cuts) for panel in panels)
    np.testing.assert_array_equal(panels[1].device.to_host(device.values), host.values)


@pytest.fixture(scope="module")
def runs(panels, tmp_path_factory):
    quick = ["joint.rounds=20", "joint_sector.rounds=5", "hist.rounds=10", "leafwise.rounds=10", "forest.trees=8",
             "forest.sector_trees=4", "linear.max_iterations=20", "training.min_positives=5"]  # fmt: skip
    # These fits are too small for a GPU, and would be placed on the CPU beside it.
    trees = tuple(f"{name}=cuda" for name in ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest"))
    found = []
    for name, panel, place in zip(("cpu", "cuda"), panels, ((), trees), strict=True):
        out = tmp_path_factory.mktemp(name)
        options = {"labels__thresholds": (0.03, 0.05), "training__place": place}
        found.append((train(panel, "fast", out, settings=quick, **options), load(out)))
    return found


def test_the_job_trains_on_the_gpu_and_counts_the_bus(runs):
    (on_cpu, _), (on_gpu, _) = runs
    assert on_gpu["device"]["kind"] == "cuda"
    assert on_gpu["n_models"] == on_cpu["n_models"] > 0
    assert sum(on_cpu["bus_bytes"]["to_host"].values()) == 0
    assert sum(on_gpu["bus_bytes"]["to_host"].values()) > 0
    assert on_gpu["device_peak_bytes"] is None or on_gpu["device_peak_bytes"] > 0  # None without a pool that counts


def test_quality_is_the_same_on_both(runs):
    """Histograms are summed in another order, so trees may split elsewhere where two splits are equally good."""
    (on_cpu, _), (on_gpu, _) = runs
    gain = [{(a["label"], a["model"]): a["test_log_loss"] for a in one["averages"]} for one in (on_cpu, on_gpu)]
    assert gain[0].keys() == gain[1].keys()
    for key, loss in gain[0].items():
        assert gain[1][key] == pytest.approx(loss, rel=0.05), key


def test_models_trained_on_the_gpu_predict_the_same_on_the_cpu(runs, panels):
    host, device = panels
    _, models = runs[1]
    on_gpu = device.device.to_host(models.predict(device).values)
    on_cpu = models.predict(host).values
    np.testing.assert_array_equal(np.isnan(on_gpu), np.isnan(on_cpu))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=2e-3)
