"""The peer: sb3-contrib's RecurrentPPO with 8 environments of Gymnasium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.agent.curves import Ended
from gpupipe.estimators.torch.ppo_settings import PPOSettings

ENVIRONMENTS = 8


class Peer:
    """A training of RecurrentPPO with our settings.

    Its network is ours: one LSTM that the policy trains, heads of the same widths with ReLU. Samples of an update and
    of a minibatch, epochs, rate and coefficients are equal; an update takes more steps of fewer environments. It has
    Adam, ours AdamW without decay, which is the same.
    environment: makes the gymnasium.Env number k.  threads: of Torch.
    """

    def __init__(self, environment: Callable[[int], Any], settings: PPOSettings, seed: int, threads: int) -> None:
        from sb3_contrib import RecurrentPPO
        from stable_baselines3.common.monitor import Monitor
        from stable_baselines3.common.vec_env import DummyVecEnv

        environments = DummyVecEnv([lambda k=k: Monitor(environment(k)) for k in range(ENVIRONMENTS)])
        self.samples, self.threads = settings.samples, threads
        self.model = RecurrentPPO("MlpLstmPolicy", environments, seed=seed, device="cpu", **options(settings))

    def learn(self, steps: int) -> list[Ended]:
        """Go on for so many steps of all environments; the episodes that ended."""
        import torch
        from stable_baselines3.common.callbacks import BaseCallback

        ended = []

        class Listener(BaseCallback):
            def _on_step(self) -> bool:
                episodes = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
                ended.extend(Ended(self.num_timesteps, 1, float(r)) for r in episodes)
                return True

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            self.model.learn(steps, callback=Listener(), reset_num_timesteps=False)
        finally:
            torch.set_num_threads(before)
        return ended

    def update(self) -> None:
        """One rollout and its update."""
        self.learn(self.samples)


def options(settings: PPOSettings) -> dict[str, Any]:
    """The settings in the peer's words."""
    from torch import nn

    heads = list(settings.heads)
    return {
        "learning_rate": settings.learning_rate, "n_steps": settings.samples // ENVIRONMENTS,
        "batch_size": settings.minibatch, "n_epochs": settings.epochs, "gamma": settings.gamma,
        "gae_lambda": settings.gae_lambda, "clip_range": settings.clip, "ent_coef": settings.entropy,
        "vf_coef": settings.value_weight, "max_grad_norm": settings.max_gradient,
        "policy_kwargs": {
            "lstm_hidden_size": settings.size, "n_lstm_layers": settings.layers, "shared_lstm": True,
            "enable_critic_lstm": False, "net_arch": {"pi": heads, "vf": heads}, "activation_fn": nn.ReLU,
        },
    }  # fmt: skip
