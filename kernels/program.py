"""The feature kernel: an interpreter that runs a program of vector operations over each symbol's rows.

A program computes many columns together: prices are read once, shared subexpressions are computed once, and only
finished columns leave the cache. gpupipe.features.lowering writes programs.
"""

from __future__ import annotations

import math

import numpy as np

from .compile import barrier, cooperative, inline, kernel, lane, n_lanes, recursions_at_once, rows_at_once
from .elementary import log_64
from .operations import (
    ABSOLUTE,
    ABSOLUTE_DEVIATION,
    ADD,
    AT_LEAST,
    CLOSE,
    CODE,
    CONSTANT,
    DAY,
    DECAYING,
    DIVIDE,
    EQUAL,
    FILL,
    FLOOR,
    GREATER,
    HIGH,
    LAG,
    LOGARITHM,
    LOW,
    MAXIMUM,
    MINIMUM,
    MISSING,
    MOVING,
    MULTIPLY,
    NEED,
    OPEN,
    OUT,
    QUANTILE,
    RANK,
    ROOT,
    SIGN,
    SUBTRACT,
    TIME_OF_DAY,
    VOLUME,
    WHERE,
    A,
    B,
    C,
    D,
    N,
)

NS_PER_DAY = np.int64(86_400_000_000_000)
LARGEST = np.float64(3.4e38)
NAN = np.float64(np.nan)

VALUE, RUN = 0, 1  # fields of a state


@inline
def load(out, x, volume):
    """Load a panel column as float64; NaN unless finite and above 0 (volume: at least 0)."""
    for t in range(lane(), out.shape[0], n_lanes()):
        v = np.float64(x[t])
        known = (v > 0.0) | (volume & (v == 0.0))
        out[t] = v if known & (v < np.inf) else NAN


@inline
def load_time(out, time_ns, code):
    """Load whole days since 1970-01-01 UTC, or the elapsed share of the day, 0 to 1."""
    for t in range(lane(), out.shape[0], n_lanes()):
        days = time_ns[t] // NS_PER_DAY
        passed = np.float64(time_ns[t] - days * NS_PER_DAY) / np.float64(NS_PER_DAY)
        out[t] = np.float64(days) if code == DAY else passed


@inline
def fill(out, value):
    """Set every item."""
    for t in range(lane(), out.shape[0], n_lanes()):
        out[t] = value


@inline
def of_one(code, out, a, value):
    """Operations on one register; in FILL, `value` replaces NaN."""
    if code == LAG:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = a[t]
    elif code == ABSOLUTE:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = abs(a[t])
    elif code == ROOT:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = math.sqrt(a[t]) if a[t] >= 0.0 else NAN
    elif code == LOGARITHM:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = log_64(a[t]) if a[t] > 0.0 else NAN
    elif code == SIGN:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = 1.0 if a[t] > 0.0 else (-1.0 if a[t] < 0.0 else a[t])
    elif code == FLOOR:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = np.float64(math.floor(a[t])) if a[t] == a[t] else NAN
    elif code == FILL:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = a[t] if a[t] == a[t] else value


@inline
def of_two(code, out, a, b):
    """Operations on two registers; NaN if one of the two is NaN. Comparisons give 1 or 0."""
    if code == ADD:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = a[t] + b[t]
    elif code == SUBTRACT:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = a[t] - b[t]
    elif code == MULTIPLY:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = a[t] * b[t]
    elif code == DIVIDE:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = a[t] / b[t]
    elif code == MAXIMUM:
        for t in range(lane(), out.shape[0], n_lanes()):
            v, w = a[t], b[t]
            out[t] = v if (v > w) | (v != v) else w
    elif code == MINIMUM:
        for t in range(lane(), out.shape[0], n_lanes()):
            v, w = a[t], b[t]
            out[t] = v if (v < w) | (v != v) else w
    elif code == GREATER:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = a[t] * b[t] * 0.0 + (1.0 if a[t] > b[t] else 0.0)
    elif code == AT_LEAST:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = a[t] * b[t] * 0.0 + (1.0 if a[t] >= b[t] else 0.0)
    elif code == EQUAL:
        for t in range(lane(), out.shape[0], n_lanes()):
            out[t] = a[t] * b[t] * 0.0 + (1.0 if a[t] == b[t] else 0.0)


@inline
def choose(out, condition, a, b):
    """a where the condition is not 0, else b; NaN where the condition is NaN."""
    for t in range(lane(), out.shape[0], n_lanes()):
        v, w, holds = a[t], b[t], condition[t]
        chosen = v if holds != 0.0 else w
        out[t] = chosen if holds == holds else NAN


@inline
def of_window(code, out, x, y, n):
    """Operations over the last n values of each row, from row n - 1 on; NaN if one of them is NaN.

    ABSOLUTE_DEVIATION: sum of |x - y at the row|. RANK: (lower values + (equal values, itself included, + 1) / 2) / n.
    """
    step = rows_at_once()
    for first in range(n - 1 + lane() * step, out.shape[0], n_lanes() * step):
        last = min(first + step, out.shape[0])
        here, now, centre = out[first:last], x[first:last], y[first:last]
        for t in range(here.shape[0]):
            here[t] = 0.0
        for j in range(n):
            then = x[first - j : last - j]
            if code == ABSOLUTE_DEVIATION:
                for t in range(here.shape[0]):
                    here[t] += abs(then[t] - centre[t])
            else:
                for t in range(here.shape[0]):
                    lower = 1.0 if then[t] < now[t] else (0.5 if then[t] == now[t] else 0.0)
                    here[t] += lower + 0.0 * then[t]
        if code == RANK:
            for t in range(here.shape[0]):
                here[t] = (here[t] + 0.5 + 0.0 * now[t]) / n


@inline
def quantile(out, x, n, q, sorted_x):
    """The q-quantile of the last n values of each row, linear between order statistics; NaN if one of them is NaN.

    sorted_x float64 (>= n,): scratch, the sorted window.
    """
    if lane() == 0:
        size = 0
        place = q * (n - 1)
        below = int(place)
        part = place - below
        for t in range(out.shape[0]):
            v = x[t]
            if v != v:
                size = 0
            else:
                if size == n:  # remove the oldest value
                    old = x[t - n]
                    k = 0
                    while sorted_x[k] < old:
                        k += 1
                    while k < n - 1:
                        sorted_x[k] = sorted_x[k + 1]
                        k += 1
                    size = n - 1
                k = size
                while k > 0 and sorted_x[k - 1] > v:
                    sorted_x[k] = sorted_x[k - 1]
                    k -= 1
                sorted_x[k] = v
                size += 1
            if size == n:
                low = sorted_x[below]
                out[t] = low + part * (sorted_x[min(below + 1, n - 1)] - low)
            else:
                out[t] = NAN


@inline
def step(v, value, run, code, n, skip, decay):
    """One step of a recursive average or sum: (value, run, output) after the input v. A NaN restarts it.

    run: known inputs since the start. MOVING: the mean of the n inputs after the first `skip`, then
    decay * value + (1 - decay) * v. DECAYING: the sum of the first n - 1 inputs, then decay * value + v.
    """
    seed = skip + n if code == MOVING else n - 1.0
    if run >= seed and v == v:
        value = decay * value + (1.0 - decay if code == MOVING else 1.0) * v
        return value, run + 1.0, value
    if v != v:
        return 0.0, 0.0, NAN
    run += 1.0
    value += v if run > skip else 0.0
    if code == MOVING and run == seed:
        value /= n
        return value, run, value
    return value, run, NAN


@inline
def recur_one(scratch, program, values, k, first, last, states, i):
    """Compute the rows first to last - 1 of recursion k of the program."""
    code, n, skip = program[k, CODE], np.float64(program[k, N]), np.float64(program[k, D])
    x, out, decay, state = scratch[program[k, A]], scratch[program[k, OUT]], values[k], states[i, program[k, C]]
    value, run = state[VALUE], state[RUN]
    for t in range(first, last):
        value, run, out[t] = step(x[t], value, run, code, n, skip, decay)
    state[VALUE], state[RUN] = value, run


@inline
def recur_four(scratch, program, values, k, count, first, last, states, i):
    """Compute the rows first to last - 1 of the recursions k to k + count - 1, count 1 to 4.

    Interleaving hides the latency of each recursion, which waits for its previous value. With fewer than four, the last
    one is computed several times, which costs nothing and gives the same result.
    """
    k0, k1, k2, k3 = k, k + min(1, count - 1), k + min(2, count - 1), k + count - 1
    code0, n0, skip0 = program[k0, CODE], np.float64(program[k0, N]), np.float64(program[k0, D])
    code1, n1, skip1 = program[k1, CODE], np.float64(program[k1, N]), np.float64(program[k1, D])
    code2, n2, skip2 = program[k2, CODE], np.float64(program[k2, N]), np.float64(program[k2, D])
    code3, n3, skip3 = program[k3, CODE], np.float64(program[k3, N]), np.float64(program[k3, D])
    x0, out0, decay0 = scratch[program[k0, A]], scratch[program[k0, OUT]], values[k0]
    x1, out1, decay1 = scratch[program[k1, A]], scratch[program[k1, OUT]], values[k1]
    x2, out2, decay2 = scratch[program[k2, A]], scratch[program[k2, OUT]], values[k2]
    x3, out3, decay3 = scratch[program[k3, A]], scratch[program[k3, OUT]], values[k3]
    state0, state1 = states[i, program[k0, C]], states[i, program[k1, C]]
    state2, state3 = states[i, program[k2, C]], states[i, program[k3, C]]
    value0, run0, value1, run1 = state0[VALUE], state0[RUN], state1[VALUE], state1[RUN]
    value2, run2, value3, run3 = state2[VALUE], state2[RUN], state3[VALUE], state3[RUN]
    for t in range(first, last):
        value0, run0, out0[t] = step(x0[t], value0, run0, code0, n0, skip0, decay0)
        value1, run1, out1[t] = step(x1[t], value1, run1, code1, n1, skip1, decay1)
        value2, run2, out2[t] = step(x2[t], value2, run2, code2, n2, skip2, decay2)
        value3, run3, out3[t] = step(x3[t], value3, run3, code3, n3, skip3, decay3)
    state0[VALUE], state0[RUN], state1[VALUE], state1[RUN] = value0, run0, value1, run1
    state2[VALUE], state2[RUN], state3[VALUE], state3[RUN] = value2, run2, value3, run3


@inline
def recur(scratch, program, values, k, count, first, last, states, i):
    """Compute the rows first to last - 1 of the recursions k to k + count - 1, at most recursions_at_once() of them."""
    if recursions_at_once() == 1:
        recur_one(scratch, program, values, k, first, last, states, i)
    else:
        recur_four(scratch, program, values, k, count, first, last, states, i)


@inline
def recur_block(scratch, program, values, k, count, first, now, stop, fresh, states, i):
    """Compute the recursions k to k + count - 1, at most 4, over a block, and the states for the next block.

    Registers hold the rows from `first` on; rows from `now` on are new. Rows that no operation needs stay NaN. The
    states written are those before the first row that the next block needs.
    """
    for m in range(k, k + count):
        if fresh:
            states[i, program[m, C], VALUE] = 0.0
            states[i, program[m, C], RUN] = 0.0
    resumed = max(0, now - program[k, NEED] - first)
    kept = max(resumed, stop - program[k, NEED] - first)
    for m in range(k, k + count):
        unknown = scratch[program[m, OUT]]
        for t in range(resumed):
            unknown[t] = NAN
    recur(scratch, program, values, k, count, resumed, kept, states, i)
    if kept < stop - first:
        for m in range(k, k + count):  # the next block computes the remaining rows again
            states[i, program[m, C], 2] = states[i, program[m, C], VALUE]
            states[i, program[m, C], 3] = states[i, program[m, C], RUN]
        recur(scratch, program, values, k, count, kept, stop - first, states, i)
        for m in range(k, k + count):
            states[i, program[m, C], VALUE] = states[i, program[m, C], 2]
            states[i, program[m, C], RUN] = states[i, program[m, C], 3]


@inline
def narrow(x):
    """The value as float32; NaN instead of infinity beyond its range."""
    return np.float32(x) if abs(x) < LARGEST else np.float32(NAN)


@inline
def put_column(out, column, x):
    """Write x to a column."""
    for t in range(x.shape[0]):
        out[t, column] = narrow(x[t])


@inline
def store(out, aside, scratch, outputs, first, count, skip):
    """Write the registers of outputs[first : first + count], without their first `skip` rows.

    Rows are written in groups of eight columns, so that a cache line of `out` is filled while it is in the cache.
    """
    step = rows_at_once()
    for row in range(lane() * step, out.shape[0], n_lanes() * step):
        stop = min(row + step, out.shape[0])
        k = 0
        while k < count:
            column = outputs[first + k, 1]
            if step > 1 and k + 8 <= count and column >= 0 and outputs[first + k + 7, 1] == column + 7:
                a = scratch[outputs[first + k, 0], skip + row : skip + stop]
                b = scratch[outputs[first + k + 1, 0], skip + row : skip + stop]
                c = scratch[outputs[first + k + 2, 0], skip + row : skip + stop]
                d = scratch[outputs[first + k + 3, 0], skip + row : skip + stop]
                e = scratch[outputs[first + k + 4, 0], skip + row : skip + stop]
                f = scratch[outputs[first + k + 5, 0], skip + row : skip + stop]
                g = scratch[outputs[first + k + 6, 0], skip + row : skip + stop]
                h = scratch[outputs[first + k + 7, 0], skip + row : skip + stop]
                line = out[row:stop, column : column + 8]
                for t in range(line.shape[0]):  # reading all values first lets the compiler write the line at once
                    s, u, v, w = narrow(a[t]), narrow(b[t]), narrow(c[t]), narrow(d[t])
                    x, y, z, o = narrow(e[t]), narrow(f[t]), narrow(g[t]), narrow(h[t])
                    line[t, 0], line[t, 1], line[t, 2], line[t, 3] = s, u, v, w
                    line[t, 4], line[t, 5], line[t, 6], line[t, 7] = x, y, z, o
                k += 8
            else:
                one = scratch[outputs[first + k, 0], skip + row : skip + stop]
                if column >= 0:
                    put_column(out[row:stop], column, one)
                else:
                    put_column(aside[row:stop], -1 - column, one)
                k += 1


@inline
def bin_of(value, cuts, begin, end):
    """The number of the rising cuts[begin:end] that are at most the value; MISSING for NaN."""
    if value != value:
        return np.uint8(MISSING)
    first, size = begin, end - begin
    while size > 0:
        half = size // 2
        if cuts[first + half] <= value:
            first += half + 1
            size -= half + 1
        else:
            size = half
    return np.uint8(first - begin)


@inline
def store_bins(bins, aside, scratch, outputs, first, count, skip, cuts, cut_offsets):
    """Write as `store` does, but the bins of the float32 values."""
    step = rows_at_once()
    for row in range(lane() * step, bins.shape[0], n_lanes() * step):
        stop = min(row + step, bins.shape[0])
        for k in range(count):
            column = outputs[first + k, 1]
            x = scratch[outputs[first + k, 0], skip + row : skip + stop]
            if column < 0:
                put_column(aside[row:stop], -1 - column, x)
            else:
                begin, end = cut_offsets[column], cut_offsets[column + 1]
                for t in range(x.shape[0]):
                    bins[row + t, column] = bin_of(narrow(x[t]), cuts, begin, end)


@kernel(types=("f4[:,:]", "i8[:]", "f4[:]", "i8[:]", "u1[:,:]"))
def put_bins(i, values, places, cuts, cut_offsets, bins):
    """Write the bins of row i of float columns.

    Inputs:  values float32 (n_rows, n); places int64 (n,), their columns of `bins`; others as in run_program.
    Outputs: bins uint8 (n_rows, n_columns), MISSING where the value is NaN.
    """
    for k in range(places.shape[0]):
        column = places[k]
        bins[i, column] = bin_of(values[i, k], cuts, cut_offsets[column], cut_offsets[column + 1])


@cooperative(
    types=(
        "f8[:,:,:]", *("f4[:]",) * 5, "i8[:]", "i8[:]", "i8[:]", "i8[:,:]", "f8[:]", "i8[:,:]", "i8", "i8", "f8[:,:,:]",
        "f4[:,:]", "f4[:,:]", "u1[:,:]", "f4[:]", "i8[:]",
    ),
    double_precision=True,
)  # fmt: skip
def run_program(
    i, scratch, open, high, low, close, volume, time_ns, offsets, starts, program, values, outputs, halo, block,
    states, out, aside, bins, cuts, cut_offsets,
):  # fmt: skip
    """Run a program over the rows starts[i] to offsets[i + 1] - 1 of symbol i, in blocks of rows.

    Reads:   for each block, `halo` rows before it and the block itself, never later rows; states[i] is carried from
             block to block, and is an input if starts[i] is not the symbol's first row.
    Inputs:  scratch float64 (n_workers, n_registers, >= block + halo); open, high, low, close, volume float32
             (n_rows,); time_ns, offsets int64 as in Panel; starts int64 (n_symbols,); program int64 (n_operations, 8),
             values float64 (n_operations,), outputs int64 (n_columns, 2): register, and column of `out` or
             -1 - column of `aside`; halo, block int64, rows; states float64 (n_symbols, n_states, 4): value, number of
             known inputs, and two fields of scratch; cuts float32 (n_cuts,), rising, at most 254 a column; cut_offsets
             int64 (n_features + 1,), column k has cuts[cut_offsets[k]:cut_offsets[k + 1]].
    Outputs: rows from starts[i] on of out float32 (n_rows, n_features) or, if `bins` has columns, of bins uint8
             (n_rows, n_features): the number of the column's cuts that are at most the value, MISSING for NaN; and of
             aside float32 (n_rows, n_others). states: those from which the next row can be computed.
    NaN:     unknown values are NaN, and operations propagate NaN except WHERE and FILL.
    Source:  vectorised execution, a block of values at a time, as in MonetDB/X100 (Boncz, Zukowski and Nes, 2005).
    """
    begin, end = offsets[i], offsets[i + 1]
    now = starts[i]
    fresh = now == begin
    while now < end:
        stop = min(now + block, end)
        first = max(begin, now - halo)
        rows = stop - first
        for k in range(program.shape[0]):
            code, n = program[k, CODE], program[k, N]
            target = scratch[program[k, OUT], 0:rows]
            a, b = scratch[program[k, A], 0:rows], scratch[program[k, B], 0:rows]
            if code <= VOLUME:
                if code == OPEN:
                    load(target, open[first:stop], False)
                elif code == HIGH:
                    load(target, high[first:stop], False)
                elif code == LOW:
                    load(target, low[first:stop], False)
                elif code == CLOSE:
                    load(target, close[first:stop], False)
                else:
                    load(target, volume[first:stop], True)
            elif code <= TIME_OF_DAY:
                load_time(target, time_ns[first:stop], code)
            elif code == CONSTANT:
                fill(target, values[k])
            elif code <= FILL:
                lag = min(n, rows)
                fill(target[0:lag], NAN)
                of_one(code, target[lag:rows], a[0 : rows - lag], values[k])
            elif code <= EQUAL:
                lag = min(n, rows)
                fill(target[0:lag], NAN)
                of_two(code, target[lag:rows], a[lag:rows], b[0 : rows - lag])
            elif code == WHERE:
                choose(target, scratch[program[k, C], 0:rows], a, b)
            elif code == QUANTILE:
                quantile(target, a, n, values[k], scratch[program[k, C]])
            elif code <= RANK:
                fill(target[0 : min(n - 1, rows)], NAN)
                of_window(code, target, a, b, n)
            elif code <= DECAYING:
                together = program[k, B]  # 0 for all members of a group but the first
                side_by_side = recursions_at_once()
                for m in range(side_by_side * lane(), together, side_by_side * n_lanes()):
                    count = min(side_by_side, together - m)
                    recur_block(scratch, program, values, k + m, count, first, now, stop, fresh, states, i)
            elif bins.shape[1] > 0:
                store_bins(
                    bins[now:stop], aside[now:stop], scratch, outputs, n, program[k, C], now - first, cuts, cut_offsets
                )  # fmt: skip
            else:
                store(out[now:stop], aside[now:stop], scratch, outputs, n, program[k, C], now - first)
            barrier()
        fresh = False
        now = stop
