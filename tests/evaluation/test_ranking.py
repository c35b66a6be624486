"""Measures of a score by date equal alphalens' and pandas', and are defined on dates with few symbols, ties and NaN."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.quality import planted
from gpupipe.backtest.rules import Rules
from gpupipe.data import simulate
from gpupipe.evaluation import block_bootstrap, rank_summary, ranking

REFERENCE = pathlib.Path(__file__).parents[1] / "support" / "alphalens_reference.npz"
DAY_NS = 86_400_000_000_000


def sections_of(n_dates, n_symbols, forward_return, horizon=1, group=None, **options):
    """Dates of equally many symbols, rows in order of date and symbol."""
    date, symbol = (x.ravel() for x in np.indices((n_dates, n_symbols)))
    group = symbol % 3 if group is None else group
    return ranking.cross_sections(date * DAY_NS, symbol, group, np.ravel(forward_return), horizon, **options)


@pytest.mark.parametrize("lag", [1, 3])
def test_measures_by_date_equal_those_of_alphalens(lag):
    """Reference made by alphalens-reloaded, see tests/support/make_alphalens_reference.py; rows in another order."""
    given = np.load(REFERENCE)
    shuffled = np.random.default_rng(0).permutation(len(given["date"]))
    time_ns, symbol, group, score, forward_return = (
        given[name][shuffled] for name in ("date", "symbol", "group", "score", "forward_return")
    )
    sections = ranking.cross_sections(time_ns, symbol, group, forward_return, lag, n_quantiles=5)
    by_date = ranking.measure_by_date(score, sections, fill_cost_bps=0.0)
    expected = {
        "rank_ic": given["rank_ic"], "rank_ic_neutral": given["rank_ic_neutral"],
        "quantile_returns": given["quantile_returns"], "spread": 2 * given["half_spread"],
        "spread_net": 2 * given["half_spread"], "rank_autocorrelation": given[f"autocorrelation_{lag}"],
        "turnover_top": given[f"turnover_top_{lag}"], "turnover_bottom": given[f"turnover_bottom_{lag}"],
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(by_date, name), values, rtol=1e-9, atol=1e-12, err_msg=name)
    in_order = np.lexsort((given["symbol"], given["date"]))
    ranks = ranking.ranks_by(sections.date, score[sections.rows])
    np.testing.assert_array_equal(ranking.quantiles_of(sections, ranks), given["quantile"][in_order])
    assert np.isnan(by_date.rank_autocorrelation).sum() == np.isnan(by_date.turnover_top).sum() == lag


def test_ic_equals_qlib_s_formulas_with_ties():
    """Qlib's calc_ic: pred.corr(label) and pred.corr(label, method="spearman") of each date; ICIR = mean / std."""
    rng = np.random.default_rng(1)
    score, forward_return = np.round(rng.normal(size=(2, 40, 23)), 1)  # of one decimal, so that many are equal
    sections = sections_of(40, 23, forward_return)
    by_date = ranking.measure_by_date(score.ravel(), sections)
    frames = [pd.DataFrame({"score": s, "label": r}) for s, r in zip(score, forward_return, strict=True)]
    ic = pd.Series([frame["score"].corr(frame["label"]) for frame in frames])
    rank_ic = pd.Series([frame["score"].corr(frame["label"], method="spearman") for frame in frames])
    np.testing.assert_allclose(by_date.ic, ic, rtol=1e-9)
    np.testing.assert_allclose(by_date.rank_ic, rank_ic, rtol=1e-9)
    summary = rank_summary.summarise(by_date, block_bootstrap.draw(sections.times, 1, seed=0))
    expected = {
        "ic": ic.mean(), "icir": ic.mean() / ic.std(), "rank_ic": rank_ic.mean(), "ic_std": ic.std(),
        "rank_icir": rank_ic.mean() / rank_ic.std(), "rank_ic_t": stats.ttest_1samp(rank_ic, 0).statistic,
        "rank_ic_positive": (rank_ic > 0).mean(),
    }  # fmt: skip
    assert {name: summary[name] for name in expected} == pytest.approx(expected, rel=1e-9)


def test_newey_west_equals_its_formula():
    x = np.random.default_rng(2).normal(0.3, 1, 50)
    centred, n, lags = x - x.mean(), 50, 4
    gamma = [(centred[k:] * centred[: n - k]).sum() / n for k in range(lags + 1)]
    variance = gamma[0] + 2 * sum((1 - k / (lags + 1)) * gamma[k] for k in range(1, lags + 1))
    assert rank_summary.newey_west_t(x, lags) == pytest.approx(x.mean() / np.sqrt(variance / (n - 1)))
    assert np.isnan(rank_summary.newey_west_t(x[:1], 0)) and rank_summary.newey_west_error(np.ones(9), 3) == 0


def test_turnover_pays_two_fills_for_each_new_symbol_and_the_first_dates_pay_for_all():
    # Ten symbols in two quantiles; on the last date one symbol of the top changes places with one of the bottom.
    score = np.tile(np.arange(10.0), (3, 1))
    score[2, [0, 9]] = 9.0, 0.0
    forward_return = np.tile(np.arange(10) / 100, (3, 1))
    by_date = ranking.measure_by_date(score.ravel(), sections_of(3, 10, forward_return), fill_cost_bps=10.0)
    np.testing.assert_allclose(by_date.turnover_top, [np.nan, 0.0, 0.2])
    np.testing.assert_allclose(by_date.spread, [0.05, 0.05, 0.05 - 2 * 0.09 / 5])
    np.testing.assert_allclose(by_date.spread - by_date.spread_net, [2 * 2e-3, 0.0, 2 * 0.2 * 2e-3])
    rules = Rules()
    assert pytest.approx(rules.commission_bps + rules.spread_bps / 2 + rules.slippage_bps) == ranking.FILL_COST_BPS


def test_hit_rate_of_the_top_k_by_hand_and_with_ties_at_the_border():
    forward_return = np.array([[0.5, 0.1, -0.2, -0.3, 0.0, -0.1], [0.5, 0.1, -0.2, -0.3, 0.0, -0.1]])  # mean 0
    score = np.array([[6, 5, 4, 3, 2, 1], [9, 7, 7, 0, 0, 0]], float)
    by_date = ranking.measure_by_date(score.ravel(), sections_of(2, 6, forward_return, top_k=2))
    np.testing.assert_allclose(by_date.hit_rate, [1.0, (1 + 0.5) / 2])  # of two equal ones, half of each
    np.testing.assert_allclose(by_date.top_k_return, [0.3, (0.5 + 0.05 - 0.1) / 2], atol=1e-12)
    few = ranking.measure_by_date(score.ravel(), sections_of(2, 6, forward_return, top_k=4))
    assert np.isnan(few.hit_rate).all()  # six symbols do not have a top four


def test_few_symbols_constant_scores_and_missing_returns():
    rng = np.random.default_rng(3)
    forward_return = rng.normal(size=(4, 12))
    score = rng.normal(size=(4, 12)) + forward_return
    score[1] = 0.1  # constant, and not a binary fraction
    forward_return[2, :8] = np.nan  # four symbols are left
    sections = sections_of(4, 12, forward_return, n_quantiles=5)
    by_date = ranking.measure_by_date(score.ravel(), sections)
    assert sections.symbols.tolist() == [12, 12, 4, 12]
    for values in (by_date.ic, by_date.rank_ic, by_date.ic_neutral, by_date.rank_ic_neutral):
        assert np.isfinite(values).tolist() == [True, False, False, True]
    assert np.isfinite(by_date.quantile_returns).all(axis=1).tolist() == [True, False, False, True]
    # All equal: one quantile, whose mean is that of the date, so that its excess is 0; there is no spread.
    assert by_date.quantile_returns[1, 0] == pytest.approx(0, abs=1e-12) and np.isnan(by_date.spread[1])
    assert np.isnan(by_date.quantile_returns[2]).all() and np.isnan(by_date.turnover_top[3])
    assert by_date.hit_rate[1] == pytest.approx((forward_return[1] > forward_return[1].mean()).mean())


def test_a_score_that_is_not_known_leaves_its_rows_out():
    rng = np.random.default_rng(4)
    forward_return, score = rng.normal(size=(2, 6, 30))
    unknown = rng.random((6, 30)) < 0.2
    with_nan = np.where(unknown, np.nan, score).ravel()
    by_date = ranking.measure_by_date(with_nan, sections_of(6, 30, forward_return))
    returns = np.where(unknown, np.nan, forward_return)
    expected = ranking.measure_by_date(score.ravel(), sections_of(6, 30, returns, n_quantiles=5, top_k=6))
    for name in rank_summary.WITH_INTERVAL:
        np.testing.assert_allclose(getattr(by_date, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("score", [np.full(0, 0.5), np.full(12, np.nan), np.ones(12), np.arange(12.0)])
def test_no_row_no_score_a_constant_and_one_date_are_defined(score):
    n = len(score)
    sections = sections_of(1 if n else 0, 12, np.linspace(-1, 1, n))
    draws = block_bootstrap.draw(sections.times, 1, seed=0)
    summary = rank_summary.summarise(
        ranking.measure_by_date(score, sections), draws, np.zeros(len(sections.times), int)
    )
    varies = n > 0 and len(np.unique(score[np.isfinite(score)])) > 1
    assert summary["dates"] == varies and (summary["rank_ic"] == pytest.approx(1) if varies else True)
    assert np.isnan(summary["rank_ic_low"]) and np.isnan(summary["rank_icir"])  # one date has no interval
    assert len(summary["by_regime"]) == len(summary["by_year"]) == (n > 0)


def test_values_that_are_constant_in_every_group_have_no_neutral_ic():
    score = np.tile(np.array([0.1, 0.7, 0.3]), 5)[None].repeat(20, axis=0)  # what it says is about groups alone
    by_date = ranking.measure_by_date(
        score.ravel(), sections_of(20, 15, np.random.default_rng(5).normal(size=(20, 15)))
    )
    assert np.isfinite(by_date.rank_ic).all()
    assert np.isnan(by_date.rank_ic_neutral).all() and np.isnan(by_date.ic_neutral).all()


def test_numbers_of_quantiles_and_of_the_top_follow_the_number_of_symbols():
    chosen = {n: sections_of(2, n, np.zeros((2, n))) for n in (4, 10, 15, 30, 60)}
    assert {n: (s.n_quantiles, s.top_k) for n, s in chosen.items()} == {
        4: (0, 1), 10: (2, 2), 15: (3, 3), 30: (5, 6), 60: (10, 10),
    }  # fmt: skip
    summary = rank_summary.summarise(
        ranking.measure_by_date(np.arange(8.0), chosen[4]), block_bootstrap.draw(chosen[4].times, 1, seed=0)
    )
    assert summary["quantile_returns"] == [] and np.isnan(summary["spread"]) and np.isnan(summary["monotone"])


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="twice"):
        ranking.cross_sections(np.zeros(2, int), np.zeros(2, int), np.zeros(2), np.zeros(2), 1)
    with pytest.raises(ValueError, match="shape"):
        ranking.cross_sections(np.zeros(2, int), np.zeros(2, int), np.zeros(3), np.zeros(2), 1)
    sections = sections_of(20, 6, np.random.default_rng(0).normal(size=(20, 6)))
    with pytest.raises(ValueError, match="include all dates"):
        rank_summary.summarise(
            ranking.measure_by_date(np.arange(120.0), sections), block_bootstrap.draw(sections.times[:-1], 1, seed=0)
        )


def test_intervals_of_means_and_ratios_are_those_of_the_draws():
    rng = np.random.default_rng(6)
    forward_return = rng.normal(size=(80, 20))
    score = forward_return + 3 * rng.normal(size=(80, 20))
    sections = sections_of(80, 20, forward_return, horizon=2)
    by_date = ranking.measure_by_date(score.ravel(), sections)
    draws = block_bootstrap.draw(np.arange(-5, 90) * DAY_NS, 2, seed=3)  # of more dates than the score has
    regime = np.repeat([0, 2], 40)
    summary = rank_summary.summarise(by_date, draws, regime)
    position = (draws.starts[:, :, None] + np.arange(draws.block)).reshape(len(draws.starts), -1) % len(draws.times)
    held = (position >= 5) & (position < 85)
    drawn = [by_date.rank_ic[at[inside] - 5] for at, inside in zip(position, held, strict=True)]
    n_blocks = 80 / draws.block
    mean = block_bootstrap.interval(by_date.rank_ic.mean(), np.array([x.mean() for x in drawn]), n_blocks)
    assert (summary["rank_ic_low"], summary["rank_ic_high"]) == pytest.approx(mean)
    icir = by_date.rank_ic.mean() / by_date.rank_ic.std(ddof=1)
    ratio = block_bootstrap.interval(icir, np.array([x.mean() / x.std(ddof=1) for x in drawn]), n_blocks)
    assert (summary["rank_icir_low"], summary["rank_icir_high"]) == pytest.approx(ratio)
    low, high = summary["by_regime"]
    assert (low["regime"], high["regime"], low["dates"], high["dates"]) == ("low", "high", 40, 40)
    assert high["rank_ic"] == pytest.approx(by_date.rank_ic[40:].mean())
    assert high["rank_ic_low"] < high["rank_ic"] < high["rank_ic_high"]


def test_intervals_cover_the_true_rank_ic_of_overlapping_returns_about_as_often_as_they_claim():
    rng, covered, widths = np.random.default_rng(7), [], []
    for _ in range(60):
        score = rng.normal(size=(100, 30))
        daily = rng.normal(size=(104, 30))
        five_days = sum(daily[k : k + 100] for k in range(5))  # independent of the score, whose rank IC is 0
        slow = np.cumsum(score, axis=0) / 5  # a slow score, so that the dates' ICs overlap, too
        sections = sections_of(100, 30, five_days, horizon=5)
        summary = rank_summary.summarise(
            ranking.measure_by_date(slow.ravel(), sections), block_bootstrap.draw(sections.times, 5, seed=1)
        )
        covered.append(summary["rank_ic_low"] <= 0 <= summary["rank_ic_high"])
        widths.append(summary["rank_ic_high"] - summary["rank_ic_low"])
    assert np.mean(covered) > 0.85 and np.mean(widths) < 0.5


def test_a_planted_market_has_a_rank_ic_and_one_without_a_signal_has_none():
    """The score is the pressure of the bar, which in the simulated market leads the next return."""
    found = {}
    for signal in (1.0, 0.0):
        panel = simulate(60, 300, seed=4, signal=signal, memory=0.0)
        pressure = planted.pressure_of(panel).reshape(60, 300).T
        close = np.log(panel.close.astype(np.float64)).reshape(60, 300)
        forward_return = np.append(np.diff(close, axis=1), np.full((60, 1), np.nan), axis=1).T
        sections = sections_of(300, 60, forward_return)
        by_date = ranking.measure_by_date(pressure.ravel(), sections)
        found[signal] = rank_summary.summarise(by_date, block_bootstrap.draw(sections.times, 1, seed=0))
    assert found[1.0]["rank_ic_low"] > 0.05 and found[1.0]["rank_ic_neutral_low"] > 0.05
    assert found[1.0]["monotone"] > 0.9 and found[1.0]["spread_net_low"] > 0 and found[1.0]["quantiles"] == 10
    assert found[0.0]["rank_ic_low"] < 0 < found[0.0]["rank_ic_high"] and abs(found[0.0]["rank_ic"]) < 0.03


def test_paired_rank_ic_is_the_difference_and_tighter_than_two_intervals():
    rng = np.random.default_rng(8)
    forward_return = rng.normal(size=(120, 40))
    shared = forward_return + 2 * rng.normal(size=(120, 40))
    better, worse = shared + 0.2 * forward_return, shared
    sections = sections_of(120, 40, forward_return, horizon=5)
    worse[3, 4] = np.nan  # left out of both
    paired = rank_summary.paired_rank_ic(better.ravel(), worse.ravel(), sections)
    draws = block_bootstrap.draw(sections.times, 5, seed=0)
    both = np.where(np.isnan(worse), np.nan, better).ravel()
    alone = [rank_summary.summarise(ranking.measure_by_date(x, sections), draws) for x in (both, worse.ravel())]
    assert (paired["rank_ic_a"], paired["rank_ic_b"]) == pytest.approx(tuple(x["rank_ic"] for x in alone))
    assert paired["difference"] == pytest.approx(alone[0]["rank_ic"] - alone[1]["rank_ic"])
    assert 0 < paired["difference_low"] < paired["difference"] < paired["difference_high"]
    assert paired["difference_high"] - paired["difference_low"] < alone[0]["rank_ic_high"] - alone[0]["rank_ic_low"]
    same = rank_summary.paired_rank_ic(better.ravel(), better.ravel(), sections)
    assert same["difference"] == same["difference_low"] == same["difference_high"] == 0 and same["dates"] == 120


def test_medians_by_date_and_regimes_cut_on_training_dates():
    rng = np.random.default_rng(9)
    time_ns, values = rng.integers(0, 30, 400), rng.normal(size=400).astype(np.float32)
    values[rng.random(400) < 0.1] = np.nan
    times, medians = rank_summary.median_by_date(time_ns, values)
    expected = pd.Series(values.astype(np.float64)).groupby(time_ns).median()
    np.testing.assert_array_equal(times, expected.index)
    np.testing.assert_allclose(medians, expected)
    training = np.arange(1.0, 100.0)
    assert rank_summary.regimes_of(np.array([2.0, 50.0, 98.0, np.nan]), training).tolist() == [0, 1, 2, -1]
    # Calm dates alone are all in the regime that the training dates call calm.
    assert rank_summary.regimes_of(np.linspace(1, 9, 50), training).tolist() == [0] * 50
    assert rank_summary.regimes_of(np.ones(3), np.full(2, np.nan)).tolist() == [-1] * 3
