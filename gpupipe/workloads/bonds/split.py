"""Which rows train, validate and test: no issuer and no date is on both sides, and dates between are purged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.data.report import counted
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds.settings import BondSettings

PARTS = ("train", "validation", "test")
FEWEST_ON_DATE = 3  # rows of a part: how a bond moves against the others, fewer do not tell


class TooFewRowsError(UserError):
    """Models cannot be fitted and judged on the rows; the message says what is missing. sizes: rows of each part.

    >>> TooFewRowsError("no row of test", {"test": 0}).sizes
    {'test': 0}
    """

    def __init__(self, message: str, sizes: dict[str, int]) -> None:
        super().__init__(message)
        self.sizes = sizes


@dataclass(frozen=True)
class BondSplit:
    """Row numbers, rising, of each part, and where in time the parts begin.

    train, validation, test: int64.  A row of training has an issuer of training, and its own date and that of its
    target lie before the first date of validation; likewise for the others, so that a period is left out between.
    first: the position of the first date of validation, and of test.

        >>> BondSplit(np.array([0]), np.array([5]), np.array([9]), (3, 5)).sizes
        {'train': 1, 'validation': 1, 'test': 1}
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    first: tuple[int, int]

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each part."""
        return {name: len(getattr(self, name)) for name in PARTS}

    @classmethod
    def nothing(cls, n_dates: int) -> BondSplit:
        """A split without rows, of a run without models, which needs no date to be sealed."""
        none = np.zeros(0, np.int64)
        return cls(none, none, none, (n_dates, n_dates))


@dataclass(frozen=True)
class Fold:
    """A block of training dates: rows to fit on, outside of it, and rows inside it to predict.

    >>> Fold(np.array([0, 1]), np.array([7])).fit.tolist()
    [0, 1]
    """

    fit: np.ndarray
    predict: np.ndarray


def issuer_share(names: Sequence[str], seed: int) -> np.ndarray:
    """float64 (n_issuers,) in [0, 1): a number that depends on the issuer's name and the seed alone.

    Issuers that are added later do not move the others to another side.

    >>> issuer_share(["A", "B"], 42).round(3).tolist()
    [0.212, 0.056]
    """
    digests = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in names]
    return np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])


def split_rows(
    date: np.ndarray, n_dates: int, next_row: np.ndarray, share: np.ndarray, settings: BondSettings
) -> BondSplit:
    """The parts of the rows whose target is known, on dates of which a part has `FEWEST_ON_DATE` rows.

    date: int64 (n_rows,), positions of dates.  next_row: int64 (n_rows,), the row of the target, -1 without one.
    share: float64 (n_rows,), of each row's issuer, see `issuer_share`.
    Raises TooFewRowsError where a part has no row, training fewer than settings.least_rows, or all of one issuer.
    """
    first = round(settings.train * n_dates), round((settings.train + settings.validation) * n_dates)
    target_date = np.where(next_row >= 0, date[next_row], -1)
    begins, ends = (0, *first), (*first, n_dates)
    low = 0.0
    rows = {}
    for k, part in enumerate(PARTS):
        high = (settings.issuers_train, settings.issuers_train + settings.issuers_validation, 1.0)[k]
        inside = (date >= begins[k]) & (target_date < ends[k]) & (target_date >= 0)
        rows[part] = with_others(np.flatnonzero(inside & (share >= low) & (share < high)), date)
        low = high
    found = BondSplit(**rows, first=first)
    if len(found.train) < settings.least_rows or not len(found.validation) or not len(found.test):
        sizes = ", ".join(
            f"{counted(n, 'row')} of {part}"
            for part, n in zip(("training", *PARTS[1:]), found.sizes.values(), strict=True)
        )
        raise TooFewRowsError(
            f"the quotes give {sizes} with a next quote within {settings.most_gap_days:g} days, "
            f"of dates with {FEWEST_ON_DATE} of them, and "
            f"bonds.least_rows = {settings.least_rows} of training and some of the others are needed, no issuer and no "
            "date on two sides; more quotes of each bond would help, or other shares bonds.train, bonds.validation, "
            "bonds.issuers_train, bonds.issuers_validation, or a longer bonds.most_gap_days",
            found.sizes,
        )
    if len(np.unique(share[found.train])) < 2:
        raise TooFewRowsError(
            "all quotes of training are of one issuer, but models are compared on issuers that they were not fitted "
            "on; bonds of more issuers would help, or another --seed",
            found.sizes,
        )
    return found


def folds_in_time(
    rows: np.ndarray, date: np.ndarray, next_row: np.ndarray, share: np.ndarray, n_folds: int
) -> Iterator[Fold]:
    """Blocks of dates; each is predicted, for one half of the issuers, from the other half on all other dates.

    Columns of the date, such as the curve, name the date: rows of the same date in the fit would tell its outcome, even
    of other issuers. A row whose date or target's date lies in a block is not fitted for it.
    rows: int64, of training.  Others as in `split_rows`.  The halves take turns.
    """
    dates, first_half = np.unique(date[rows]), _first_half(share[rows])
    here, after = date[rows], date[next_row[rows]]
    for k, block in enumerate(np.array_split(dates, n_folds)):
        if not len(block):
            continue
        inside = (here >= block[0]) & (here <= block[-1])
        last_target = int(after[inside].max())  # targets of a market that is not quoted on every date overlap
        outside = (after < block[0]) | (here > max(date_after(dates, block[-1]), last_target))
        fitted = first_half if k % 2 == 0 else ~first_half
        yield Fold(with_others(rows[outside & fitted], date), with_others(rows[inside & ~fitted], date))


def forward_folds(
    rows: np.ndarray, date: np.ndarray, next_row: np.ndarray, share: np.ndarray, n_folds: int
) -> list[Fold]:
    """Blocks of the later training dates, each predicted from the dates before it; issuers as in `folds_in_time`.

    The first n_folds-th of the dates is fitted on alone.
    """
    dates, first_half = np.unique(date[rows]), _first_half(share[rows])
    here, after = date[rows], date[next_row[rows]]
    folds = []
    for k, block in enumerate(np.array_split(dates, n_folds + 1)[1:]):
        if not len(block):
            continue
        inside = (here >= block[0]) & (here <= block[-1])
        fitted = first_half if k % 2 == 0 else ~first_half
        known, predicted = rows[(after < block[0]) & fitted], rows[inside & ~fitted]
        folds.append(Fold(with_others(known, date), with_others(predicted, date)))
    return folds


def with_others(rows: np.ndarray, date: np.ndarray) -> np.ndarray:
    """int64: those of the rows, int64, on whose date there are `FEWEST_ON_DATE` of them.

    >>> with_others(np.array([0, 1, 2, 3]), np.array([5, 5, 5, 6])).tolist()
    [0, 1, 2]
    """
    own = date[rows]
    return rows[np.bincount(own)[own] >= FEWEST_ON_DATE] if len(rows) else rows


def _first_half(share: np.ndarray) -> np.ndarray:
    """bool (n_rows,): rows of the issuers whose numbers are below the median of the issuers'.

    The median of the rows would be the number of an issuer that has most of them, and leave no issuer below.
    """
    return share < np.median(np.unique(share))


def date_after(dates: np.ndarray, last: int) -> int:
    """The date after the last one of a block, or that one: its rows look back at the block's."""
    at = int(np.searchsorted(dates, last)) + 1
    return int(dates[min(at, len(dates) - 1)]) if at < len(dates) else int(last)
