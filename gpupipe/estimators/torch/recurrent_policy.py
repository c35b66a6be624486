"""RecurrentPolicy: an LSTM with a head for the logits of actions and one for the value; by step and in sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gpupipe.estimators.torch.network import UNDRAWN, one_thread


class RecurrentPolicy(nn.Module):
    """An LSTM whose output two heads read: logits of the actions, and the value of the state.

    n_observations, n_actions: numbers of an observation, and of the actions to choose from.
    size, layers: of the LSTM.  heads: widths of the layers of each head before its output, with ReLU after each.
    generator: a torch.Generator on the CPU from which all weights are drawn: equal generators give equal policies.

    Weights are orthogonal (Saxe et al. 2014): of the LSTM with gain 1, of the heads with sqrt(2), of the logits with
    0.01, so that all actions are nearly equally likely at first, and of the value with 1. Biases are 0, but 1 for the
    forget gate (Jozefowicz et al. 2015). Parameters are float32 on the CPU; `to("cuda")` moves them.

    A state is the pair h, c, float32 (layers, n, size) each; it is zero where an episode starts.

        >>> policy = RecurrentPolicy(9, 4, generator=torch.Generator().manual_seed(0))
        >>> h, c = policy.zero_state(5)
        >>> logits, value, h, c = policy.step(torch.zeros(5, 9), h, c)
        >>> logits.shape, value.shape, sum(weights.numel() for weights in policy.parameters())
        (torch.Size([5, 4]), torch.Size([5]), 92005)

    Source: CleanRL, ppo_atari_lstm.py, and Stable-Baselines3, RecurrentPPO, for the form of the network.
    """

    def __init__(
        self,
        n_observations: int,
        n_actions: int,
        size: int = 128,
        layers: int = 1,
        heads: Sequence[int] = (64, 32),
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if min(n_observations, size, layers, *heads) < 1 or n_actions < 2:
            raise ValueError(
                f"expected observations, layers and two actions or more, got {n_observations} observations, "
                f"{n_actions} actions, {layers} layers of {size} and heads {tuple(heads)}"
            )
        self.n_observations, self.n_actions = n_observations, n_actions
        self.size, self.layers, self.heads = size, layers, tuple(heads)
        self.lstm = nn.LSTM(n_observations, size, layers, device=UNDRAWN).to_empty(device="cpu")
        with one_thread():  # LAPACK's QR decomposition would depend on the number of threads
            for name, weights in self.lstm.named_parameters():
                _draw_recurrent(name, weights, size, generator)
            self.policy_head = _head(size, self.heads, n_actions, 0.01, generator)
            self.value_head = _head(size, self.heads, 1, 1.0, generator)

    @property
    def shape(self) -> tuple[int, int, int, int, tuple[int, ...]]:
        """What two policies must share for the weights of one to fit the other."""
        return self.n_observations, self.n_actions, self.size, self.layers, self.heads

    def zero_state(self, n: int) -> tuple[Tensor, Tensor]:
        """h and c of n episodes that start."""
        h = torch.zeros(self.layers, n, self.size, device=self.lstm.weight_hh_l0.device)
        return h, torch.zeros_like(h)

    def step(self, observations: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (n, n_actions), value (n,), and the next h and c, of observations float32 (n, n_observations)."""
        x, next_h, next_c = observations, [], []
        for layer in range(self.layers):
            x, cell = self._cell(layer, x, h[layer], c[layer])
            next_h.append(x)
            next_c.append(cell)
        return self._logits(x), self._value(x), torch.stack(next_h), torch.stack(next_c)

    def forward(
        self, observations: Tensor, starts: Tensor, h: Tensor, c: Tensor, value_gradient: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Logits (length, n, n_actions) and values (length, n) of n sequences of steps.

        observations: float32 (length, n, n_observations).
        starts: bool (length, n), whether a step is the first of an episode: the state before it is then zero.
        h, c: float32 (layers, n, size), the states before the first step.
        value_gradient: the share of the value's gradient that reaches the LSTM.

        On a CPU the sequences are cut at the starts, on a GPU they are stepped through; both give the same numbers
        but for the last digits.
        """
        x = (self.stepped if observations.is_cuda else self.cut)(observations, starts, h, c)
        of_value = x if value_gradient == 1 else x.detach() + value_gradient * (x - x.detach())
        return self._logits(x), self._value(of_value)

    def cut(self, observations: Tensor, starts: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Outputs of the LSTM (length, n, size) in one fused call, of as many rows as there are parts of episodes.

        A part that starts within a sequence becomes a row of its own, with a state of zero. A row goes on to the full
        length, with steps that are not read: an LSTM does not look ahead.
        """
        inner = starts.clone()
        h, c = (torch.where(starts[0, :, None], 0, state) for state in (h, c))
        inner[0] = False
        time, sequence = inner.nonzero(as_tuple=True)
        if len(time) == 0:
            return self.lstm(observations, (h, c))[0]
        length, n = starts.shape
        n_parts, steps = n + len(time), torch.arange(length)[:, None]
        first = torch.cat([torch.zeros(n, dtype=torch.int64), time])
        owner = torch.cat([torch.arange(n), sequence])
        x = observations[(first + steps).clamp_(max=length - 1), owner]
        zeros = h.new_zeros(self.layers, len(time), self.size)
        outputs, _ = self.lstm(x, (torch.cat([h, zeros], dim=1), torch.cat([c, zeros], dim=1)))
        part = torch.arange(n).repeat(length, 1)  # of each step: the last that has begun, which has the largest number
        part[time, sequence] = torch.arange(n, n_parts)
        part = part.cummax(dim=0).values
        rows = (steps - first[part]) * n_parts + part
        return outputs.flatten(0, 1).index_select(0, rows.flatten()).view(length, n, self.size)

    def stepped(self, observations: Tensor, starts: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """As `cut`, step by step, with the states of starts set to zero: no shape depends on the data."""
        x = observations
        kept = (~starts)[:, :, None].float()
        for layer in range(self.layers):
            state, cell, outputs = h[layer], c[layer], []
            for t in range(len(starts)):
                state, cell = self._cell(layer, x[t], state * kept[t], cell * kept[t])
                outputs.append(state)
            x = torch.stack(outputs)
        return x

    def _cell(self, layer: int, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """h and c (n, size) after one step of a layer; gates are input, forget, cell and output, as Torch has them."""
        from_input, from_state, *biases = self.lstm.all_weights[layer]
        gates = torch.addmm(torch.addmm(biases[0] + biases[1], x, from_input.t()), h, from_state.t())
        entry, forget, new, output = gates.chunk(4, dim=1)
        c = torch.addcmul(forget.sigmoid() * c, entry.sigmoid(), new.tanh())
        return output.sigmoid() * c.tanh(), c

    def _logits(self, x: Tensor) -> Tensor:
        return _through(self.policy_head, x)

    def _value(self, x: Tensor) -> Tensor:
        return _through(self.value_head, x).squeeze(-1)


def in_one_tensor(policy: RecurrentPolicy) -> nn.Parameter:
    """All weights of a policy in one tensor, of which its parameters become views.

    An optimiser steps, and a norm is taken, in one operation in the place of one for each parameter.
    """
    parameters = list(policy.parameters())
    weights = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    views = weights.detach().split([parameter.numel() for parameter in parameters])
    for parameter, view in zip(parameters, views, strict=True):
        parameter.data = view.view(parameter.shape)
    return weights


def _through(head: nn.ModuleList, x: Tensor) -> Tensor:
    *hidden, output = head
    for layer in hidden:
        x = nn.functional.linear(x, layer.weight, layer.bias).relu()
    return nn.functional.linear(x, output.weight, output.bias)


def _head(
    n_inputs: int, widths: Sequence[int], n_outputs: int, gain: float, generator: torch.Generator
) -> nn.ModuleList:
    """The linear layers of a head; the gain is that of the last."""
    layers = []
    for width in widths:
        layers.append(_linear(n_inputs, width, math.sqrt(2), generator))
        n_inputs = width
    return nn.ModuleList([*layers, _linear(n_inputs, n_outputs, gain, generator)])


def _linear(n_inputs: int, n_outputs: int, gain: float, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(n_inputs, n_outputs, device=UNDRAWN).to_empty(device="cpu")
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _draw_recurrent(name: str, weights: Tensor, size: int, generator: torch.Generator) -> None:
    """Draw a parameter of the LSTM by Torch's name for it."""
    if name.startswith("weight"):
        nn.init.orthogonal_(weights, generator=generator)
        return
    nn.init.zeros_(weights)
    if name.startswith("bias_ih"):  # Torch adds two biases: one of them holds the 1
        nn.init.ones_(weights.detach()[size : 2 * size])
