"""The agent's market as a plain loop over bars, in cash and units: what kernels/environment.py has to agree with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

HOLD, BUY, SELL, CLOSE = range(4)


@dataclass(frozen=True)
class Rules:
    fill: str = "open"
    commission: float = 0.0  # shares of a fill's value
    slippage: float = 0.0
    size: float = 1.0
    initial: float = 10_000.0
    max_drawdown: float | None = None
    ruin: float = 0.0
    reward: str = "log"
    scale: float = 100.0
    aversion: float = 1.0


@dataclass
class Trade:
    side: int
    entry_row: int
    entry: float
    exit_row: int | None = None
    exit: float | None = None


@dataclass
class Episode:
    equity: list[float] = field(default_factory=list)  # after each step
    position: list[int] = field(default_factory=list)  # decided in each row
    reward: list[float] = field(default_factory=list)
    unrealised: list[float] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False


def trade(open_, close, spread, rules: Rules, actions, start: int, stop: int) -> Episode:
    """One episode from row `start`, to `stop` at most; spread in price units by row."""
    episode = Episode()
    cash, units, side, held, entry = rules.initial, 0.0, 0, 0, math.nan
    peak = equity = rules.initial
    row = start
    for action in actions:
        stopped = equity <= rules.ruin * rules.initial
        if rules.max_drawdown is not None and equity <= (1 - rules.max_drawdown) * peak:
            stopped = True
        wanted = side
        if action == BUY:
            wanted = 1
        if action == SELL:
            wanted = -1
        if action == CLOSE or stopped:
            wanted = 0
        row += 1
        price = float(open_[row] if rules.fill == "open" else close[row])
        cost = float(spread[row]) / 2 + rules.slippage * price
        fills, realised = 0, 0.0
        if wanted != side:
            if side != 0:
                got = price - side * cost
                realised = units * (got - entry) - rules.commission * abs(units) * got
                cash += units * got - rules.commission * abs(units) * got
                units, held, fills = 0.0, 0, fills + 1
                episode.trades[-1].exit_row, episode.trades[-1].exit = row, got
            if cash <= 0:
                wanted = 0
            if wanted != 0:
                held = 0
                entry = price + wanted * cost
                episode.trades.append(Trade(wanted, row, entry))
                stake = rules.size * cash
                units = wanted * stake / entry
                cash -= units * entry + rules.commission * stake
                fills += 1
            side = wanted
        held += 1 if side else 0
        before, equity = equity, cash + units * float(close[row])
        peak = max(peak, equity)
        unrealised = 0.0
        if units:
            unrealised = side * (float(close[row]) / entry - 1)
        episode.equity.append(equity)
        episode.position.append(side)
        episode.unrealised.append(unrealised)
        episode.held.append(held)
        episode.reward.append(reward_of(rules, before, equity, realised, unrealised, fills))
        episode.terminated = stopped
        episode.truncated = not stopped and row == stop
        if episode.terminated or episode.truncated:
            break
    return episode


def reward_of(rules: Rules, before, after, realised, unrealised, fills) -> float:
    if rules.reward == "legacy":
        reward = 100 * (after - before) / rules.initial
        if realised > 0:
            reward += 0.5 * 100 * realised / rules.initial
        if unrealised < 0:
            reward -= 0.01
        return reward - 0.01 * fills
    least = 1e-6 * rules.initial
    change = math.log(max(after, least)) - math.log(max(before, least))
    return rules.scale * (change - rules.aversion * change**2)
