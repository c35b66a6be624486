"""The simulated market has the documented statistics, and the planted signal is detectable."""

import numpy as np
import pytest

from gpupipe.data import data_hash, load, simulate
from gpupipe.data.sectors import GICS


def returns_of(panel):
    """Close-to-close log returns, float64 (n_symbols, n_bars - 1)."""
    return np.diff(np.log(panel.close.astype(np.float64).reshape(panel.n_symbols, -1)), axis=1)


@pytest.fixture(scope="module")
def panel():
    return simulate(44, 2000, seed=5)


def test_shape_and_consistency(panel):
    assert panel.n_rows == 88_000 and panel.groups == GICS
    assert bool((panel.low > 0).all() and (panel.low <= np.minimum(panel.open, panel.close)).all())
    assert bool((panel.high >= np.maximum(panel.open, panel.close)).all() and np.isfinite(panel.high).all())
    assert bool((panel.volume >= 1).all())
    weekday = (panel.time_ns // (86_400 * 10**9) + 3) % 7
    assert weekday.max() == 4


def test_fat_tails_and_clusters(panel):
    returns = returns_of(panel)
    unit = (returns - returns.mean(axis=1, keepdims=True)) / returns.std(axis=1, keepdims=True)
    assert np.median((unit**4).mean(axis=1)) > 4
    size = np.abs(unit)
    lagged = [np.corrcoef(size[k, 1:], size[k, :-1])[0, 1] for k in range(44)]
    plain = [np.corrcoef(unit[k, 1:], unit[k, :-1])[0, 1] for k in range(44)]
    assert np.mean(lagged) > 0.05 and abs(np.mean(plain)) < 0.02
    assert 0.01 < np.median(returns.std(axis=1)) < 0.04


def test_factors(panel):
    correlation = np.corrcoef(returns_of(panel))
    sector = np.array([GICS.index(name) for name in panel.sector])
    within = (sector[:, None] == sector) & ~np.eye(44, dtype=bool)
    between = sector[:, None] != sector
    assert correlation[within].mean() > correlation[between].mean() + 0.05 and correlation[between].mean() > 0.1


def test_volume_follows_the_move(panel):
    volume = np.log(panel.volume.astype(np.float64).reshape(44, -1))[:, 1:]
    moves = np.abs(returns_of(panel))
    assert np.mean([np.corrcoef(volume[k], moves[k])[0, 1] for k in range(44)]) > 0.3


def test_same_seed_same_bytes(panel):
    assert data_hash(simulate(44, 2000, seed=5)) == data_hash(panel) != data_hash(simulate(44, 2000, seed=6))
    fewer = simulate(3, 2000, seed=5)
    np.testing.assert_array_equal(fewer.close, panel.close[:6000])


def signal_correlation(panel):
    """Correlation of the next bar's return with the lower shadow's share, over all symbols."""
    low, high, open_, close = (
        np.log(getattr(panel, name).astype(np.float64).reshape(panel.n_symbols, -1))
        for name in ("low", "high", "open", "close")
    )
    lower, upper = np.minimum(open_, close) - low, high - np.maximum(open_, close)
    share = lower / (lower + upper)
    returns = np.diff(close, axis=1) / np.diff(close, axis=1).std(axis=1, keepdims=True)
    return np.corrcoef(share[:, :-1].ravel(), returns.ravel())[0, 1]


def test_signal():
    none, half, full = (signal_correlation(simulate(22, 1500, seed=1, signal=signal)) for signal in (0.0, 0.5, 1.0))
    assert abs(none) < 0.02
    assert 0.1 < half < full and full > 0.2


def test_without_memory_only_the_signal_predicts():
    """Neither a symbol's past volatility nor the symbol itself predicts the size of the next move."""
    for memory, predictable in ((1.0, True), (0.0, False)):
        size = np.abs(returns_of(simulate(44, 1500, seed=5, memory=memory)))
        past, future = size[:, :-1], size[:, 1:]
        assert (np.corrcoef(past.ravel(), future.ravel())[0, 1] > 0.05) == predictable
        halves = size[:, :750].mean(axis=1), size[:, 750:].mean(axis=1)
        assert (np.corrcoef(*halves)[0, 1] > 0.8) == predictable
        assert (size.mean(axis=1).std() > 0.001) == predictable
    assert signal_correlation(simulate(22, 1500, seed=1, signal=1.0, memory=0.0)) > 0.2


def test_a_tilt_changes_the_sign_of_returns_and_never_their_size():
    plain, tilted = (simulate(22, 1500, seed=1, tilt=tilt, memory=0.0) for tilt in (0.0, 1.0))
    before, after = returns_of(plain), returns_of(tilted)
    np.testing.assert_allclose(np.abs(before), np.abs(after), rtol=1e-3, atol=1e-6)  # of float32 prices
    flipped = (np.sign(before) != np.sign(after)).mean()
    assert 0.2 < flipped < 0.3  # half of those with probability |tanh(u)|, 0.54 on average
    assert signal_correlation(tilted) > 0.3 > abs(signal_correlation(plain)) * 10
    np.testing.assert_array_equal(plain.volume[:1], tilted.volume[:1])


def test_without_lean_the_shadows_are_equal():
    panel = simulate(22, 1500, seed=1, signal=1.0, lean=0.0)
    lower = np.log(np.minimum(panel.open, panel.close) / panel.low.astype(np.float64))
    upper = np.log(panel.high.astype(np.float64) / np.maximum(panel.open, panel.close))
    np.testing.assert_allclose(lower, upper, atol=3e-7)


@pytest.mark.parametrize("name", ["signal", "memory", "tilt", "lean"])
def test_shares_out_of_range_are_refused(name):
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"{name} must be in 0\.\.1, got {value}"):
            simulate(1, 1, **{name: value})


def test_minute_bars():
    panel = simulate(2, 400, bar="1min")
    steps = np.diff(panel.time_ns[:400])
    assert np.unique(steps[:389]).tolist() == [60 * 10**9] and steps[389] > 17 * 3600 * 10**9
    assert returns_of(panel).std() < 0.005


def test_by_name():
    panel, report = load("simulated: symbols=12, bars=30, seed=2, signal=0.5, bar=1min", device="cpu")
    assert data_hash(panel) == data_hash(simulate(12, 30, "1min", 2, 0.5)) == report.data_hash
    assert report.kind == "simulated"
    assert "12 symbols, 30 bars of 1min, seed 2, signal 0.5, memory 1, tilt 0, lean 1" in report.description
    smallest, _ = load("simulated:symbols=1,bars=1", device="cpu")
    assert smallest.n_rows == 1
    energy, _ = load("simulated", device="cpu", sectors="energy")
    assert energy.groups == ("energy",) and energy.n_symbols == 10
    moved, _ = load("simulated:symbols=2,bars=2", {"SIM0000": "Energy"}, device="cpu")
    assert moved.sector == ("energy", "consumer_discretionary")
