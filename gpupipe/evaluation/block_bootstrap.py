"""Confidence intervals of log-loss gains on the sealed test: whole blocks of dates are drawn again and again.

The dates of a part are drawn with replacement in circular blocks (Politis and Romano 1992; blocks are Kunsch's, 1989):
rows of one date share its shocks, dates near each other share label windows and volatility. All sectors and models
see the same draws, so that differences are paired. A few lines of numpy do it: arch's bootstraps give such draws one
at a time, and bring pandas and statsmodels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

N_DRAWS = 2000
LEVEL = 0.95
BLOCK_TIMES = 10  # at least; the rule that chooses between pooled and own models has blocks of as many
FEWEST_BLOCKS = 3
PRIOR, PRIOR_ALL = "prior", "prior_all"  # class shares of the sector's training part, and of all sectors'
SKILL, NO_SKILL, NOT_KNOWN = "skill", "no skill", "not known"


@dataclass(frozen=True)
class Losses:
    """Log-losses of one sector's rows, added up by time.

    times: int64 (n_times,), distinct, rising.  rows: int64 (n_times,).
    sums: float64 (n_times,), nats, by (label, model); the model "prior" is there for each label.
    """

    times: np.ndarray
    rows: np.ndarray
    sums: dict[tuple[str, str], np.ndarray]


def by_time(time_ns: np.ndarray, losses: Mapping[tuple[str, str], np.ndarray]) -> Losses:
    """Losses of rows, float (n_rows,) each, added up by their times, int64 (n_rows,)."""
    times, at = np.unique(time_ns, return_inverse=True)
    sums = {key: np.bincount(at, weights=loss, minlength=len(times)) for key, loss in losses.items()}
    return Losses(times, np.bincount(at, minlength=len(times)), sums)


def joined(parts: Sequence[Losses]) -> Losses:
    """Losses of several stretches of time as one; ValueError if a time is in two of them, or models differ."""
    times = np.concatenate([part.times for part in parts])
    if len(np.unique(times)) < len(times) or any(part.sums.keys() != parts[0].sums.keys() for part in parts):
        raise ValueError("expected stretches of time that do not overlap, with losses of the same models")
    order = np.argsort(times)
    sums = {key: np.concatenate([part.sums[key] for part in parts])[order] for key in parts[0].sums}
    return Losses(times[order], np.concatenate([part.rows for part in parts])[order], sums)


@dataclass(frozen=True)
class Draws:
    """Resamples of the distinct times of a part, the same for all sectors, labels and models.

    times: int64 (n_times,), distinct, rising.  block: times in a block; the last time is followed by the first.
    starts: int64 (n_draws, n_blocks), where the blocks of each draw begin.
    """

    times: np.ndarray
    block: int
    starts: np.ndarray

    @property
    def n_blocks(self) -> float:
        """How many blocks the times make: what the intervals have of independent evidence."""
        return len(self.times) / self.block

    def sums(self, values: np.ndarray) -> np.ndarray:
        """float64 (n_draws, n_columns): sums over the times of each draw, of values float64 (n_times, n_columns)."""
        of_block = np.zeros_like(values)
        for k in range(self.block):
            of_block += np.roll(values, -k, axis=0)
        total = np.zeros((len(self.starts), values.shape[1]))
        for starts in self.starts.T:
            total += of_block[starts]
        return total


def draw(times: np.ndarray, longest_horizon: int, seed: int) -> Draws:
    """Draws of `times`, int64, in blocks of ten, twice the longest horizon or the cube root of how many there are.

    The largest of these: windows of h bars overlap over h times, volatility lasts longer, and blocks have to grow with
    the history for an interval to become right (Kunsch 1989).
    """
    times = np.unique(times)
    block = max(BLOCK_TIMES, 2 * longest_horizon, math.ceil(len(times) ** (1 / 3)))
    n_blocks = max(1, round(len(times) / block))
    rng = np.random.default_rng([seed, 4])
    return Draws(times, block, rng.integers(0, max(1, len(times)), (N_DRAWS, n_blocks)))


@dataclass(frozen=True)
class Resampled:
    """Mean log-losses of every draw: float64 (n_draws,) by (sector, label, model), "prior" among the models.

    NaN where a draw holds no row of the sector.  blocks: for each sector, how many blocks its times make.
    """

    draws: Draws
    loss: dict[tuple[str, str, str], np.ndarray]
    blocks: dict[str, float]

    def about(self) -> dict[str, Any]:
        """How the intervals were made, as JSON holds it."""
        draws = self.draws
        return {"level": LEVEL, "draws": len(draws.starts), "times": len(draws.times), "block": draws.block,
                "blocks": draws.n_blocks}  # fmt: skip

    def gain(self, sectors: Sequence[str], label: str, model: str) -> np.ndarray:
        """float64 (n_draws,): 1 - mean log-loss / mean log-loss of the prior, both averaged over `sectors`."""
        own, prior = (
            np.mean([self.loss[sector, label, name] for sector in sectors], axis=0) for name in (model, PRIOR)
        )
        return 1.0 - own / prior

    def interval(self, sectors: Sequence[str], found: float, drawn: np.ndarray) -> tuple[float, float]:
        """The 95 % interval of a figure `found`, of which float64 (n_draws,) are the draws; NaN with too few blocks."""
        return interval(found, drawn, max(self.blocks[sector] for sector in sectors))


def resample(draws: Draws, losses: Mapping[str, Losses]) -> Resampled:
    """The mean log-losses of each sector in every draw."""
    found: dict[tuple[str, str, str], np.ndarray] = {}
    blocks: dict[str, float] = {}
    for sector, own in losses.items():
        values = np.zeros((len(draws.times), 1 + len(own.sums)))
        values[np.searchsorted(draws.times, own.times)] = np.stack([own.rows, *own.sums.values()], axis=1)
        sums = draws.sums(values)
        rows = np.where(sums[:, 0] > 0, sums[:, 0], np.nan)
        found |= {(sector, *key): sums[:, 1 + k] / rows for k, key in enumerate(own.sums)}
        blocks[sector] = len(own.times) / draws.block
    return Resampled(draws, found, blocks)


def interval(found: float, drawn: np.ndarray, n_blocks: float) -> tuple[float, float]:
    """The 95 % interval of a figure from its draws: percentiles, stretched away from the figure for few blocks.

    found: the figure.  drawn: float64 (n_draws,), NaN left out.  n_blocks: of times that it rests on.
    Percentiles of k blocks are too narrow, as a normal interval with the deviation of k values is: both sides are
    stretched by t(k - 1) / z * sqrt(k / (k - 1)) (Hesterberg 2015, "expanded percentile", who changes the percentiles
    instead, of which 2,000 draws have none far enough out). Four blocks: 1.9, 24 blocks: 1.1.
    NaN where the figure is not defined or rests on fewer than three blocks.
    """
    from scipy.special import ndtri, stdtrit

    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(found) or n_blocks < FEWEST_BLOCKS or not drawn.size:
        return float("nan"), float("nan")
    tail = (1 + LEVEL) / 2
    stretch = stdtrit(n_blocks - 1, tail) / ndtri(tail) * math.sqrt(n_blocks / (n_blocks - 1))
    low, high = np.quantile(drawn, [1 - tail, tail])
    return float(found + stretch * (low - found)), float(found + stretch * (high - found))


def skill(over_prior: float, over_prior_all: float) -> str:
    """In words, from the lower ends of the intervals of the gains over two priors: "skill" where both lie above 0.

    The shares of all sectors say nothing of a row either. Where sectors are alike they are the better estimate, and
    a pooled model that has found nothing gains over the sector's prior by having them.
    """
    if np.isnan(over_prior) or np.isnan(over_prior_all):
        return NOT_KNOWN
    return SKILL if over_prior > 0 and over_prior_all > 0 else NO_SKILL
