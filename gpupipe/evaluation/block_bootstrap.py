"""Confidence intervals of log-loss gains on the sealed test, by a circular block bootstrap over dates.

Blocks of dates are drawn with replacement (Kunsch 1989; circular: Politis and Romano 1992), because rows of one date
share its shocks, and neighbouring dates share label windows and volatility. All sectors and models see the same draws,
so that differences are paired. The package arch offers such draws one at a time and depends on pandas and statsmodels;
a few lines of numpy draw all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.evaluation.touch_direction import TOUCH, WHOLE

N_DRAWS = 2000
LEVEL = 0.95
BLOCK_TIMES = 10  # at least, as in the test that chooses between pooled and sector models (paired_test)
FEWEST_BLOCKS = 3
PRIOR, PRIOR_ALL = "prior", "prior_all"  # class shares of the training part: of the sector, of all sectors
EVENTS = "events"  # a column of Losses beside the models: whether a row is not of its part's most frequent class
ROUNDING = 1e-6  # gains below a ten-thousandth of a percent are rounding of float32 probabilities, and no skill
SKILL, NO_SKILL, NOT_KNOWN = "skill", "no skill", "not known"
NO_EVENTS = "no events"  # the judged rows hold a single class: there is no gain


@dataclass(frozen=True)
class Losses:
    """Log-losses of one sector, summed over the rows of each time.

    times: int64 (n_times,), UTC ns, distinct, rising.  rows: int64 (n_times,), the number of rows.
    sums: float64 (n_times,), nats, by (label, model); every label has the model "prior". A label of classes may have
        "events" too, numbers of rows that are not of the most frequent class.
    touch: their touch parts (see `touch_direction`) by the same keys, "prior" included; empty for targets without.

        >>> losses = by_time(np.array([10, 10, 20]), {("label_1d_5pct", "prior"): np.array([0.5, 0.25, 1.0])})
        >>> losses.rows.tolist(), losses.sums["label_1d_5pct", "prior"].tolist()
        ([2, 1], [0.75, 1.0])
    """

    times: np.ndarray
    rows: np.ndarray
    sums: dict[tuple[str, str], np.ndarray]
    touch: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)


def by_time(
    time_ns: np.ndarray,
    losses: Mapping[tuple[str, str], np.ndarray],
    touch: Mapping[tuple[str, str], np.ndarray] | None = None,
) -> Losses:
    """Sum losses of rows by time.

    time_ns: int64 (n_rows,).  losses: float (n_rows,) by (label, model); a NaN makes the sum of its time NaN.
    touch: their touch parts, likewise, where they have any.
    """
    times, position = np.unique(time_ns, return_inverse=True)

    def summed(of_rows: Mapping[tuple[str, str], np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
        return {key: np.bincount(position, weights=loss, minlength=len(times)) for key, loss in of_rows.items()}

    return Losses(times, np.bincount(position, minlength=len(times)), summed(losses), summed(touch or {}))


def joined(parts: Sequence[Losses]) -> Losses:
    """Concatenate losses of several periods; ValueError if periods share a time or have different models.

    NaN is passed through.
    """
    times = np.concatenate([part.times for part in parts])
    first = parts[0]
    same = all((part.sums.keys(), part.touch.keys()) == (first.sums.keys(), first.touch.keys()) for part in parts)
    if len(np.unique(times)) < len(times) or not same:
        raise ValueError("expected periods that do not overlap, with losses of the same models")
    order = np.argsort(times)
    sums = {key: np.concatenate([part.sums[key] for part in parts])[order] for key in first.sums}
    touch = {key: np.concatenate([part.touch[key] for part in parts])[order] for key in first.touch}
    return Losses(times[order], np.concatenate([part.rows for part in parts])[order], sums, touch)


@dataclass(frozen=True)
class Draws:
    """Bootstrap samples of the distinct times of a part, shared by all sectors, labels and models.

    times: int64 (n_times,), UTC ns, distinct, rising.
    block: times in a block; the first time follows the last one (circular).
    starts: int64 (n_draws, n_blocks), the position of the first time of each block.

        >>> draws = draw(np.arange(40), longest_horizon=5, seed=42)
        >>> draws.block, draws.n_blocks, draws.starts.shape
        (10, 4.0, (2000, 4))
    """

    times: np.ndarray
    block: int
    starts: np.ndarray

    @property
    def n_blocks(self) -> float:
        """Number of blocks in the times: how many nearly independent observations an interval rests on."""
        return len(self.times) / self.block

    def sums(self, values: np.ndarray) -> np.ndarray:
        """float64 (n_draws, n_columns): sums of `values` over the times of each draw.

        values: float64 (n_times, n_columns); a NaN makes every sum that includes it NaN.
        """
        block_sums = np.zeros_like(values)
        for k in range(self.block):
            block_sums += np.roll(values, -k, axis=0)
        total = np.zeros((len(self.starts), values.shape[1]))
        for starts in self.starts.T:
            total += block_sums[starts]
        return total


def block_length(n_times: int, longest_horizon: int, least: int = BLOCK_TIMES) -> int:
    """Times in a block: `least`, twice the longest horizon (in bars) or the cube root of n_times, whichever is largest.

    Label windows of h bars overlap over h times, volatility persists for longer, and blocks must grow with the history
    for an interval to be consistent (Kunsch 1989).

    >>> block_length(500, 1), block_length(500, 10), block_length(2000, 1)
    (10, 20, 13)
    """
    return max(least, 2 * longest_horizon, math.ceil(n_times ** (1 / 3)))


def draw(times: np.ndarray, longest_horizon: int, seed: int, least: int = BLOCK_TIMES) -> Draws:
    """Draw N_DRAWS bootstrap samples of `times`, int64, duplicates allowed; equal seeds give equal draws.

    longest_horizon: in bars.  least: times in a block at least, fewer where a time is a month; see `block_length`.
    """
    times = np.unique(times)
    block = block_length(len(times), longest_horizon, least)
    n_blocks = max(1, round(len(times) / block))
    rng = np.random.default_rng([seed, 4])
    return Draws(times, block, rng.integers(0, max(1, len(times)), (N_DRAWS, n_blocks)))


@dataclass(frozen=True)
class Resampled:
    """Mean log-losses of every draw.

    draws: the bootstrap samples.
    loss: float64 (n_draws,), nats, by (sector, label, model), the model "prior" included. NaN where a draw holds no row
        of the sector.
    blocks: for each sector, how many blocks its times make.
    touch: the touch parts of `loss`, by the same keys; empty for targets without.

        >>> times = np.arange(40)
        >>> log_losses = {("label_1d_5pct", "prior"): np.ones(40), ("label_1d_5pct", "linear"): np.full(40, 0.9)}
        >>> resampled = resample(draw(times, longest_horizon=5, seed=42), {"energy": by_time(times, log_losses)})
        >>> gains = resampled.gain(["energy"], "label_1d_5pct", "linear")
        >>> gains.shape, gains[:2].round(6).tolist(), resampled.blocks
        ((2000,), [0.1, 0.1], {'energy': 4.0})
    """

    draws: Draws
    loss: dict[tuple[str, str, str], np.ndarray]
    blocks: dict[str, float]
    touch: dict[tuple[str, str, str], np.ndarray] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """The parameters of the intervals, as written to JSON."""
        draws = self.draws
        return {"level": LEVEL, "draws": len(draws.starts), "times": len(draws.times), "block": draws.block,
                "blocks": draws.n_blocks}  # fmt: skip

    def gain(self, sectors: Sequence[str], label: str, model: str, part: str = WHOLE) -> np.ndarray:
        """float64 (n_draws,): 1 - mean log-loss / mean log-loss of the prior, both averaged over `sectors`.

        part: "touch" or "direction" for that part of the gain; both parts of a draw add up to its gain.
        NaN in draws that hold no row of one of the sectors, or no event: then the prior's loss is next to nothing, and
        the ratio any number. Without sectors all are NaN.
        Raises KeyError for a part of a label that has none.
        """
        if not sectors:
            return np.full(len(self.draws.starts), np.nan)

        def mean(losses: Mapping[tuple[str, str, str], np.ndarray], name: str) -> Any:
            return np.mean([losses[sector, label, name] for sector in sectors], axis=0)

        prior = mean(self.loss, PRIOR)
        gain = 1.0 - mean(self.loss, model) / prior
        if part:
            touch_gain = (mean(self.touch, PRIOR) - mean(self.touch, model)) / prior
            gain = touch_gain if part == TOUCH else gain - touch_gain
        counted = [self.loss[key] for sector in sectors if (key := (sector, label, EVENTS)) in self.loss]
        return np.where(np.sum(counted, axis=0) > 0, gain, np.nan) if counted else gain

    def interval(
        self, sectors: Sequence[str], estimate: float, drawn: np.ndarray, level: float = LEVEL
    ) -> tuple[float, float]:
        """The interval of an estimate over `sectors` from its draws, float64 (n_draws,); see `interval`."""
        return interval(estimate, drawn, max((self.blocks[sector] for sector in sectors), default=0.0), level)


def resample(draws: Draws, losses: Mapping[str, Losses]) -> Resampled:
    """The mean log-losses of each sector in every draw; NaN where a draw holds no row of the sector.

    losses: by sector; their times must be among draws.times.
    """
    means: dict[tuple[str, str, str], np.ndarray] = {}
    touch: dict[tuple[str, str, str], np.ndarray] = {}
    blocks: dict[str, float] = {}
    for sector, sector_losses in losses.items():
        columns = [sector_losses.rows, *sector_losses.sums.values(), *sector_losses.touch.values()]
        values = np.zeros((len(draws.times), len(columns)))
        values[np.searchsorted(draws.times, sector_losses.times)] = np.stack(columns, axis=1)
        sums = draws.sums(values)
        rows = np.where(sums[:, 0] > 0, sums[:, 0], np.nan)
        first_touch = 1 + len(sector_losses.sums)
        means |= {(sector, *key): sums[:, k] / rows for k, key in enumerate(sector_losses.sums, 1)}
        touch |= {(sector, *key): sums[:, k] / rows for k, key in enumerate(sector_losses.touch, first_touch)}
        blocks[sector] = len(sector_losses.times) / draws.block
    return Resampled(draws, means, blocks, touch)


def interval(estimate: float, drawn: np.ndarray, n_blocks: float, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of an estimate, expanded around the estimate for small numbers of blocks.

    drawn: float64 (n_draws,), the estimate in every draw; NaN is ignored.
    n_blocks: the number of blocks of times that the estimate rests on.
    level: 1 - (1 - LEVEL) / k makes all of k intervals hold together in 95 % of samples (Bonferroni).
    Percentiles of k blocks are too narrow, as is a normal interval with the standard deviation of k values. Both sides
    are stretched by t(k - 1) / z * sqrt(k / (k - 1)): at 95 %, 1.9 for 4 blocks, 1.1 for 24.
    Returns (NaN, NaN) if the estimate or all draws are NaN, or there are fewer than three blocks.
    Source: Hesterberg (2015), "expanded percentile". He changes the percentiles instead, but 2,000 draws do not reach
    those that few blocks need.
    """
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(estimate) or n_blocks < FEWEST_BLOCKS or not drawn.size:
        return float("nan"), float("nan")
    tail = (1 + level) / 2
    stretch = student_over_normal(n_blocks, level) * math.sqrt(n_blocks / (n_blocks - 1))
    low, high = np.quantile(drawn, [1 - tail, tail])
    return float(estimate + stretch * (low - estimate)), float(estimate + stretch * (high - estimate))


def student_over_normal(n_blocks: float, level: float = LEVEL) -> float:
    """Half the width of an interval by Student's t of n_blocks - 1 degrees of freedom, over that of a normal one.

    >>> round(student_over_normal(4), 2), round(student_over_normal(24), 2)
    (1.62, 1.06)
    """
    from scipy.special import ndtri, stdtrit

    tail = (1 + level) / 2
    return float(stdtrit(n_blocks - 1, tail) / ndtri(tail))


def events_of(y: np.ndarray) -> np.ndarray:
    """float64 (n,): 1 where a row is not of the most frequent class, else 0.  y: int8 (n,), all labels known.

    >>> events_of(np.int8([1, 2, 1])).tolist()
    [0.0, 1.0, 0.0]
    """
    classes, counts = np.unique(y, return_counts=True)
    return (y != classes[np.argmax(counts)]).astype(np.float64) if len(y) else np.zeros(0)


def skill(over_prior: float, over_prior_all: float) -> str:
    """Classify a model: "skill" if its gains over both priors are clearly above 0 (ROUNDING), else "no skill".

    over_prior, over_prior_all: lower ends of the intervals of the gains over the class shares of the sector and of all
        sectors. If one is NaN the result is "not known".
    The second prior is needed because a pooled model knows the class shares of all sectors. Where sectors are similar
    these are the better estimate, so that it beats the sector's prior without any skill.
    """
    if np.isnan(over_prior) or np.isnan(over_prior_all):
        return NOT_KNOWN
    return SKILL if min(over_prior, over_prior_all) > ROUNDING else NO_SKILL
