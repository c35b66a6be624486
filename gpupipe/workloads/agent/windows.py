"""Windows of the walk-forward: on which bars an iteration trains, chooses a policy, and tests it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from gpupipe.runtime.errors import UserError

LEAST_TEST_SHARE = 0.25  # of a step: fewer bars at the end of the data wait for the next run


@dataclass(frozen=True)
class Rows:
    """The rows begin, ..., end - 1.

    >>> Rows(10, 14).n
    4
    """

    begin: int
    end: int

    @property
    def n(self) -> int:
        """The number of rows."""
        return self.end - self.begin

    def parts(self, n_parts: int) -> tuple[Rows, ...]:
        """Successive parts of nearly equal length, each of one row at least.

        >>> Rows(0, 10).parts(3)
        (Rows(begin=0, end=3), Rows(begin=3, end=6), Rows(begin=6, end=10))
        """
        n_parts = max(1, min(n_parts, self.n))
        cuts = [self.begin + self.n * k // n_parts for k in range(n_parts + 1)]
        return tuple(Rows(begin, end) for begin, end in itertools.pairwise(cuts))


@dataclass(frozen=True)
class Iteration:
    """One iteration of the walk-forward.

    train: rows on which policies are trained.  validation: rows on which one of them is chosen.
    test: rows on which it is tested. No choice of this iteration, or of an earlier one, has seen them.

    A decision at the last row of a part would be filled in the next one, so parts share no fill: see `market`.
    """

    number: int
    train: Rows
    validation: Rows
    test: Rows

    @property
    def name(self) -> str:
        """The name of its task and of its folder: iteration_003."""
        return f"iteration_{self.number:03d}"


def iterations(
    first: int, n_rows: int, initial_window: int, step: int, validation_share: float
) -> tuple[Iteration, ...]:
    """The iterations of a walk-forward over the rows first, ..., n_rows - 1; each is `step` rows later than the last.

    initial_window: rows of train and validation together.  step: rows of test.
    validation_share: of the initial window.
    The last test part may be shorter, down to LEAST_TEST_SHARE of a step. Raises UserError where there is not even one.

        >>> for it in iterations(0, 20, initial_window=10, step=4, validation_share=0.2):
        ...     print(it.name, it.train, it.validation, it.test)
        iteration_000 Rows(begin=0, end=8) Rows(begin=8, end=10) Rows(begin=10, end=14)
        iteration_001 Rows(begin=4, end=12) Rows(begin=12, end=14) Rows(begin=14, end=18)
        iteration_002 Rows(begin=8, end=16) Rows(begin=16, end=18) Rows(begin=18, end=20)
    """
    least = max(2, int(LEAST_TEST_SHARE * step))
    usable = n_rows - first
    if usable < initial_window + least:
        raise UserError(
            f"{usable:,} usable bars ({first:,} of {n_rows:,} precede the first whose features are all known) are "
            f"fewer than a window of {initial_window:,} and {least:,} bars to test it on; give more bars, or a shorter "
            f"--initial-window"
        )
    n_validation = round(validation_share * initial_window)
    found: list[Iteration] = []
    begin = first
    while begin + initial_window + least <= n_rows:
        end = begin + initial_window
        cut = end - n_validation
        rows = Rows(begin, cut), Rows(cut, end), Rows(end, min(end + step, n_rows))
        found.append(Iteration(len(found), *rows))
        begin += step
    return tuple(found)
