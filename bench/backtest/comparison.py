"""The backtest of every model at once, alone and against vectorbt and Backtesting.py under the same rules.

    python -m bench.backtest.comparison --data bars.parquet --sector-map sectors.csv [--models OUT] [--times 5]

Without --models the probabilities are drawn at random, 36 models on the last fifth of the dates. After
`pip install -e ".[cpu,bench]"`, and `pip install backtesting` (AGPL, so that no extra of ours brings it); a peer that
is not installed is left out, and the last line says so.

Equality first, trade by trade; then medians in turn, and a JSON line last. One core binds on every side: ours loops
over bars in a compiled kernel. Backtesting.py loops over bars in Python, and gets `--peer-symbols` alone, as we do in
that comparison; tests/support/backtesting_py.py says what cannot be made the same.

The same rules in vectorbt: where they can be made ours. Its Portfolio.from_signals takes one order a bar and column,
and looks for stops from the bar after the entry on, so that entries are at the close, long, one position a symbol. It
has no exit by time: the exit is given as a signal h bars after the call, which is the same only where the calls of a
symbol are more than h bars apart; both sides are given such calls (`thinned`). What cannot be made the same: entry at
the open with stops in that very bar, both barriers in one bar left at the target, overlapping positions in one column.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np

from bench import runs
from bench.timing import alternate, timed
from gpupipe.artifacts.load import load
from gpupipe.backtest import Backtest, OutOfSample, Rules, backtest, sealed_test
from gpupipe.backtest.engine import REASONS, call_of, cut
from gpupipe.backtest.job import measured
from gpupipe.data.panel import Panel
from tests.support import backtesting_py

END = REASONS.index("end of data")
SAME = Rules(entry="close", commission_bps=5, spread_bps=0, slippage_bps=3)
LABELS = tuple((h, t) for h in (1, 2, 5) for t in (0.05, 0.10))
FAMILIES = tuple(f"random_{k}" for k in range(6))
TEST_SHARE, CALLS_SHARE = 0.2, 0.05


def random_source(panel: Panel) -> OutOfSample:
    """Probabilities that mean nothing, on the last fifth of the dates; a row in twenty is a buy call."""
    times, n_sectors = np.unique(panel.time_ns), len(panel.groups)
    since = np.full(n_sectors, times[int(len(times) * (1 - TEST_SHARE))])
    pairs = [(family, h, t) for h, t in LABELS for family in FAMILIES]
    buy = np.random.default_rng(0).random((panel.n_rows, len(pairs)), np.float32)
    values = np.stack([np.zeros_like(buy), 1 - buy, buy], axis=2)
    values[panel.time_ns < since[0]] = np.nan
    cutoffs = np.full((len(pairs), n_sectors, 2), 1 - CALLS_SHARE, np.float32)
    families, horizons, thresholds = zip(*pairs, strict=True)
    until = np.full(n_sectors, np.iinfo(np.int64).max)
    return OutOfSample(values, cutoffs, horizons, thresholds, families, since, until, "random", panel)


def thinned(source: OutOfSample) -> tuple[OutOfSample, np.ndarray]:
    """The source of those buy calls that no kept call of the last h bars precedes; and bool (n_models, n_rows)."""
    panel, rows = cut(source)
    called = call_of(panel, source, rows) == 1
    last = panel.offsets[1:][panel.symbol_of_row]
    kept = np.zeros_like(called)
    for m, h in enumerate(source.horizons):
        symbol, free = -1, 0
        for row in np.flatnonzero(called[m]):
            if panel.symbol_of_row[row] != symbol:
                symbol, free = panel.symbol_of_row[row], 0
            if row >= free and row + 1 < last[row]:
                kept[m, row], free = True, row + h + 1
    values = np.full_like(source.values, np.nan)
    values[rows] = np.stack([np.zeros(kept.T.shape), ~kept.T, kept.T], axis=2)
    return OutOfSample(
        values, np.full_like(source.cutoffs, 0.5), source.horizons, source.thresholds, source.families,
        source.since_ns, source.until_ns, "thinned", source.panel,
    ), kept  # fmt: skip


def column_of_symbol(panel: Panel) -> np.ndarray:
    """int64 (n_symbols,): the column of each symbol; those of a sector stand together, as vectorbt's groups must."""
    return np.argsort(np.argsort(panel.group_of_symbol, kind="stable"))


def matrices(result: Backtest, kept: np.ndarray) -> dict[str, np.ndarray]:
    """What vectorbt takes: (n_dates, n_models * n_symbols), NaN where a symbol has no bar."""
    panel, shape = result.panel, (len(result.times), len(kept), result.panel.n_symbols)
    symbol, date = column_of_symbol(panel)[panel.symbol_of_row], result.date_of_row
    columns: dict[str, np.ndarray] = {}
    for name in ("open", "high", "low", "close"):
        wide = np.full((shape[0], 1, shape[2]), np.nan)
        wide[date, 0, symbol] = getattr(panel, name)
        columns[name] = np.broadcast_to(wide, shape).reshape(shape[0], -1)
    entries, exits = np.zeros(shape, bool), np.zeros(shape, bool)
    last = panel.offsets[1:][panel.symbol_of_row] - 1
    for m, h in enumerate(result.source.horizons):
        rows = np.flatnonzero(kept[m])
        entries[date[rows], m, symbol[rows]] = True
        due = rows + h
        due = due[due <= last[rows]]
        exits[date[due], m, symbol[due]] = True
    stop = np.repeat(np.array(result.source.thresholds), shape[2])[None]
    columns["groups"] = (np.arange(len(kept))[:, None] * len(panel.groups) + np.sort(panel.group_of_symbol)).ravel()
    return {**columns, "entries": entries.reshape(shape[0], -1), "exits": exits.reshape(shape[0], -1), "stop": stop}


def vectorbt_trades(vectorbt: Any, bars: dict[str, np.ndarray], returns: bool = False) -> np.ndarray:
    """The trades as vectorbt records them; with `returns` those of the models' and sectors' portfolios by date too."""
    portfolio = vectorbt.Portfolio.from_signals(
        bars["close"], bars["entries"], bars["exits"], open=bars["open"], high=bars["high"], low=bars["low"],
        sl_stop=bars["stop"], tp_stop=bars["stop"], stop_exit_price="stopmarket", size=1.0, init_cash=1e9,
        fees=SAME.commission, slippage=SAME.slip, accumulate=False,
    )  # fmt: skip
    if returns:
        portfolio.returns(group_by=bars["groups"])
    return portfolio.trades.values


def differences(result: Backtest, theirs: np.ndarray) -> dict[str, int]:
    """How many trades are the same in entry and exit, and to 1e-5 in return, and how many are not.

    left_open: both held on to the end of the history, where vectorbt leaves a trade open and we close it at the last
    close. other: a high or low that is the barrier to the cent, which a float64 product may miss.
    """
    trades, panel, date = result.trades, result.panel, result.date_of_row
    column = trades.model * panel.n_symbols + column_of_symbol(panel)[panel.symbol_of_row[trades.row]]
    entries = zip(column.tolist(), date[trades.row].tolist(), strict=True)
    exits = zip(date[trades.last_row].tolist(), trades.net.tolist(), (trades.reason == END).tolist(), strict=True)
    ours = dict(zip(entries, exits, strict=True))
    counts = {"ours": len(ours), "theirs": len(theirs), "same": 0, "left_open": 0, "other": 0}
    for trade in theirs:
        leave, net, at_end = ours.get((int(trade["col"]), int(trade["entry_idx"])), (-1, np.nan, False))
        same = leave == trade["exit_idx"] and abs(net - trade["return"]) < 1e-5
        counts["left_open" if at_end and trade["status"] == 0 else "same" if same else "other"] += 1
    return counts


def main() -> int:
    parser = runs.options(__doc__, data="demo", times=5)
    parser.add_argument("--models", help="OUT of a finished run; without it probabilities are random")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for the comparison, at most about")
    parser.add_argument("--peer-symbols", type=int, default=6, help="how many of them Backtesting.py is given")
    chosen = parser.parse_args()
    panel, _ = runs.read(chosen)
    predict = (lambda: sealed_test(load(chosen.models), panel)) if chosen.models else partial(random_source, panel)
    predicting_s, source = timed(predict)
    result, _ = backtest(source), measured(backtest(source), 0)
    sides = {"engine": lambda: backtest(source), "engine and statistics": lambda: measured(backtest(source), 0)}
    seconds, n_times = alternate(chosen.times, sides, limit_s=chosen.limit)
    n_models = int(source.has_model.sum())
    print(f"{panel.n_symbols} symbols, {n_models} models, {result.panel.n_rows:,} out-of-sample rows, "
          f"{result.trades.n_trades:,} trades: engine {seconds['engine']:.3f} s, "
          f"with all statistics and 500 draws {seconds['engine and statistics']:.3f} s")  # fmt: skip
    peers: dict[str, Any] = {}
    few = np.linspace(0, panel.n_symbols - 1, min(chosen.peer_symbols, panel.n_symbols)).astype(int)
    kept = np.isin(np.arange(panel.n_symbols), few).tolist()
    for name, compare in {
        "vectorbt": lambda: against_vectorbt(source, chosen.times, chosen.limit),
        "backtesting": lambda: against_backtesting(random_source(panel.where(kept)), chosen.times, chosen.limit),
    }.items():
        try:
            peers[name] = compare()
        except runs.SkippedError as skipped:
            peers[name] = f"left out: {skipped}"
    return runs.finish(
        "backtest", data=chosen.data, symbols=panel.n_symbols, models=n_models, rows=result.panel.n_rows,
        dates=len(result.times), trades=result.trades.n_trades, times=n_times,
        predicting_s=predicting_s if chosen.models else None, engine_s=seconds["engine"],
        engine_and_statistics_s=seconds["engine and statistics"], **peers,
    )  # fmt: skip


def against_vectorbt(source: OutOfSample, times: int, limit_s: float) -> dict[str, Any]:
    """Equality, then medians of both."""
    vectorbt, name = runs.library("vectorbt", "vectorbt")
    few, kept = thinned(source)
    result = backtest(few, SAME)
    bars = matrices(result, kept)
    counts = differences(result, vectorbt_trades(vectorbt, bars, returns=True))
    print(f"the same rules in {name}: {counts}")
    if counts["other"] > 0.001 * counts["ours"] or counts["ours"] != counts["theirs"]:
        raise SystemExit("the trades differ: no time is taken")
    sides = {
        "ours": lambda: backtest(few, SAME),
        "vectorbt, trades alone": lambda: vectorbt_trades(vectorbt, bars),
        "vectorbt, trades and portfolios by date": lambda: vectorbt_trades(vectorbt, bars, returns=True),
        "vectorbt, matrices, trades and portfolios": lambda: vectorbt_trades(vectorbt, matrices(result, kept), True),
    }
    seconds, n_times = alternate(times, sides, limit_s=limit_s)
    print(f"ours, from probabilities to trades and portfolios by date: {seconds['ours']:.3f} s")
    for side in list(sides)[1:]:
        print(f"{side}: {seconds[side]:.3f} s, {seconds[side] / seconds['ours']:.1f} times")
    return {**counts, "version": name, "seconds": seconds, "times": n_times}


def against_backtesting(source: OutOfSample, times: int, limit_s: float) -> dict[str, Any]:
    """Equality of every trade, then medians of both, on the few symbols of the source."""
    backtesting, name = backtesting_py.engine()
    result = backtest(source, backtesting_py.SAME)
    ours, theirs = backtesting_py.ours(result), backtesting_py.trades(backtesting, result)
    if not backtesting_py.same(ours, theirs):
        raise SystemExit(f"the trades differ ({len(ours):,} and {len(theirs):,}): no time is taken")
    sides = {
        "ours": lambda: backtest(source, backtesting_py.SAME),
        "backtesting": lambda: backtesting_py.trades(backtesting, result),
    }
    seconds, n_times = alternate(times, sides, limit_s=limit_s)
    print(f"the same rules in {name}: {len(ours):,} trades of {result.panel.n_symbols} symbols, all the same; ours "
          f"{seconds['ours']:.4f} s, theirs {seconds['backtesting']:.1f} s, "
          f"{seconds['backtesting'] / seconds['ours']:,.0f} times")  # fmt: skip
    return {"same": len(ours), "symbols": result.panel.n_symbols, "version": name, "seconds": seconds, "times": n_times}


if __name__ == "__main__":
    sys.exit(main())
