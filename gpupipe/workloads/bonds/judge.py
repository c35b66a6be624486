"""Judge quotes and curve days: every row is kept, or is rejected with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.report import Finding
from gpupipe.data.time_limits import latest_ns
from gpupipe.workloads.bonds import rate_units
from gpupipe.workloads.bonds.judge_instruments import COUPONS, JudgedInstruments
from gpupipe.workloads.bonds.ratings import NOT_RATED, RANKS, TREASURY, rating_of
from gpupipe.workloads.bonds.schema import FLOATING, NO_DAY, Curve, Instruments, Quotes
from gpupipe.workloads.bonds.source_tables import SourceTables
from gpupipe.workloads.bonds.verdict import Verdict, conflicts_and_repeats, mask_of

PRICES = (1.0, 300.0)  # percent of par
RATES = (-5.0, 100.0)  # percent a year: yields, and rates of curves
CLOSE_COUPONS = 1e-6  # percent: quoted coupons of fixed bonds that differ by less are equal
LONGEST_GAP = 4  # days from a curve day to the next: a weekend with a holiday
_UNRATED = -1


@dataclass(frozen=True)
class JudgedQuotes:
    """The quotes that are kept, sorted by bond and day, and the verdict on all rows.

    notes: sentences on units and on columns that were not used.
    """

    quotes: Quotes
    verdict: Verdict
    notes: tuple[str, ...]


@dataclass(frozen=True)
class JudgedCurve:
    """The curve days that are kept, sorted, and the verdict on all rows."""

    curve: Curve
    verdict: Verdict
    notes: tuple[str, ...]


def day_text(day: int) -> str:
    """A day in days since 1970-01-01 as 2024-01-31; "?" for NO_DAY.

    >>> day_text(0), day_text(NO_DAY)
    ('1970-01-01', '?')
    """
    return "?" if day == NO_DAY else str(np.datetime64(int(day), "D"))


def judge_quotes(source: SourceTables, bonds: JudgedInstruments, rates: str = rate_units.AUTO) -> JudgedQuotes:
    """Judge every quote.

    rates: the unit of yields, and of quoted coupons, each by its own values; see `rate_units.unit_of_rates`.

    Rejected: a bond that is not known, not among the instruments, or rejected itself; a date that is not known, in the
    future, before the bond's issue, or not before its maturity; neither a price nor a yield; a price outside 1..300; a
    yield outside -5..100 %; a coupon of a floating bond outside 0..40 %; a day of trading after the date; all quotes of
    a bond and day that differ. Equal ones are merged.

    A quoted coupon is that of a floating bond on the day. That of any other bond is not used, and told where it differs
    from the instrument's.

    A rating counts from its quote on until the next one that has a rating; before the first it is the instrument's, and
    a note says of how many quotes, because nobody knows since when that one holds.
    """
    instruments = bonds.instruments
    code, names = source.names("id")
    position = {name: k for k, name in enumerate(instruments.id)}
    in_instruments = np.array([*(position.get(name, -1) for name in names), -1], np.int64)[code]
    was_rejected = np.array([*(name in bonds.rejected for name in names), False])[code]
    day = source.days("date")
    clean, notes_on_prices = rate_units.prices_in_percent(source.numbers("clean"))
    yields = source.numbers("yield")
    unit = rate_units.unit_of_rates(yields, "quotes: column yield", rates, stepped=True)
    notes = (*source.notes, *notes_on_prices, *rate_units.note_on(unit, "yields"))
    yields = rate_units.in_percent(yields, unit)
    verdict = Verdict("quotes", code.astype(np.int64), _quote_name(code, names, day))
    verdict.reject("bond is not known", code < 0)
    verdict.reject("its bond was quarantined", was_rejected)
    verdict.reject("bond is not among the instruments", in_instruments < 0)
    _reject_days(verdict, day)
    bond = np.maximum(in_instruments, 0)
    if instruments.id:
        verdict.reject("date is before the bond's issue", day < instruments.issue[bond])
        verdict.reject("date is not before the bond's maturity", day >= instruments.maturity[bond])
    verdict.reject("neither a price nor a yield is known", np.isnan(clean) & np.isnan(yields))
    verdict.reject(f"price is outside {PRICES[0]:g}..{PRICES[1]:g}", _outside(clean, PRICES))
    verdict.reject(f"yield is outside {RATES[0]:g}..{RATES[1]:g} %", _outside(yields, RATES))
    coupon, notes_on_coupons = _coupons(source, verdict, instruments, in_instruments, rates)
    traded = source.days("traded")
    traded = np.where(traded == NO_DAY, day, traded)
    verdict.reject("traded after its date", traded > day)
    rank = _ranks(source, verdict)
    kept = np.flatnonzero(verdict.kept)
    keys = _keys(in_instruments[kept], day[kept])
    values = np.stack([clean, yields, coupon, rank, traded], axis=1)
    conflicts, repeats = conflicts_and_repeats(keys, values[kept], kept)
    verdict.reject("conflicts with another quote of its day", mask_of(conflicts, source.n_rows))
    repeated = mask_of(repeats, source.n_rows)
    verdict.tell("repeats another quote", "merged", repeated)
    kept = np.flatnonzero(verdict.kept & ~repeated)
    rows = kept[np.lexsort((day[kept], in_instruments[kept]))]
    bond = in_instruments[rows]
    _tell_of_bonds(verdict, instruments.id, bond)
    ranks, notes_on_ratings = _ranks_by_date(rank[rows], bond, instruments)
    quotes = Quotes(bond, day[rows], clean[rows], yields[rows], traded[rows], ranks, coupon[rows])
    return JudgedQuotes(quotes, verdict, (*notes, *notes_on_coupons, *notes_on_ratings))


def _quote_name(code: np.ndarray, names: tuple[str, ...], day: np.ndarray) -> Callable[[int], str]:
    def name(row: int) -> str:
        return f"{names[code[row]] if code[row] >= 0 else '?'} {day_text(day[row])}"

    return name


def _reject_days(verdict: Verdict, day: np.ndarray) -> None:
    verdict.reject("date is not known", day == NO_DAY)
    verdict.reject("date is in the future", day > latest_ns() // NS_PER_DAY)


def _outside(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """bool (n,): known values outside of limits."""
    outside: np.ndarray = (values < limits[0]) | (values > limits[1])
    return outside


def _keys(bond: np.ndarray, day: np.ndarray) -> np.ndarray:
    """int64 (n,): one number for each bond and day; days of 1678..2261 stay below 2**18."""
    return (bond << 18) + (day + 2**17)


def _ranks(source: SourceTables, verdict: Verdict) -> np.ndarray:
    """int64 (n_rows,): the rank of each quote's own rating; _UNRATED where it has none or it is not understood."""
    code, texts = source.names("rating")
    ratings = [rating_of(text) for text in texts]
    unknown = np.array([*(rating is None for rating in ratings), False])[code]
    verdict.tell("rating is not known: the one before", "flagged", unknown)
    return np.array([*(_UNRATED if rating is None else RANKS[rating] for rating in ratings), _UNRATED])[code]


def _coupons(
    source: SourceTables, verdict: Verdict, instruments: Instruments, bond: np.ndarray, rates: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Quoted coupons of floating bonds in percent, NaN of others, and notes; rejects those outside of COUPONS.

    bond: int64 (n_rows,), position among the instruments, -1 for none.
    """
    coupon = source.numbers("coupon")
    unit = rate_units.unit_of_rates(coupon, "quotes: column coupon", rates)
    coupon = rate_units.in_percent(coupon, unit)
    is_floating = np.array([*(name == FLOATING for name in instruments.type), False])[bond]
    verdict.reject(f"coupon is outside {COUPONS[0]:g}..{COUPONS[1]:g} %", is_floating & _outside(coupon, COUPONS))
    own = np.append(instruments.coupon, np.nan)[bond]
    differs = ~is_floating & (np.abs(coupon - own) > CLOSE_COUPONS)
    verdict.tell("coupon differs from that of the bonds, which counts", "flagged", differs)
    return np.where(is_floating, coupon, np.nan), rate_units.note_on(unit, "quoted coupons")


def _ranks_by_date(rank: np.ndarray, bond: np.ndarray, instruments: Instruments) -> tuple[np.ndarray, tuple[str, ...]]:
    """The rank of each row, see `_carried`, and a note on rows whose rating is that of the bonds."""
    of_instrument = np.array([RANKS[rating] for rating in instruments.rating], np.int64)
    ranks = _carried(rank, bond, of_instrument)
    quoted = _carried(rank, bond, np.full_like(of_instrument, _UNRATED)) != _UNRATED
    n = int((~quoted & (ranks != RANKS[NOT_RATED]) & (ranks != RANKS[TREASURY])).sum())
    if not n:
        return ranks, ()
    number = "" if n == len(ranks) else f"{n:,} of {len(ranks):,} "
    text = "that of the bonds stands for all their dates, though it may have been given later"
    return ranks, (f"{number}quotes have no rating: {text}",)


def _carried(rank: np.ndarray, bond: np.ndarray, of_instrument: np.ndarray) -> np.ndarray:
    """int64 (n,): the last rank on or before each row of its bond, else the instrument's; rows are sorted."""
    if not len(rank):
        return rank
    rows = np.arange(len(rank))
    first = np.maximum.accumulate(np.where(np.append(True, bond[1:] != bond[:-1]), rows, 0))
    last = np.maximum.accumulate(np.where(rank != _UNRATED, rows, -1))
    return np.where(last >= first, rank[np.maximum(last, 0)], of_instrument[bond])


def _tell_of_bonds(verdict: Verdict, ids: tuple[str, ...], bond: np.ndarray) -> None:
    """Tell of bonds without a quote."""
    without = np.setdiff1d(np.arange(len(ids)), bond)
    if len(without):
        verdict.add(Finding("bonds: bond without a quote", "left out", 0, len(without), ids[without[0]]))


def judge_curve(source: SourceTables, rates: str = rate_units.AUTO) -> JudgedCurve:
    """Judge every day of a curve.

    Rejected: a date that is not known or in the future; a rate outside -5..100 %; all rows of a day that differ. Equal
    ones are merged, and days without any rate are left out. Told are weekdays that are missing where a day and the next
    are more than 4 days apart: rows then have the curve of an earlier day, as `curve_age` says.
    """
    day = source.days("date")
    values = np.stack([source.numbers(tenor) for tenor in source.tenors], axis=1)
    unit = rate_units.unit_of_rates(values, "curve", rates, stepped=True)
    values = rate_units.in_percent(values, unit)
    verdict = Verdict("curve", None, lambda row: day_text(day[row]), source.n_rows)
    _reject_days(verdict, day)
    any_outside = np.any(_outside(values, RATES), axis=1)
    verdict.reject(f"a rate is outside {RATES[0]:g}..{RATES[1]:g} %", any_outside)
    blank = np.isnan(values).all(axis=1)
    verdict.tell("no rate of the day is known", "left out", blank)
    kept = np.flatnonzero(verdict.kept & ~blank)
    conflicts, repeats = conflicts_and_repeats(day[kept], values[kept], kept)
    verdict.reject("conflicts with another row of its day", mask_of(conflicts, source.n_rows))
    repeated = mask_of(repeats, source.n_rows)
    verdict.tell("repeats another row", "merged", repeated)
    kept = np.flatnonzero(verdict.kept & ~blank & ~repeated)
    rows = kept[np.argsort(day[kept], kind="stable")]
    _tell_of_gaps(verdict, day[rows])
    known = ~np.isnan(values[rows]).all(axis=0)
    notes = [*source.notes, *rate_units.note_on(unit, "rates of the curve")]
    if unknown := [tenor for tenor, is_known in zip(source.tenors, known, strict=True) if not is_known]:
        notes.append(f"the curve has no rate at {', '.join(unknown)}")
    tenors = tuple(tenor for tenor, is_known in zip(source.tenors, known, strict=True) if is_known)
    return JudgedCurve(Curve(day[rows], tenors, values[rows][:, known]), verdict, tuple(notes))


def _tell_of_gaps(verdict: Verdict, day: np.ndarray) -> None:
    """Tell of weekdays that are missing between days that are more than LONGEST_GAP days apart."""
    gaps = np.flatnonzero(np.diff(day) > LONGEST_GAP)
    if not len(gaps):
        return
    dates = day.astype("datetime64[D]")
    missing = int(np.busday_count(dates[gaps] + 1, dates[gaps + 1]).sum())
    example = f"{dates[gaps[0]]} to {dates[gaps[0] + 1]}"
    verdict.add(Finding("curve: days are missing", "flagged", missing, 0, example))
