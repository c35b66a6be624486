"""Episodes: which rows an environment trades in, drawn once for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.runtime.errors import UserError

DRAWN = 128  # starts that are drawn for an environment; its episodes take them in turn, again and again
RowRange = tuple[Any, Any]


def checked_rows(n_rows: int, rows: RowRange, length: int | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 (n,) each: the first and the last row of each environment; UserError for rows that cannot be.

    rows: two numbers, or two arrays (n,).  length: the steps of an episode; None for the whole range.

        >>> [edge.tolist() for edge in checked_rows(100, (10, 99), 50, n=2)]
        [[10, 10], [99, 99]]
    """
    edges = [np.asarray(edge) for edge in rows]
    for edge in edges:
        if edge.dtype.kind not in "iu" or edge.shape not in ((), (n,)):
            raise UserError(f"rows {edge.dtype} {edge.shape}: expected two numbers of rows, or two for each of {n}")
    first, last = (np.full(n, edge, np.int64) for edge in edges)
    wrong = (first < 0) | (last >= n_rows) | (first >= last)
    if wrong.any():
        k = int(np.argmax(wrong))
        raise UserError(
            f"rows {first[k]} to {last[k]}: expected a first before a last row, among the {n_rows} rows of the market"
        )
    if length is not None and not 1 <= length <= int((last - first).min()):
        raise UserError(
            f"an episode of {length} steps needs {length + 1} rows, and there are {int((last - first).min()) + 1}"
        )
    return first, last


def episode_table(
    first: np.ndarray, last: np.ndarray, length: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """int64 (n, n_episodes) each: the first and the last row of each environment's episodes.

    Episode e of environment i is column e modulo n_episodes of row i. Without a length there is one, the whole range;
    else there are DRAWN, whose starts are uniform. Row i does not depend on n.

        >>> starts, stops = episode_table(np.array([10]), np.array([99]), 20, seed=0)
        >>> starts.shape, bool((stops - starts == 20).all()), bool((starts >= 10).all() and (stops <= 99).all())
        ((1, 128), True, True)
    """
    if length is None:
        return first[:, None].copy(), last[:, None].copy()
    free = (last - length - first + 1)[:, None]  # starts that are possible
    # A uniform number in [0, 1) for each episode, so that no environment's draws depend on another one's range.
    drawn = np.random.default_rng(seed).random((len(first), DRAWN))
    starts = first[:, None] + (drawn * free).astype(np.int64)
    return starts, starts + length
