"""Sequence as a value: its target, the Dataset of a symbol, its presets, and what cannot be trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.config import ConfigError
from gpupipe.data import simulate
from gpupipe.dataset.dataset import NEVER
from gpupipe.estimators.torch.settings import PRESETS
from gpupipe.features.matrix import compute_features
from gpupipe.pipeline import job
from gpupipe.runtime.errors import UserError
from gpupipe.targets.classes import BUY, CLASSES, HOLD, SELL
from gpupipe.training.prepare import prepare
from gpupipe.workloads import equity
from gpupipe.workloads.sequence import SEQUENCE, Labels, check, recipe
from tests.support.market import panel_of

QUICK = ("training.models=linear", "linear.max_iterations=10")


def settings_of(*more, preset="fast"):
    return SEQUENCE.settings(preset, None, [*QUICK, *more])


def market(n_bars=500, n_symbols=2, **changes):
    panel = simulate(n_symbols=n_symbols, n_bars=n_bars, seed=5).replace(group_by="symbol")
    return panel.replace(**changes) if changes else panel


def test_the_target_is_barriers_then_the_direction_of_the_next_bar():
    target = SEQUENCE.target(settings_of("labels.multiples=1,2", "labels.thresholds=0.01"))
    assert target.names == (
        "label_1d_1pct", "label_1d_1vol", "label_1d_2vol", "label_5d_1pct", "label_5d_1vol", "label_5d_2vol",
        "direction_1d",
    )  # fmt: skip
    assert target.horizon_rows == (1, 1, 1, 5, 5, 5, 1) and target.class_names == CLASSES
    assert target.parameters[5] == {"horizon": 5, "multiple": 2.0} and target.parameters[6] == {"horizon": 1}
    assert target.folder(6, "BTC/USD") == "direction/BTC%2FUSD/1d" and target.folder(0, "BTC") == "trained_1pct/BTC/1d"


def test_direction_and_returns_of_the_next_bar_by_hand():
    bars = [(11, 9, c) for c in (10.0, 10.5, 10.5, 10.0, float("nan"), 10.0, 12.0)]
    panel = panel_of([bars, [(11, 9, 10.0), (11, 9, 9.0)]]).replace(group_by="symbol")
    change = recipe.next_return(panel)
    known = np.array([1, 1, 1, 0, 0, 1, 0, 1, 0], bool)
    np.testing.assert_array_equal(~np.isnan(change), known)
    np.testing.assert_allclose(change[known], [0.05, 0, 10 / 10.5 - 1, 0.2, -0.1], rtol=1e-6)
    for symbol, expected in (("S00000", [BUY, HOLD, SELL, -1, -1, BUY, -1]), ("S00001", [SELL, -1])):
        of_symbol = panel.of_group(symbol)
        features = compute_features(of_symbol, ["bar_return"])
        settings = settings_of("labels.horizons=1")
        dataset = SEQUENCE.dataset(of_symbol, features, SEQUENCE.labels(of_symbol, settings), symbol, settings)
        assert dataset.y[:, -1].tolist() == expected and dataset.target.names[-1] == "direction_1d"
        np.testing.assert_array_equal(dataset.extra["log_return_1"], np.log1p(recipe.next_return(of_symbol)))
        assert dataset.extra["log_return_1"].dtype == np.float32
        assert not dataset.usable[dataset.y[:, -1] < 0].any()
        assert (dataset.end_time_ns[dataset.usable] < NEVER).all()


def test_the_rest_of_a_dataset_is_that_of_equity():
    panel = market(300, 1)
    same = ("labels.horizons=1,5", "labels.thresholds=0.05", "training.sample_weight=uniqueness")
    features = compute_features(panel, "core")
    ours, theirs = (
        workload.dataset(panel, features, workload.labels(panel, settings), "SIM0000", settings)
        for workload, settings in ((SEQUENCE, settings_of(*same)), (equity.EQUITY, equity.make("fast", None, same)))
    )
    np.testing.assert_array_equal(ours.y[:, :-1], theirs.y)
    np.testing.assert_array_equal(ours.weight[:, :-1], theirs.weight)
    np.testing.assert_array_equal(ours.usable, theirs.usable)
    np.testing.assert_array_equal(ours.end_time_ns, theirs.end_time_ns)
    assert set(theirs.extra) < set(ours.extra) and ours.y.flags["F_CONTIGUOUS"]
    for k, horizon in enumerate(ours.target.horizon_rows):
        assert SEQUENCE.returns(ours.target, k) == f"forward_return_{horizon}"
        assert ours.extra[SEQUENCE.returns(ours.target, k)].shape == (panel.n_rows,)
    outline = SEQUENCE.outline(panel, "SIM0000", settings_of(*same))
    np.testing.assert_array_equal(outline.y, ours.y)
    np.testing.assert_array_equal(outline.end_time_ns, ours.end_time_ns)


def test_trades_of_labels_without_fixed_barriers_are_not_known():
    panel = market(60, 1)
    target = SEQUENCE.target(settings_of("labels.horizons=2", "labels.thresholds=0.02", "labels.multiples=1"))
    returns = SEQUENCE.trades(panel, target)
    plain = equity.EQUITY.trades(panel, target.take([0]))
    np.testing.assert_array_equal(returns.gross[:, :1], plain.gross)
    assert np.isnan(returns.gross[:, 1:]).all() and not np.isnan(plain.gross[:50]).all()
    np.testing.assert_array_equal(returns.end_time_ns[:, 1], panel.time_ns)
    only = SEQUENCE.trades(panel, target.take([1, 2]))
    assert np.isnan(only.gross).all() and only.gross.shape == (60, 2, 2)


def test_presets_are_those_of_the_networks():
    catalogue = SEQUENCE.catalogue()
    assert catalogue.presets == ("fast", "balanced", "quality", "legacy") and catalogue.default_models == ("sequence",)
    for name in catalogue.presets:
        chosen = settings_of(preset=name)
        assert chosen.sequence == dataclasses.replace(PRESETS[name], return_weight=1.0)
        assert chosen.training.pool == "none" and chosen.preset == name
    assert settings_of(preset=None).preset == "balanced"
    assert settings_of("training.pool=all").training.pool == "all"
    with pytest.raises(ConfigError, match="unknown preset 'legaci'; did you mean 'legacy'"):
        settings_of(preset="legaci")
    with pytest.raises(ConfigError, match="unknown preset 'legacy'; known: fast, balanced, quality"):
        equity.make("legacy")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"horizons": (5, 1)}, "horizons"), ({"thresholds": (0.02, 0.01)}, "thresholds"),
        ({"thresholds": ()}, "thresholds"), ({"multiples": (0.0,)}, "multiples"), ({"rule": "other"}, "rule"),
        ({"window": "other"}, "window"), ({"multiples": (2.0, 1.0)}, "multiples"), ({"horizons": ()}, "horizons"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be(changes, field):
    assert dataclasses.replace(Labels(), **changes).problem()[0] == field
    assert Labels().problem() is None


def test_a_run_says_its_steps():
    def sentence(*more, preset="fast"):
        chosen = settings_of(*more, preset=preset)
        training = dataclasses.replace(chosen.training, models=("sequence",))
        return check.step_sentence(chosen.unchecked(training=training))

    assert sentence() == (
        "1,024 rows at a learning rate of 0.008, in the place of 64 rows at 0.002: the rate grows by the square root "
        "of the rows (--batch-size 64 takes steps of 64)"
    )
    assert sentence("sequence.batch=16", "sequence.step_rows=0") == "16 rows at a learning rate of 0.002"
    assert sentence(preset="legacy") == "32 rows at a learning rate of 0.001"
    assert check.step_sentence(settings_of()) == ""


def test_what_cannot_be_trained_is_said_before_anything_is_written():
    def refused(panel, message, *more):
        with pytest.raises(UserError, match=message):
            check.require_trainable(SEQUENCE, panel, settings_of(*more))

    check.require_trainable(SEQUENCE, market(), settings_of())
    short = market(150)
    refused(short, r"nothing can be trained: SIM0000: of 150 bars, windows of 1 and labels of 5 bars leave .* training")
    refused(market(700), "more bars, shorter windows", "split.walk_forward=20")
    refused(market(3), "0 usable times are too few .* with labels of 5 bars")
    flat = np.full(1000, 12.5, np.float32)
    refused(market(open=flat, high=flat, low=flat, close=flat), "SIM0000: every close is 12.5, and a constant series")
    nothing = np.full(1000, np.nan, np.float32)
    refused(market(close=nothing), "SIM0000: no close is known; SIM0001: no close is known")
    refused(market(volume=nothing), "volume_ratio_1_20, .* not known in any of the last 400 bars, because no volume is")
    check.require_trainable(SEQUENCE, market(volume=nothing), settings_of("features.names=roc_5"))
    half = np.concatenate([nothing[:500], market().close[500:]]).astype(np.float32)
    check.require_trainable(SEQUENCE, market(close=half), settings_of())  # the other symbol can be trained


def test_windows_take_the_first_rows_of_a_symbol():
    chosen = settings_of()
    check.require_trainable(SEQUENCE, market(700), chosen)
    with pytest.raises(UserError, match=r"too few for .* windows of 451 bars"):
        check.require_trainable(SEQUENCE, market(700), settings_of("split.lookback_rows=450"))
    dataset = prepare(SEQUENCE, market(700), settings_of("split.lookback_rows=80")).datasets["SIM0001"]
    assert dataset.lookback_rows == 80 and not dataset.usable[:80].any() and dataset.usable[80]


def test_a_symbol_that_cannot_be_trained_is_skipped_and_the_other_is_not(tmp_path):
    panel = market(500)
    panel = panel.take(np.arange(1000) < 650)  # the second symbol begins with the first, and ends early
    whole, _ = job.execute(SEQUENCE, panel, None, settings_of("labels.horizons=1"), tmp_path, job.JobOptions(jobs=1))
    assert {row["sector"] for row in whole["models"]} == {"SIM0000"}
    assert [skipped["sector"] for skipped in whole["skipped"]] == ["SIM0001"]


def test_folds_of_symbols_have_the_same_times():
    prepared = prepare(SEQUENCE, market(), settings_of())
    cuts = [dataset.time_ns[prepared.splits[group].test[0]] for group, dataset in prepared.datasets.items()]
    assert len(cuts) == 2 and cuts[0] == cuts[1]
