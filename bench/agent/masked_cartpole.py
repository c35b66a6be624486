"""CartPole without velocities: many at once in numpy, and Gymnasium's own with a wrapper. Only memory solves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH, FORCE, TICK = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
FAR, TILTED = 2.4, 12 * 2 * np.pi / 360  # m, radians: where an episode terminates
MOST_STEPS = 500  # after which one is truncated


@dataclass
class Moment:
    """What a step gives; see gpupipe.estimators.torch.rollout.Step."""

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_observation: np.ndarray


class MaskedCartPole:
    """Gymnasium's CartPole-v1, n at once, whose observation is the cart's place and the pole's angle alone.

    Actions: 0 pushes to the left, 1 to the right. The reward is 1 for each step.
    Source: Gymnasium, envs/classic_control/cartpole.py (semi-implicit and explicit Euler: the explicit one).
    """

    n_observations, n_actions = 2, 2

    def __init__(self, n: int, seed: int = 0, most_steps: int = MOST_STEPS) -> None:
        self.n, self.seed, self.most_steps = n, seed, most_steps
        self.physics = np.zeros((n, 4))  # place, velocity, angle, angular velocity
        self.age = np.zeros(n, np.int64)
        self.draws = 0  # of starts: each is drawn from its number alone

    def starts(self) -> np.ndarray:
        """Physics of new episodes."""
        self.draws += 1
        return np.random.default_rng([self.seed, self.draws]).uniform(-0.05, 0.05, (self.n, 4))

    def observation(self) -> np.ndarray:
        """Place and angle, float32 (n, 2)."""
        return self.physics[:, ::2].astype(np.float32)

    def reset(self) -> np.ndarray:
        """Begin an episode in each."""
        self.physics, self.age = self.starts(), np.zeros(self.n, np.int64)
        return self.observation()

    def step(self, actions: np.ndarray) -> Moment:
        """One tick of each."""
        self.physics = moved(self.physics, actions)
        self.age += 1
        terminated = (np.abs(self.physics[:, 0]) > FAR) | (np.abs(self.physics[:, 2]) > TILTED)
        truncated = self.age >= self.most_steps
        final, done = self.observation(), terminated | truncated
        if done.any():
            self.physics = np.where(done[:, None], self.starts(), self.physics)
            self.age[done] = 0
        return Moment(self.observation(), np.ones(self.n), terminated, truncated, final)

    def state(self) -> dict[str, np.ndarray]:
        """All that the next steps depend on."""
        return {"physics": self.physics.copy(), "age": self.age.copy(), "draws": np.array(self.draws)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from what `state` gave."""
        self.physics, self.age, self.draws = state["physics"].copy(), state["age"].copy(), int(state["draws"])


def moved(physics: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The physics (n, 4) one tick later."""
    place, velocity, angle, turning = physics.T
    force = np.where(actions == 1, FORCE, -FORCE)
    cosine, sine, mass = np.cos(angle), np.sin(angle), CART_MASS + POLE_MASS
    push = (force + POLE_MASS * HALF_LENGTH * turning**2 * sine) / mass
    inertia = HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cosine**2 / mass)
    turned = (GRAVITY * sine - cosine * push) / inertia
    pushed = push - POLE_MASS * HALF_LENGTH * turned * cosine / mass
    return np.stack(
        [place + TICK * velocity, velocity + TICK * pushed, angle + TICK * turning, turning + TICK * turned], axis=1
    )


def masked_cartpole() -> Any:
    """Gymnasium's CartPole-v1 whose observation is the cart's place and the pole's angle alone."""
    import gymnasium
    import numpy as np

    class Masked(gymnasium.ObservationWrapper):
        def __init__(self, environment: Any) -> None:
            super().__init__(environment)
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

        def observation(self, observation: Any) -> Any:
            return observation[::2].astype(np.float32)

    return Masked(gymnasium.make("CartPole-v1"))
