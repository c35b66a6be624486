"""Read numbers as times: counts since 1970 in any unit, day numbers, and dates packed into digits.

A number does not say what it is. So every reading is tried on the whole column, and a reading is taken only if it puts
the rows into years in which there can be bars, and no other reading does so as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gpupipe.data.errors import DataError
from gpupipe.data.net_ticks import ticks_as_nanoseconds
from gpupipe.data.number_evidence import ENOUGH_DAYS, Reading, has_early_weekends, is_likelier, share
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.time_limits import FIRST_DAILY_NS, FIRST_INTRADAY_NS, UNKNOWN_TIME, latest_ns

UNITS = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
WRITE = "write them as 2024-01-31, as 20240131, or as seconds since 1970"

_LAYOUTS = (  # of packed digits; the first four are taken if most rows fit, the others only if all do
    "yyyymmdd",
    "yyyymmddHHMM",
    "yyyymmddHHMMSS",
    "yyyymmddHHMMSSfff",
    "yyyymmddHH",
    "yyyyddd",
    "yymmdd",
    "yyddd",
    "yymmddHHMM",
    "yymmddHHMMSS",
    *(order + clock for order in ("ddmmyyyy", "mmddyyyy") for clock in ("", "HHMM", "HHMMSS")),
    "ddmmyy",
    "mmddyy",
    "yyyymm",
    "yymm",
)
_N_FIRM_LAYOUTS = 4
_MOST, _NEARLY_ALL, _ALL = 0.5, 0.95, 1 - 1e-9  # shares of rows
_NO_DATES = (
    0,
    -1,
    2_958_465,
)  # numbers that stand for a missing date, as 9s do; the last is a spreadsheet's 9999-12-31
_SPREADSHEET_ZERO, _JULIAN_ZERO = -25_569, 2_440_588  # 1899-12-30, and 1970-01-01 in Julian days, which begin at noon
_SMALLEST_SPREADSHEET_NS = (20_000 + _SPREADSHEET_ZERO) * NS_PER_DAY  # 1954
_LAST_DAY_NUMBER = 80_000  # 2119 in a spreadsheet
_FIRST_JULIAN, _LAST_JULIAN = 2_415_020, 2_500_000
_N_SAMPLED = 64
_ENOUGH_MONTHS = 3  # for yyyymm
_MAX_STAMPS = 8  # times of day that daily bars have


@dataclass(frozen=True)
class NumberTimes:
    """Times of numbers.

    time_ns: int64 (n,), UNKNOWN_TIME where a number is missing or has no place in the reading of its column.
    other_unit: row numbers, int64, in another unit than most rows.  units: these units, then the one of most rows.
    """

    time_ns: np.ndarray
    other_unit: np.ndarray
    units: str = ""


def times_of_numbers(values: np.ndarray, where: str, latest: int | None = None) -> NumberTimes:
    """Read numbers as times.

    values: int64 (n,), UNKNOWN_TIME if missing; or float64 (n,), NaN if missing.
    latest: the latest time that a number can be, UTC ns since 1970; None: tomorrow, as of bars.

    Accepted, each if the whole column says so: seconds, milliseconds, microseconds or nanoseconds since 1970, judged
    row by row; ticks of .NET; digits packed as in _LAYOUTS; days since 1970, a spreadsheet's day numbers and Julian
    days, with a fraction too. Raises DataError if no reading fits, or several do and nothing tells them apart.

    >>> times_of_numbers(np.int64([44200, 44201]), "here").time_ns.astype("M8[ns]").astype("M8[D]")
    array(['2021-01-04', '2021-01-05'], dtype='datetime64[D]')
    >>> times_of_numbers(np.int64([1735603200000, 1735689600000000]), "here").units
    'microseconds beside milliseconds'
    """
    latest = latest_ns() if latest is None else latest
    none = np.zeros(0, np.int64)
    known = values != UNKNOWN_TIME if values.dtype == np.int64 else np.isfinite(values) & (np.abs(values) < 2.0**63)
    all_known = bool(known.all())
    present = values if all_known else values[known]
    if not len(present):
        return NumberTimes(np.full(len(values), UNKNOWN_TIME), none)
    lowest, highest = float(present.min()), float(present.max())
    nanoseconds = ticks_as_nanoseconds(present, lowest, highest, where, latest)
    if nanoseconds is not present:
        all_values = np.full(len(values), UNKNOWN_TIME if nanoseconds.dtype == np.int64 else np.nan, nanoseconds.dtype)
        all_values[known] = nanoseconds
        return times_of_numbers(all_values, where, latest)
    unit_ns = _common_unit(lowest, highest, latest)
    if unit_ns is not None and not _may_be_digits(present[:_N_SAMPLED], unit_ns):
        time_ns, other, units = _counted(*_split(present), unit_ns), none, ""
    else:
        time_ns, other, units = _general(present, where, latest)
    if _is_rounded(time_ns):
        raise DataError(
            f"{where}: numbers such as {_in_digits(present[0])} were rounded, as a spreadsheet shows 1.60972E+12: "
            "write all of their digits, or dates as 2024-01-31"
        )
    if all_known:
        return NumberTimes(time_ns, other, units)
    all_times = np.full(len(values), UNKNOWN_TIME)
    all_times[known] = time_ns
    return NumberTimes(all_times, np.flatnonzero(known)[other], units)


def days_since_1970(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(days since 1970-01-01 int64, bool: whether year, month and day make a date in 1678..2261)`; inputs int64."""
    valid = (year >= 1678) & (year <= 2261) & (month >= 1) & (month <= 12) & (day >= 1)
    months = (np.where(valid, year, 1970) - 1970) * 12 + np.where(valid, month, 1) - 1
    first = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    after = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days = first + day - 1
    valid &= days < after
    return np.where(valid, days, 0), valid


def full_year(year: np.ndarray) -> np.ndarray:
    """Years of two digits: 69..99 are 1969..1999, 0..68 are 2000..2068, as POSIX has it."""
    return year + np.where(year >= 69, 1900, 2000)


def multiplied(values: np.ndarray, factor: int) -> np.ndarray:
    """`values * factor` in int64; UNKNOWN_TIME where the value is unknown or the product overflows."""
    if factor == 1:
        return values
    limit = np.iinfo(np.int64).max // factor
    if values.size and values.min() >= -limit and values.max() <= limit:
        return np.multiply(values, factor, dtype=np.int64)
    fits = (values >= -limit) & (values <= limit)
    return np.where(fits, np.where(fits, values, 0) * np.int64(factor), UNKNOWN_TIME)


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """`(whole part int64, fraction float64)`; None without fractions. float64 cannot hold nanoseconds since 1970."""
    if values.dtype == np.int64:
        return values, None
    floor = np.floor(values)
    fraction = values - floor
    return floor.astype(np.int64), fraction if fraction.any() else None


def _counted(whole: np.ndarray, fraction: np.ndarray | None, unit_ns: int) -> np.ndarray:
    time_ns = multiplied(whole, unit_ns)
    if fraction is None:
        return time_ns
    return np.where(time_ns == UNKNOWN_TIME, UNKNOWN_TIME, time_ns + np.rint(fraction * unit_ns).astype(np.int64))


def _is_rounded(time_ns: np.ndarray) -> bool:
    """Whether counts since 1970 lost digits: all times are whole multiples of 100 s, and yet not of minutes.

    Times at regular steps, or at the same odd times of each day, have all their digits.
    """
    for some in (time_ns[:: len(time_ns) // _N_SAMPLED + 1], time_ns):
        times = some[some != UNKNOWN_TIME]
        odd = times % (60 * 10**9) != 0
        if not odd.any() or (times % (100 * 10**9)).any():
            return False
    steps = np.diff(np.unique(times))
    return len(np.unique(times[odd] % NS_PER_DAY)) > 2 and float((steps == np.median(steps)).mean()) < 0.9


def _common_unit(lowest: float, highest: float, latest: int) -> int | None:
    """The unit in which all numbers lie between 1990 and the latest time, if there is one."""
    return next((u for u in UNITS.values() if FIRST_INTRADAY_NS / u <= lowest and highest <= latest / u), None)


def _may_be_digits(sample: np.ndarray, unit_ns: int) -> bool:
    """Whether numbers that are seconds of our time are digits yymmddHHMM as well; a few cannot tell."""
    whole, fraction = _split(sample)
    if unit_ns != UNITS["seconds"] or fraction is not None or len(np.unique(whole)) < 3:
        return False
    return bool((_packed("yymmddHHMM", whole) != UNKNOWN_TIME).all())


def _packed(layout: str, whole: np.ndarray) -> np.ndarray:
    """Times of digits packed by a layout; UNKNOWN_TIME for digits that make no time. Leading zeros may be lost."""
    parts: dict[str, np.ndarray] = {}
    rest = whole
    for letter in sorted(set(layout), key=layout.index, reverse=True):
        size = 10 ** layout.count(letter)
        parts[letter] = rest % size
        rest = rest // size
    zero = np.zeros_like(whole)
    year = parts["y"] if "yyyy" in layout else full_year(parts["y"])
    if "m" in layout:
        days, valid = days_since_1970(year, parts["m"], parts.get("d", zero + 1))
    else:
        first, valid = days_since_1970(year, zero + 1, zero + 1)
        days = first + parts["d"] - 1
        next_year, _ = days_since_1970(year + 1, zero + 1, zero + 1)
        valid &= (parts["d"] >= 1) & (days < next_year)
    hour, minute, second = (parts.get(letter, zero) for letter in "HMS")
    valid &= (whole > 0) & (rest == 0) & (hour < 24) & (minute < 60) & (second < 60)
    clock = (hour * 3_600 + minute * 60 + second) * 10**9 + parts.get("f", zero) * 10**6
    return np.where(valid, multiplied(days, NS_PER_DAY) + clock, UNKNOWN_TIME)


def _general(values: np.ndarray, where: str, latest: int) -> tuple[np.ndarray, np.ndarray, str]:
    """`(time_ns, rows in another unit, units)` by the reading that fits; each distinct number is read once."""
    import pyarrow as pa

    encoded = pa.array(values).dictionary_encode()
    distinct, index = encoded.dictionary.to_numpy(zero_copy_only=False), encoded.indices.to_numpy()
    counts = np.bincount(index, minlength=len(distinct))
    whole, fraction = _split(distinct)
    stands_in = np.isin(whole, _NO_DATES) | np.isin(whole, [10**k - 1 for k in range(4, 19)])
    if not stands_in.all():
        counts = np.where(stands_in, 0, counts)  # they speak for no reading
    counted, unit_of = _since_1970(whole, fraction, counts, latest)
    firm = counted.fits & (counted.time_ns >= FIRST_INTRADAY_NS)
    others = [*_digit_readings(whole, fraction, counts, latest), *_day_readings(whole, fraction, counts, latest)]
    readings = [_reading(counted.words, counted.time_ns, counts, _MOST, latest, firm), *others]
    possible = [reading for reading in readings if reading.share > reading.needed]
    if not possible and counted.share >= _NEARLY_ALL and _is_daily(counted):
        possible = [counted]  # daily bars before 1990, which the other readings do not explain
    if not possible:
        raise DataError(f"{where}: {_not_understood(others, distinct, counts)}: {WRITE}")
    chosen = _choose(possible, distinct, counts, where)
    if chosen.words != counted.words:
        return chosen.time_ns[index], np.zeros(0, np.int64), ""
    main = int(np.bincount(unit_of[firm], counts[firm], len(UNITS)).argmax()) if firm.any() else -1
    differs = firm & (unit_of != main)
    if not differs.any():
        return counted.time_ns[index], np.zeros(0, np.int64), ""
    names = list(UNITS)
    units = f"{' and '.join(names[k] for k in np.unique(unit_of[differs]))} beside {names[main]}"
    return counted.time_ns[index], np.flatnonzero(differs[index]), units


def _reading(
    words: str, time_ns: np.ndarray, counts: np.ndarray, needed: float, latest: int, fits: np.ndarray | None = None
) -> Reading:
    if fits is None:
        fits = (time_ns >= FIRST_DAILY_NS) & (time_ns <= latest)
    fits = fits & (counts > 0)
    return Reading(words, time_ns, fits, float(counts[fits].sum() / counts.sum()), needed)


def _since_1970(
    whole: np.ndarray, fraction: np.ndarray | None, counts: np.ndarray, latest: int
) -> tuple[Reading, np.ndarray]:
    """`(the reading as counts since 1970, position of each number's unit in UNITS)`.

    A number that is between 1990 and the latest time in some unit has that unit: no number has two. The others have the
    coarsest unit in which most numbers are possible, so that daily bars may reach back before 1970.
    """
    by_unit = [_counted(whole, fraction, unit_ns) for unit_ns in UNITS.values()]
    recent = np.stack([(time_ns >= FIRST_INTRADAY_NS) & (time_ns <= latest) for time_ns in by_unit])
    shares = [counts[(time_ns >= FIRST_DAILY_NS) & (time_ns <= latest)].sum() / counts.sum() for time_ns in by_unit]
    main = next((k for k, share in enumerate(shares) if share > _MOST), 0)
    unit_of = np.where(recent.any(axis=0), recent.argmax(axis=0), main)
    older = ~recent.any(axis=0) & (by_unit[main] >= FIRST_DAILY_NS) & (by_unit[main] < FIRST_INTRADAY_NS)
    coarser = unit_of < main
    if older.sum() > coarser.sum():  # days of January 1970 in one unit are of our time in a coarser one
        unit_of = np.where(coarser, main, unit_of)
    time_ns = _without_strays(np.choose(unit_of, by_unit), latest)
    words = "seconds, milliseconds, microseconds or nanoseconds since 1970"
    return _reading(words, time_ns, counts, _MOST, latest), unit_of


def _without_strays(time_ns: np.ndarray, latest: int) -> np.ndarray:
    """Times before 1990 among later ones become unknown, unless they are at the same times of day, or many at few.

    A date that is written in another way, such as 20210104 among seconds, would be a bar of 1970.
    """
    recent = (time_ns >= FIRST_INTRADAY_NS) & (time_ns <= latest)
    early = (time_ns >= FIRST_DAILY_NS) & (time_ns < FIRST_INTRADAY_NS)
    if not recent.any() or not early.any():
        return time_ns
    stamps = time_ns % NS_PER_DAY
    if early.sum() >= ENOUGH_DAYS and len(np.unique(stamps[early])) <= _MAX_STAMPS:
        return time_ns
    return np.where(early & ~np.isin(stamps, np.unique(stamps[recent])), UNKNOWN_TIME, time_ns)


def _digit_readings(
    whole: np.ndarray, fraction: np.ndarray | None, counts: np.ndarray, latest: int
) -> Iterator[Reading]:
    if fraction is not None:
        return
    largest = int(whole.max())
    for k, layout in enumerate(_LAYOUTS):
        lost = 3 if len(layout) <= 6 else 2  # leading zeros: 000103 is 103, 0001030930 is not read
        if 10 ** (len(layout) - 1 - lost) <= largest:
            needed = _MOST if k < _N_FIRM_LAYOUTS else _ALL
            reading = _reading(layout, _packed(layout, whole), counts, needed, latest)
            few_digits = "yyyy" not in layout and largest < 10 ** (len(layout) - 2)  # the year 2000, or row numbers
            few_months = "d" not in layout and (layout == "yymm" or len(whole) < _ENOUGH_MONTHS)
            yield dataclasses.replace(reading, is_doubtful=few_digits or few_months)


def _day_readings(whole: np.ndarray, fraction: np.ndarray | None, counts: np.ndarray, latest: int) -> Iterator[Reading]:
    part = 0.0 if fraction is None else fraction

    def moment(zero: int, valid: np.ndarray) -> np.ndarray:
        days = np.where(valid, whole + zero, 0)
        clock = np.rint(part * 86_400_000.0).astype(np.int64) * 10**6  # float64 holds day numbers to the millisecond
        return np.where(valid, multiplied(days, NS_PER_DAY) + clock, UNKNOWN_TIME)

    spreadsheet = moment(_SPREADSHEET_ZERO, (whole >= 1) & (whole <= _LAST_DAY_NUMBER))
    since_1970 = moment(0, np.abs(whole) <= _LAST_DAY_NUMBER)
    for words, time_ns in (("a spreadsheet's day numbers", spreadsheet), ("days since 1970", since_1970)):
        reading = _reading(words, time_ns, counts, _NEARLY_ALL, latest)
        late = _SMALLEST_SPREADSHEET_NS if time_ns is spreadsheet else FIRST_INTRADAY_NS
        small = share(time_ns >= late, counts) <= _MOST
        yield dataclasses.replace(reading, is_doubtful=small or has_early_weekends(reading))
    valid = (whole >= _FIRST_JULIAN) & (whole <= _LAST_JULIAN)
    if fraction is not None:  # a Julian day begins at noon
        julian = np.where(valid, moment(-_JULIAN_ZERO, valid) + NS_PER_DAY // 2, UNKNOWN_TIME)
    else:
        julian = moment(-_JULIAN_ZERO, valid)
    yield _reading("Julian days", julian, counts, _NEARLY_ALL, latest)


def _is_daily(reading: Reading) -> bool:
    """Whether the distinct times are days of their own, at few times of day."""
    stamps = reading.time_ns[reading.fits]
    if len(stamps) < ENOUGH_DAYS:
        return False
    few = len(np.unique(stamps % NS_PER_DAY)) <= _MAX_STAMPS
    return few and len(np.unique(stamps // NS_PER_DAY)) >= _NEARLY_ALL * len(stamps)


def _choose(readings: list[Reading], distinct: np.ndarray, counts: np.ndarray, where: str) -> Reading:
    """The one reading that fits best. Raises DataError without one."""
    complete = [reading for reading in readings if reading.share == 1.0] or readings
    best = [r for r in complete if all(is_likelier(r, other, counts) for other in complete if other is not r)]
    if len(best) == 1 and not best[0].is_doubtful:
        return best[0]
    shown = _in_digits(distinct[0])
    if len(best) == 1:
        raise DataError(f"{where}: numbers such as {shown} are not understood as times: {WRITE}")
    readings_in_words = " or ".join(f"{r.words} ({_first_day(r)})" for r in complete)
    raise DataError(f"{where}: numbers such as {shown} may be {readings_in_words}: {WRITE}")


def _not_understood(readings: list[Reading], distinct: np.ndarray, counts: np.ndarray) -> str:
    """Says which number is no time: the first one that has no place in the reading of most."""
    nearest = max((r for r in readings if not r.is_doubtful), key=lambda reading: reading.share, default=None)
    if nearest is None or nearest.share <= _MOST:
        return f"numbers such as {_in_digits(distinct[0])} are not understood as times"
    wrong = distinct[~nearest.fits & (counts > 0)]
    return f"numbers such as {_in_digits(wrong[0])} are not understood as times, where most are {nearest.words}"


def _in_digits(number: np.generic) -> str:
    return f"{number:.15g}" if number.dtype.kind == "f" else str(number)


def _first_day(reading: Reading) -> str:
    return str(reading.time_ns[reading.fits][0].astype("datetime64[ns]").astype("datetime64[D]"))
