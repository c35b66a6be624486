"""The market that an agent trades in: one step of many environments in one call, and what they observe."""

from __future__ import annotations

import numpy as np

from .account import FLAT_PAID, FLAT_STAKE, left, turned
from .account import equity as marked
from .compile import inline, kernel
from .elementary import log_64
from .ordering import clipped, larger, smaller
from .windows import scaled_and_clipped

HOLD, BUY, SELL, CLOSE = 0, 1, 2, 3  # actions: keep the position, be long, be short, be flat
ACCOUNT_COLUMNS = 3  # at the end of an observation: position, unrealised return of the stake, bars held
# The positions of the market's rules in the array `rules`; see `step_market`.
AT_CLOSE, COMMISSION, SIZE, INITIAL_BALANCE, KEPT_SHARE, RUIN_EQUITY, HELD_SCALE, LEGACY, REWARD_SCALE = range(9)
RISK_AVERSION = 9
N_RULES = 10
OFFSET, SCALE, LOW, HIGH = range(4)  # the rows of `scaling`
ITEMS_OF_THREAD = 1 << 12  # environments that are worth a thread of their own: a step takes some 30 ns
# Logarithms take an equity below this share of the initial balance for this share: it may be 0 or less.
LEAST_EQUITY = np.float64(1e-6)
# The series of 2 artanh(s), whose next term is below 1e-18 of the sum where |s| is below this.
SERIES_BELOW = np.float64(0.05)
ODD_1, ODD_3, ODD_5, ODD_7, ODD_9, ODD_11, ODD_13 = (np.float64(2.0 / k) for k in range(1, 14, 2))
# The shaped reward, in percent of the initial balance: a share of what a closed position has earned is added, and these
# are taken for each bar of a losing position and for each fill.
LEGACY_CLOSED_BONUS = np.float64(0.5)
LEGACY_LOSING_PENALTY = np.float64(0.01)
LEGACY_FILL_PENALTY = np.float64(0.01)


@inline
def observe_row(i, row, price, position, paid, bars_held, values, columns, scaling, rules, observation):
    """Write row i of `observation`: a row of the feature matrix, scaled and clipped, then the account's columns."""
    n_columns = observation.shape[1] - ACCOUNT_COLUMNS
    if columns.shape[0] == 0:  # without a column's number to look up, the loop becomes vector instructions
        for j in range(n_columns):
            observation[i, j] = scaled_and_clipped(
                values[row, j], scaling[OFFSET, j], scaling[SCALE, j], scaling[LOW, j], scaling[HIGH, j]
            )
    else:
        for j in range(n_columns):
            observation[i, j] = scaled_and_clipped(
                values[row, columns[j]], scaling[OFFSET, j], scaling[SCALE, j], scaling[LOW, j], scaling[HIGH, j]
            )
    earned = position * (np.float64(price) - paid) / paid
    observation[i, n_columns] = np.float32(position)
    observation[i, n_columns + 1] = np.float32(clipped(earned, np.float64(-1.0), np.float64(1.0)))
    observation[i, n_columns + 2] = np.float32(smaller(bars_held / rules[HELD_SCALE], np.float64(1.0)))


@inline
def log_ratio(after, before):
    """log(after / before) of positive numbers: 2 artanh((after - before) / (after + before)), as a series near 0."""
    s = (after - before) / (after + before)
    if abs(s) > SERIES_BELOW:
        return log_64(after / before)
    square = s * s
    total = ODD_13
    total = total * square + ODD_11
    total = total * square + ODD_9
    total = total * square + ODD_7
    total = total * square + ODD_5
    total = total * square + ODD_3
    return s * (total * square + ODD_1)


@inline
def log_reward(before, after, rules):
    """REWARD_SCALE * (g - RISK_AVERSION * g^2), where g is the change of log-equity after costs."""
    least = LEAST_EQUITY * rules[INITIAL_BALANCE]
    growth = log_ratio(larger(after, least), larger(before, least))
    return rules[REWARD_SCALE] * (growth - rules[RISK_AVERSION] * growth * growth)


@inline
def legacy_reward(before, after, realised, losing, n_fills, rules):
    """The shaped reward: profit and closed profit in percent of the initial balance, less penalties; `step_market`."""
    percent = np.float64(100.0) / rules[INITIAL_BALANCE]
    shaped = (after - before) * percent + LEGACY_CLOSED_BONUS * larger(realised, np.float64(0.0)) * percent
    if losing:
        shaped -= LEGACY_LOSING_PENALTY
    return shaped - LEGACY_FILL_PENALTY * n_fills


@kernel(
    types=("f4[:]", "f4[:,:]", "i8[:]", "f4[:,:]", "f8[:]", "i8[:]", "i1[:]", "f8[:]", "i8[:]", "f4[:,:]"),
    double_precision=True, brief=True,
)  # fmt: skip
def observe(i, close, values, columns, scaling, rules, row, position, paid, bars_held, observation):
    """The observation of environment i: of its row, and of the position that it holds there.

    Reads:   values[row[i]] and close[row[i]], nothing after them.
    Inputs:  as in `step_market`.
    Outputs: observation float32 (n_environments, n_columns + 3), as in `step_market`.
    NaN:     0.
    """
    observe_row(
        i, row[i], close[row[i]], position[i], paid[i], bars_held[i], values, columns, scaling, rules, observation
    )


@inline
def advance(action, r, held, balance, stake, paid, before, peak, bars_held, open, close, slip, rules):
    """Steps 1 to 3 of `step_market`, for an account whose action of row r - 1 is filled in row r.

    Returns stopped, target, the price of the fill, balance, stake, entry fill, the marked equity, bars held.
    """
    stopped = before <= larger(rules[KEPT_SHARE] * peak, rules[RUIN_EQUITY])
    target = held
    if stopped or action == CLOSE:
        target = np.int64(0)
    elif action == BUY:
        target = np.int64(1)
    elif action == SELL:
        target = np.int64(-1)
    price = close[r] if rules[AT_CLOSE] != np.float64(0.0) else open[r]
    money, invested, entry = turned(
        balance, stake, paid, held, target, price, slip[r], rules[COMMISSION], rules[SIZE]
    )  # fmt: skip
    if invested <= np.float64(0.0):  # nothing was opened
        target = np.int64(0)
    now = marked(money, invested, entry, target, close[r])
    n_bars = np.int64(0)
    if target != 0:
        n_bars = bars_held + 1 if target == held else np.int64(1)
    return stopped, target, price, money, invested, entry, now, n_bars


@kernel(
    types=("i8[:]", "f4[:]", "f4[:]", "f8[:]", "f4[:,:]", "i8[:]", "f4[:,:]", "f8[:]", "i8[:,:]", "i8[:,:]", "i8[:]",
           "i8[:]", "i8[:]", "i8[:]", "i1[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "f8[:]", "i8[:]", "f4[:,:]", "f4[:]",
           "b1[:]", "b1[:]", "f4[:,:]", "f8[:]", "i1[:]"),
    double_precision=True, brief=ITEMS_OF_THREAD,
)  # fmt: skip
def step_market(
    i, action, open, close, slip, values, columns, scaling, rules, starts, stops,
    row, stop, start, episode, position, balance, stake, paid, equity, peak, bars_held,
    observation, reward, terminated, truncated, final_observation, marked_equity, target_position,
):  # fmt: skip
    """Environment i takes one step: its action at row r = row[i] is filled in row r + 1, where it is observed next.

    1. The target: HOLD keeps the position (so does any other number), BUY makes it 1, SELL -1, CLOSE 0. If equity[i]
       is at or below max(KEPT_SHARE * peak[i], RUIN_EQUITY), the drawdown stop or the ruin, it is 0 whatever the
       action.
    2. The position becomes the target at open[r + 1], or with AT_CLOSE at close[r + 1], by `kernels.account.turned`; a
       reversal is two fills. A balance of 0 or less opens nothing: the position is 0.
    3. The equity is marked at close[r + 1]; the peak follows it.
    4. A step that step 1 stopped terminates; any other that reaches stop[i] truncates: its position stays open. Both
       write the last observation to final_observation, and begin the next episode in the same step: its number is e =
       episode[i] + 1, its rows are starts[i, k] to stops[i, k] with k = e modulo the number of columns, its balance is
       INITIAL_BALANCE.

    reward: with g = log(equity after / equity before), REWARD_SCALE * (g - RISK_AVERSION * g^2); an equity below
    LEAST_EQUITY of the initial balance counts as that. With LEGACY, in percent of the initial balance:

        change of equity + LEGACY_CLOSED_BONUS * max(0, what the fill that closed a position added to the balance)
        - LEGACY_LOSING_PENALTY where the position has an unrealised loss - LEGACY_FILL_PENALTY * fills

    observation: of the row, clip((values[row, columns[j]] - OFFSET) / SCALE, LOW, HIGH), by column j of `scaling`; then
    the position (1, 0, -1); the unrealised return of the stake at the close, before the costs of leaving, clipped to
    [-1, 1]; and min(bars_held / HELD_SCALE, 1), where the bar of the fill is the first that is held.

    Reads:   open, close and slip of row r + 1, which is the past when the observation of r + 1 is given; of values the
             row that is observed.
    Inputs:  action int64 (n_environments,); open, close float32 (n_rows,), prices > 0; slip float64 (n_rows,), half the
             spread plus slippage as a share of the row's fill price; values float32 (n_rows, n_features); columns int64
             (n_columns,), numbers of columns of values, or (0,) for all of them; scaling float32 (4, n_columns), its
             SCALE > 0; rules float64 (N_RULES,): AT_CLOSE and LEGACY 0 or 1, COMMISSION and SIZE as in
             kernels/account.py, KEPT_SHARE 1 - the largest drawdown, or 0 without a stop, RUIN_EQUITY in the currency,
             HELD_SCALE in bars; starts and stops int64 (n_environments, n_episodes), 0 <= start < stop < n_rows.
    State:   one value for each environment: row, stop (the last row to be observed), start, episode, bars_held int64;
             position int8; balance, stake, paid, equity, peak float64. Between two steps row < stop.
    Outputs: observation float32 (n_environments, n_columns + 3), of the new episode where one began; reward float32;
             terminated, truncated bool; final_observation like observation, written only where an episode ended;
             marked_equity float64 and target_position int8 (n_environments,), after the step and before a new episode.
    NaN:     0 in an observation. Prices and slip are known.
    """
    r, held, before = row[i] + 1, np.int64(position[i]), equity[i]
    stopped, target, price, money, invested, entry, now, n_bars = advance(
        action[i], r, held, balance[i], stake[i], paid[i], before, peak[i], bars_held[i], open, close, slip, rules
    )
    if rules[LEGACY] != np.float64(0.0):
        realised, n_fills = np.float64(0.0), np.int64(0)
        if target != held:
            if held != 0:
                n_fills += 1
                realised = left(balance[i], stake[i], paid[i], held, price, slip[r], rules[COMMISSION]) - balance[i]
            if target != 0:
                n_fills += 1
        losing = now < money
        reward[i] = np.float32(legacy_reward(before, now, realised, losing, n_fills, rules))
    else:
        reward[i] = np.float32(log_reward(before, now, rules))
    highest = larger(peak[i], now)
    ended = stopped or r >= stop[i]
    terminated[i] = stopped
    truncated[i] = ended and not stopped
    marked_equity[i] = now
    target_position[i] = target
    if ended:
        observe_row(i, r, close[r], target, entry, n_bars, values, columns, scaling, rules, final_observation)
        episode[i] += 1
        k = episode[i] % starts.shape[1]
        r = starts[i, k]
        start[i] = r
        stop[i] = stops[i, k]
        money, invested, entry = rules[INITIAL_BALANCE], FLAT_STAKE, FLAT_PAID
        now, highest = money, money
        target, n_bars = np.int64(0), np.int64(0)
    row[i] = r
    position[i] = target
    balance[i] = money
    stake[i] = invested
    paid[i] = entry
    equity[i] = now
    peak[i] = highest
    bars_held[i] = n_bars
    observe_row(i, r, close[r], target, entry, n_bars, values, columns, scaling, rules, observation)
