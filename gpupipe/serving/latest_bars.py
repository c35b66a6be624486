"""Which bars a scan looks at: those until a date, of symbols that have one among the newest times."""

from __future__ import annotations

import itertools

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError


def until(panel: Panel, as_of: str) -> Panel:
    """The bars up to and including an ISO date or time; UserError for another text, or where no bar is left."""
    try:
        day = np.datetime64(as_of)
    except ValueError:
        raise UserError(f"--as-of {as_of}: expected a date such as 2024-05-31") from None
    try:
        if np.datetime_data(day)[0] in ("Y", "M", "D"):  # a day stands for all of its bars, wherever the exchange is
            end_day = int((day + 1).astype("datetime64[D]").astype(np.int64)) - 1
            return panel.take(panel.session_day <= end_day)
        end = (day + 1).astype("datetime64[ns]").astype(np.int64) - 1
        return panel.until(int(end))
    except ValueError:
        raise UserError(f"--as-of {as_of}: the data begin later") from None


def newest(panel: Panel, n: int) -> tuple[int, int]:
    """The first and the last of the n newest distinct times of all symbols, or of the n newest session dates.

    Session dates count where there are several time zones. With fewer times or dates, all of them count.
    """
    to_host = panel.device.to_host
    if has_several_zones(panel):
        days, times = to_host(panel.session_day), to_host(panel.time_ns)
        return int(times[days >= np.unique(days)[-n:][0]].min()), int(times.max())
    # Each of these times is among the last n times of a symbol that has a bar then.
    rows = [np.arange(max(first, last - n), last) for first, last in itertools.pairwise(to_host(panel.offsets))]
    newest = panel.time_ns[panel.device.asarray(np.concatenate(rows))]
    times = np.unique(to_host(newest))
    return int(times[-n:][0]), int(times[-1])


def has_several_zones(panel: Panel) -> bool:
    """Whether the clocks of two symbols differ on the newest session date; on one date a zone has one offset."""
    if panel.local_ns is None:
        return False
    latest = panel.offsets[1:] - 1
    offset_ns, day = (panel.clock_ns - panel.time_ns)[latest], panel.session_day[latest]
    return bool(len(np.unique(panel.device.to_host(offset_ns[day == day.max()]))) > 1)
