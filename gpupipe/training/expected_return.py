"""Learn the expected return of every model's trades, from out-of-fold and validation rows of all groups of a pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.estimators import registry
from gpupipe.evaluation.expected_return import ExpectedReturn, lean_of
from gpupipe.evaluation.expected_return_fit import fit
from gpupipe.targets.target import Target
from gpupipe.targets.trade_return import TradeReturns

if TYPE_CHECKING:
    from gpupipe.training.context import TrainingContext


@dataclass(frozen=True)
class GroupTrades:
    """The trades that calls of each group's rows would open; computed for a group when it is first asked for.

    trades, volatility: see `Recipe`.

    >>> from gpupipe.data import simulate
    >>> from gpupipe.workloads.equity import EQUITY
    >>> panel, target = simulate(n_symbols=11, n_bars=20), EQUITY.target(EQUITY.settings("fast"))
    >>> trades = GroupTrades(panel, target, EQUITY.trades, EQUITY.volatility)
    >>> trades.of("energy").gross.shape
    (20, 6, 2)
    """

    panel: Panel
    target: Target
    trades: Callable[[Panel, Target], TradeReturns]
    volatility: str
    _by_group: dict[str, TradeReturns] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def of(self, group: str) -> TradeReturns:
        """The trades of a group's rows, on the host."""
        with self._lock:
            if group not in self._by_group:
                bars = self.panel.of_group(group)
                returns, to_host = self.trades(bars, self.target), bars.device.to_host
                self._by_group[group] = TradeReturns(to_host(returns.gross), to_host(returns.end_time_ns))
            return self._by_group[group]


def learn(
    context: TrainingContext,
    target: Target,
    columns: Sequence[int],
    rows: Mapping[str, np.ndarray],
    predictions: Callable[[str, str], np.ndarray],
    families: Sequence[str],
) -> dict[tuple[str, str], ExpectedReturn]:
    """The expected return of each label and estimator; without those that have too few dates.

    target, columns: the trained columns of y, and their numbers in the datasets.
    rows: of each group, row numbers whose predictions come from models that had not been fitted on them.
    predictions(family, group): float32 (n_rows, n_targets, n_classes), of these rows.
    A trade that had not ended before the fold's test part is left out.
    """
    trades, to_host = context.trades, context.device.to_host
    if trades is None or target.kind != "classes":
        return {}
    groups = [group for group, numbers in rows.items() if len(numbers)]
    if not groups:
        return {}
    begin = context.times.test[0].start
    datasets = {group: context.datasets[group] for group in groups}
    time_ns = np.concatenate([to_host(datasets[g].time_ns)[rows[g]] for g in groups])
    volatility = np.concatenate([to_host(datasets[g].extra[trades.volatility])[rows[g]] for g in groups])
    y = np.concatenate([to_host(datasets[g].y)[rows[g]] for g in groups])
    gross = np.concatenate([trades.of(g).gross[rows[g]] for g in groups])
    ended = np.concatenate([trades.of(g).end_time_ns[rows[g]] for g in groups]) < begin
    learned: dict[tuple[str, str], ExpectedReturn] = {}
    ranker = registry.ranker(families)
    leans: list[np.ndarray] = []
    for family in sorted(families, key=lambda name: name != ranker):  # the ranker's log-odds are read for all others
        of_family = [predictions(family, group) for group in groups]
        for position, k in enumerate(columns):
            probability = np.concatenate([array[:, position] for array in of_family])
            if family == ranker:
                leans.append(lean_of(probability))
            lean = leans[position] if ranker else np.zeros(len(probability))
            known_y = np.where(ended[:, k], y[:, k], -1)
            fitted = fit(
                probability, lean, volatility, time_ns, known_y, gross[:, k], target.horizon_rows[position], ranker
            )
            if fitted is not None:
                learned[target.names[position], family] = fitted
    return learned
