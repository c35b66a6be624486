"""Portfolios of ranks, all models at once, alone and against vectorbt with the same target weights.

    python -m bench.backtest.rank_portfolio --data bars.parquet --sector-map sectors.csv [--side long-short] [--times 3]

Scores are drawn at random, 36 models on the last fifth of the dates. After `pip install -e ".[cpu,bench]"`; without
vectorbt only ours is timed, and the last line says so.

Equality first: the equity of every model on every date. Then medians in turn, and a JSON line last. One core binds on
both sides.

The same in vectorbt: Portfolio.from_orders with size_type="targetpercent", one group with one cash for each model,
call_seq="auto". It takes one order a row and symbol and values a portfolio once a row, so that a date becomes three
rows (`ROWS`): the open, the close, and the close once more for positions that end with the data. Given to it are the
shares of the equity that ours came to hold, where ours had an order; what it does not have is:

- The purchases that the cash does not suffice for: vectorbt cuts the last ones in the order of their size, ours makes
  all of them smaller by the same factor. The weights it is given are those after that, which its cash suffices for.
- Exits that wait for the end of a halt, and orders that lapse in one: the weights stand in the row of the fill.
- A portfolio that has lost everything: ours is closed for good, vectorbt's trades on.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from bench import runs
from bench.backtest.comparison import random_source
from bench.timing import alternate
from gpupipe.backtest.rank_portfolio import AT_OPEN, RankBacktest, rank_portfolio
from gpupipe.backtest.rank_rules import SIDES, RankRules
from gpupipe.backtest.rank_statistics import measured
from gpupipe.backtest.rank_trades import round_trips

ROWS = 3  # of vectorbt for a date: the steps of rank_portfolio
CASH = 1e6  # what vectorbt begins with: its tolerances are absolute
CLOSE_ENOUGH = 1e-9  # the largest relative difference of equity that is rounding


def matrices(result: RankBacktest) -> dict[str, np.ndarray]:
    """What vectorbt takes.

    price: float64 (ROWS * n_dates, n_symbols): of the fills, and the last mark where nothing is filled.
    weights: float64 (ROWS * n_dates, n_models * n_symbols): target shares of the equity, NaN where there is no order.
    """
    bars, fills = result.bars, result.fills
    n_models, (n_dates, n_symbols) = len(result.every), bars.close.shape
    before = np.vstack([np.full(n_symbols, np.nan), bars.mark[:-1]])
    price = np.repeat(bars.mark, ROWS, axis=0)
    price[AT_OPEN::ROWS] = np.where(bars.traded, bars.open, before)
    weights = np.full((ROWS * n_dates, n_models, n_symbols), np.nan)
    at = (fills.date * ROWS + fills.step, fills.portfolio, fills.symbol)
    weights[at] = fills.after * fills.price / fills.equity  # of two fills that turn a position the second stays
    return {
        "price": np.nan_to_num(price, nan=1.0),  # before its first bar a symbol has no order
        "weights": weights.reshape(ROWS * n_dates, -1),
    }


def vectorbt_equity(vectorbt: Any, result: RankBacktest, given: dict[str, np.ndarray]) -> np.ndarray:
    """float64 (n_models, n_dates): the equity at every close, as vectorbt has it."""
    n_models, costs = len(result.every), result.rules.fills
    price = np.tile(given["price"], (1, n_models))
    portfolio = vectorbt.Portfolio.from_orders(
        price, given["weights"], size_type="targetpercent", price=price, val_price=price, fees=costs.commission,
        slippage=costs.slip, init_cash=CASH, cash_sharing=True, call_seq="auto",
        group_by=np.repeat(np.arange(n_models), result.bars.n_symbols),
    )  # fmt: skip
    value = np.asarray(portfolio.value()).reshape(len(price), n_models)
    equity: np.ndarray = value[ROWS - 1 :: ROWS].T / CASH
    return equity


def largest_difference(result: RankBacktest, theirs: np.ndarray) -> float:
    """The largest relative difference of the equity on any date."""
    return float(np.abs(theirs / result.equity - 1).max())


def main() -> int:
    parser = runs.options(__doc__, data="demo", times=3)
    parser.add_argument("--side", default=SIDES[0], choices=SIDES)
    parser.add_argument("--hold", default=RankRules().hold)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for the comparison, at most about")
    chosen = parser.parse_args()
    panel, _ = runs.read(chosen)
    source, rules = random_source(panel), RankRules(side=chosen.side, hold=chosen.hold)
    result = rank_portfolio(source, rules)
    ours: dict[str, Any] = {
        "ours": lambda: rank_portfolio(source, rules),
        "ours, with trades and statistics": lambda: measured(result, round_trips(result), 0),
    }
    peer: dict[str, Any] | str
    try:
        vectorbt, name = runs.library("vectorbt", "vectorbt")
        given = matrices(result)
        difference = largest_difference(result, vectorbt_equity(vectorbt, result, given))
        print(f"{name}: equity of {len(result.every)} models on {result.bars.n_dates} dates, largest relative "
              f"difference {difference:.1e}")  # fmt: skip
        if difference > CLOSE_ENOUGH:
            raise SystemExit("the equity differs: no time is taken")
        sides = {**ours, "vectorbt": lambda: vectorbt_equity(vectorbt, result, given)}
        peer = {"version": name, "largest_difference": difference}
    except runs.SkippedError as skipped:
        sides, peer = ours, f"left out: {skipped}"
    seconds, n_times = alternate(chosen.times, sides, limit_s=chosen.limit)
    for side, elapsed in seconds.items():
        print(f"{side}: {elapsed:.3f} s")
    return runs.finish(
        "rank_portfolio", data=chosen.data, side=chosen.side, hold=chosen.hold, symbols=panel.n_symbols,
        models=len(result.every), dates=result.bars.n_dates, fills=result.fills.n_fills, times=n_times,
        seconds=seconds, vectorbt=peer,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
