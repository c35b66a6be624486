"""A market whose next bar is announced by its volume: an oracle reads it, an agent has to learn to."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.runs import Line
from gpupipe.data.panel import Panel

N_BARS, BAR_NS, BEGIN_NS = 6_000, 900_000_000_000, 1_704_067_200_000_000_000
DRIFT, NOISE, SWITCH = 0.0005, 0.001, 0.03  # of a bar's log-return, and how often the sign of the drift changes
COSTS = ("market.spread=1 bps", "market.commission=0.2", "market.slippage=0.2")
FEATURES = "features.names=volume_ratio_1_20,roc_1,roc_5"
SHARE_BAR, SEEDS_BAR = 0.5, 4  # of the oracle's log-growth, on so many of five seeds


def planted(n_bars: int, seed: int, drift: float) -> tuple[Panel, np.ndarray]:
    """Bars of one instrument, and the oracle's positions int8 (n_bars,): the sign of the next bar's drift.

    drift: of a bar's log-return; 0 plants nothing. The volume is larger, on average, where the sign is positive.
    """
    rng = np.random.default_rng(seed)
    sign = np.where(np.cumsum(rng.random(n_bars) < SWITCH) % 2 == 0, 1, -1)
    returns = np.append(0.0, drift * sign[:-1] + rng.normal(0, NOISE, n_bars - 1))
    close = 2_000 * np.exp(np.cumsum(returns))
    open_ = np.append(close[0], close[:-1])
    high = np.maximum(open_, close) * (1 + np.abs(rng.normal(0, NOISE / 4, n_bars)))
    low = np.minimum(open_, close) * (1 - np.abs(rng.normal(0, NOISE / 4, n_bars)))
    volume = 1_000 * np.exp(rng.normal(0, 0.3, n_bars) + 0.5 * sign)
    columns = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
    panel = Panel(
        {name: values.astype(np.float32) for name, values in columns.items()},
        BEGIN_NS + np.arange(n_bars) * BAR_NS, np.array([0, n_bars]), ("PLANTED",), group_by="symbol",
    )  # fmt: skip
    return panel, sign.astype(np.int8)


def run(panel: Panel, seed: int, *settings: str, preset: str = "balanced") -> dict[str, Any]:
    """The summary of a run on planted bars."""
    from gpupipe.config import make
    from gpupipe.pipeline import job
    from gpupipe.workloads.agent import AGENT

    chosen = make(AGENT.catalogue(), preset, settings=[*COSTS, FEATURES, *settings], seed=seed)
    with tempfile.TemporaryDirectory() as out:
        return job.execute(AGENT, panel, None, chosen, out)[0]


def oracle_growth(panel: Panel, positions: np.ndarray) -> float:
    """Log-growth of the oracle over the sealed bars, after costs."""
    from gpupipe.config import make
    from gpupipe.workloads.agent import AGENT, chain, recipe
    from gpupipe.workloads.agent.market import Market

    settings = make(AGENT.catalogue(), settings=[*COSTS, FEATURES])
    market = Market.of(panel, list(settings.features.names), **settings.market.rules())
    traded = chain.traded(market, panel, recipe.walk_forward(panel, settings), {"oracle": positions})
    return float(np.log(traded.accounts.equity[0, -1] / traded.initial))


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """What the agent earns of the oracle's growth in sealed steps, and what it earns where nothing is planted."""
    shares = []
    for seed in range(1, chosen.seeds + 1):
        panel, positions = planted(N_BARS, seed, DRIFT)
        row = run(panel, seed)["agent"]["sealed"]["statistics"][0]
        growth, best = float(np.log1p(row["total_return"])), oracle_growth(panel, positions)
        shares.append(growth / best)
        yield {"kind": "planted", "seed": seed, "growth": growth, "oracle": best, "share": shares[-1],
               "trades": row["trades"], "skill": row["skill"]}  # fmt: skip
    covered = []
    for seed in range(1, chosen.seeds + 1):
        row = run(planted(N_BARS, seed, 0.0)[0], seed)["agent"]["sealed"]["statistics"][0]
        covered.append(row["day_return_low"] <= 0)
        interval = [row[f"day_return{end}"] for end in ("_low", "", "_high")]
        yield {"kind": "nothing planted", "seed": seed, "total_return": row["total_return"], "trades": row["trades"],
               "day_return": interval, "skill": row["skill"]}  # fmt: skip
    learned = sum(share >= SHARE_BAR for share in shares)
    yield {"kind": "planted bar", "shares": shares, "learned": learned, "bar": SEEDS_BAR, "holds": learned >= SEEDS_BAR,
           "no_false_skill": all(covered)}  # fmt: skip
