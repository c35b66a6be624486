"""The agent's market for other libraries: `agent.make_env` gives Gymnasium's environments.

from gpupipe import agent, read

env = agent.make_env(panel, spread=0.3)                # a gymnasium.Env
envs = agent.make_env(panel, spread=0.3, n_envs=1024)  # a gymnasium.vector.VectorEnv

Importing it loads neither Gymnasium nor a compiler.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from gpupipe.features.matrix import Features


def make_env(
    panel: Panel,
    features: str | Iterable[str] | Features = "session",
    n_envs: int | None = None,
    *,
    rows: tuple[int, int] | None = None,
    episode_length: int | None = None,
    seed: int = 0,
    fit_rows: tuple[int, int] | None = None,
    **market: Any,
) -> Any:
    """A market of one symbol: a gymnasium.Env, or with n_envs a gymnasium.vector.VectorEnv of so many accounts.

    panel: bars of one symbol.  features: what is observed of a bar, as in `compute_features`.
    rows: the first and the last row that are observed, both included; None: from the first row in which no feature
        waits for bars to the last.
    episode_length: steps of an episode, whose start is drawn inside the rows; None: every episode is all of them.
    seed: of the starts, until a reset brings another.
    fit_rows: the rows that scale the features, as rows; None: `rows`. For a test range, pass those of the training.
    market: spread, point_size, columns and scaler, as in `workloads.agent.market.Market.of`, and the fields of
        `workloads.agent.rules.MarketRules`: fill, commission_bps, slippage_bps, size, initial_balance, max_drawdown,
        ruin, reward, reward_scale, risk_aversion, held_scale.

    Raises UserError where Gymnasium is not installed, and for what Market and Environments refuse.
    """
    if importlib.util.find_spec("gymnasium") is None:
        raise UserError("make_env needs Gymnasium: pip install -e '.[agent]'")
    from gpupipe.workloads.agent.environments import MarketEnv, MarketVectorEnv
    from gpupipe.workloads.agent.market import Market

    made = Market.of(panel, features, fit_rows=fit_rows or rows, **market)
    if n_envs is None:
        return MarketEnv(made, rows, episode_length, seed)
    return MarketVectorEnv(made, n_envs, rows, episode_length, seed)
