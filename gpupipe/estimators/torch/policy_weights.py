"""PolicyWeights: a recurrent policy as kernels.policy reads it, without Torch; steps of many rows at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpupipe.kernels.policy import policy_step

HEADS = ("policy_head", "value_head")
HEAD_LAYERS = 3  # of the kernel: two, and the outputs


@dataclass(frozen=True)
class PolicyStep:
    """What a step gives: logits float32 (n, n_actions), values (n,), greedy actions int64 (n,), the next h and c."""

    logits: np.ndarray
    values: np.ndarray
    actions: np.ndarray
    h: np.ndarray
    c: np.ndarray


@dataclass(frozen=True)
class PolicyWeights:
    """The weights of a policy, float32, as kernels.policy describes them.

    layers: of the LSTM.

        >>> zeros = {f"lstm.{name}_l0": np.zeros((8, n)) for name, n in (("weight_ih", 3), ("weight_hh", 2))}
        >>> zeros |= {f"lstm.{name}_l0": np.zeros(8) for name in ("bias_ih", "bias_hh")}
        >>> for head, shapes in (("policy_head", [(6, 2), (5, 6), (4, 5)]), ("value_head", [(6, 2), (5, 6), (1, 5)])):
        ...     zeros |= {f"{head}.{k}.weight": np.zeros(shape) for k, shape in enumerate(shapes)}
        ...     zeros |= {f"{head}.{k}.bias": np.zeros(shape[0]) for k, shape in enumerate(shapes)}
        >>> weights = PolicyWeights.of(zeros)
        >>> weights.n_observations, weights.n_actions, weights.size
        (3, 4, 2)
        >>> step = weights.step(np.zeros((7, 3), np.float32), *weights.zero_state(7))
        >>> step.logits.shape, step.values.shape, step.h.shape
        ((7, 4), (7,), (7, 2))
    """

    recurrent: np.ndarray
    first: np.ndarray
    second: np.ndarray
    last: np.ndarray
    layers: int

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> PolicyWeights:
        """From the arrays of a `RecurrentPolicy` by name; ValueError for heads that the kernel does not have."""
        n_layers = sum(name.startswith("lstm.weight_hh") for name in arrays)
        n_dense = sum(name.startswith("policy_head") and name.endswith("weight") for name in arrays)
        if n_dense != HEAD_LAYERS:
            raise ValueError(f"expected heads of {HEAD_LAYERS - 1} layers and an output, got {n_dense - 1} layers")
        parts = []
        for layer in range(n_layers):
            bias = arrays[f"lstm.bias_ih_l{layer}"] + arrays[f"lstm.bias_hh_l{layer}"]
            parts += [arrays[f"lstm.weight_ih_l{layer}"].T, arrays[f"lstm.weight_hh_l{layer}"].T, bias[None]]
        dense = [
            np.concatenate([
                np.vstack([arrays[f"{head}.{k}.weight"].T, arrays[f"{head}.{k}.bias"][None]]) for head in HEADS
            ], axis=1)
            for k in range(HEAD_LAYERS)
        ]  # fmt: skip
        recurrent, first, second, last = (
            np.ascontiguousarray(array, np.float32) for array in (np.concatenate(parts), *dense)
        )
        return cls(recurrent, first, second, last, n_layers)

    @property
    def size(self) -> int:
        """Of the LSTM."""
        return self.recurrent.shape[1] // 4

    @property
    def n_observations(self) -> int:
        """Numbers of an observation."""
        return self.recurrent.shape[0] - self.layers * (self.size + 1) - (self.layers - 1) * self.size

    @property
    def n_actions(self) -> int:
        """Of which one is chosen."""
        return self.last.shape[1] - 1

    @property
    def n_work(self) -> int:
        """Columns of the scratch memory of a row."""
        return max(4 * self.size, self.first.shape[1] + self.second.shape[1])

    def zero_state(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """h and c, float32 (n, layers * size), of n episodes that start."""
        return np.zeros((n, self.layers * self.size), np.float32), np.zeros((n, self.layers * self.size), np.float32)

    def step(self, observations: np.ndarray, h: np.ndarray, c: np.ndarray) -> PolicyStep:
        """One step of n rows; the bits of a row depend on no other row.

        observations: float32 (n, n_observations).  h, c: float32 (n, layers * size), which stay as they are.
        """
        n = len(observations)
        step = PolicyStep(
            np.empty((n, self.n_actions), np.float32), np.empty(n, np.float32), np.empty(n, np.int64),
            np.empty_like(h), np.empty_like(c),
        )  # fmt: skip
        policy_step(
            n, observations, h, c, self.recurrent, self.first, self.second, self.last,
            np.empty((n, self.n_work), np.float32), step.h, step.c, step.logits, step.values, step.actions,
        )  # fmt: skip
        return step
