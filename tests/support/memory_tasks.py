"""Environments that cannot be solved without memory, in numpy: CartPole without velocities, and recall of a sign."""

from __future__ import annotations

from dataclasses import dataclass

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

    def __init__(self, n, seed=0, most_steps=MOST_STEPS):
        self.n, self.seed, self.most_steps = n, seed, most_steps
        self.physics = np.zeros((n, 4))  # place, velocity, angle, angular velocity
        self.age = np.zeros(n, np.int64)
        self.draws = 0  # of starts: each is drawn from its number alone

    def starts(self):
        self.draws += 1
        return np.random.default_rng([self.seed, self.draws]).uniform(-0.05, 0.05, (self.n, 4))

    def observation(self):
        return self.physics[:, ::2].astype(np.float32)

    def reset(self):
        self.physics, self.age = self.starts(), np.zeros(self.n, np.int64)
        return self.observation()

    def step(self, actions):
        self.physics = moved(self.physics, actions)
        self.age += 1
        terminated = (np.abs(self.physics[:, 0]) > FAR) | (np.abs(self.physics[:, 2]) > TILTED)
        truncated = self.age >= self.most_steps
        final, done = self.observation(), terminated | truncated
        if done.any():
            self.physics = np.where(done[:, None], self.starts(), self.physics)
            self.age[done] = 0
        return Moment(self.observation(), np.ones(self.n), terminated, truncated, final)

    def state(self):
        return {"physics": self.physics.copy(), "age": self.age.copy(), "draws": np.array(self.draws)}

    def restore(self, state):
        self.physics, self.age, self.draws = state["physics"].copy(), state["age"].copy(), int(state["draws"])


def moved(physics, actions):
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


class RecallSign:
    """A sign is shown in the first step of an episode; the action of the last step earns 1 where it repeats the sign.

    Episodes have `length` steps, of which those of environment i start i steps apart. They end by termination, or
    by truncation where `truncates`.
    """

    n_observations, n_actions = 3, 2

    def __init__(self, n, length=5, seed=0, truncates=False):
        self.n, self.length, self.seed, self.truncates = n, length, seed, truncates
        self.age, self.sign, self.draws = np.arange(n) % length, np.zeros(n, np.int64), 0

    def signs(self):
        self.draws += 1
        return np.random.default_rng([self.seed, self.draws]).integers(0, 2, self.n)

    def observation(self):
        """The sign, -1 or 1, or 0 after the first step; whether it is the first; whether it is the last."""
        first, last = self.age == 0, self.age == self.length - 1
        return np.stack([first * (2.0 * self.sign - 1), first, last], axis=1).astype(np.float32)

    def reset(self):
        self.age, self.sign = np.arange(self.n) % self.length, self.signs()
        return self.observation()

    def step(self, actions):
        done = self.age == self.length - 1
        reward = (done & (actions == self.sign)).astype(np.float64)
        self.age += 1
        final = self.observation()
        if done.any():
            self.age[done] = 0
            self.sign = np.where(done, self.signs(), self.sign)
        never = np.zeros(self.n, bool)
        ended = (never, done) if self.truncates else (done, never)
        return Moment(self.observation(), reward, *ended, final)

    def state(self):
        return {"age": self.age.copy(), "sign": self.sign.copy(), "draws": np.array(self.draws)}

    def restore(self, state):
        self.age, self.sign, self.draws = state["age"].copy(), state["sign"].copy(), int(state["draws"])
