"""The bars, from lines written by hand."""

from __future__ import annotations

import pytest

from bench.sequence.requirements import Measured, requirements, table, time_to_legacy
from bench.sequence.results import Results

SERIES = ("a", "b")
CURVES = {"legacy": [(10.0, 1.0), (40.0, 0.8)], "fast": [(2.0, 0.9), (10.0, 0.81)], "balanced": [(4.0, 0.7)]}


def training(series, preset, seed, way="ours", scale=1.0):
    curve = [
        {"seconds": s * scale, "loss": 1.0, "validation_loss": v, "rate": 0.1} for s, v in CURVES[preset]
    ]  # fmt: skip
    return {
        "series": series, "preset": preset, "way": way, "seed": seed, "jobs": 1, "curve": curve,
        "seconds": curve[-1]["seconds"],
        "validation_loss": min(v for _, v in CURVES[preset]), "epochs": len(curve), "peak_bytes": 2**30,
    }  # fmt: skip


def measured(n_seeds=5, whole=True):
    results = Results(None, {})
    for series in SERIES:
        for seed in range(1, n_seeds + 1):
            for preset in CURVES:
                results.add("training", training(series, preset, seed))
            results.add("training", training(series, "fast", seed, "origin", scale=3.0))
        results.add("epoch", {"series": series, "preset": "fast", "ratio": 2.5 if series == "a" else 2.3})
        results.add("stages", {"series": series, "preset": "fast", "features_and_dataset": 31.0})
        results.add("folds", {"series": series, "preset": "fast", "over_one_thread": 1.6, "over_all_threads": 1.2})
    return Measured(results, SERIES, whole)


def by_name(found):
    return {requirement.name: requirement for requirement in found}


def test_every_bar_is_judged_by_the_series_that_is_worst():
    found = by_name(requirements(measured()))
    epoch = found["epoch of fast, times faster than steps of its own batch"]
    assert (epoch.worst, epoch.bar, epoch.holds) == (2.3, 2.4, False)
    assert found["features and dataset, times faster than the usual way (fast)"].holds is True
    loss = found["validation loss of fast over legacy's"]
    assert loss.worst == pytest.approx(0.81 / 0.8) and loss.holds is True and loss.measured["a"]["n"] == 5
    assert found["whole training of fast, times faster than legacy's"].worst == pytest.approx(4.0)
    assert found["validation loss of fast over that of steps of its own batch"].worst == pytest.approx(1.0)
    one, every = (
        found[f"two folds side by side, times the throughput of one after the other on {words} (fast)"]
        for words in ("one thread", "all threads")
    )
    assert (one.holds, every.holds) == (True, False)


def test_what_is_not_measured_in_full_neither_holds_nor_fails():
    assert by_name(requirements(measured()))["validation loss of quality over legacy's"].holds is None
    for partial in (measured(n_seeds=4), measured(whole=False)):
        assert by_name(requirements(partial))["whole training of fast, times faster than legacy's"].holds is None
    assert table(Measured(measured().results, SERIES, True, jobs=2)) == [], "two at once take longer each"
    one_series = Measured(measured().results, (*SERIES, "c"), True)
    found = by_name(requirements(one_series))
    assert found["epoch of fast, times faster than steps of its own batch"].holds is None


def test_time_to_legacys_loss_counts_those_that_never_reach_it():
    found = time_to_legacy(measured())
    assert found["a ours fast"] == {"never": 5, "ratio": None}
    assert found["a ours balanced"]["never"] == 0 and found["a ours balanced"]["ratio"]["mean"] == pytest.approx(0.1)
    assert "a ours legacy" not in found


def test_the_table_has_a_line_for_each_series_way_and_preset():
    lines = table(measured(n_seeds=2))
    assert len(lines) == 8 and lines[0]["seeds"] == 2 and lines[0]["peak_mib"] == 1024
    assert table(Measured(Results(None, {}), SERIES, True)) == []
