"""Settings of agent: the market, the walk-forward with its seven optimisations, PPO, and the profiles."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

from gpupipe.config import Catalogue, Config, Section
from gpupipe.estimators.torch.ppo_settings import PPOSettings
from gpupipe.workloads.agent.rules import CHOICES

DAY_NS = 86_400_000_000_000
SECTIONS = ("market", "agent", "ppo")
LEAST = {
    "total_timesteps": 1, "min_timesteps": 1, "step_size": 2, "validation_episodes": 1, "eval_freq": 1,
    "early_stopping_patience": 1, "candidates": 1,
}  # fmt: skip


@dataclass(frozen=True)
class MarketSettings:
    """The rules and costs of the market, as `rules.MarketRules` and `spread.slip_of` take them.

    >>> MarketSettings(fill="noon").problem(), MarketSettings(max_drawdown=0.2).rules()["max_drawdown"]
    (('fill', 'open or close'), 0.2)
    """

    MAY_BE_ZERO = ("commission", "slippage", "max_drawdown", "ruin", "risk_aversion", "point_size")

    fill: str = "open"  # the price at which an action is filled: open or close, of the next bar
    spread: str = (
        ""  # a column of the bars, a price (0.3), "30 points" or "2 bps"; "": the column spread or with_spread
    )
    point_size: float = 0.0  # the price of a point; with it, a column of the spread counts points
    commission: float = 1.0  # basis points of the value of a fill
    slippage: float = 1.0  # basis points of the price of a fill
    size: float = 1.0  # the stake of a position, as a multiple of the balance
    initial_balance: float = 10_000.0
    max_drawdown: float = 0.0  # of the equity below its peak, at which an episode or a test ends; 0: none
    ruin: float = 0.0  # share of the initial balance at which an episode or a test ends
    reward: str = "log"  # log: change of log-equity with a risk term; legacy: a shaped one
    risk_aversion: float = 1.0  # weight of the risk term
    most_gap_days: float = 4.0  # between two bars; longer gaps are refused

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                return name, " or ".join(allowed)
        for name in ("max_drawdown", "ruin"):
            if not 0 <= getattr(self, name) < 1:
                return name, "a share below 1, or 0 for none"
        return None

    def rules(self) -> dict[str, Any]:
        """The arguments of `market.Market.of`."""
        spread: str | float | None = self.spread or None
        with contextlib.suppress(ValueError):
            spread = float(self.spread)
        return {
            "spread": spread, "point_size": self.point_size or None, "fill": self.fill,
            "commission_bps": self.commission, "slippage_bps": self.slippage, "size": self.size,
            "initial_balance": self.initial_balance, "max_drawdown": self.max_drawdown or None, "ruin": self.ruin,
            "reward": self.reward, "risk_aversion": self.risk_aversion,
        }  # fmt: skip


@dataclass(frozen=True)
class AgentSettings:
    """The walk-forward of the agent, and which of the seven optimisations are on.

    >>> AgentSettings(min_timesteps=99_000).problem()
    ('min_timesteps', 'at most total_timesteps, 50000')
    """

    MAY_BE_ZERO = ("convergence_threshold", "episode_length")

    total_timesteps: int = 50_000  # of a candidate in the first iteration
    min_timesteps: int = 15_000  # what adaptive timesteps do not fall below, and before which no candidate stops
    initial_window: int = 2_500  # bars of training and validation
    step_size: int = 500  # bars of a sealed test, by which windows move on
    validation_size: float = 0.2  # share of the window that chooses the policy
    validation_episodes: int = 4  # into which the validation bars are cut
    episode_length: int = 0  # steps of an episode in training, at random places; 0: a quarter of the training bars
    eval_freq: int = 5_000  # steps between two evaluations, at first
    early_stopping_patience: int = 3  # times eval_freq steps without a gain after which a candidate stops
    convergence_threshold: float = 0.001  # the least gain that counts, in the mean log-growth of a validation episode
    candidates: int = 1  # policies that are trained side by side, by other seeds; the best on validation is kept
    adaptive_timesteps: bool = True  # (1) fewer timesteps in later iterations
    warm_start: bool = True  # (2) training starts from the policy of the iteration before
    warm_rate: float = 0.5  # of a warm start: factor on the learning rate
    convergence_stop: bool = True  # (3) a candidate stops where validation no longer gains
    progressive: bool = True  # (4) learning rate, epochs, entropy and clip change by phase
    cache_environments: bool = True  # (5) features and scalers are computed once
    adaptive_evaluation: bool = True  # (6) evaluations come more often as gains get small
    fast_comparison: bool = True  # (7) all candidates on all episodes in one call
    benchmark: bool = False  # train the original way too, on the same bars
    original: bool = False  # train the original way alone; see `original`

    def problem(self) -> tuple[str, str] | None:
        """The field that cannot be used, and what is expected of it."""
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                return name, f"{least} or more"
        if self.min_timesteps > self.total_timesteps:
            return "min_timesteps", f"at most total_timesteps, {self.total_timesteps}"
        if not 0 < self.validation_size < 1:
            return "validation_size", "a share of the window, between 0 and 1"
        if min(self.training_rows, self.validation_rows) < 2:
            return "initial_window", "two bars or more for training, and for validation"
        return None

    @property
    def validation_rows(self) -> int:
        """Bars of a window that choose the policy."""
        return round(self.validation_size * self.initial_window)

    @property
    def training_rows(self) -> int:
        """Bars of a window that are trained on."""
        return self.initial_window - self.validation_rows

    @property
    def steps_of_episode(self) -> int:
        """Steps of an episode in training."""
        return min(self.episode_length or max(1, self.training_rows // 4), self.training_rows - 1)


# Profiles differ in how long a candidate trains, and how soon it stops.
PROFILES = {
    "conservative": AgentSettings(
        total_timesteps=80_000, min_timesteps=30_000, early_stopping_patience=5, convergence_threshold=0.0005
    ),
    "balanced": AgentSettings(),
    "aggressive": AgentSettings(
        total_timesteps=30_000, min_timesteps=10_000, early_stopping_patience=2, convergence_threshold=0.002
    ),
    "ultra_fast": AgentSettings(
        total_timesteps=15_000, min_timesteps=5_000, eval_freq=2_500, early_stopping_patience=2,
        convergence_threshold=0.005,
    ),
}  # fmt: skip


# A bar's reward says more of its action than those of later bars do, whose noise a longer view adds up.
PPO = PPOSettings(learning_rate=1e-3, gamma=0.95, gae_lambda=0.9)


def original(settings: Config) -> Config:
    """The settings with which the original way trains: a network of 2 x 256, 100,000 steps, none of the seven.

    Rows, market and seed stay, so that both ways meet the same bars.
    """
    agent = replace(
        settings.agent, total_timesteps=100_000, min_timesteps=100_000, eval_freq=10_000, candidates=1,
        adaptive_timesteps=False, warm_start=False, convergence_stop=False, progressive=False,
        cache_environments=False, adaptive_evaluation=False, fast_comparison=False,
    )  # fmt: skip
    usual = PPOSettings()
    ppo = replace(
        settings.ppo, size=256, layers=2, epochs=12, learning_rate=usual.learning_rate, gamma=usual.gamma,
        gae_lambda=usual.gae_lambda,
    )  # fmt: skip
    return settings.replace(agent=agent, ppo=ppo)


def trained(settings: Config) -> Config:
    """The settings with which a run trains: those of the original way where it was chosen."""
    return original(settings) if settings.agent.original else settings


def catalogue() -> Catalogue:
    """What the settings of agent may hold.

    >>> catalogue().presets, catalogue().sections["agent"].start("ultra_fast").eval_freq
    (('conservative', 'balanced', 'aggressive', 'ultra_fast'), 2500)
    """
    return Catalogue(
        sections={
            "market": Section(MarketSettings),
            "agent": Section(AgentSettings, PROFILES),
            "ppo": Section(PPOSettings, dict.fromkeys(PROFILES, PPO)),
        },
        models=(),
        default_models=(),
        common={name: {"features": {"names": ("session",)}} for name in PROFILES},
        presets=tuple(PROFILES),
    )
