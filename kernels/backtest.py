"""Backtest kernels: the outcome of a trade opened on each row, the calls that open trades, and portfolio returns."""

from __future__ import annotations

import math

import numpy as np

from .account import filled, profit
from .barriers import barrier_above, barrier_below
from .compile import inline, kernel

NOTHING, LONG, SHORT = 0, 1, 2  # the call of a row
# Reasons for closing a position. END: the history ended before the horizon, and the exit is at the last known close.
TARGET, STOP, TIME, OPPOSITE, END = 1, 2, 3, 4, 5


@inline
def is_price(value):
    """Whether a value is a price: finite and above 0."""
    return value > np.float32(0.0) and value < np.float32(3.0e38)


@inline
def beyond(price, level, side):
    """Whether a price is at or past a level in the direction `side`: 1 upwards, -1 downwards."""
    return price >= level if side > 0 else price <= level


@kernel(
    types=("f4[:]", "f4[:]", "f4[:]", "f4[:]", "i1[:]", "i4[:]", "i8[:]", "i8[:]", "f8[:]", "f8[:]", "i1[:]", "i8",
           "i8", "f4[:]", "i8[:,:]", "f4[:,:]", "i1[:,:]"),
    double_precision=True,
)  # fmt: skip
def trade_outcomes(
    i, open, high, low, close, halted, symbol_of_row, offsets, horizons, up, down, sides, at_close, target_first,
    entry_price, exit_row, exit_price, reason,
):  # fmt: skip
    """Exit of a position that a call in row i opens, for each variant and side.

    The entry is at the open of row i + 1, or with at_close at the close of row i. The bars i + 1 ... i + h follow:
    - a bar that opens at or beyond the stop, else at or beyond the target, exits at its open (except the entry bar of
      an entry at the open: its open is the entry);
    - else a bar whose low or high reaches the stop or target exits at that price; if it reaches both, at the stop, or
      with target_first at the target;
    - else the last bar exits at its close;
    - nothing is filled in a halted bar: a call in one, or before one at whose open it would enter, has no entry; an
      exit waits, and a position that is due in a halt exits at the open of the next bar that is traded, reason TIME.
    Stop and target are the barriers of the entry price, as in the labels.

    Reads:   the future of row i up to its exit, never beyond. Never a feature.
    Inputs:  open, high, low, close float32 (n_rows,); halted int8 (n_rows,), 1 in a halt; symbol_of_row int32
             (n_rows,); offsets int64 (n_symbols + 1,); horizons int64, up and down float64 (n_variants,), 1 + t and
             1 - t: a short's target is at down;
             sides int8 (n_sides,), LONG, SHORT or both in this order.
    Outputs: entry_price float32 (n_rows,), NaN where there is no entry; exit_row int64, exit_price float32, reason int8
             (n_variants * n_sides, n_rows): side k of variant v in row v * n_sides + k; -1, NaN and 0 where there is
             no trade.
    NaN:     without an entry price (or a bar left) there is no trade. A NaN high or low reaches no price, a NaN open is
             no gap. If the last close is NaN, the exit is at the next known open or close. If the symbol's rows end
             first, it is at the last known close after the entry, reason END; without one there is no trade.
    """
    n_variants = horizons.shape[0]
    stop = offsets[symbol_of_row[i] + 1]
    first = i + 1
    entry = np.float32(math.nan)
    if first < stop:
        entry = close[i] if at_close else open[first]
        if halted[i] != 0 or (at_close == 0 and halted[first] != 0):
            entry = np.float32(math.nan)
    if not is_price(entry):
        entry = np.float32(math.nan)
    entry_price[i] = entry
    for v in range(n_variants):
        due = i + horizons[v]
        for k in range(sides.shape[0]):
            short = sides[k] == SHORT
            side = -1 if short else 1
            above, below = barrier_above(entry, up[v]), barrier_below(entry, down[v])
            target, limit = (below, above) if short else (above, below)
            row, price, why = -1, np.float32(math.nan), 0
            last_row, last_price = -1, np.float32(math.nan)
            j = first if is_price(entry) else stop
            while j < stop and why == 0:
                # A NaN high or low compares as false; which extreme is best depends on the side.
                best, worst = (low[j], high[j]) if short else (high[j], low[j])
                opened = is_price(open[j])
                if halted[j] != 0:
                    pass  # nobody trades; only the last known close below may be this bar's
                elif j > due:  # past the horizon: the close of the last bar is unknown
                    if opened or is_price(close[j]):
                        row, price, why = j, open[j] if opened else close[j], TIME
                else:
                    gap = opened and (at_close != 0 or j > first)
                    stopped, reached = beyond(worst, limit, -side), beyond(best, target, side)
                    if gap and beyond(open[j], limit, -side):
                        row, price, why = j, open[j], STOP
                    elif gap and beyond(open[j], target, side):
                        row, price, why = j, open[j], TARGET
                    elif reached and (target_first != 0 or not stopped):
                        row, price, why = j, target, TARGET
                    elif stopped:
                        row, price, why = j, limit, STOP
                    elif j == due and is_price(close[j]):
                        row, price, why = j, close[j], TIME
                if is_price(close[j]):
                    last_row, last_price = j, close[j]
                j += 1
            if why == 0 and last_row >= 0:
                row, price, why = last_row, last_price, END
            exit_row[v * sides.shape[0] + k, i] = row
            exit_price[v * sides.shape[0] + k, i] = price
            reason[v * sides.shape[0] + k, i] = why


@kernel(types=("f4[:,:,:]", "i8[:]", "f4[:,:,:]", "i8[:]", "i4[:]", "i8[:]", "i1[:,:]"))
def call_rows(i, probability, row_of, cutoffs, window_of_row, symbol_of_row, sector_of_symbol, call):
    """The call of every model in row i: LONG (the last class), SHORT (the first class) or NOTHING.

    A class is called where its probability reaches its cutoff. If both do, the larger ratio of probability to cutoff
    decides, LONG on a tie: the rule of evaluation.metrics.calls.

    Inputs:  probability float32 (n_all, n_models, 3), of the classes; row_of int64 (n_rows,), the row of
             `probability` for row i; cutoffs float32 (n_windows * n_models, n_sectors, 2), of LONG and SHORT, NaN where
             the sector has no such model; window_of_row int64 (n_rows,); symbol_of_row int32 (n_rows,);
             sector_of_symbol int64 (n_symbols,).
    Outputs: call int8 (n_models, n_rows).
    NaN:     a NaN probability or cutoff gives NOTHING.
    """
    sector = sector_of_symbol[symbol_of_row[i]]
    row, first = row_of[i], window_of_row[i] * call.shape[0]
    for m in range(call.shape[0]):
        to_buy, to_sell = cutoffs[first + m, sector, 0], cutoffs[first + m, sector, 1]
        chosen = NOTHING
        # Most rows reach neither cutoff: this saves their divisions. For a cutoff c > 0, p / c >= 1 equals p >= c.
        if probability[row, m, 2] >= to_buy or probability[row, m, 0] >= to_sell:
            buy, sell = probability[row, m, 2] / to_buy, probability[row, m, 0] / to_sell
            if buy == buy and sell == sell:
                if buy >= np.float32(1.0) and buy >= sell:
                    chosen = LONG
                elif sell >= np.float32(1.0) and sell > buy:
                    chosen = SHORT
        call[m, i] = chosen


@kernel(
    types=("i1[:,:]", "i8[:]", "i8[:]", "i8[:]", "i1[:]", "f4[:]", "f4[:]", "i1[:]", "f4[:]", "i8[:,:]", "f4[:,:]",
           "i1[:,:]", "i8", "i8", "i8", "i8[:]", "i8", "i8[:]", "i8[:]", "i8[:]", "i8[:]", "i8[:]", "i1[:]", "f4[:]",
           "f4[:]", "i1[:]"),
)  # fmt: skip
def take_trades(
    i, call, symbols, offsets, variant_of_model, sides, open, close, halted, entry_price, exit_row, exit_price, reason,
    overlapping, leave_on_opposite, at_close, first_trade, listing,
    count, unfilled, model, first, last, side_of, entered_at, left_at, why,
):  # fmt: skip
    """The trades of one model and symbol, counted or listed; i is model * n_symbols + k, for the symbol symbols[k].

    Rows in time order: a call of one of `sides` opens a position unless one is open, or always if `overlapping`. A
    position that exits in row x does not block a call of row x, which is known at the close of that bar. With
    leave_on_opposite the first opposite call before the exit closes the position at the next open (at that row's close
    with at_close), if that price is known. A call of a halted row opens and closes nothing. A call whose entry would
    be in a halted row opens nothing; an exit by an opposite call waits for the open of the next row that is traded.

    Inputs:  call int8 (n_models, n_rows); halted int8 (n_rows,); symbols int64 (n_symbols,), in the order of the list;
             variant_of_model int64 (n_models,); sides, entry_price, exit_row, exit_price, reason as in
             trade_outcomes; first_trade int64
             (n_models * n_symbols,), the position of the first trade of each i in the list.
    Outputs: count and unfilled int64 (n_models * n_symbols,), trades and calls that a halt left without an entry, if
             not `listing`. Else, from first_trade[i] on, for each trade: model,
             the rows of its call (first) and exit (last) int64, its side and reason (why) int8, its prices float32.
    """
    n_symbols, n_sides = offsets.shape[0] - 1, sides.shape[0]
    m, symbol = i // n_symbols, symbols[i % n_symbols]
    lowest, highest, k_lowest = sides[0], sides[n_sides - 1], variant_of_model[m] * n_sides
    free, n, n_unfilled, end_of_symbol = offsets[symbol], 0, 0, offsets[symbol + 1]
    for row in range(offsets[symbol], end_of_symbol):
        side = call[m, row]
        if side < lowest or side > highest or (row < free and overlapping == 0):
            continue
        k = k_lowest + (side - lowest)
        end, because, price = exit_row[k, row], reason[k, row], exit_price[k, row]
        if because == 0:
            in_halt = halted[row] != 0 or (at_close == 0 and row + 1 < end_of_symbol and halted[row + 1] != 0)
            n_unfilled += 1 if in_halt else 0
            continue
        if leave_on_opposite != 0:
            other = LONG if side == SHORT else SHORT
            for r in range(row + 1, end):
                if call[m, r] != other or halted[r] != 0:
                    continue
                at = r if at_close != 0 else r + 1
                while at < end and halted[at] != 0:
                    at += 1
                value = close[at] if at_close != 0 else open[at]
                if halted[at] == 0 and is_price(value):
                    end, because, price = at, OPPOSITE, value
                    break
        if listing != 0:
            place = first_trade[i] + n
            model[place], first[place], last[place] = m, row, end
            side_of[place], why[place] = side, because
            entered_at[place], left_at[place] = entry_price[row], price
        n += 1
        # An order for the next open is placed at the previous close, so a reversal opens at the same open that closes.
        free = end - 1 if because == OPPOSITE and at_close == 0 else end
    if listing == 0:
        count[i], unfilled[i] = n, n_unfilled


@kernel(types=("i1[:]", "f4[:]", "f4[:]", "f8", "f8", "f8[:]"), double_precision=True)
def trade_returns(i, side, entry_price, exit_price, slip, commission, net):
    """Net return of trade i on its stake: side * (exit fill / entry fill - 1) - commission of both fills.

    Inputs:  side int8 (n_trades,), LONG or SHORT; prices float32 (n_trades,); slip and commission float64, fractions of
             a fill.
    Outputs: net float64 (n_trades,); the stake is the value at the entry fill.
    """
    direction = 1 if side[i] == LONG else -1
    paid, got = filled(entry_price[i], direction, slip), filled(exit_price[i], -direction, slip)
    net[i] = profit(paid, got, direction, commission)


@kernel(
    types=("i8[:]", "i8[:]", "i8[:]", "i1[:]", "f4[:]", "f4[:]", "f8[:]", "f4[:]", "i8[:]", "f8", "f8", "f8[:,:,:]"),
    double_precision=True,
)
def portfolio_days(
    i, groups, first_row, last_row, side, entry_price, exit_price, weight, close, date_of_row, slip, commission, days
):
    """Sum the positions of group i (a model and sector) by date.

    The return of a position on a date is relative to its previous mark: from the entry fill or the last known close, to
    the close or the exit fill. Commission is charged on the dates of the fills. Every position, short or long, keeps
    its size: the portfolio is rebalanced at each close.

    Inputs:  groups int64 (n_groups + 1,), group g is the trades groups[g]:groups[g + 1]; first_row, last_row int64, the
             first and last row held, side int8, prices float32, weight float64 (n_trades,); close float32, date_of_row
             int64 (n_rows,).
    Outputs: days float64 (n_groups, 4, n_dates), zero on entry: sums over positions of weight * return, weight,
             1, and weight * fills.
    NaN:     on a date with a NaN close the position keeps its last mark.
    """
    for trade in range(groups[i], groups[i + 1]):
        direction = 1 if side[trade] == LONG else -1
        w = weight[trade]
        mark = filled(entry_price[trade], direction, slip)
        for row in range(first_row[trade], last_row[trade] + 1):
            date = date_of_row[row]
            profit = np.float64(0.0)
            if row == first_row[trade]:
                profit -= commission
                days[i, 3, date] += w
            if row == last_row[trade]:
                price = filled(exit_price[trade], -direction, slip)
                profit += direction * (price - mark) / mark - commission * price / mark
                days[i, 3, date] += w
            elif is_price(close[row]):
                price = np.float64(close[row])
                profit += direction * (price - mark) / mark
                mark = price
            days[i, 0, date] += w * profit
            days[i, 1, date] += w
            days[i, 2, date] += 1


@kernel(types=("i8[:]", "i8[:]", "i8[:]", "i8[:]", "f4[:,:,:]", "i4[:,:]", "f8[:,:]", "i8[:,:]"), double_precision=True)
def moved_entries(i, groups, outcome_of_trade, symbol_of_trade, date_of_trade, net, moved, total, known):
    """Net returns of a group's trades if their calls had come on other dates; i is group * n_draws + draw.

    Inputs:  groups int64 (n_groups + 1,); outcome_of_trade int64 (n_trades,), the row of `net`; symbol_of_trade and
             date_of_trade int64 (n_trades,); net float32 (n_outcomes, n_symbols, n_dates), NaN where no trade could
             start; moved int32 (n_draws, n_dates), the new date of each date.
    Outputs: total float64 (n_groups, n_draws), the sum of known net returns; known int64 (n_groups, n_draws), their
             number.
    """
    n_draws = moved.shape[0]
    group, draw = i // n_draws, i % n_draws
    added, n = np.float64(0.0), np.int64(0)
    for trade in range(groups[group], groups[group + 1]):
        value = net[outcome_of_trade[trade], symbol_of_trade[trade], moved[draw, date_of_trade[trade]]]
        if value == value:
            added += np.float64(value)
            n += 1
    total[group, draw] = added
    known[group, draw] = n
