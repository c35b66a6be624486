"""Whole episodes of policies in the market: every policy on every episode in one call, greedily."""

from __future__ import annotations

import numpy as np

from .account import FLAT_PAID, FLAT_STAKE
from .compile import kernel
from .environment import INITIAL_BALANCE, advance, observe_row
from .ordering import larger
from .policy import greedy, policy_row


@kernel(
    types=("f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:]", "f4[:]", "f8[:]", "f4[:,:]", "i8[:]", "f4[:,:]",
           "f8[:]", "i8[:,:]", "i8", "i8", "f4[:,:]", "f4[:,:]", "i1[:,:]", "f8[:,:]"),
    double_precision=True,
)  # fmt: skip
def policy_episode(
    i, recurrent, first, second, last, open, close, slip, values, columns, scaling, rules, edges,
    n_state, n_actions, observation, scratch, positions, result,
):  # fmt: skip
    """Policy p plays episode e to its end, where i = p * n_episodes + e: in each row its greedy action.

    The steps are those of `kernels.environment.step_market` and `kernels.policy.policy_step`, with the same bits: a
    policy that is stepped through one environment by these two kernels decides the same positions.

    Reads:   of bars and features what `step_market` reads, up to row edges[e, 1].
    Inputs:  recurrent, first, second, last float32, the weights as kernels/policy.py describes them, one policy below
             the other; open to rules as in `step_market`; edges int64 (n_episodes, 2), the first and the last row of
             each episode; n_state int64, layers * size; n_actions int64; observation float32
             (n_items, n_columns + 3); scratch float32 (n_items, 2 * n_state + n_actions + what `policy_step` needs for
             work), 0 throughout.
    Outputs: positions int8 (n_items, longest), as decided in the rows from the first on: the rest is left; result
             float64 (n_items, 2), the equity marked at the end, and the number of steps.
    NaN:     as in `step_market`.
    """
    n_episodes, n_policies = edges.shape[0], result.shape[0] // edges.shape[0]
    policy, e = i // n_episodes, i % n_episodes
    own = scratch[i]
    h, c = own[:n_state], own[n_state : 2 * n_state]
    logits, work = own[2 * n_state : 2 * n_state + n_actions], own[2 * n_state + n_actions :]
    # The rows of the policy's own weights.
    n_rows, n_first = recurrent.shape[0] // n_policies, first.shape[0] // n_policies
    n_second, n_last = second.shape[0] // n_policies, last.shape[0] // n_policies
    own_recurrent = recurrent[policy * n_rows : (policy + 1) * n_rows]
    own_first = first[policy * n_first : (policy + 1) * n_first]
    own_second = second[policy * n_second : (policy + 1) * n_second]
    own_last = last[policy * n_last : (policy + 1) * n_last]
    r, k, ended = edges[e, 0], np.int64(0), False
    position, balance, stake, paid = np.int64(0), rules[INITIAL_BALANCE], FLAT_STAKE, FLAT_PAID
    now, peak, bars_held = balance, balance, np.int64(0)
    while not ended:
        observe_row(i, r, close[r], position, paid, bars_held, values, columns, scaling, rules, observation)
        policy_row(observation[i], h, c, own_recurrent, own_first, own_second, own_last, work, logits)
        r += 1
        stopped, position, _, balance, stake, paid, now, bars_held = advance(
            greedy(logits), r, position, balance, stake, paid, now, peak, bars_held, open, close, slip, rules
        )
        peak = larger(peak, now)
        positions[i, k] = position
        k += 1
        ended = stopped or r >= edges[e, 1]
    result[i, 0], result[i, 1] = now, k
