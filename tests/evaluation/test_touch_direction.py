"""Touch and direction add up to the log-loss and to its gain, and each is what its definition says."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.evaluation import block_bootstrap, leaderboard, metrics
from gpupipe.evaluation.block_bootstrap import EVENTS, PRIOR, PRIOR_ALL, by_time
from gpupipe.evaluation.losses import log_loss
from gpupipe.evaluation.touch_direction import GAINS, PARTS, by_model, measures, part_gains, touch_losses
from gpupipe.report import sentences
from gpupipe.targets.target import Target

TARGET = Target(("a",), "classes", (1,), ("SELL", "HOLD", "BUY"))


def random_case(seed, n=400, n_classes=3, dtype=np.float64):
    """(probability, y, prior): some probabilities are 0 or 1, and y has unknown labels where `seed` is odd."""
    rng = np.random.default_rng(seed)
    odds = rng.gamma(0.3, size=(n, n_classes)) + 1e-300
    probability = odds / odds.sum(axis=1, keepdims=True)
    probability[:9] = np.eye(n_classes)[rng.integers(0, n_classes, 9)]
    y = rng.integers(-(seed % 2), n_classes, n).astype(np.int8)
    prior = np.bincount(y[y >= 0], minlength=n_classes) / (y >= 0).sum()
    return probability.astype(dtype), y, prior


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n_classes", [3, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_parts_are_what_they_are_defined_as(seed, n_classes, dtype):
    probability, y, _ = random_case(seed, n_classes=n_classes, dtype=dtype)
    touch = touch_losses(probability, y)
    direction = log_loss(probability, y) - touch
    middle, wide = n_classes // 2, probability.astype(np.float64)
    for p, label, of_touch, of_direction in zip(wide, y, touch, direction, strict=True):
        if label == -1:
            assert np.isnan(of_touch) and np.isnan(of_direction)
            continue
        moves = max(sum(p[c] for c in range(n_classes) if c != middle), 1e-12)
        expected = -np.log(max(p[middle], 1e-12) if label == middle else moves)
        rest = 0.0 if label == middle else -np.log(max(p[label], 1e-12) / moves)
        assert of_touch == pytest.approx(expected, abs=1e-12) and of_direction == pytest.approx(rest, abs=1e-12)
        assert of_direction >= -1e-12


@pytest.mark.parametrize("seed", range(0, 40, 2))
def test_the_gains_add_up_to_the_gain_to_rounding(seed):
    probability, y, prior = random_case(seed, dtype=np.float32)
    found = metrics.measures(probability, y, prior, {"buy": 0.5, "sell": 0.5}, np.zeros(len(y), np.float32))
    assert found["touch_gain"] + found["direction_gain"] == pytest.approx(found["gain_over_prior"], abs=1e-14)
    assert {name: found[name] for name in measures(probability, y, prior)} == measures(probability, y, prior)
    touch = touch_losses(probability, y).mean()
    assert found["touch_loss"] == touch and found["touch_loss_of_prior"] <= found["prior_log_loss"]
    expected = (found["touch_loss_of_prior"] - touch) / found["prior_log_loss"]
    assert found["touch_gain"] == pytest.approx(expected, abs=1e-14)


def test_a_model_of_one_part_gains_that_part_alone():
    rng = np.random.default_rng(0)
    moves, up = rng.random(50_000) < 0.3, rng.random(50_000) < 0.5
    y = np.where(moves, np.where(up, 2, 0), 1).astype(np.int8)
    prior = np.array([0.15, 0.7, 0.15])
    told = np.where(moves, 0.5, 0.2)[:, None]
    of_touch = np.hstack([told / 2, 1 - told, told / 2])
    leans = np.where(up, 0.7, 0.3)[:, None]
    of_direction = np.hstack([0.3 * (1 - leans), np.full_like(leans, 0.7), 0.3 * leans])
    touch, direction = (measures(p.astype(np.float32), y, prior) for p in (of_touch, of_direction))
    assert touch["touch_gain"] > 0.1 and abs(touch["direction_gain"]) < 1e-6
    assert direction["direction_gain"] > 0.05 and abs(direction["touch_gain"]) < 1e-6


def test_what_has_no_middle_class_or_no_classes_has_no_parts():
    for n_classes in (2, 4):
        probability = np.full((3, n_classes), 1 / n_classes)
        assert measures(probability, np.int8([0, 1, 1]), probability[0]) == {}
        with pytest.raises(ValueError, match=f"probability has {n_classes} classes, expected an odd number from 3 on"):
            touch_losses(probability, np.int8([0, 1, 1]))
    two = Target(("a",), "classes", (1,), ("down", "up"))
    value = Target(("a",), "value", (1,), loss="squared_error", reference="last_value")
    for target, width in ((two, 2), (value, 1)):
        assert by_model(target, "a", {"m": np.ones((3, width))}, np.zeros(3, np.int8)) == {}


def test_undefined_gains_are_nan():
    probability, _, prior = random_case(0)
    nothing = measures(probability[:0], np.int8([]), prior)
    assert set(nothing) == {"touch_loss", "touch_loss_of_prior", "touch_gain", "direction_gain"}
    assert np.isnan(list(nothing.values())).all()
    for label in (0, 1, 2):
        found = measures(probability, np.full(len(probability), label, np.int8), prior)
        assert np.isnan(found["touch_gain"]) and np.isnan(found["direction_gain"]) and found["touch_loss"] >= 0
    assert np.isnan(list(part_gains(0.0, 0.0, 0.0, 0.0).values())).all()
    unknown = np.full((2, 3), np.nan)
    assert np.isnan(touch_losses(unknown, np.int8([1, 2]))).all()


def sector_of(seed, n_times=80, quiet=False):
    """(Losses, summary rows) of a sector whose model "m" knows the touch alone, and "d" the direction alone."""
    rng = np.random.default_rng(seed)
    times = np.repeat(np.arange(n_times), 20)
    moves, up = rng.random(len(times)) < (0 if quiet else 0.4), rng.random(len(times)) < 0.5
    y = np.where(moves, np.where(up, 2, 0), 1).astype(np.int8)
    prior = np.array([0.2, 0.6, 0.2])
    told = np.where(moves ^ (rng.random(len(times)) < 0.2), 0.6, 0.3)[:, None]
    leans = np.where(up ^ (rng.random(len(times)) < 0.2), 0.6, 0.4)[:, None]
    predictions = {
        PRIOR: np.tile(prior, (len(y), 1)),
        PRIOR_ALL: np.tile([0.21, 0.59, 0.2], (len(y), 1)),
        "m": np.float32(np.hstack([told / 2, 1 - told, told / 2])),
        "d": np.float32(np.hstack([0.4 * (1 - leans), np.full_like(leans, 0.6), 0.4 * leans])),
    }
    losses = {("a", name): log_loss(p, y) for name, p in predictions.items()}
    touch = by_model(TARGET, "a", predictions, y)
    assert losses.keys() == touch.keys()
    rows = [
        {"kind": "baseline" if name == PRIOR_ALL else "model", "label": "a", "model": name,
         **{f"{part}_{key}": value for part in ("validation", "test") for key, value in metrics.measures(
             p, y, prior, {"buy": 0.5, "sell": 0.5}, np.zeros(len(y), np.float32)).items()}}
        for name, p in predictions.items() if name != PRIOR
    ]  # fmt: skip
    return by_time(times, losses | {("a", EVENTS): block_bootstrap.events_of(y)}, touch), rows


@pytest.fixture(scope="module")
def board():
    """Three sectors, one of them without any event."""
    sectors = {"x": sector_of(1), "y": sector_of(2), "quiet": sector_of(3, quiet=True)}
    draws = block_bootstrap.draw(np.arange(80), 5, 42)
    resampled = block_bootstrap.resample(draws, {name: losses for name, (losses, _) in sectors.items()})
    unknown = {f"test_{name}": "no events" for name in ("skill", "touch_skill", "direction_skill")}
    known = {f"test_{name}": "skill" for name in ("skill", "touch_skill", "direction_skill")}
    rows = [
        {**row, "sector": name, **(unknown if name == "quiet" else known)}
        for name, (_, of_sector) in sectors.items() for row in of_sector
    ]  # fmt: skip
    return leaderboard.Measured(rows, resampled, judged=("m", "d"), tables=())


def test_the_parts_of_every_draw_add_up(board):
    sectors, resampled = ["x", "y"], board.resampled
    for name in ("m", "d", PRIOR_ALL):
        whole, touch, direction = (resampled.gain(sectors, "a", name, part) for part in GAINS)
        np.testing.assert_allclose(touch + direction, whole, atol=1e-14)
        prior = np.mean([resampled.loss[s, "a", PRIOR] for s in sectors], axis=0)
        saved = np.mean([resampled.touch[s, "a", PRIOR] - resampled.touch[s, "a", name] for s in sectors], axis=0)
        np.testing.assert_allclose(touch, saved / prior, atol=1e-14)
    assert np.isnan(resampled.gain(["quiet"], "a", "m", "touch")).all()
    assert np.isnan(resampled.gain([], "a", "m", "direction")).all()
    with pytest.raises(KeyError):
        block_bootstrap.Resampled(resampled.draws, resampled.loss, resampled.blocks).gain(sectors, "a", "m", "touch")


def test_periods_are_joined_with_their_touch_parts(board):
    losses, _ = sector_of(5)
    halves = [
        block_bootstrap.Losses(losses.times[at], losses.rows[at], {k: v[at] for k, v in losses.sums.items()},
                               {k: v[at] for k, v in losses.touch.items()})
        for at in (slice(40, None), slice(40))
    ]  # fmt: skip
    again = block_bootstrap.joined(halves)
    for key, values in losses.touch.items():
        np.testing.assert_array_equal(again.touch[key], values)
    without = block_bootstrap.Losses(halves[0].times, halves[0].rows, halves[0].sums)
    with pytest.raises(ValueError, match="losses of the same models"):
        block_bootstrap.joined([without, halves[1]])


def test_averages_verdict_and_families_have_both_parts(board):
    averages = board.averages()
    by_name = {row["model"]: row for row in averages}
    for row in averages:
        for part in ("test", "validation"):
            total = row[f"{part}_touch_gain"] + row[f"{part}_direction_gain"]
            assert total == pytest.approx(row[f"{part}_gain_over_prior"], abs=1e-14)
        for part in PARTS:
            assert row[f"test_{part}_gain_low"] <= row[f"test_{GAINS[part]}"] <= row[f"test_{part}_gain_high"]
        assert row["sectors_without_events"] == 1 and row["sectors_with_touch_skill"] == 2
        assert 0 < row["test_direction_gain_most"] < 1
    skills = {name: (row["test_touch_skill"], row["test_direction_skill"]) for name, row in by_name.items()}
    assert skills == {"m": ("skill", "no skill"), "d": ("no skill", "skill"), PRIOR_ALL: ("no skill", "no skill")}
    # The model's shares of BUY among moves are the prior's, but for rounding of float32: that is no skill.
    assert 0 < abs(by_name["m"]["test_direction_gain"]) < 1e-6

    verdict = {row["model"]: row for row in board.verdict(averages)}
    for name, row in verdict.items():
        assert row["touch_gain"] + row["direction_gain"] == pytest.approx(row["above_prior"], abs=1e-14)
        assert (row["touch_skill"], row["direction_skill"]) == skills[name]
    said = sentences.verdict_sentences(list(verdict.values()), 3)
    assert said[0].startswith("m tells whether a price will move (touch: skill on 1 of 1 label, gain ")
    assert said[0].endswith("and not which way (direction: skill on 0 of 1, gain 0.0 %).")
    assert said[2].startswith("d tells which way a price will move (direction: skill on 1 of 1, gain ")
    assert " and not whether (touch: skill on 0 of 1 label, gain " in said[2]
    assert said[1].startswith("m beats the prior on 1 of 1 labels")

    families = {row["model"]: row for row in board.families(averages)}
    assert families["m"]["touch_skill"] == "skill" and families["m"]["direction_skill"] == "no skill"
    for row in families.values():
        assert row["touch_gain"] + row["direction_gain"] == pytest.approx(row["gain"], abs=1e-14)
        assert (row["touch_with_skill"], row["runs"], row["no_events"]) == (2, 3, 1)


PARTED = {"touch_gain": 0.1, "direction_gain": 0.02}


def sentence(*skills, **more):
    rows = [{**PARTED, "touch_skill": touch, "direction_skill": direction, **more} for touch, direction in skills]
    return sentences.touch_direction_sentence("m", rows)


def test_the_sentence_claims_no_more_than_there_is():
    yes, no = "skill", "no skill"
    assert sentence((yes, yes), (yes, no)) == (
        "m tells whether a price will move (touch: skill on 2 of 2 labels, gain 10.0 % on average) and on some labels "
        "which way (direction: skill on 1 of 2, gain 2.0 %)."
    )
    assert sentence((yes, no), (no, no)).startswith("m tells on some labels whether a price will move (touch: skill on")
    assert sentence((no, no)).startswith("m tells neither whether a price will move (touch: skill on 0 of 1 label, ")
    assert sentence((no, yes), (no, no)).startswith("m tells on some labels which way a price will move (direction: ")
    unknown = sentence((yes, no), (yes, "not known"))
    assert unknown.startswith("Whether m tells that a price will move, or which way, is not known: touch gain 10.0 %")
    for low, claim in ((0.01, "and which way"), (-0.1, "and not which way"), (None, "and not which way")):
        above = sentence((yes, yes), (yes, yes), direction_above_tables_low=low)  # volatility alone is no direction
        n = 2 * (claim == "and which way")
        words = f"(direction: skill on 2 of 2, on {n} of them clearly above the volatility baselines, gain 2.0 %)."
        assert above.endswith(f"{claim} {words}")
    assert sentences.touch_direction_sentence("m", [{"above_prior": 0.1}]) == ""
    assert sentences.touch_direction_sentence("m", []) == ""
