"""What a run of the agent publishes: positions, trades, equity, policies, history, and what the optimisations saved."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.backtest.position_tables import equity_table, trades_table
from gpupipe.backtest.position_trades import PositionBacktest
from gpupipe.backtest.tables import parquet, table_of
from gpupipe.estimators.torch.policy_files import StoredPolicy
from gpupipe.features.matrix import hash_of
from gpupipe.pipeline.steps import Outcome
from gpupipe.pipeline.workload import JobContext
from gpupipe.store.content_store import dump_json
from gpupipe.workloads.agent import chain, recipe, savings
from gpupipe.workloads.agent.cache import EnvironmentCache
from gpupipe.workloads.agent.iteration import IterationResult
from gpupipe.workloads.agent.market import ACTIONS, Market
from gpupipe.workloads.agent.settings import trained
from gpupipe.workloads.agent.windows import Iteration

POSITIONS, TRADES, EQUITY, RANDOM = "positions.parquet", "trades.parquet", "equity.parquet", "random.parquet"
HISTORY = "training.parquet"
OPTIMIZATION = "optimization_summary.json"
FOLDER = "iterations"
HISTORY_FIRST = ("way", "iteration", "candidate", "kind", "number", "steps", "score")  # columns, before all others


def conclude(context: JobContext, values: Mapping[str, IterationResult]) -> Outcome:
    """The outcome of a run: the chain of sealed tests, its statistics, and the files."""
    settings, panel = trained(context.settings), context.panel
    tests = recipe.walk_forward(panel, settings)
    ours = [values[it.name] for it in tests]
    theirs = [values[recipe.ORIGINAL + it.name] for it in tests] if settings.agent.benchmark else []
    cache = EnvironmentCache(panel, settings, context.store, context.keys.run)
    market = cache.market(tests[-1].train, tests[-1].test.end)
    paths = {chain.AGENT: chain.path_of(panel.n_rows, tests, [result.positions for result in ours])}
    if theirs:
        paths[chain.ORIGINAL] = chain.path_of(panel.n_rows, tests, [result.positions for result in theirs])
    traded = chain.traded(market, panel, tests, paths)
    trials = sum(len(result.candidates) for result in (*ours, *theirs))
    sealed = chain.statistics(traded, settings.seed, trials)
    saved = savings.of(ours, theirs, settings)
    begin, end = tests[0].test.begin, tests[-1].test.end
    files = {
        POSITIONS: chain.positions_table(panel, paths[chain.AGENT], begin, end),
        TRADES: parquet(trades_table(traded)),
        EQUITY: parquet(equity_table(traded)),
        RANDOM: parquet(chain.random_table(traded, settings.seed)),
        HISTORY: parquet(table_of(_history(tests, ours, theirs))),
        OPTIMIZATION: dump_json(savings.origin_summary(saved, datetime.datetime.now(datetime.UTC))),
    }
    for it, result in zip(tests, ours, strict=True):
        stored = stored_policy(result, market, settings, it)
        files |= {f"{FOLDER}/{it.name}/{name}": content for name, content in stored.contents().items()}
    growths = _growths(traded, tests)
    rows = [_row(panel, it, result, growth) for it, result, growth in zip(tests, ours, growths, strict=True)]
    extra = {"agent": {"iterations": rows, "sealed": sealed, "optimisations": saved, "bars_left": panel.n_rows - end}}
    return Outcome(None, files, extra=extra)


def stored_policy(result: IterationResult, market: Market, settings: Any, iteration: Iteration) -> StoredPolicy:
    """The chosen policy of an iteration, with what is needed to use it."""
    definitions = hash_of(market.features.names, market.features.definitions)
    about = {"scaler": result.scaler, "rules": market.rules.as_dict(), "iteration": iteration.number}
    return StoredPolicy(result.policy, market.observed, ACTIONS, settings.ppo, definitions, about)


def _growths(traded: PositionBacktest, tests: Sequence[Iteration]) -> list[float]:
    """The return of the first path in each test, from the close before its first row to that of its last."""
    equity = traded.path.panel.device.to_host(traded.accounts.equity)[0]
    closes = np.append(traded.initial, equity)
    begin = tests[0].test.begin
    ends = [(it.test.begin - begin, it.test.end - begin) for it in tests]
    return [float(closes[last] / closes[first] - 1) if closes[first] > 0 else 0.0 for first, last in ends]


def _row(panel: Any, iteration: Iteration, result: IterationResult, growth: float) -> dict[str, Any]:
    """What the summary says of an iteration."""
    from gpupipe.data.report import time_text

    time_ns = panel.device.to_host(panel.time_ns)
    spans = {
        part: [time_text(int(time_ns[rows.begin])), time_text(int(time_ns[rows.end - 1]))]
        for part in ("train", "validation", "test")
        for rows in (getattr(iteration, part),)
    }
    chosen = result.candidates[result.chosen]
    return {
        "name": iteration.name, **spans, "validation_score": result.score, "test_growth": growth,
        "chosen": result.chosen, "steps": [candidate["steps"] for candidate in result.candidates],
        "stopped": [candidate["stopped"] for candidate in result.candidates],
        "evaluations": len(chosen["evaluations"]), "warm": result.counts["warm"], "budget": result.counts["budget"],
        "seconds": dict(result.seconds),
        "clock": [[at, found["score"]] for at, found in zip(result.clock, chosen["evaluations"], strict=True)],
    }  # fmt: skip


def _history(
    tests: Sequence[Iteration], ours: Sequence[IterationResult], theirs: Sequence[IterationResult]
) -> list[dict[str, Any]]:
    """A row for each update and each evaluation of every candidate."""
    rows = []
    for way, results in ((chain.AGENT, ours), (chain.ORIGINAL, theirs)):
        for it, result in zip(tests, results, strict=False):
            for candidate in result.candidates:
                about = {"way": way, "iteration": it.number, "candidate": candidate["number"]}
                rows += [{**about, "kind": "update", **update, "score": None} for update in candidate["updates"]]
                rows += [{**about, "kind": "evaluation", **found} for found in candidate["evaluations"]]
    # In an order of its own: that of a row's fields is another where it was loaded from the store.
    keys = [*HISTORY_FIRST, *sorted({name for row in rows for name in row} - {*HISTORY_FIRST})]
    return [{name: row.get(name) for name in keys} for row in rows]
