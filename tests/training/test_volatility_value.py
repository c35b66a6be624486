"""The value of knowing volatility, from bars to the summary: found where volatility clusters, and only there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.data import simulate
from gpupipe.evaluation.expected_move import calibrate, implied_volatility
from gpupipe.targets.target import Target
from gpupipe.targets.triple_barrier import tp_dd_labels
from gpupipe.training import volatility_value
from gpupipe.training.volatility_value import barriers, following
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, in_sectors

SETTINGS = (*QUICK, "training.models=linear,meta_learner", "labels.horizons=1,3")
MODELS = ("linear", "meta_learner")


def job(tmp_path_factory, memory):
    """(summary, the models of training by group, their splits, the market) of 45 symbols."""
    market = in_sectors(simulate(n_symbols=165, n_bars=420, seed=3, memory=memory), SECTORS)
    with pytest.MonkeyPatch.context() as patched:
        trained = tiny.listen_to_training(patched)
        settings = equity.make("fast", settings=SETTINGS)
        whole = tiny.execute(market, None, settings, tmp_path_factory.mktemp("value"))[0]
    return whole, trained, market


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    return job(tmp_path_factory, memory=1.0)


@pytest.fixture(scope="module")
def unpredictable(tmp_path_factory):
    return job(tmp_path_factory, memory=0.0)


def lines_of(whole):
    return {(line["horizon"], line["model"]): line for line in whole["volatility_value"]["lines"]}


def test_where_volatility_clusters_knowing_it_is_worth_something(clustered):
    lines = lines_of(clustered[0])
    for horizon in (1, 3):
        for model in (*MODELS, "natr"):
            line = lines[horizon, model]
            assert line["move_ratio"][0] > 1.3 and line["move_ratio"][1] > 1.1, model  # estimate, and lower end
            assert line["rank_correlation"][1] > 0.1, model
        constant = lines[horizon, "constant"]
        assert constant["move_ratio"] == pytest.approx([1, 1, 1])
        # What a constant lacks against NATR: all of it is clear.
        for name in ("qlike", "stop_unevenness", "risk_dispersion"):
            assert constant["above_rival"][name][1] > 0, name
        for model in MODELS:
            assert lines[horizon, model]["qlike"][0] < constant["qlike"][0]
            assert lines[horizon, model]["stop_unevenness"][0] < constant["stop_unevenness"][0]


def test_where_it_does_not_it_is_worth_nothing(unpredictable):
    lines = lines_of(unpredictable[0])
    for horizon in (1, 3):
        for model in (*MODELS, "natr"):
            line = lines[horizon, model]
            for name, nothing in (("move_ratio", 1.0), ("rank_correlation", 0.0)):
                estimate, low, high = line[name]
                assert low <= nothing <= high and estimate < nothing + 0.15, (horizon, model, name)


def test_the_section_is_small_and_names_its_rival(clustered):
    section = clustered[0]["volatility_value"]
    assert (section["rival"], section["stop_moves"]) == ("natr", 1.0)
    assert section["intended_stop_share"] == pytest.approx(0.3173, abs=1e-4)
    keys = [(line["horizon"], line["model"]) for line in section["lines"]]
    assert keys == [(h, name) for h in (1, 3) for name in (*MODELS, "natr", "constant")]
    natr = lines_of(clustered[0])[1, "natr"]
    assert natr["exponent"] == 1 and all(value == [0.0, 0.0, 0.0] for value in natr["above_rival"].values())
    rows = sum(len(split.test) for _, split in clustered[1].values())
    assert all(line["rows"] == rows for line in section["lines"])


def test_a_line_is_what_validation_and_test_predictions_give(clustered):
    whole, trained, market = clustered
    touch, moved = {}, {}
    for part in ("validation", "test"):
        touches, returns = [], []
        for sector, (models, split) in trained.items():
            labels = tp_dd_labels(market.of_group(sector), (1, 3), (0.02, 0.04))
            values = getattr(models, part)["linear"]
            at = [models.labels.index(f"label_3d_{t}pct") for t in (2, 4)]
            touches.append(values[:, at, 0].astype(float) + values[:, at, 2])
            returns.append(labels.forward_return[getattr(split, part), 1])
        touch[part], moved[part] = np.concatenate(touches), np.concatenate(returns)
    implied = {part: implied_volatility(touch[part], (0.02, 0.04), 3) for part in touch}
    scale = calibrate(implied["validation"], moved["validation"], 3)
    line = lines_of(whole)[3, "linear"]
    assert (line["factor"], line["exponent"]) == pytest.approx((scale.factor, scale.exponent))
    variance = scale.of(implied["test"]) ** 2 * 3
    assert line["qlike"][0] == pytest.approx(np.mean(np.log(variance) + moved["test"].astype(float) ** 2 / variance))


def test_a_stop_at_one_move_closes_about_as_many_as_it_should(clustered):
    """Fat tails and a path that is seen within bars move the share; the level is that of returns, not of extremes."""
    for line in clustered[0]["volatility_value"]["lines"]:
        if line["model"] in MODELS:
            assert 0.2 < line["stop_share"][0] < 0.45


def test_what_follows_a_row_by_hand():
    market = simulate(n_symbols=2, n_bars=6, seed=1)
    rows = np.array([0, 3, 4, 5, 6])
    next_return, rise, fall = following(market, rows, 2)
    known = [True, True, False, False, True]  # two bars of the same symbol follow
    assert np.isfinite(rise).tolist() == np.isfinite(fall).tolist() == known
    assert np.isfinite(next_return).tolist() == [True, True, True, False, True]
    for k, row in enumerate(rows):
        close = float(market.close[row])
        if known[k]:
            assert rise[k] == pytest.approx(market.high[row + 1 : row + 3].max() / close - 1, abs=1e-7)
            assert fall[k] == pytest.approx(1 - market.low[row + 1 : row + 3].min() / close, abs=1e-7)
        if np.isfinite(next_return[k]):
            assert next_return[k] == pytest.approx(market.close[row + 1] / close - 1, abs=1e-7)
    high = market.high.copy()
    high[2] = np.nan
    assert np.isnan(following(market.replace(high=high), rows, 2)[1][0])


def test_only_labels_by_barriers_of_a_fixed_threshold_count():
    assert barriers(equity.recipe.target_of((1,), (0.05,), (2.0,))) == {1: {"label_1d_5pct": 0.05}}
    assert barriers(Target(("value",), "value", (1,))) == {}


def test_there_is_no_section_where_nothing_is_traded(clustered):
    workload = dataclasses.replace(equity.EQUITY, volatility="")

    class Context:
        trades = object()

    assert volatility_value.measured(workload, Context, [object()]) == {}
    Context.trades = None
    assert volatility_value.measured(equity.EQUITY, Context, [object()]) == {}
