"""Read texts as times: ISO 8601, dates without leading zeros, names of months, times of day, zones."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import numpy as np

from gpupipe.data.number_times import days_since_1970, full_year, multiplied
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.time_limits import UNKNOWN_TIME

if TYPE_CHECKING:
    import pyarrow

_MONTHS = (
    "jan(?:uary)?", "feb(?:ruary)?", "mar(?:ch)?", "apr(?:il)?", "may", "june?", "july?", "aug(?:ust)?",
    "sep(?:t(?:ember)?)?", "oct(?:ober)?", "nov(?:ember)?", "dec(?:ember)?",
)  # fmt: skip
_NAME = rf"(?P<name>{'|'.join(_MONTHS)})\.?"
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
_NTH = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_CLOCK = (
    r"(?P<hour>\d{1,2})(?::?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9})\d*)?)?)?"
    r"\s*(?P<half>[ap]\.?m\.?)?"
)
_ZONE = (  # after an offset its name adds nothing, as in "-0500 EST" or "-05:00[America/New_York]"
    r"\s*(?:z|utc|gmt|(?:utc|gmt)?(?P<sign>[+-])(?P<zone_hours>\d{2})(?::?(?P<zone_minutes>\d{2}))?"
    r"(?:\s*[\[(]?[a-z][a-z/_ ]*[\])]?)?)?"
)
_LATER = rf"(?:(?:[t,:]|\s)\s*{_CLOCK}{_ZONE})?$"
_FORMS = (
    rf"^(?P<year>\d{{4}})\s?[-/.年]\s?(?P<month>\d{{1,2}})\s?[-/.月]\s?(?P<day>\d{{1,2}})[日.]?{_LATER}",  # 2021/1/4
    rf"^(?P<year>\d{{4}})(?P<month>\d{{2}})(?P<day>\d{{2}})(?:[t,:-]|\s)\s*{_CLOCK}{_ZONE}$",  # 20210104 09:30
    rf"^{_WEEKDAY}{_NAME}[\s-]*{_NTH},?[\s-]+(?P<year>\d{{4}}){_LATER}",  # Jan 04, 2021
    rf"^{_WEEKDAY}{_NTH}[\s./-]*{_NAME},?[\s./-]*(?P<year>\d{{4}}|\d{{2}}){_LATER}",  # 04-Jan-2021, 4 January 2021
    rf"^(?P<year>\d{{4}})[\s/-]?{_NAME}[\s/-]?{_NTH}{_LATER}",  # 2021-Jan-04
    rf"^{_WEEKDAY}{_NAME}\s+{_NTH}\s+{_CLOCK}{_ZONE}\s+(?P<year>\d{{4}})$",  # Mon Jan  4 09:30:00 2021
)
_OFFSET = r"(?P<sign>[+-])(?P<zone_hours>[0-9]{2}):?(?P<zone_minutes>[0-9]{2})?$"
_FARTHEST_ZONE_NS = 14 * 3_600 * 10**9
TIME_OF_DAY = rf"(?i)^{_CLOCK}$"


def times_of_texts(text: pyarrow.Array) -> tuple[np.ndarray, np.ndarray]:
    """`(UTC, clock of the zone that the text gives)`, each int64 (n,) in nanoseconds since 1970.

    Both are UNKNOWN_TIME for null, for a text of no known form, for a date that does not exist (2021-02-30), for an
    offset that no zone has (+15:00, +09:75) and for years outside 1678..2261. Without a zone, both are equal. Of a
    year with two digits, 69..99 are 1969..1999.

    >>> import pyarrow as pa
    >>> utc, clock = times_of_texts(pa.array(["2021/1/4 9:30", "Jan 04, 2021", "2021-01-04T09:30+09", "04.01.2021"]))
    >>> utc.astype("M8[ns]").astype("M8[m]").tolist()[:2], str(utc[2].astype("M8[ns]")), bool(utc[3] == UNKNOWN_TIME)
    ([datetime.datetime(2021, 1, 4, 9, 30), datetime.datetime(2021, 1, 4, 0, 0)], '2021-01-04T00:30:00.000000000', True)
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(text)
    iso = pc.replace_substring_regex(text, r"^([0-9]{4})/([0-9]{2})/([0-9]{2})", r"\1-\2-\3")
    for zone in (None, "UTC"):
        try:
            times = iso.cast(pa.timestamp("ns", zone)).cast(pa.int64()).fill_null(UNKNOWN_TIME).to_numpy()
        except pa.ArrowInvalid:  # at least one text has another form
            continue
        if zone is None:
            return times, times
        offset_ns, valid = _offset(pc.extract_regex(iso, _OFFSET))
        times = np.where(valid, times, UNKNOWN_TIME)
        return times, np.where(times == UNKNOWN_TIME, times, times + offset_ns)
    time_ns, clock_ns = np.full(len(text), UNKNOWN_TIME), np.full(len(text), UNKNOWN_TIME)
    rest = np.flatnonzero(text.is_valid().to_numpy(zero_copy_only=False))
    for form in _FORMS:
        if not len(rest):
            break
        parts = pc.extract_regex(text.take(pa.array(rest)), "(?i)" + form)
        found = parts.is_valid().to_numpy(zero_copy_only=False)
        time_ns[rest[found]], clock_ns[rest[found]] = _times(parts.filter(pa.array(found)))
        rest = rest[~found]
    for row in rest:
        time_ns[row], clock_ns[row] = _iso_time(text[row].as_py())
    return time_ns, clock_ns


def times_of_day(text: pyarrow.Array) -> np.ndarray:
    """Nanoseconds since midnight of texts such as 09:30, 9:30:00, 093000 and 9:30 PM, int64 (n,); else UNKNOWN_TIME."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = pc.extract_regex(pc.utf8_trim_whitespace(text), TIME_OF_DAY)
    found = parts.is_valid().to_numpy(zero_copy_only=False)
    times = np.full(len(text), UNKNOWN_TIME)
    clock, valid = _clock(parts.filter(pa.array(found)))
    times[found] = np.where(valid, clock, UNKNOWN_TIME)
    return times


def _times(parts: pyarrow.StructArray) -> tuple[np.ndarray, np.ndarray]:
    """The result of `times_of_texts` for the named groups of a form."""
    import pyarrow.compute as pc

    year = _whole(parts, "year")
    has_century = pc.utf8_length(pc.struct_field(parts, "year")).to_numpy(zero_copy_only=False) > 2
    year = np.where(has_century, year, full_year(year))
    month = _month(parts) if _has(parts, "name") else _whole(parts, "month")
    days, valid = days_since_1970(year, month, _whole(parts, "day"))
    clock, valid_clock = _clock(parts)
    offset_ns, valid_offset = _offset(parts)
    valid &= valid_clock & valid_offset & (np.abs(days) < 106_750)  # a day from the last that nanoseconds can hold
    clock_ns = np.where(valid, multiplied(np.where(valid, days, 0), NS_PER_DAY) + clock, UNKNOWN_TIME)
    return np.where(valid, clock_ns - offset_ns, UNKNOWN_TIME), clock_ns


def _clock(parts: pyarrow.StructArray) -> tuple[np.ndarray, np.ndarray]:
    """`(nanoseconds since midnight, bool: whether that is a time of day)`."""
    import pyarrow.compute as pc

    hour, minute, second = (_whole(parts, name) for name in ("hour", "minute", "second"))
    valid = (hour < 24) & (minute < 60) & (second < 60)
    clock = (hour * 3_600 + minute * 60 + second) * 10**9
    if _has(parts, "fraction"):
        padded = pc.utf8_rpad(pc.struct_field(parts, "fraction"), 9, "0")
        clock = clock + padded.cast("int64").to_numpy(zero_copy_only=False)
    if _has(parts, "half"):
        half = pc.utf8_lower(pc.utf8_slice_codeunits(pc.struct_field(parts, "half"), 0, 1))
        afternoon, named = (_mask(pc.equal(half, "p")), _mask(pc.not_equal(half, "")))
        valid &= ~named | ((hour >= 1) & (hour <= 12))
        clock = clock + np.where(named, np.where(afternoon, 12, 0) - np.where(hour == 12, 12, 0), 0) * 3_600 * 10**9
    return clock, valid


def _offset(parts: pyarrow.StructArray) -> tuple[np.ndarray, np.ndarray]:
    """`(offset of the zone from UTC in nanoseconds, 0 without one; bool: whether a zone can have it)`."""
    import pyarrow.compute as pc

    minutes = _whole(parts, "zone_minutes")
    size = (_whole(parts, "zone_hours") * 3_600 + minutes * 60) * 10**9
    valid = (minutes < 60) & (size <= _FARTHEST_ZONE_NS)
    if not _has(parts, "sign"):
        return size, valid
    return np.where(_mask(pc.equal(pc.struct_field(parts, "sign"), "-")), -size, size), valid


def _month(parts: pyarrow.StructArray) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pc.utf8_lower(pc.utf8_slice_codeunits(pc.struct_field(parts, "name"), 0, 3))
    first_letters = pa.array([name[:3] for name in _MONTHS])
    return pc.index_in(names, first_letters).cast("int64").to_numpy(zero_copy_only=False) + 1


def _has(parts: pyarrow.StructArray, name: str) -> bool:
    return parts.type.get_field_index(name) >= 0


def _whole(parts: pyarrow.StructArray, name: str) -> np.ndarray:
    """A group of digits as int64; 0 where the form lacks it or it is empty."""
    import pyarrow.compute as pc

    if not _has(parts, name):
        return np.zeros(len(parts), np.int64)
    digits = pc.fill_null(pc.struct_field(parts, name), "")
    return pc.if_else(pc.equal(digits, ""), "0", digits).cast("int64").to_numpy(zero_copy_only=False)


def _mask(condition: pyarrow.Array) -> np.ndarray:
    mask: np.ndarray = condition.fill_null(False).to_numpy(zero_copy_only=False)
    return mask


def _iso_time(text: str) -> tuple[int, int]:
    """`(UTC, wall clock)` of the rarer forms of ISO 8601, such as 2021-W01-1."""
    try:
        moment = datetime.datetime.fromisoformat(text)
        offset = moment.utcoffset() or datetime.timedelta(0)
        since = moment.replace(tzinfo=None) - offset - datetime.datetime(1970, 1, 1)
    except (ValueError, OverflowError):
        return UNKNOWN_TIME, UNKNOWN_TIME
    time_ns = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    if abs(time_ns) >= 2**63 - 10**14 or abs(offset) > datetime.timedelta(seconds=_FARTHEST_ZONE_NS // 10**9):
        return UNKNOWN_TIME, UNKNOWN_TIME
    return time_ns, time_ns + (offset.days * 86_400 + offset.seconds) * 10**9
