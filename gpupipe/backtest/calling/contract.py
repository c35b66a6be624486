"""The contract of a calling rule, and the rows among which it chooses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from gpupipe.backtest.rules import Rules
from gpupipe.evaluation.expected_return import Scores
from gpupipe.targets.trade_return import LONG, NOTHING, SHORT, SIDES

BUY, SELL = 0, 1  # positions in `cutoffs`


@dataclass(frozen=True)
class Candidates:
    """The rows of one model, of one label, among which a rule calls; all arrays are on the host.

    probability: float32 (n, 3), of SELL, HOLD, BUY; NaN where there is no prediction.
    cutoffs: float32 (n, 2), from which a row is called BUY and SELL by its probability.
    time_ns, group, symbol: int64 (n,).
    scores: float64 (n, 2) each, long and short; NaN where the model has no expected return. Net of costs: `expected`
        is the expected net return of a trade; `selection` the part beyond the row's peers (`expected_return.Scores`),
        without costs.
    costs: float64 (2,): what a trade that goes nowhere loses, as a share of its stake.

    >>> scores = Scores(*(np.zeros((1, 2)) for _ in range(5)))
    >>> candidates = Candidates(
    ...     np.float32([[0.2, 0.5, 0.3]]), np.float32([[0.4, 0.4]]), np.array([0]), np.array([0]), np.array([0]),
    ...     scores, np.full(2, 0.0006))
    >>> candidates.n_rows, candidates.predicted.tolist()
    (1, [True])
    """

    probability: np.ndarray
    cutoffs: np.ndarray
    time_ns: np.ndarray
    group: np.ndarray
    symbol: np.ndarray
    scores: Scores
    costs: np.ndarray

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.probability)

    @property
    def predicted(self) -> np.ndarray:
        """bool (n,): the rows with a prediction."""
        known: np.ndarray = np.isfinite(self.probability).all(axis=1)
        return known

    @property
    def has_score(self) -> bool:
        """Whether the model has an expected return for some row."""
        return bool(np.isfinite(self.scores.expected).any())


class CallingRule(ABC):
    """A rule that calls rows. A new rule is one file with a subclass, and one line in `calling.registry`.

    Class attributes:
    name: as in `--call NAME` or `--call NAME:ARGUMENT`.
    better: the text of the rule to try where this one is refused or calls nothing; "" for none.
    absolute: whether it compares predictions with levels that were chosen at another time. Such a rule can fall silent
        in a quiet market, and is then refused; for the others silence is a result.
    needs_score: whether it needs expected returns.
    reads_validation: whether it reads the validation part again, whose predictions a walk-forward does not keep.

    >>> from gpupipe.backtest.calling.registry import rule
    >>> rule("top:5%").name, rule("f1").absolute, rule("score").needs_score
    ('top', True, True)
    """

    name: ClassVar[str]
    better: ClassVar[str] = ""
    absolute: ClassVar[bool] = False
    needs_score: ClassVar[bool] = True
    reads_validation: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def parse(cls, argument: str) -> CallingRule:
        """The rule with an argument, "" for none; ValueError that says what is expected."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The rule as `parse` and the command line read it: equal texts are equal rules."""

    @property
    @abstractmethod
    def sentence(self) -> str:
        """Which rows are called, in a sentence."""

    @abstractmethod
    def call(self, candidates: Candidates) -> np.ndarray:
        """int8 (n,): LONG, SHORT or NOTHING for each row; rows without a prediction are never called."""

    def why_nothing(self, candidates: Candidates) -> str:
        """Why it calls no row of these, for a sentence."""
        return "no row fulfils the rule"

    def prepared(self, models: Any, panel: Any, rules: Rules) -> Any:
        """The models (artifacts.Models) as the rule needs them, such as with cutoffs of its own."""
        return models

    def explain(self, models: Any, panel: Any, rules: Rules, family: str) -> list[str]:
        """What a reader of a scan should know of the rule for an estimator, in sentences; none for most rules."""
        return []


def net_scores(scores: Scores, rules: Rules) -> tuple[Scores, np.ndarray]:
    """Scores with expected returns net of the costs of `rules`, and the costs: float64 (2,), long and short."""
    costs = np.array([-rules.net(0.0, side) for side in SIDES])
    scale = np.array([rules.net(1.0, side) - rules.net(0.0, side) for side in SIDES])
    expected = scores.expected * scale - costs
    changed = {name: getattr(scores, name) * scale for name in ("error", "selection", "selection_error")}
    return replace(scores, expected=expected, **changed), costs


def better_side(wanted: np.ndarray, value: np.ndarray) -> np.ndarray:
    """int8 (n,): the wanted side with the higher value, LONG on a tie; NOTHING where neither is wanted.

    wanted: bool (n, 2), long and short.  value: float (n, 2).

    >>> better_side(np.array([[True, True], [False, True], [False, False]]), np.array([[1.0, 2.0]] * 3)).tolist()
    [2, 2, 0]
    """
    value = np.where(wanted, value, -np.inf)
    side = np.where(value[:, 1] > value[:, 0], SHORT, LONG)
    return np.where(wanted.any(axis=1), side, NOTHING).astype(np.int8)
