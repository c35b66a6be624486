"""`--call top:K` and `top:5%`: the best-ranked symbols of each date, or of each date and sector."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from gpupipe.backtest.calling.contract import CallingRule, Candidates, better_side

_FORM = re.compile(r"(\d+(?:\.\d+)?)(%?)(/sector)?")


@dataclass(frozen=True)
class Top(CallingRule):
    """Call the best symbols of each date long, and the best short ones short, where they are expected to earn.

    count: how many on each side; or share: which share of the date's symbols, rounded up.
    by_sector: of each date and sector.

    >>> Top.parse("20"), Top.parse("5%/sector").share, Top.parse("5%").text
    (Top(count=20, share=0.0, by_sector=False), 0.05, 'top:5%')
    """

    count: int = 0
    share: float = 0.0
    by_sector: bool = False

    name = "top"

    @classmethod
    def parse(cls, argument: str) -> Top:
        """See `CallingRule`."""
        match = _FORM.fullmatch(argument)
        number = float(match[1]) if match else 0.0
        if match and match[2] and 0 < number <= 50:
            return cls(share=number / 100, by_sector=bool(match[3]))
        if match and not match[2] and number >= 1 and number.is_integer():
            return cls(count=int(number), by_sector=bool(match[3]))
        raise ValueError("how many symbols of each side, as in top:20, top:5% (at most 50 %) or top:5%/sector")

    @property
    def text(self) -> str:
        """See `CallingRule`."""
        return f"{self.name}:{self._many}{'/sector' if self.by_sector else ''}"

    @property
    def _many(self) -> str:
        return f"{self.count}" if self.count else f"{100 * self.share:g}%"

    @property
    def sentence(self) -> str:
        """See `CallingRule`."""
        date = "date and sector" if self.by_sector else "date"
        return (
            f"The {self._many.replace('%', ' %')} best-ranked symbols of each {date} are called, "
            "on each side, where their expected net return is above 0."
        )

    def call(self, candidates: Candidates) -> np.ndarray:
        """See `CallingRule`."""
        scores, known = candidates.scores, candidates.predicted
        part = np.unique(candidates.time_ns, return_inverse=True)[1]
        if self.by_sector:
            part = part * (int(candidates.group.max(initial=0)) + 1) + candidates.group
        wanted = np.zeros((candidates.n_rows, 2), bool)
        for side in range(2):
            ranking = np.where(known, scores.ranking[:, side], np.nan)
            rank, size = ranks(ranking, part, candidates.symbol)
            most = np.full(len(size), self.count) if self.count else np.ceil(self.share * size - 1e-9)
            # Both sides of a part must fit into it: of three symbols the first is bought and the last is sold.
            most = np.minimum(most, np.maximum(size // 2, 1))
            wanted[:, side] = (rank < most) & (scores.ranking[:, side] > 0)
        return better_side(wanted & (scores.expected > 0), scores.expected)

    def why_nothing(self, candidates: Candidates) -> str:
        """See `CallingRule`."""
        return "no expected net return of the best-ranked symbols is above 0"


def ranks(values: np.ndarray, part: np.ndarray, symbol: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rank of each value in its part, 0 the highest, equal values by symbol; and the number of values in it.

    values: float (n,); a NaN counts for nothing and has the rank n.  part, symbol: int (n,).

    >>> ranks(np.array([0.1, 0.3, np.nan]), np.zeros(3, int), np.arange(3))
    (array([1, 0, 3]), array([2, 2, 2]))
    """
    known = np.isfinite(values)
    rank = np.full(len(values), len(values))
    at = np.flatnonzero(known)
    order = at[np.lexsort((symbol[at], -values[at], part[at]))]
    first = np.searchsorted(part[order], part[order], side="left")
    rank[order] = np.arange(len(order)) - first
    size = np.bincount(part[known], minlength=int(part.max(initial=0)) + 1)[part]
    return rank, size
