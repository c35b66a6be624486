"""Deflated Sharpe ratio and overfitting of the best of many trials: by hand, on noise, and with a real edge."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpupipe.evaluation.multiple_testing import (
    deflated_sharpe,
    expected_maximum,
    overfitting,
    periods,
    probabilistic_sharpe,
    sharpe,
)


def noise(seed, n_periods=64, n_trials=50):
    return np.random.default_rng(seed).normal(size=(n_periods, n_trials))


def test_periods_leave_no_date_out():
    np.testing.assert_array_equal(periods(np.arange(7.0), 3), [1.5, 5.0])
    np.testing.assert_array_equal(periods(np.arange(8.0).reshape(4, 2), 2), [[1.0, 2.0], [5.0, 6.0]])
    assert periods(np.arange(2.0), 3).shape == (0,) and periods(np.ones((2, 4)), 3).shape == (0, 4)


def test_the_expected_maximum_equals_a_simulation():
    rng = np.random.default_rng(0)
    for n_trials in (5, 50, 500):
        largest = rng.normal(scale=0.3, size=(4000, n_trials)).max(axis=1).mean()
        # The formula is asymptotic: 1 % off at 50 and 500 trials, 3 % at 5.
        assert expected_maximum(n_trials, 0.3) == pytest.approx(largest, rel=0.04)
    assert expected_maximum(1, 0.3) == 0


def test_the_probabilistic_sharpe_ratio_of_the_paper():
    """Bailey and Lopez de Prado (2014), the example: annual Sharpe 2.5 over 1,250 days, skew -3, kurtosis 10.

    N = 100 trials and V = 1/2 give a largest expected Sharpe ratio of 0.1132 a day, and a deflated one of 0.9004.
    """
    benchmark = expected_maximum(100, math.sqrt(0.5 / 250))
    assert benchmark == pytest.approx(0.1132, abs=1e-4)
    ratio, n, skew, kurtosis = 2.5 / math.sqrt(250), 1250, -3, 10
    series = _series(n, ratio, skew, kurtosis)
    standard = (series - series.mean()) / series.std()
    np.testing.assert_allclose([(standard**3).mean(), (standard**4).mean()], [skew, kurtosis], rtol=1e-3)
    assert probabilistic_sharpe(series, benchmark) == pytest.approx(0.9004, abs=2e-3)


def _series(n, ratio, skew, kurtosis):
    """A series of n values with this Sharpe ratio, skewness and kurtosis."""
    # Three distinct values a < 0 < b and 0: a, b and their shares p, q solve the four moment equations.
    from scipy.optimize import fsolve

    def residuals(unknown):
        a, b, p, q = unknown
        moments = [p * a**k + q * b**k for k in (1, 2, 3, 4)]
        return np.array(moments) - [0, 1, skew, kurtosis]

    a, b, p, q = fsolve(residuals, [-3.5, 0.5, 0.05, 0.5])
    values = np.concatenate([np.full(round(p * n), a), np.full(round(q * n), b)])
    values = np.concatenate([values, np.zeros(n - len(values))])
    return (values - values.mean()) / values.std(ddof=1) + ratio


def test_pure_noise_has_no_skill():
    results = [overfitting(noise(seed)) for seed in range(30)]
    assert 0.4 < np.mean([pbo for pbo, _ in results]) < 0.6
    assert abs(np.mean([out_of_sample for _, out_of_sample in results])) < 0.05  # in sample the best has about 0.3
    deflated, undeflated = [], []
    for seed in range(30):
        series = noise(seed)
        best = series[:, sharpe(series).argmax()]
        deflated.append(deflated_sharpe(best, 50, series))
        undeflated.append(probabilistic_sharpe(best, 0.0))
    assert np.mean(undeflated) > 0.97 and np.mean(deflated) < 0.6  # without deflation the best of 50 looks like skill
    assert np.mean(np.array(deflated) > 0.95) < 0.1


def test_a_real_edge_has_skill():
    for seed in range(10):
        series = noise(seed)
        series[:, 7] += 1.0
        assert sharpe(series).argmax() == 7
        pbo, out_of_sample = overfitting(series)
        assert pbo < 0.01 and out_of_sample == pytest.approx(series[:, 7].mean(), abs=0.05)
        assert deflated_sharpe(series[:, 7], 50, series) > 0.99


def test_bad_trials_do_not_raise_the_benchmark_without_others():
    real, lucky = [], []
    for seed in range(30):
        series = noise(seed)
        lucky.append(deflated_sharpe(series[:, sharpe(series).argmax()], 50))
        series -= np.linspace(0, 3, 50)
        series[:, 0] += 0.8
        real.append(deflated_sharpe(series[:, 0], 50))
        assert deflated_sharpe(series[:, 0], 50, series) < 0.5  # the spread of the others is three Sharpe ratios
    assert np.mean(real) > 0.95 and np.mean(lucky) < 0.6 and np.mean(np.array(lucky) > 0.95) < 0.1


def test_more_trials_deflate_more():
    series = noise(3)
    best = series[:, sharpe(series).argmax()]
    probabilities = [deflated_sharpe(best, n, series) for n in (1, 10, 50, 1000)]
    assert probabilities == sorted(probabilities, reverse=True) and probabilities[0] > probabilities[-1] + 0.2


def test_overfitting_by_hand():
    """Six periods, two trials: 20 halves; trial 0 is better on the first three, trial 1 on the last three."""
    series = np.zeros((6, 2))
    series[:3, 0] = 1
    series[3:, 1] = 1
    # The trial that is better on one half is worse on the other; there are no ties.
    assert overfitting(series)[0] == 1
    assert overfitting(np.array([[0.0, 1.0]] * 6)) == (0.0, 1.0)
    assert overfitting(np.ones((6, 3))) == (1.0, 1.0)  # ties: mean rank 2 of 3, and 2 / 4 is in the lower half


def test_too_few_periods_or_trials_give_nan():
    assert math.isnan(probabilistic_sharpe(np.arange(5.0), 0)) and math.isnan(probabilistic_sharpe(np.ones(20), 0))
    assert all(math.isnan(value) for value in (*overfitting(noise(0)[:5]), *overfitting(noise(0)[:, :1])))
    assert math.isnan(deflated_sharpe(np.empty(0), 3, np.empty((0, 3))))
