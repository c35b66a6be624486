"""`--call topk-dropout:K,N`: Qlib's TopkDropout, which holds K symbols and exchanges at most N of them at each date."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.backtest.calling.contract import CallingRule, Candidates
from gpupipe.backtest.rank_selection import Selection
from gpupipe.backtest.rules import Rules
from gpupipe.targets.trade_return import LONG, NOTHING

_FORM = re.compile(r"(\d+),(\d+)")


@dataclass(frozen=True)
class TopkDropout(CallingRule):
    """Call the held symbols of each date long: of `hold` symbols, the `drop` worst leave for the best others.

    The held symbols are those of `rank_selection.topk_dropout`, from the first date on. One whose expected net return
    is not above 0 stays held and is not called.

    >>> TopkDropout.parse("50,5").text
    'topk-dropout:50,5'
    """

    hold: int = 50
    drop: int = 5

    name = "topk-dropout"
    better = "top:5%"

    @classmethod
    def parse(cls, argument: str) -> TopkDropout:
        """See `CallingRule`."""
        match = _FORM.fullmatch(argument or "50,5")
        hold, drop = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= drop <= hold:
            raise ValueError("how many symbols to hold and to exchange, as in topk-dropout:50,5")
        return cls(hold, drop)

    @property
    def text(self) -> str:
        """See `CallingRule`."""
        return f"{self.name}:{self.hold},{self.drop}"

    @property
    def sentence(self) -> str:
        """See `CallingRule`."""
        return (
            f"{self.hold} symbols are held by rank, and at each date the {self.drop} worst leave for better ones; held "
            "symbols are called where their expected net return is above 0."
        )

    def call(self, candidates: Candidates) -> np.ndarray:
        """See `CallingRule`."""
        calls = np.full(candidates.n_rows, NOTHING, np.int8)
        ranking = np.where(candidates.predicted, candidates.scores.ranking[:, 0], np.nan)
        expected, selection = candidates.scores.expected[:, 0], Selection(self.text)
        held = np.zeros((1, int(candidates.symbol.max(initial=-1)) + 1))
        order = np.argsort(candidates.time_ns, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(candidates.time_ns[order])) + 1):
            score = np.full_like(held, np.nan)
            score[0, candidates.symbol[rows]] = ranking[rows]
            if np.isfinite(score).any():
                held = selection.sides(score, held, short=False).astype(np.float64)
            calls[rows[(held[0, candidates.symbol[rows]] > 0) & (expected[rows] > 0)]] = LONG
        return calls

    def explain(self, models: Any, panel: Any, rules: Rules, family: str) -> list[str]:
        """That a scan has no earlier date, and so no held symbols."""
        return [
            f"A scan knows of no held symbols, so that the {self.hold} best-ranked ones count as held, whatever was "
            "held before; exchanges are for gpupipe backtest."
        ]

    def why_nothing(self, candidates: Candidates) -> str:
        """See `CallingRule`."""
        return "no expected net return of a held symbol is above 0"
