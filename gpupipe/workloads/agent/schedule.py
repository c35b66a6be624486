"""What an iteration does when: how many steps it trains, with which rates, when it evaluates, and when it stops.

Pure functions and one small value: four of the seven optimisations are decided here (adaptive timesteps, convergence
stop, progressive schedule, evaluation schedule), and the training loop only does what they say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DECAY = 0.95  # of the timesteps, from one iteration to the next
DENSEST = 4  # evaluations come at most so many times as often as at first
NEARLY = 10.0  # a gain below so many thresholds is small: evaluations come twice as often from there on


def timesteps(base: int, least: int, iteration: int, adaptive: bool) -> int:
    """Steps to train at most in an iteration: max(least, floor(base * 0.95 ** iteration)), or base.

    >>> [timesteps(50_000, 15_000, i, adaptive=True) for i in (0, 1, 10, 100)], timesteps(50_000, 15_000, 9, False)
    ([50000, 47500, 29936, 15000], 50000)
    """
    return max(min(least, base), math.floor(base * DECAY**iteration)) if adaptive else base


@dataclass(frozen=True)
class Phase:
    """Factors on the settings of PPO while the share of the steps that are done is below `until`.

    >>> Phase("refine", 1.0, rate=0.3, epochs=1.5, entropy=0.1, clip=0.5).epochs
    1.5
    """

    name: str
    until: float
    rate: float
    epochs: float
    entropy: float
    clip: float


# At first the policy explores: the entropy counts more. At the end it is refined: small steps within a narrow clip, and
# fewer passes, as each changes little. Twice the entropy and half the passes at first cost a tenth of the score.
PHASES = (
    Phase("explore", 0.3, rate=1.0, epochs=1.0, entropy=1.25, clip=1.0),
    Phase("learn", 0.7, rate=1.0, epochs=1.0, entropy=1.0, clip=1.0),
    Phase("refine", 1.0, rate=0.3, epochs=0.5, entropy=0.2, clip=0.75),
)
CONSTANT = Phase("constant", 1.0, rate=1.0, epochs=1.0, entropy=1.0, clip=1.0)


def phase_at(share: float, progressive: bool) -> Phase:
    """The phase after a share of the steps.

    >>> [phase_at(share, True).name for share in (0.0, 0.29, 0.3, 0.99, 1.0)], phase_at(0.5, False).name
    (['explore', 'explore', 'learn', 'refine', 'refine'], 'constant')
    """
    if not progressive:
        return CONSTANT
    return next((phase for phase in PHASES if share < phase.until), PHASES[-1])


@dataclass(frozen=True)
class Values:
    """The settings of PPO of one update."""

    learning_rate: float
    epochs: int
    entropy: float
    clip: float


def values_at(share: float, base: Values, progressive: bool) -> Values:
    """The settings of the next update, after a share of the steps.

    >>> values_at(0.9, Values(1e-3, 4, 0.01, 0.2), True)
    Values(learning_rate=0.0003, epochs=2, entropy=0.002, clip=0.15)
    """
    phase = phase_at(share, progressive)
    return Values(
        learning_rate=base.learning_rate * phase.rate,
        epochs=max(1, round(base.epochs * phase.epochs)),
        entropy=base.entropy * phase.entropy,
        clip=round(base.clip * phase.clip, 12),
    )


def gain_of_last(scores: Sequence[float]) -> float:
    """By how much the last score is above the best before it; infinite for the first.

    >>> gain_of_last([0.5]), gain_of_last([0.5, 0.25, 0.75])
    (inf, 0.25)
    """
    return scores[-1] - max(scores[:-1]) if len(scores) > 1 else math.inf


def evaluation_interval(scores: Sequence[float], frequency: int, threshold: float, denser: bool) -> int:
    """Steps until the next evaluation: half as many after each small gain, down to a quarter.

    scores: of the evaluations so far.  frequency: steps between evaluations at first.
    Early on a policy changes much and an evaluation says little of where it ends; once gains are small, the best policy
    and the moment to stop lie close to the present one.

        >>> evaluation_interval([0.0, 0.5], 4_000, 0.001, True)  # a large gain
        4000
        >>> small = [0.505], [0.505, 0.4], [0.4] * 4
        >>> [evaluation_interval([0.0, 0.5, *last], 4_000, 0.001, True) for last in small]
        [2000, 1000, 1000]
        >>> evaluation_interval([0.0, 0.5, 0.5], 4_000, 0.001, False)
        4000
    """
    if not denser:
        return frequency
    small = 0
    for n in range(2, len(scores) + 1):
        small += gain_of_last(scores[:n]) < NEARLY * threshold
    return max(1, frequency // min(2**small, DENSEST))


def converged(scores: Sequence[float], at: Sequence[int], patience_steps: int, threshold: float) -> bool:
    """Whether no score of the last `patience_steps` steps is above the best before them by more than the threshold.

    at: the steps after which each score was found, rising. Patience is counted in steps, so that evaluations that come
    more often find the end more exactly, and not sooner.

        >>> converged([0.5, 0.5, 0.4, 0.5005], [0, 10, 20, 30], patience_steps=30, threshold=0.001)
        True
        >>> converged([0.5, 0.4, 0.502], [0, 10, 20], 20, 0.001), converged([0.5, 0.5], [0, 10], 20, 0.001)
        (False, False)
    """
    recent = sum(steps > at[-1] - patience_steps for steps in at) if at else 0
    if recent == len(scores):
        return False
    return max(scores[-recent:]) <= max(scores[:-recent]) + threshold
