"""A planted signal is found by every family, and none claims to have found what is not there."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality import planted
from gpupipe.data import simulate
from gpupipe.workloads import equity
from tests.support.tiny import SECTORS, in_sectors

SETTINGS = (
    "labels.horizons=1", "labels.thresholds=0.02", "training.max_bin=16", "split.parts=2", "joint.rounds=30",
    "joint.learning_rate=0.2", "forest.trees=15", "forest.sector_trees=5", "hist.rounds=40", "leafwise.rounds=40",
)  # fmt: skip


def market(signal, n_bars, seed):
    return in_sectors(simulate(88, n_bars, seed=seed, signal=signal, memory=0.0), SECTORS)


def test_the_pressure_is_read_off_the_bars():
    panel = market(1.0, 500, 0)
    pressure = planted.pressure_of(panel).reshape(panel.n_symbols, -1)
    assert np.abs(pressure).max() < 1.01 and pressure.std() == pytest.approx(0.628, abs=0.01)  # tanh of a normal
    close = np.log(panel.close.astype(np.float64).reshape(panel.n_symbols, -1))
    told = np.corrcoef(pressure[:, :-1].ravel(), np.diff(close, axis=1).ravel())[0, 1]
    assert told == pytest.approx(0.3, abs=0.03)  # 0.5 * 0.628 deviations of the other terms


def test_every_family_finds_the_signal_and_recovers_a_part_of_it():
    line = planted.once(market(1.0, 700, 1), equity.make("fast", settings=SETTINGS))
    assert set(line["families"]) == set(equity.DEFAULT_MODELS) and line["oracle_gain"] > 0.015
    for name, family in line["families"].items():
        assert family["skill"] == "skill" and 0.3 < family["strength"] < 1.3, name


def test_no_family_claims_skill_where_there_is_no_signal():
    line = planted.once(market(0.0, 500, 2), equity.make("fast", settings=SETTINGS))
    assert {name: family["skill"] for name, family in line["families"].items()} == dict.fromkeys(
        equity.DEFAULT_MODELS, "no skill"
    )
    assert abs(line["oracle_gain"]) < 0.01 and planted.false_positives([line])["families"] == (0, 6)
