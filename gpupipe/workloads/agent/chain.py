"""The chain of sealed tests: the positions of all iterations become one account, its trades and its statistics."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.backtest import PositionPath, PositionRules, backtest_positions
from gpupipe.backtest.position_benchmarks import random_equity
from gpupipe.backtest.position_measures import position_statistics
from gpupipe.backtest.position_trades import PositionBacktest
from gpupipe.workloads.agent.market import Market
from gpupipe.workloads.agent.windows import Iteration

if TYPE_CHECKING:
    import pyarrow

AGENT, ORIGINAL = "agent", "original way"  # names of the paths
MOST_TIMES = 300  # of the quantiles of random entries
QUANTILES = (0.025, 0.5, 0.975)


def path_of(n_rows: int, iterations: Sequence[Iteration], positions: Sequence[np.ndarray]) -> np.ndarray:
    """int8 (n_rows,): the positions of each iteration in the rows of its test, 0 elsewhere.

    >>> from gpupipe.workloads.agent.windows import iterations
    >>> tests = iterations(0, 8, initial_window=4, step=2, validation_share=0.5)
    >>> path_of(8, tests, [np.int8([1, 0]), np.int8([-1, 0])]).tolist()
    [0, 0, 0, 0, 1, 0, -1, 0]
    """
    path = np.zeros(n_rows, np.int8)
    for iteration, decided in zip(iterations, positions, strict=True):
        path[iteration.test.begin : iteration.test.end] = decided
    return path


def traded(
    market: Market, panel: Any, iterations: Sequence[Iteration], paths: dict[str, np.ndarray]
) -> PositionBacktest:
    """The accounts of paths over the sealed bars, by the rules and costs of the market.

    Halts are not waited for, as the market fills every bar: equities are those of its environments to the last bit.
    """
    rules, time_ns = market.rules, panel.device.to_host(panel.time_ns)
    since, until = int(time_ns[iterations[0].test.begin]), int(time_ns[iterations[-1].test.end - 1]) + 1
    positions = panel.device.asarray(np.stack(list(paths.values())))
    path = PositionPath(positions, tuple(paths), panel, since, until, "sealed tests of the walk-forward")
    position_rules = PositionRules(
        fill=rules.fill, halts="fill", size=rules.size, commission_bps=rules.commission_bps,
        slippage_bps=rules.slippage_bps, spread_bps=0.0,
    )  # fmt: skip
    return backtest_positions(path, position_rules, market.slip, rules.initial_balance)


def statistics(result: PositionBacktest, seed: int, trials: int) -> dict[str, Any]:
    """Statistics of the chain; trials: policies that were trained, all of which count in the deflated figure."""
    return position_statistics(result, seed, trials)


def random_table(result: PositionBacktest, seed: int) -> pyarrow.Table:
    """Quantiles of the equity of random entries at up to MOST_TIMES times: time, low, median and high.

    low and high hold 95 % of the draws. The draws have the trades of the first path, see `random_entries`; without a
    trade the table has no rows.
    """
    import pyarrow as pa

    n = len(result.times)
    at = np.unique(np.linspace(0, n - 1, min(n, MOST_TIMES)).round().astype(np.int64))
    if not (result.path.panel.device.to_host(result.trades.model) == 0).any():
        at = at[:0]
    equity = np.quantile(random_equity(result, 0, at, seed), QUANTILES, axis=0)
    columns = {name: pa.array(values) for name, values in zip(("low", "median", "high"), equity, strict=True)}
    return pa.table({"time": pa.array(result.times[at], pa.timestamp("ns", "UTC")), **columns})


def positions_table(panel: Any, path: np.ndarray, begin: int, end: int) -> bytes:
    """Parquet with symbol, time, position and close of the sealed rows.

    `gpupipe backtest --positions` reads it, and leaves the close, which the report draws, out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    time_ns = panel.device.to_host(panel.time_ns)[begin:end]
    table = pa.table({
        "symbol": pa.array([panel.symbols[0]] * (end - begin)).dictionary_encode(),
        "time": pa.array(time_ns, pa.timestamp("ns", "UTC")),
        "position": pa.array(path[begin:end]),
        "close": pa.array(panel.device.to_host(panel.close)[begin:end]),
    })  # fmt: skip
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
