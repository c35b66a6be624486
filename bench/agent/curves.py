"""Learning curves: mean returns by part of a training, and their comparison by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

PARTS = 8  # of a training, whose mean returns make its curve
# Student's t at 97.5 %, by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


class Ended(NamedTuple):
    """Episodes that ended: steps of all environments until then, their number, and their mean return.

    Where more environments step together, an episode began longer ago: `at_middle` makes curves of both comparable.
    """

    steps: int
    episodes: int
    mean_return: float


def at_middle(ended: Sequence[Ended], n_environments: int, length: int | None) -> list[Ended]:
    """The same episodes, at the middle of the steps that all environments took while they lasted.

    length: of an episode; None where its return is its length.

    >>> at_middle([Ended(1_000, 1, 20.0)], 10, None)[0].steps
    900
    """
    return [
        item._replace(steps=max(1, item.steps - round(n_environments * (length or item.mean_return) / 2)))
        for item in ended
    ]


def by_part(ended: Sequence[Ended], total_steps: int) -> list[float | None]:
    """The mean return of the episodes that ended in each of PARTS equal parts of a training; None without any.

    >>> by_part([Ended(1, 1, 10.0), Ended(2, 3, 30.0), Ended(16, 1, 5.0)], 16)
    [25.0, None, None, None, None, None, None, 5.0]
    """
    totals, counts = [0.0] * PARTS, [0] * PARTS
    for steps, episodes, mean_return in ended:
        part = min((steps - 1) * PARTS // total_steps, PARTS - 1)
        totals[part] += episodes * mean_return
        counts[part] += episodes
    return [total / count if count else None for total, count in zip(totals, counts, strict=True)]


def area(parts: Sequence[float | None]) -> float:
    """The mean of a curve's parts: of equal curves it is equal."""
    return statistics.fmean(part for part in parts if part is not None)


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Mean of ours - theirs by seed, its 95 % interval (Student's t), and whether ours is at least as good within it.

    >>> paired_difference([10.0, 12.0], [9.0, 9.0])["difference"]
    2.0
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, n = statistics.fmean(differences), len(differences)
    if n < 2 or n - 1 not in T:
        return {"difference": mean, "interval": None, "as_good": None}
    half = T[n - 1] * statistics.stdev(differences) / math.sqrt(n)
    return {"difference": mean, "interval": [mean - half, mean + half], "as_good": mean + half >= 0}
