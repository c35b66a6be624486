"""Draws of dates against loops, the interval's width where the truth is known, and what is called skill."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import t as student

from gpupipe.evaluation import block_bootstrap, leaderboard
from gpupipe.evaluation.block_bootstrap import EVENTS, PRIOR, PRIOR_ALL, Losses, by_time
from gpupipe.report import sentences
from gpupipe.store.content_store import dump_json

DAY_NS = 86_400 * 10**9


def dates_of(draws):
    """The positions of the dates of each draw, one list a draw, by a loop."""
    n = len(draws.times)
    return [[(start + k) % n for start in starts for k in range(draws.block)] for starts in draws.starts]


def test_draws_are_whole_blocks_of_dates_that_go_round():
    times = np.arange(47, dtype=np.int64) * DAY_NS
    draws = block_bootstrap.draw(np.repeat(times, 3), 5, 42)  # sectors share their dates
    assert draws.times.tolist() == times.tolist() and draws.block == 10 and draws.starts.shape == (2000, 5)
    assert sorted(set(draws.starts.ravel().tolist())) == list(range(47))
    values = np.random.default_rng(0).normal(size=(47, 3))
    by_loop = np.array([values[dates].sum(axis=0) for dates in dates_of(draws)])
    np.testing.assert_allclose(draws.sums(values), by_loop, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(block_bootstrap.draw(times, 5, 42).starts, draws.starts)
    assert (block_bootstrap.draw(times, 5, 43).starts != draws.starts).any()


@pytest.mark.parametrize(("n", "horizon", "block"), [(40, 5, 10), (250, 2, 10), (250, 20, 40), (8000, 5, 20)])
def test_a_block_is_longer_than_the_labels_look_ahead(n, horizon, block):
    assert block_bootstrap.draw(np.arange(n), horizon, 0).block == block


def test_coverage_of_the_mean_of_a_series_with_memory():
    """Errors of overlapping windows with volatility that lasts: 95 % intervals of their mean, which is 0."""
    rng = np.random.default_rng(0)
    n, m = 120, 400
    log_volatility = lfilter([0.31], [1, -0.95], rng.standard_normal((n + 200, m)), axis=0)
    shocks = rng.standard_t(5, (n + 200, m)) * np.exp(0.35 * log_volatility)
    series = lfilter(np.ones(5), [1], shocks, axis=0)[-n:]
    draws = block_bootstrap.draw(np.arange(n), 5, 1)
    means = draws.sums(series) / (draws.starts.shape[1] * draws.block)
    found = [block_bootstrap.interval(series[:, k].mean(), means[:, k], draws.n_blocks) for k in range(m)]
    held = np.mean([low <= 0 <= high for low, high in found])
    above = np.mean([low > 0 for low, _ in found])
    assert 0.92 <= held <= 0.98 and above <= 0.045
    days = np.random.default_rng(1).integers(0, n, (500, n))  # dates alone, as if they were independent
    alone = np.quantile(series[days].mean(axis=1), [0.025, 0.975], axis=0)
    assert ((alone[0] <= 0) & (alone[1] >= 0)).mean() < 0.75


def test_percentiles_are_stretched_for_few_blocks():
    drawn = np.linspace(-1, 1, 2001)
    low, high = block_bootstrap.interval(0.1, np.append(drawn, np.nan), 4.0)
    stretch = student.ppf(0.975, 3) / 1.959964 * np.sqrt(4 / 3)
    assert (low, high) == pytest.approx((0.1 - stretch * 1.05, 0.1 + stretch * 0.85), rel=1e-6)
    assert block_bootstrap.interval(0.1, drawn, 1e6) == pytest.approx((-0.95, 0.95), rel=1e-4)
    low, high = block_bootstrap.interval(0.1, drawn, 4.0, level=0.99)
    stretch = student.ppf(0.995, 3) / 2.575829 * np.sqrt(4 / 3)
    assert (low, high) == pytest.approx((0.1 - stretch * 1.09, 0.1 + stretch * 0.89), rel=1e-6)
    for unknown in (block_bootstrap.interval(0.1, drawn, 2.9), block_bootstrap.interval(float("nan"), drawn, 9.0)):
        assert np.isnan(unknown).all()


def test_skill_is_what_lies_above_both_priors():
    nan = float("nan")
    pairs = ((0.1, 0.1), (0.1, 0.0), (0.0, 0.1), (-0.1, 0.1), (nan, 0.1), (0.1, nan))
    said = [block_bootstrap.skill(over_prior, over_prior_all) for over_prior, over_prior_all in pairs]
    assert said == ["skill", "no skill", "no skill", "no skill", "not known", "not known"]


def losses_of(n_times, gains, seed, days=slice(None)):
    """Losses of 20 rows a date; `gains` is by model what it takes off the prior's loss, on average, and how surely."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(15, 25, n_times)
    prior = rows * rng.uniform(0.8, 1.2, n_times)
    sums = {("a", PRIOR): prior, ("a", PRIOR_ALL): prior * 1.01}
    for model, (gain, noise) in gains.items():
        sums["a", model] = prior * (1 - gain + noise * rng.standard_normal(n_times))
    times = np.arange(n_times, dtype=np.int64) * DAY_NS
    return Losses(times[days], rows[days], {key: values[days] for key, values in sums.items()})


TABLES = ("volatility_table_sector", "volatility_table_all")


def board_of(rows, resampled):
    return leaderboard.Measured(
        rows, resampled, tables=TABLES, judged=("xgb_joint", "meta_learner"), stacking="meta_learner"
    )


def rows_of(losses, resampled):
    """Summary rows of these losses, as far as the verdict reads them."""
    rows = []
    for sector, own in losses.items():
        mean = {key: values.sum() / own.rows.sum() for key, values in own.sums.items()}
        for (label, model), loss in mean.items():
            if model == PRIOR:
                continue
            gain = 1 - loss / mean[label, PRIOR]
            low, _ = resampled.interval([sector], gain, resampled.gain([sector], label, model))
            rows.append({
                "kind": "baseline" if model in (PRIOR_ALL, *TABLES) else "model", "sector": sector,
                "label": label, "model": model, "test_skill": block_bootstrap.skill(low, low),
                "test_rows": int(own.rows.sum()),
                "test_return_buy_and_hold": 0.01, "test_calls_buy": 0, "test_return_when_buy": float("nan"),
                "test_calls_sell": 4, "test_return_when_sell": -0.02,
                **{f"{part}_{name}": value for part in ("validation", "test") for name, value in (
                    ("log_loss", loss), ("prior_log_loss", mean[label, PRIOR]), ("gain_over_prior", gain))},
            })  # fmt: skip
    return rows


GAINS = {
    "xgb_joint": (0.10, 0.05), "linear": (-0.02, 0.2), "meta_learner": (0.12, 0.05),
    "volatility_table_sector": (0.02, 0.02), "volatility_table_all": (0.09, 0.3),
}  # fmt: skip


@pytest.fixture(scope="module")
def judged():
    """(losses by sector, resampled, rows): 100 dates, the last sector has rows on half of them."""
    losses = {s: losses_of(100, GAINS, k, slice(50 * (k == 2), None)) for k, s in enumerate(("x", "y", "late"))}
    resampled = block_bootstrap.resample(block_bootstrap.draw(np.arange(100) * DAY_NS, 5, 42), losses)
    return losses, resampled, rows_of(losses, resampled)


def test_the_gain_of_a_draw_is_that_of_its_dates(judged):
    losses, resampled, _ = judged
    drawn = resampled.gain(["x", "late"], "a", "linear")
    for k, dates in enumerate(dates_of(resampled.draws)[:20]):
        mean = {PRIOR: [], "linear": []}
        for sector in ("x", "late"):
            own = losses[sector]
            at = [np.flatnonzero(own.times == d * DAY_NS) for d in dates]
            at = np.concatenate(at)
            for name, values in mean.items():
                values.append(own.sums["a", name][at].sum() / own.rows[at].sum())
        assert drawn[k] == pytest.approx(1 - np.mean(mean["linear"]) / np.mean(mean[PRIOR]), rel=1e-12)
    assert resampled.blocks == {"x": 10.0, "y": 10.0, "late": 5.0}


def test_both_sides_of_a_difference_see_the_same_dates():
    """A model that is another's twin, a little worse on every date, is worse in every draw, however noisy both are."""
    own = losses_of(60, {"one": (0.05, 0.5)}, 0)
    own.sums["a", "twin"] = own.sums["a", "one"] + 0.001 * own.rows
    resampled = block_bootstrap.resample(block_bootstrap.draw(own.times, 5, 0), {"x": own})
    difference = resampled.gain(["x"], "a", "one") - resampled.gain(["x"], "a", "twin")
    assert (difference > 0).all() and difference.std() < 1e-3 < resampled.gain(["x"], "a", "one").std()


def test_averages_verdict_and_words(judged):
    _, resampled, rows = judged
    board = board_of(rows, resampled)
    means = board.averages()
    by_model = {a["model"]: a for a in means}
    assert {name: by_model[name]["test_skill"] for name in ("xgb_joint", "linear", PRIOR_ALL)} == {
        "xgb_joint": "skill", "linear": "no skill", PRIOR_ALL: "no skill"
    }  # fmt: skip
    for a in means:
        assert a["test_gain_low"] <= a["test_gain_over_prior"] <= a["test_gain_high"]
    assert by_model["xgb_joint"]["test_gain_low"] > 0.07 and by_model["linear"]["test_gain_low"] < 0
    assert by_model["linear"]["test_return_buy_and_hold"] == pytest.approx(0.01)
    assert np.isnan(by_model["linear"]["test_return_when_buy"])

    found = {v["model"]: v for v in board.verdict(means)}
    joint = found["xgb_joint"]
    assert joint["above_table_sector_low"] > 0.05 > joint["above_table_sector"] - 0.05
    assert joint["above_table_all_low"] < 0 < joint["above_table_all_high"]  # that table is all noise
    assert joint["above_tables"] == min(joint["above_table_sector"], joint["above_table_all"])
    assert joint["beats_all"] == (joint["above_tables"] > 0) and not joint["beats_all_clearly"]

    families = board.families(means)
    assert [f["model"] for f in families] == ["xgb_joint", "linear", "meta_learner"]
    linear = families[1]
    worst = min(r["test_gain_over_prior"] for r in rows if r["model"] == "linear")
    assert (linear["runs"], linear["with_skill"], linear["no_skill"], linear["skill"]) == (3, 0, 3, "no skill")
    assert linear["above_prior"] + len(linear["not_above"]) == 3 and worst < 0
    assert linear["not_above"][0]["test_gain_over_prior"] == worst
    said = sentences.skill_sentences(families, resampled.about())
    assert said[0].startswith("xgb_joint: skill, ") and "above the prior in 3 of 3 models, skill in 3" in said[0]
    assert said[1].startswith("linear: no skill, ") and "; not above it: a of " in said[1]
    few = sentences.skill_sentences(families, {**resampled.about(), "blocks": 2.5, "times": 25, "block": 10})
    assert few[0].startswith("No intervals: the sealed test has 25 times, fewer than 3 blocks of 10")

    stacked = board.best_single(means)
    assert stacked["best"] == "xgb_joint" and stacked["difference_low"] < stacked["difference"] == pytest.approx(
        by_model["meta_learner"]["test_gain_over_prior"] - by_model["xgb_joint"]["test_gain_over_prior"]
    )
    assert "meta_learner: at least as good as the best single family, xgb_joint" in sentences.stacking_sentence(stacked)
    worse = {**stacked, "difference": -0.01}
    assert "not as good as the best single family" in sentences.stacking_sentence(worse)
    assert board_of([row for row in rows if row["model"] != "meta_learner"], resampled).best_single(means) is None


def test_a_sector_without_events_is_left_out_of_every_average(judged):
    """Its rows hold one class, so the prior's loss is next to nothing, and its gain was -140 times that."""
    losses, _, rows = judged
    quiet = losses_of(100, GAINS, 9)
    for key in quiet.sums:
        quiet.sums[key][:] = 1e-3 if key[1] == PRIOR else 0.14
    resampled = block_bootstrap.resample(
        block_bootstrap.draw(np.arange(100) * DAY_NS, 5, 42), losses | {"quiet": quiet}
    )
    unknown = {"test_gain_over_prior": float("nan"), "test_skill": "no events"}
    with_quiet = [*rows, *({**row, **unknown} for row in rows_of({"quiet": quiet}, resampled))]
    board, before = board_of(with_quiet, resampled), board_of(rows, resampled)
    averages = board.averages()
    for average, expected in zip(averages, before.averages(), strict=True):
        assert (average["sectors"], average["sectors_without_events"]) == (4, 1)
        assert expected["sectors_without_events"] == 0
        for name in ("gain_over_prior", "gain_low", "gain_high", "log_loss", "skill"):
            assert average[f"test_{name}"] == expected[f"test_{name}"]
    assert board.verdict(averages) == before.verdict(before.averages())
    for family, expected in zip(board.families(averages), before.families(before.averages()), strict=True):
        assert family["no_events"] == 1 and family["gain"] == expected["gain"] and family["runs"] == 4
        assert family["gain_low"] == expected["gain_low"] and family["not_above"] == expected["not_above"]
    assert board.best_single(averages) == before.best_single(before.averages())


def test_without_any_event_there_is_no_gain_and_no_verdict(judged):
    _, resampled, rows = judged
    unknown = {"test_gain_over_prior": float("nan"), "test_skill": "no events"}
    board = board_of([{**row, **unknown} for row in rows], resampled)
    averages = board.averages()
    assert {(average["test_skill"], average["sectors_without_events"]) for average in averages} == {("no events", 3)}
    assert all(np.isnan(average["test_gain_over_prior"]) for average in averages)
    assert all(np.isfinite(average["validation_gain_over_prior"]) for average in averages)
    assert board.verdict(averages) == [] and board.best_single(averages) is None
    families = json.loads(dump_json(board.families(averages)))
    assert {(family["gain"], family["skill"]) for family in families} == {(None, "no events")}
    said = sentences.skill_sentences(families, resampled.about())
    assert said[0].startswith("xgb_joint: no events") and said[0].endswith("no events in 3.")


def test_draws_without_an_event_do_not_count():
    """Three events on the first of 60 dates: without one the prior loses a thousandth, and the ratio is any number."""
    times = np.arange(60) * DAY_NS
    happened = np.zeros(60)
    happened[0] = 3
    prior, own = np.where(happened > 0, 20.0, 0.001), np.where(happened > 0, 15.0, 0.2)
    columns = {("a", PRIOR): prior, ("a", "m"): own}
    draws = block_bootstrap.draw(times, 5, 0)
    plain = block_bootstrap.resample(draws, {"x": by_time(times, columns)})
    counted = block_bootstrap.resample(draws, {"x": by_time(times, columns | {("a", EVENTS): happened})})
    assert plain.gain(["x"], "a", "m").min() < -100
    drawn = counted.gain(["x"], "a", "m")
    has_event = np.array([0 in dates for dates in dates_of(draws)])
    assert (np.isnan(drawn) == ~has_event).all() and 0.5 < has_event.mean() < 0.9
    assert np.array_equal(drawn[has_event], plain.gain(["x"], "a", "m")[has_event])
    assert drawn[has_event].min() > -1


def test_a_pooled_prior_is_no_skill():
    """Better than the sector's own shares on every date, as the shares of all sectors are: nothing of a row."""
    own = losses_of(60, {"xgb_joint": (0.02, 0.0)}, 0)
    own.sums["a", PRIOR_ALL] = own.sums["a", "xgb_joint"] * 1.0
    resampled = block_bootstrap.resample(block_bootstrap.draw(own.times, 5, 0), {"x": own})
    average = {a["model"]: a for a in board_of(rows_of({"x": own}, resampled), resampled).averages()}["xgb_joint"]
    assert average["test_gain_low"] > 0.019 and average["test_above_prior_all"] == 0
    assert average["test_skill"] == "no skill"
