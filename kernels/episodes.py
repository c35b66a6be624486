"""Whole episodes of policies in the market: every policy on every episode in one call, greedily."""

from __future__ import annotations

import numpy as np

from .account import FLAT_PAID, FLAT_STAKE
from .compile import kernel
from .environment import INITIAL_BALANCE, advance, observe_row
from .policy import greedy, policy_row


@kernel(
    types=("f4[:,:,:]", "f4[:,:,:]", "f4[:,:,:]", "f4[:,:,:]", "f4[:]", "f4[:]", "f8[:]", "f4[:,:]", "i8[:]", "f4[:,:]",
           "f8[:]", "i8[:]", "i8[:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "i1[:,:]", "f8[:]",
           "i8[:]"),
    double_precision=True,
)  # fmt: skip
def policy_episode(
    i, recurrent, first, second, last, open, close, slip, values, columns, scaling, rules, starts, stops,
    observation, h, c, work, logits, positions, equity, steps,
):  # fmt: skip
    """Policy p plays episode e to its end, where i = p * n_episodes + e: in each row its greedy action.

    The steps are those of `kernels.environment.step_market` and `kernels.policy.policy_step`, with the same bits: a
    policy that is stepped through one environment by these two kernels decides the same positions.

    Reads:   of bars and features what `step_market` reads, up to row stops[e].
    Inputs:  recurrent, first, second, last float32 (n_policies, ...), the weights of each policy as kernels/policy.py
             describes them; open to rules as in `step_market`; starts and stops int64 (n_episodes,), the first and the
             last row of each episode, start < stop; observation float32 (n_items, n_columns + 3), h and c float32
             (n_items, layers * size), which are 0, work float32 (n_items, at least what `policy_step` needs) and logits
             float32 (n_items, n_actions), all scratch.
    Outputs: positions int8 (n_items, longest), as decided in the rows from the first on: the rest is left; equity
             float64 (n_items,), marked at the end; steps int64 (n_items,), until it.
    NaN:     as in `step_market`.
    """
    policy, e = i // starts.shape[0], i % starts.shape[0]
    r, k, ended = starts[e], np.int64(0), False
    position, balance, stake, paid = np.int64(0), rules[INITIAL_BALANCE], FLAT_STAKE, FLAT_PAID
    now, peak, bars_held = balance, balance, np.int64(0)
    while not ended:
        observe_row(i, r, close[r], position, paid, bars_held, values, columns, scaling, rules, observation)
        policy_row(
            observation[i], h[i], c[i], recurrent[policy], first[policy], second[policy], last[policy], work[i],
            logits[i],
        )  # fmt: skip
        r += 1
        stopped, position, _, balance, stake, paid, now, bars_held = advance(
            greedy(logits[i]), r, position, balance, stake, paid, now, peak, bars_held, open, close, slip, rules
        )
        peak = max(peak, now)
        positions[i, k] = position
        k += 1
        ended = stopped or r >= stops[e]
    equity[i] = now
    steps[i] = k
