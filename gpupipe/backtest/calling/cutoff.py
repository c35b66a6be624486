"""`--call f1` and `--call profit`: rows whose probability reaches a cutoff that validation chose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.backtest.calling.contract import BUY, SELL, CallingRule, Candidates
from gpupipe.backtest.rules import Rules
from gpupipe.targets.trade_return import LONG, NOTHING, SHORT


@dataclass(frozen=True)
class BestF1(CallingRule):
    """Call a row where its probability reaches the cutoff with the best F1 on validation.

    >>> BestF1().text, BestF1().better
    ('f1', 'score')
    """

    name = "f1"
    better = "score"
    absolute = True
    needs_score = False

    @classmethod
    def parse(cls, argument: str) -> CallingRule:
        """See `CallingRule`."""
        if argument:
            raise ValueError(f"no argument: {cls.name}")
        return cls()

    @property
    def text(self) -> str:
        """See `CallingRule`."""
        return self.name

    @property
    def sentence(self) -> str:
        """See `CallingRule`."""
        return "Rows are called BUY or SELL from the cutoff with the best F1 on validation."

    def call(self, candidates: Candidates) -> np.ndarray:
        """By the rule of evaluation.metrics.calls: the larger ratio of probability to cutoff decides, BUY on a tie."""
        probability, cutoffs = candidates.probability, candidates.cutoffs
        with np.errstate(invalid="ignore", divide="ignore"):
            buy, sell = probability[:, -1] / cutoffs[:, BUY], probability[:, 0] / cutoffs[:, SELL]
        calls = np.full(candidates.n_rows, NOTHING, np.int8)
        calls[(buy >= 1) & (buy >= sell)] = LONG
        calls[(sell >= 1) & (sell > buy)] = SHORT
        return calls

    def why_nothing(self, candidates: Candidates) -> str:
        """See `CallingRule`."""
        return "no probability reaches its cutoff"


@dataclass(frozen=True)
class BestProfit(BestF1):
    """Call a row where its probability reaches the cutoff that paid best on validation, or never.

    >>> BestProfit().text
    'profit'
    """

    name = "profit"
    reads_validation = True

    @property
    def sentence(self) -> str:
        """See `CallingRule`."""
        return "Rows are called BUY or SELL from the cutoff that paid best on validation, or never."

    def prepared(self, models: Any, panel: Any, rules: Rules) -> Any:
        """The models with these cutoffs, which are kept in OUT/cutoffs.json."""
        from gpupipe.backtest import cutoffs

        return cutoffs.kept(models, panel, rules).of(models)

    def explain(self, models: Any, panel: Any, rules: Rules, family: str) -> list[str]:
        """The chosen cutoffs of each label."""
        from gpupipe.backtest import cutoffs

        return cutoffs.sentences(cutoffs.kept(models, panel, rules), family)

    def why_nothing(self, candidates: Candidates) -> str:
        """See `CallingRule`."""
        return "no cutoff paid on validation, or no probability reaches the one that did"
