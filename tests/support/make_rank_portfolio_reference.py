"""The equity of vectorbt's portfolios with our target weights: `python -m tests.support.make_rank_portfolio_reference`.

Writes rank_portfolio_reference.npz beside this file, with vectorbt installed: for each of RULES, the equity by date of
two models on a dirty market and of two on stocks of the demo, float64 (n_models, n_dates), as of
bench.backtest.rank_portfolio.vectorbt_equity.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from bench.backtest import rank_portfolio as bench_portfolio  # noqa: E402
from gpupipe.backtest import Rules  # noqa: E402
from gpupipe.backtest.rank_portfolio import RankBacktest, rank_portfolio  # noqa: E402
from gpupipe.backtest.rank_rules import INVERSE, LONG_SHORT, RankRules  # noqa: E402
from tests.support import rank_oracle  # noqa: E402
from tests.support.market import demo_panel  # noqa: E402

REFERENCE = pathlib.Path(__file__).with_name("rank_portfolio_reference.npz")
COSTS = Rules(commission_bps=7, spread_bps=10, slippage_bps=4)
AT_CLOSE = Rules(entry="close", commission_bps=7, spread_bps=10, slippage_bps=4)
RULES = {
    "long": RankRules(hold="top:20%", fills=COSTS),
    "long, inverse volatility, at the close": RankRules(hold="top:5", weighting=INVERSE, fills=AT_CLOSE),
    "long, dropout": RankRules(hold="topk-dropout:5,2", rebalance=1, fills=COSTS),
    "long-short": RankRules(side=LONG_SHORT, hold="quantile:4", fills=COSTS),
    "long-short, dropout, at the close": RankRules(
        side=LONG_SHORT, hold="topk-dropout:4,1", rebalance=2, weighting=INVERSE, fills=AT_CLOSE
    ),
}  # fmt: skip


def results(rules: RankRules) -> dict[str, RankBacktest]:
    """Our portfolios: on a dirty market, and on 30 stocks of the demo, with scores drawn at random."""
    panels = {"dirty": rank_oracle.dirty_market(n_symbols=12), "demo": demo_panel(30)}
    return {
        name: rank_portfolio(rank_oracle.source_of(panel, rank_oracle.dirty_scores(panel, 2), (1, 5)), rules)
        for name, panel in panels.items()
    }


def of_vectorbt(result: RankBacktest) -> np.ndarray:
    import vectorbt

    return bench_portfolio.vectorbt_equity(vectorbt, result, bench_portfolio.matrices(result))


def main() -> None:
    table = {}
    for rules_name, rules in RULES.items():
        for market, result in results(rules).items():
            equity = of_vectorbt(result)
            table[f"{rules_name}; {market}"] = equity
            print(f"{rules_name}; {market}: {bench_portfolio.largest_difference(result, equity):.1e}")
    np.savez_compressed(REFERENCE, **table)


if __name__ == "__main__":
    main()
