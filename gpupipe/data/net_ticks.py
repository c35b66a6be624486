"""Recognise the ticks of .NET, 100 ns since the year 1, which as nanoseconds since 1970 would be of early 1990."""

from __future__ import annotations

import numpy as np

from gpupipe.data.errors import DataError
from gpupipe.data.panel import NS_PER_DAY
from gpupipe.data.time_limits import FIRST_DAILY_NS, UNKNOWN_TIME, latest_ns

_EPOCH = 621_355_968_000_000_000  # 1970-01-01 in ticks
_FIRST = _EPOCH + FIRST_DAILY_NS // 100  # as nanoseconds since 1970, of December 1987
_GRIDS_NS = (60 * 10**9, 10**9, 10**6)
_MOST, _NEARLY_ALL = 0.5, 0.95
_ENOUGH = 3  # distinct numbers


def ticks_as_nanoseconds(
    values: np.ndarray, lowest: float, highest: float, where: str, latest: int | None = None
) -> np.ndarray:
    """Turn ticks into nanoseconds since 1970.

    values: int64 or float64 (n,), all known, from lowest to highest.  latest: see `number_times`.

    Returns `values` itself if none are ticks for
    sure. If most are, nanoseconds, int64 (n,), UNKNOWN_TIME where a number is none; if few are, the values without
    them (UNKNOWN_TIME, or NaN of float64).

    Ticks lie on whole minutes, seconds or milliseconds, where the same numbers as nanoseconds do not. Raises DataError
    if most of the numbers may be either.

    >>> ticks_as_nanoseconds(np.int64([637_453_152_000_000_000]), 6.3e17, 6.4e17, "here").astype("M8[ns]")
    array(['2021-01-04T00:00:00.000000000'], dtype='datetime64[ns]')
    """
    last = _EPOCH + (latest_ns() if latest is None else latest) // 100
    if highest < _FIRST or lowest > last:
        return values
    inside = (values >= _FIRST) & (values <= last)
    if not inside.any():
        return values
    distinct = np.unique(values[inside].astype(np.int64))
    since_1970 = (distinct - _EPOCH) * 100
    if any(_share(since_1970, grid) >= _NEARLY_ALL and _share(distinct, grid) <= _MOST for grid in _GRIDS_NS):
        if inside.mean() > _MOST:
            return np.where(inside, (np.where(inside, values, _EPOCH).astype(np.int64) - _EPOCH) * 100, UNKNOWN_TIME)
        return np.where(inside, UNKNOWN_TIME if values.dtype == np.int64 else np.nan, values)
    same_clock = len(np.unique(distinct % NS_PER_DAY)) == 1
    regular = len(distinct) >= _ENOUGH and (same_clock or _share(distinct, _GRIDS_NS[0]) >= _NEARLY_ALL)
    if regular or inside.mean() <= _MOST or _share(distinct, NS_PER_DAY) == 1.0:
        return values
    day_of_ns, day_of_ticks = (str(np.datetime64(int(n), "ns"))[:10] for n in (distinct[0], since_1970[0]))
    raise DataError(
        f"{where}: numbers such as {distinct[0]} may be nanoseconds since 1970 ({day_of_ns}) or ticks of .NET "
        f"({day_of_ticks}): write them as 2024-01-31, as 20240131, or as seconds since 1970"
    )


def _share(time_ns: np.ndarray, grid_ns: int) -> float:
    """The share of times on whole multiples of a grid."""
    return float((time_ns % grid_ns == 0).mean())
