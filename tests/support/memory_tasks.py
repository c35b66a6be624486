"""An environment that cannot be solved without memory: recall of a sign. bench/agent has another one."""

from __future__ import annotations

import numpy as np

from bench.agent.masked_cartpole import Moment


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
