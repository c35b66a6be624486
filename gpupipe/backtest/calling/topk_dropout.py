"""`--call topk-dropout:K/N`: Qlib's TopkDropout, which holds K symbols and exchanges at most N of them at each date."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from gpupipe.backtest.calling.contract import CallingRule, Candidates
from gpupipe.targets.trade_return import LONG, NOTHING

_FORM = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class TopkDropout(CallingRule):
    """Call the held symbols of each date long: of `hold` symbols, the `drop` worst leave for the best others.

    Source: qlib.contrib.strategy.TopkDropoutStrategy, with method_sell "bottom" and method_buy "top". Held symbols
    without a prediction are kept. A held symbol whose expected net return is not above 0 stays held and is not called.

    >>> TopkDropout.parse("50/5").text
    'topk-dropout:50/5'
    """

    hold: int = 50
    drop: int = 5

    name = "topk-dropout"

    @classmethod
    def parse(cls, argument: str) -> TopkDropout:
        """See `CallingRule`."""
        match = _FORM.fullmatch(argument or "50/5")
        hold, drop = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= drop <= hold:
            raise ValueError("how many symbols to hold and to exchange, as in topk-dropout:50/5")
        return cls(hold, drop)

    @property
    def text(self) -> str:
        """See `CallingRule`."""
        return f"{self.name}:{self.hold}/{self.drop}"

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
        expected = candidates.scores.expected[:, 0]
        held: list[int] = []
        order = np.argsort(candidates.time_ns, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(candidates.time_ns[order])) + 1):
            row_of = {int(candidates.symbol[row]): int(row) for row in rows if np.isfinite(ranking[row])}
            held = exchanged(
                held, {symbol: float(ranking[row]) for symbol, row in row_of.items()}, self.hold, self.drop
            )
            for symbol in held:
                if symbol in row_of and expected[row_of[symbol]] > 0:
                    calls[row_of[symbol]] = LONG
        return calls

    def why_nothing(self, candidates: Candidates) -> str:
        """See `CallingRule`."""
        return "no expected net return of a held symbol is above 0"


def exchanged(held: list[int], ranking: dict[int, float], hold: int, drop: int) -> list[int]:
    """The symbols held after a date, best first.

    held: before it.  ranking: of the symbols with a prediction; equal ones are in the order of their numbers.

    >>> exchanged([1, 2], {1: 0.1, 2: 0.5, 3: 0.9, 4: 0.7}, hold=2, drop=1)
    [3, 2]
    """
    lowest = -np.inf

    def best_first(symbols: list[int]) -> list[int]:
        return sorted(symbols, key=lambda symbol: (-ranking.get(symbol, lowest), symbol))

    last = best_first(held)
    others = best_first([symbol for symbol in ranking if symbol not in set(held)])
    today = others[: drop + hold - len(last)]
    worst = set(best_first([*last, *today])[-drop:])
    sold = [symbol for symbol in last if symbol in worst and symbol in ranking]
    bought = today[: len(sold) + hold - len(last)]
    return best_first([symbol for symbol in last if symbol not in set(sold)] + bought)
