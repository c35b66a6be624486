"""Kernels of position paths: the equity of an account that follows a path, and the list of its trades."""

from __future__ import annotations

import numpy as np

from .account import FLAT_PAID, FLAT_STAKE, filled, profit, turned
from .account import equity as marked
from .backtest import END, LONG, SHORT, is_price
from .compile import inline, kernel

# Further reasons for closing a position. POSITION: the path left it. RUIN: the equity was 0 or less.
POSITION, RUIN = 6, 7


@inline
def fill_price(row, open, close, at_close):
    """The price at which a decision of the row before is filled."""
    return close[row] if at_close != 0 else open[row]


@kernel(
    types=("i1[:,:]", "i8[:]", "f4[:]", "f4[:]", "i1[:]", "f8[:]", "f8", "f8", "f8", "i8", "f8[:,:]", "i1[:,:]",
           "f8[:,:]", "f8[:,:]"),
    double_precision=True,
)  # fmt: skip
def position_equity(
    i, position, offsets, open, close, halted, slip, commission, size, initial, at_close, equity, held, value, traded
):
    """The account of one path and symbol by row; i is path * n_symbols + symbol.

    Every symbol of every path is an account of its own, which begins with `initial`. The position decided in row t is
    filled at the open of row t + 1, with at_close at its close, and the account is then marked at the close of row
    t + 1. The first row of a symbol has no fill, and the decision of its last row is not filled. The position is not
    changed in a halted bar, nor where the price of its fill is not known: the fill waits for the next row with one, and
    is then the position decided in the row before that one. Where the equity is 0 or less, the position is left at the
    next fill, and nothing is opened again. A position that stands at the end stays open.

    Reads:   position[.., t] for the fill in row t + 1; prices of rows up to the one that is written.
    Inputs:  position int8 (n_paths, n_rows), -1, 0 or 1; offsets int64 (n_symbols + 1,); open and close float32
             (n_rows,); halted int8 (n_rows,), 1 in a halt; slip float64 (n_rows,), half the spread plus slippage, and
             commission float64, shares of a fill; size float64, the stake over the balance; initial float64, > 0.
    Outputs: equity float64; held int8, the position after the fill of the row; value float64, of the units held, long
             or short, at the mark; traded float64, the value of the row's fills: (n_paths, n_rows) each.
    NaN:     an unknown close keeps the last mark, or the price of the row's fill where there is one.
    Source:  kernels.account, whose `turned` and `equity` the agent's market calls in the same order.
    """
    n_symbols = offsets.shape[0] - 1
    path, symbol = i // n_symbols, i % n_symbols
    balance, stake, paid = initial, FLAT_STAKE, FLAT_PAID
    now, ruined, mark = 0, False, np.float32(1.0)
    for row in range(offsets[symbol], offsets[symbol + 1]):
        filled_value = np.float64(0.0)
        if row > offsets[symbol]:
            target = 0 if ruined else position[path, row - 1]
            price = fill_price(row, open, close, at_close)
            if target != now and halted[row] == 0 and is_price(price):
                if now != 0:
                    filled_value += stake * (filled(price, -now, slip[row]) / paid)
                balance, stake, paid = turned(
                    balance, stake, paid, now, target, price, slip[row], commission, size
                )  # fmt: skip
                filled_value += stake
                now, mark = target if stake > FLAT_STAKE else 0, price
        if is_price(close[row]):
            mark = close[row]
        worth = marked(balance, stake, paid, now, mark)
        if worth <= np.float64(0.0):
            ruined = True
        equity[path, row], held[path, row] = worth, now
        value[path, row], traded[path, row] = stake * (np.float64(mark) / paid), filled_value


@kernel(
    types=("i1[:,:]", "i8[:]", "i8[:]", "f8[:,:]", "i1[:,:]", "f4[:]", "f4[:]", "f8[:]", "f8", "i8", "i8[:]", "i8",
           "i8[:]", "i8[:]", "i8[:]", "i8[:]", "i8[:]", "i8[:]", "i1[:]", "f4[:]", "f4[:]", "i1[:]", "b1[:]", "f8[:]"),
    double_precision=True,
)  # fmt: skip
def position_trades(
    i, position, symbols, offsets, equity, held, open, close, slip, commission, at_close, first_trade, listing,
    count, unfilled, model, row_of, first, last, side, entered_at, left_at, why, waited, net,
):  # fmt: skip
    """The trades of one path and symbol, counted or listed; i is path * n_symbols + k, for the symbol symbols[k].

    A trade is a maximal run of rows that hold one side: from the row whose fill opened it to the row whose fill left
    it. A reversal leaves and enters at one price. A trade that stands at the end is left at the last mark: the last
    known close, or the price of its entry.

    Inputs:  position, offsets, open, close, slip, commission, at_close, and the outputs equity and held of
             position_equity; symbols int64 (n_symbols,), in the order of the list; first_trade int64
             (n_paths * n_symbols,), the position of the first trade of each i in the list.
    Outputs: count and unfilled int64 (n_paths * n_symbols,), trades and decided positions that a halt (or an unknown
             price) left without an entry, if not `listing`. Else, from first_trade[i] on, for each trade: model, the
             path; row_of, the row from which on its side was decided; first and last, the rows of its fills, int64;
             side int8, LONG or SHORT; prices float32; why int8, POSITION, RUIN or END; waited bool, whether an exit
             that was due had to wait; net float64, the return on the stake after the costs of both fills.
    """
    n_symbols = offsets.shape[0] - 1
    path, symbol = i // n_symbols, symbols[i % n_symbols]
    begin, end = offsets[symbol], offsets[symbol + 1]
    n, n_unfilled, now, wanted, since = 0, 0, 0, 0, begin
    entry_row, decided, entry, mark_row, mark = begin, begin, np.float32(1.0), begin, np.float32(1.0)
    late, pending, ruined = False, False, False
    for row in range(begin + 1, end + 1):
        at_end = row == end
        after, reason, leave_row, price = 0, END, mark_row, mark
        if not at_end:
            target = position[path, row - 1]
            if target != wanted:
                n_unfilled += 1 if pending else 0
                wanted, since = target, row - 1
            after, leave_row, price = held[path, row], row, fill_price(row, open, close, at_close)
            reason = RUIN if target == now else POSITION
        if after != now:
            if now != 0:
                if listing != 0:
                    place = first_trade[i] + n
                    model[place], row_of[place], first[place], last[place] = path, decided, entry_row, leave_row
                    side[place], why[place], waited[place] = LONG if now > 0 else SHORT, reason, late
                    entered_at[place], left_at[place] = entry, price
                    paid, got = filled(entry, now, slip[entry_row]), filled(price, -now, slip[leave_row])
                    net[place] = profit(paid, got, now, commission)
                n += 1
            now, entry_row, decided, entry, mark_row, mark = after, row, since, price, row, price
            late = False
        elif not at_end:
            late = now != 0 and (wanted != now or ruined)
        if not at_end:
            if is_price(close[row]):
                mark_row, mark = row, close[row]
            ruined = ruined or equity[path, row] <= np.float64(0.0)
            pending = wanted != 0 and wanted != now and not ruined
    n_unfilled += 1 if pending else 0
    if listing == 0:
        count[i], unfilled[i] = n, n_unfilled
