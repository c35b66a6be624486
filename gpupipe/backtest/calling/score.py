"""`--call score`: rows that are expected to earn, and more than their peers, by more than standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpupipe.backtest.calling.contract import CallingRule, Candidates, better_side

MARGIN = 1.0


@dataclass(frozen=True)
class Score(CallingRule):
    """Call a row whose expected net return minus `margin` errors is above 0, and whose selection so reduced pays costs.

    The second condition keeps a rising market from calling every symbol: what all peers are expected to earn is in the
    expected net return, and not in the selection. Peers are symbols of similar volatility on the same date.

    >>> Score.parse(""), Score.parse("2").text
    (Score(margin=1.0), 'score:2')
    """

    margin: float = MARGIN

    name = "score"
    better = "top:5%"

    @classmethod
    def parse(cls, argument: str) -> Score:
        """See `CallingRule`."""
        try:
            margin = float(argument) if argument else MARGIN
        except ValueError:
            margin = math.nan
        if not (math.isfinite(margin) and margin >= 0):
            raise ValueError("a margin of 0 or more standard errors, as in score:1.5")
        return cls(margin)

    @property
    def text(self) -> str:
        """See `CallingRule`."""
        return self.name if self.margin == MARGIN else f"{self.name}:{self.margin:g}"

    @property
    def sentence(self) -> str:
        """See `CallingRule`."""
        return (
            f"Rows are called where the expected net return is {self._errors} above 0, and what a row is expected to "
            "earn beyond its peers, symbols of similar volatility on the same date, pays the costs when it is as much "
            "lower."
        )

    @property
    def _errors(self) -> str:
        return "1 standard error" if self.margin == 1 else f"{self.margin:g} standard errors"

    def call(self, candidates: Candidates) -> np.ndarray:
        """See `CallingRule`."""
        scores = candidates.scores
        earns = scores.expected - self.margin * scores.error
        beyond_peers = scores.selection - self.margin * scores.selection_error - candidates.costs
        wanted = (scores.expected > 0) & (earns > 0) & (beyond_peers > 0)
        return better_side(wanted, scores.expected)

    def why_nothing(self, candidates: Candidates) -> str:
        """See `CallingRule`."""
        scores = candidates.scores
        known = np.isfinite(scores.expected).any(axis=1)
        if not (scores.selection[known] != 0).any():
            return "its order of the symbols earned nothing on unseen rows before the test"
        if not (scores.expected[known] > 0).any():
            return "no expected net return is above 0"
        if not (scores.expected - self.margin * scores.error > 0).any():
            return f"no expected net return is {self._errors} above 0"
        return f"no row is expected to earn more than its peers by the costs and {self._errors}"
