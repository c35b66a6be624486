"""Means over seeds with 95 % intervals, and ratios paired by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval by Student's t; low and high are None for a single value."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them."""
        return asdict(self)

    def __str__(self) -> str:
        ends = "" if self.low is None or self.high is None else f" ({self.low:.4g}, {self.high:.4g})"
        return f"{self.mean:.4g}{ends}"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values that are independent, such as those of several seeds; ValueError without any."""
    from scipy.special import stdtrit

    if not values:
        raise ValueError("no value to average")
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Estimate(mean, None, None, 1)
    half = float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def paired_ratio(values: Mapping[int, float], reference: Mapping[int, float]) -> Estimate | None:
    """The mean ratio over the seeds that both have; None where there is no such seed."""
    seeds = sorted(values.keys() & reference.keys())
    return estimate([values[seed] / reference[seed] for seed in seeds]) if seeds else None
