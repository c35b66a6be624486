"""A planted signal is found by every family, in its own part; none claims to have found what is not there."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality import planted
from gpupipe.workloads import equity
from tests.support.tiny import SECTORS, in_sectors

SETTINGS = (
    "labels.horizons=1", "labels.thresholds=0.02", "training.max_bin=16", "split.parts=2", "joint.rounds=30",
    "joint.learning_rate=0.2", "forest.trees=15", "forest.sector_trees=5", "hist.rounds=40", "leafwise.rounds=40",
)  # fmt: skip


FEW = (*SETTINGS, "training.models=xgb_joint,linear,meta_learner")


def market(signal, n_bars, seed, kind="drift"):
    return in_sectors(planted.market(kind, signal, 88, n_bars, seed), SECTORS)


def test_the_pressure_is_read_off_the_bars():
    panel = market(1.0, 500, 0)
    pressure = planted.pressure_of(panel).reshape(panel.n_symbols, -1)
    assert np.abs(pressure).max() < 1.01 and pressure.std() == pytest.approx(0.628, abs=0.01)  # tanh of a normal
    close = np.log(panel.close.astype(np.float64).reshape(panel.n_symbols, -1))
    told = np.corrcoef(pressure[:, :-1].ravel(), np.diff(close, axis=1).ravel())[0, 1]
    assert told == pytest.approx(0.3, abs=0.03)  # 0.5 * 0.628 deviations of the other terms


def test_every_family_finds_the_signal_and_recovers_a_part_of_it():
    line = planted.once(market(1.0, 700, 1), equity.make("fast", settings=SETTINGS))
    assert set(line["families"]) == set(equity.DEFAULT_MODELS) and line["oracle"]["gain_over_prior"] > 0.015
    for name, family in line["families"].items():
        assert family["skill"] == "skill" and 0.3 < family["strength"] < 1.3, name


def test_no_family_claims_skill_where_there_is_no_signal():
    line = planted.once(market(0.0, 500, 2), equity.make("fast", settings=SETTINGS))
    assert {name: family["skill"] for name, family in line["families"].items()} == dict.fromkeys(
        equity.DEFAULT_MODELS, "no skill"
    )
    assert abs(line["oracle"]["gain_over_prior"]) < 0.01 and planted.false_positives([line])["families"] == (0, 6)
    skills = [family[f"{part}_skill"] for family in line["families"].values() for part in ("touch", "direction")]
    assert skills == ["no skill"] * 12


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_where_the_sign_alone_is_planted_there_is_direction_skill_and_no_touch_skill(seed):
    line = planted.once(market(1.0, 400, seed, "direction"), equity.make("fast", settings=FEW), "direction")
    for name, family in line["families"].items():
        assert (family["direction_skill"], family["touch_skill"]) == ("skill", "no skill"), name
        assert family["direction_gain"] > 0.012 > abs(family["touch_gain"])
    assert line["oracle"]["direction_gain"] > 0.04 and abs(line["oracle"]["touch_gain"]) < 0.005
    assert planted.false_parts([{"market": "direction", **line}]) == (0, 3)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_where_volatility_alone_is_planted_there_is_touch_skill_and_no_direction_skill(seed):
    settings = equity.make("fast", settings=[*FEW, *planted.MORE_SETTINGS["volatility"]])
    line = planted.once(market(1.0, 700, seed, "volatility"), settings, "volatility")
    for name, family in line["families"].items():
        assert (family["touch_skill"], family["direction_skill"]) == ("skill", "no skill"), name
        assert family["touch_gain"] > 0.03 and abs(family["direction_gain"]) < 0.012
    assert planted.false_parts([{"market": "volatility", **line}]) == (0, 3) and line["oracle"] == {}


def test_the_sign_that_is_planted_does_not_tell_how_far_a_price_will_move():
    """In a market large enough to see it: less than a 500th of what the oracle gains is touch, of a drift's a 200th."""
    settings = equity.make("fast", settings=["labels.horizons=1", "labels.thresholds=0.02", "features.names=roc_1"])
    tilted, drifting = (
        planted.oracle_gains(planted.market(kind, 1.0, 110, 2500, 1), settings) for kind in ("direction", "drift")
    )
    assert abs(tilted["touch"]) < 0.002 * tilted["direction"] and tilted["direction"] > 0.05
    assert drifting["touch"] > 0.005 * drifting["direction"] > 0.0001
