"""Spearman's rank correlation of a score with a return on each date, its mean, and intervals by blocks of dates."""

from __future__ import annotations

import numpy as np

from gpupipe.evaluation import block_bootstrap

FEWEST = 20  # rows of a date


def rank_ic_by_date(
    score: np.ndarray, forward_return: np.ndarray, time_ns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(times int64 (n_times,), rank IC float64 (n_times,)): NaN on dates of fewer than 20 rows or of equal returns.

    score, forward_return: float (n_rows,). Rows with a NaN return are left out; a NaN score counts as the date's
    median, so that every score is judged on the same rows. Equal values share their mean rank. 0 where all scores of
    a date are equal or missing: they claim nothing.

        >>> rows = np.arange(40)
        >>> rank_ic_by_date(rows, -rows.astype(float), np.repeat([1, 2], 20))[1].round(6).tolist()
        [-1.0, -1.0]
    """
    from scipy.stats import rankdata

    known = ~np.isnan(forward_return)
    score, forward_return, time_ns = score[known], forward_return[known], time_ns[known]
    order = np.argsort(time_ns, kind="stable")
    times, first = np.unique(time_ns[order], return_index=True)
    ic = np.full(len(times), np.nan)
    for k, rows in enumerate(np.split(order, first[1:])):
        own = score[rows]
        missing = np.isnan(own)
        b = rankdata(forward_return[rows])
        if len(rows) < FEWEST or b.std() == 0:
            continue
        a = rankdata(np.where(missing, 0.0 if missing.all() else np.median(own[~missing]), own))
        ic[k] = np.corrcoef(a, b)[0, 1] if a.std() > 0 else 0.0
    return times, ic


def interval(times: np.ndarray, values: np.ndarray, horizon: int, seed: int = 42) -> tuple[float, float, float]:
    """(mean, low, high) of values by date, NaN left out: the 95 % interval of `evaluation.block_bootstrap`.

    Equal times and seeds give equal draws, so the interval of a difference is paired.
    """
    known = ~np.isnan(values)
    times, values = times[known], values[known]
    draws = block_bootstrap.draw(times, horizon, seed)
    mean = float(values.mean()) if len(values) else float("nan")
    sums = draws.sums(np.stack([np.ones(len(values)), values], axis=1))
    return mean, *block_bootstrap.interval(mean, sums[:, 1] / sums[:, 0], draws.n_blocks)
