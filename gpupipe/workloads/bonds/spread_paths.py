"""Paths of a simulated corporate market: regimes, ratings, defaults and the spreads of issuers and bonds, by month."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpupipe.workloads.bonds.ratings import LETTERS

# By rating, AAA to CCC. Spread of a new 10-year bond in percent; probability a month to be one rating better, or worse,
# if the issuer does not default, such that in calm the two nearly cancel in the mean of the spread; probability a month
# to default; share of issuers at the beginning.
SPREADS = np.array([0.5, 0.7, 1.0, 1.6, 3.0, 4.8, 9.0])
UPGRADES = np.array([0.0, 0.0045, 0.006, 0.0095, 0.008, 0.014, 0.006])
DOWNGRADES = np.array([0.004, 0.003, 0.003, 0.004, 0.006, 0.006, 0.0])
DEFAULTS = np.array([0.0, 0.00001, 0.00004, 0.0002, 0.0008, 0.003, 0.02])
SHARES = np.array([0.02, 0.08, 0.25, 0.30, 0.18, 0.13, 0.04])
N_RATINGS = len(SPREADS)
RATINGS = LETTERS[:N_RATINGS]

CALM, STRESS = 0, 1
LEAVES = np.array([0.04, 0.15])  # probability a month to leave a regime: two years of calm, half a year of stress
STRESS_WIDENS = 1.25  # all spreads, when stress begins; they narrow by as much when it ends
IN_STRESS = {"upgrades": 0.5, "downgrades": 2.0, "defaults": 2.0}
# Standard deviations of a month's change of log spreads in calm and in stress.
MARKET, SECTOR, ISSUER, BOND = (np.array(pair) for pair in ((0.03, 0.08), (0.015, 0.03), (0.025, 0.05), (0.010, 0.02)))


@dataclass(frozen=True)
class IssuerPaths:
    """Issuers by month.

    regime: int64 (n_months,), CALM or STRESS.  rating: int64 (n_issuers, n_months), position in RATINGS.
    default_month: int64 (n_issuers,), the first month without quotes; n_months where the issuer does not default.
    log_spread: float64 (n_issuers, n_months), of a new 10-year bond, percent.

    >>> paths = issuer_paths(n_issuers=3, n_months=5, sector=np.int64([0, 0, 1]), seed=1)
    >>> paths.rating.shape, paths.log_spread.shape
    ((3, 5), (3, 5))
    """

    regime: np.ndarray
    rating: np.ndarray
    default_month: np.ndarray
    log_spread: np.ndarray


def issuer_paths(n_issuers: int, n_months: int, sector: np.ndarray, seed: int) -> IssuerPaths:
    """Simulate the issuers. sector: int64 (n_issuers,).

    Every component multiplies the spread by a factor whose mean is 1, given all that is known the month before: walks
    by exp(s z - s^2 / 2), jumps of regimes and ratings by the ratio of the levels over its mean. Defaults depend on
    rating and regime of the month before only. So the mean of next month's spread is this month's, with or without a
    default.
    """
    regime = _regimes(np.random.default_rng([seed, 0]), n_months)
    rating, default_month = _ratings(np.random.default_rng([seed, 1]), n_issuers, regime)
    market = np.cumsum(walk(np.random.default_rng([seed, 2]), (1, n_months), MARKET, regime), axis=1)
    market += np.cumsum(_regime_jumps(regime))
    n_sectors = int(sector.max()) + 1
    sectors = np.cumsum(walk(np.random.default_rng([seed, 3]), (n_sectors, n_months), SECTOR, regime), axis=1)
    rng = np.random.default_rng([seed, 4])
    sectors += 0.15 * rng.standard_normal((len(sectors), 1))
    own = np.cumsum(walk(rng, (n_issuers, n_months), ISSUER, regime), axis=1)
    own += 0.2 * rng.standard_normal((n_issuers, 1))
    log_spread = np.log(SPREADS)[rating[:, :1]] + np.cumsum(_rating_jumps(rating, regime), axis=1)
    return IssuerPaths(regime, rating, default_month, log_spread + market + sectors[sector] + own)


def walk(
    rng: np.random.Generator,
    shape: tuple[int, int],
    deviations: np.ndarray,
    regime: np.ndarray,
    scale: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Changes of log spreads, float64 (n, n_months): s z - s^2 / 2; 0 in the first month.

    s is the deviation of the month's regime times scale, float64 (n, 1).
    """
    deviation = deviations[regime] * scale
    changes = deviation * rng.standard_normal(shape) - 0.5 * deviation**2
    changes[:, 0] = 0.0
    return changes


def _regimes(rng: np.random.Generator, n_months: int) -> np.ndarray:
    """A Markov chain of two regimes, int64 (n_months,), that begins in its stationary distribution."""
    draws = rng.random(n_months)
    regime = np.empty(n_months, np.int64)
    regime[0] = STRESS if draws[0] < LEAVES[CALM] / LEAVES.sum() else CALM
    for t in range(1, n_months):
        regime[t] = 1 - regime[t - 1] if draws[t] < LEAVES[regime[t - 1]] else regime[t - 1]
    return regime


def _regime_jumps(regime: np.ndarray) -> np.ndarray:
    """Changes of log spreads by changes of the regime, less the log of their mean; float64 (n_months,)."""
    levels = np.array([1.0, STRESS_WIDENS])
    ratio = levels[::-1] / levels  # of the other regime's level to each one's
    mean = 1 + LEAVES * (ratio - 1)
    jumps = np.zeros(len(regime))
    jumps[1:] = np.log(levels[regime[1:]] / levels[regime[:-1]]) - np.log(mean[regime[:-1]])
    return jumps


def _migration(regime: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of an upgrade and of a downgrade, by rating, in a month of a regime."""
    if regime == CALM:
        return UPGRADES, DOWNGRADES
    return UPGRADES * IN_STRESS["upgrades"], DOWNGRADES * IN_STRESS["downgrades"]


def _ratings(rng: np.random.Generator, n_issuers: int, regime: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(rating int64 (n_issuers, n_months), default_month)`."""
    n_months = len(regime)
    rating = np.empty((n_issuers, n_months), np.int64)
    rating[:, 0] = rng.choice(N_RATINGS, n_issuers, p=SHARES)
    moves, falls = rng.random((n_issuers, n_months)), rng.random((n_issuers, n_months))
    default_month = np.full(n_issuers, n_months)
    for t in range(1, n_months):
        before = rating[:, t - 1]
        up, down = _migration(regime[t])
        rating[:, t] = before + (moves[:, t] > 1 - down[before]) - (moves[:, t] < up[before])
        hazard = DEFAULTS[before] * (IN_STRESS["defaults"] if regime[t - 1] == STRESS else 1.0)
        default_month[(falls[:, t] < hazard) & (default_month == n_months)] = t
    return rating, default_month


def _rating_jumps(rating: np.ndarray, regime: np.ndarray) -> np.ndarray:
    """Changes of log spreads by changes of the rating, less the log of their mean; float64 (n_issuers, n_months)."""
    jumps = np.zeros(rating.shape)
    better, worse = np.append(1.0, SPREADS[:-1] / SPREADS[1:]), np.append(SPREADS[1:] / SPREADS[:-1], 1.0)
    for t in range(1, rating.shape[1]):
        before, after = rating[:, t - 1], rating[:, t]
        up, down = _migration(regime[t])
        mean = 1 + up * (better - 1) + down * (worse - 1)
        jumps[:, t] = np.log(SPREADS[after] / SPREADS[before]) - np.log(mean[before])
    return jumps


def mispricings(n_bonds: int, n_months: int, size: float, half_life: float, seed: int) -> np.ndarray:
    """float64 (n_bonds, n_months): a stationary AR(1) by bond, as a share of the fair spread.

    size: its standard deviation.  half_life: months after which half of it is expected to be left.
    Values beyond 4 standard deviations are cut.
    """
    rng = np.random.default_rng([seed, 7])
    memory = 0.5 ** (1.0 / half_life)
    noise = rng.standard_normal((n_bonds, n_months))
    path = np.empty((n_bonds, n_months))
    path[:, 0] = noise[:, 0]
    for t in range(1, n_months):
        path[:, t] = memory * path[:, t - 1] + np.sqrt(1 - memory**2) * noise[:, t]
    return size * np.clip(path, -4.0, 4.0)
