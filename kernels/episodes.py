"""Whole episodes of a policy in the market: every policy on every episode in one call, greedily."""

from __future__ import annotations

import numpy as np

from .compile import kernel
from .environment import observe_row, step_one
from .policy import greedy, policy_row


@kernel(
    types=("f4[:,:,:]", "f4[:,:,:]", "f4[:,:,:]", "f4[:,:,:]",
           "f4[:]", "f4[:]", "f8[:]", "f4[:,:]", "i8[:]", "f4[:,:]", "f8[:]", "i8[:,:]", "i8[:,:]", "i8[:]",
           "i8[:]", "i8[:]", "i8[:]", "i1[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "i8[:]", "f4[:,:]", "f4[:]",
           "b1[:]", "b1[:]", "f4[:,:]", "f8[:]", "i1[:]",
           "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "i8[:]", "i1[:,:]", "f8[:]", "i8[:]"),
    double_precision=True,
)  # fmt: skip
def policy_episode(
    i, recurrent, first, second, last,
    open, close, slip, values, columns, scaling, rules, starts, stops,
    row, stop, start, episode, position, balance, stake, paid, equity, peak, bars_held,
    observation, reward, terminated, truncated, final_observation, marked_equity, target_position,
    h, c, work, logits, action, positions, final_equity, steps,
):  # fmt: skip
    """Policy p plays episode e to its end, where i = p * n_episodes + e: in each row its greedy action.

    The steps are those of `kernels.environment.step_market` and `kernels.policy.policy_step`, with the same bits: a
    policy that is stepped through one environment by these two kernels decides the same positions.

    Reads:   of bars and features what `step_market` reads: up to the last row of the episode.
    Inputs:  recurrent, first, second, last float32 (n_policies, ...), the weights of each policy as kernels/policy.py
             describes them; then as in `step_market`, with starts and stops int64 (n_items, 1).
    State:   as in `step_market`, at the first row of each episode, flat; observation to target_position likewise, of
             which only what the last step wrote is left; h, c float32 (n_items, layers * size), zero; work float32
             (n_items, at least what `policy_step` needs), logits float32 (n_items, n_actions), action int64 (n_items,),
             scratch.
    Outputs: positions int8 (n_items, longest), of the rows from the first on, as decided there: the rest is left;
             final_equity float64 (n_items,), marked at the end; steps int64 (n_items,), until it.
    NaN:     as in `step_market`.
    """
    policy = i * recurrent.shape[0] // row.shape[0]
    observe_row(
        i, row[i], close[row[i]], position[i], paid[i], bars_held[i], values, columns, scaling, rules, observation
    )  # fmt: skip
    k, ended = np.int64(0), False
    while not ended:
        policy_row(
            observation[i], h[i], c[i], recurrent[policy], first[policy], second[policy], last[policy], work[i],
            logits[i],
        )  # fmt: skip
        action[i] = greedy(logits[i])
        step_one(
            i, action, open, close, slip, values, columns, scaling, rules, starts, stops, row, stop, start, episode,
            position, balance, stake, paid, equity, peak, bars_held, observation, reward, terminated, truncated,
            final_observation, marked_equity, target_position,
        )  # fmt: skip
        positions[i, k] = target_position[i]
        k += 1
        ended = terminated[i] or truncated[i]
    final_equity[i] = marked_equity[i]
    steps[i] = k
