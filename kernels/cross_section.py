"""Cross-sections: a row compared with the rows of its sector and time, and the sector compared with its past."""

from __future__ import annotations

import math

import numpy as np

from .compile import inline, kernel

LARGEST = np.float32(3.4e38)


@inline
def put(out, row, column, value):
    """Write an output if it has a column; a value beyond float32 stays NaN instead of becoming infinite."""
    if column >= 0 and abs(value) < LARGEST:
        out[row, column] = np.float32(value)


@kernel(types=("f4[:,:]", "i8[:]", "i8[:]", "f4[:,:]"), double_precision=True)
def group_means(i, values, order, groups, means):
    """Mean of the known values of each group and source; i is group * n_sources + source.

    Inputs:  values float32 (n_rows, n_sources); order int64 (n_rows,), row numbers by sector, time, row;
             groups int64 (n_groups + 1,), group g is the rows order[groups[g]:groups[g + 1]].
    Outputs: means float32 (n_groups, n_sources), every item written, NaN where no value is known.
    """
    n_sources = values.shape[1]
    group, source = i // n_sources, i % n_sources
    total = np.float64(0)
    n_known = 0
    for member in range(groups[group], groups[group + 1]):
        value = values[order[member], source]
        if value == value:
            total += np.float64(value)
            n_known += 1
    means[group, source] = np.float32(total / n_known if n_known > 0 else np.float64(math.nan))


@kernel(types=("f4[:,:]", "i8[:]", "i8[:]", "i8[:]", "f4[:,:]", "i8[:,:]", "i8[:,:]", "f4[:,:]"), double_precision=True)
def cross_section(i, values, order, groups, first_group, means, periods, columns, out):
    """Outputs of a value within its sector at its time; i is group * n_sets + set.

    0: rank, (lower values + half the other equal values) / (known values - 1), 0 to 1; 0.5 for a single value
    1: value - mean        2: mean        3: population std
    4: mean / mean of the sector's last n means, this time included; all n must be known
    5: (value - mean) / population std, 0 if the std is 0

    Reads:   rows of the same time, and group means of earlier times. Quadratic in the size of a group.
    Inputs:  values, order, groups, means as in group_means; first_group int64 (n_groups,), the first group of the
             same sector (groups are in order of time); periods int64 (n_sets, 2): source, n;
             columns int64 (n_sets, 8): the column of `out` for each output, -1 for none.
    Outputs: out float32 (n_rows, n_features), NaN on entry in these columns; only known values are written.
    NaN:     all outputs of a row whose value is NaN; output 4 also where the sector has fewer than n times. 0 / 0 is 1
             in output 4.
    Source:  rank and excess as in cross-sectional factor models (Grinold and Kahn, 1999).
    """
    n_sets = periods.shape[0]
    group, s = i // n_sets, i % n_sets
    source, n = periods[s, 0], periods[s, 1]
    begin, end = groups[group], groups[group + 1]
    mean = np.float64(means[group, source])
    if mean != mean:
        return
    square = np.float64(0)
    n_known = 0
    for member in range(begin, end):
        value = values[order[member], source]
        if value == value:
            square += (np.float64(value) - mean) ** 2
            n_known += 1
    past = np.float64(0)
    if columns[s, 4] >= 0 and group - n + 1 >= first_group[group]:
        for g in range(group - n + 1, group + 1):
            past += np.float64(means[g, source]) / n
    else:
        past = np.float64(math.nan)
    for member in range(begin, end):
        row = order[member]
        value = values[row, source]
        if value != value:
            continue
        if columns[s, 0] >= 0:
            lower = 0
            equal = 0
            for other in range(begin, end):
                lower += values[order[other], source] < value
                equal += values[order[other], source] == value
            rank = (lower + 0.5 * (equal - 1)) / (n_known - 1) if n_known > 1 else np.float64(0.5)
            put(out, row, columns[s, 0], rank)
        put(out, row, columns[s, 1], np.float64(value) - mean)
        put(out, row, columns[s, 2], mean)
        deviation = math.sqrt(square / n_known)
        put(out, row, columns[s, 3], deviation)
        excess = np.float64(value) - mean
        put(out, row, columns[s, 5], excess / deviation if deviation > 0 else np.float64(0))
        if past == past:
            put(out, row, columns[s, 4], mean / past if past > 0 else np.float64(1))
