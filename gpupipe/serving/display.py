"""How signals are shown: the hour and zone of their bars, and the digits of their prices."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from gpupipe.serving.price_text import decimals_of, price_text, quoted_decimals

if TYPE_CHECKING:
    from gpupipe.data.panel import Panel

QUOTES = 10  # the last closes of a symbol, from which the decimals of its quotes are known


@dataclass(frozen=True)
class Display:
    """What a reader needs to know to show the signals of a panel.

    intraday: whether bars are shorter than a day; None where that is not known: then a time that is not midnight says
        so.  utc_offset_s: of the exchange's clock at a symbol's latest bar; symbols on UTC are left out.
    decimals: of a symbol's quotes, where they are more than two.

        >>> display = Display(True, {"XOM": -14400}, {"EURUSD": 5})
        >>> display.bar("XOM", "2024-03-21T14:00:00"), display.bar("BTC", "2024-03-21T14:00:00")
        ('2024-03-21 10:00 -04:00', '2024-03-21 14:00 UTC')
        >>> display.prices("EURUSD", [1.08345, 1.07, float("nan")]), Display().prices("XOM", [187.25, 184.0])
        (['1.08345', '1.07000', '–'], ['187.25', '184.00'])
    """

    intraday: bool | None = None
    utc_offset_s: Mapping[str, int] = field(default_factory=dict)
    decimals: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, panel: Panel) -> Display:
        """How the signals of a panel's latest bars are shown."""
        import numpy as np

        from gpupipe.data.panel import NS_PER_DAY

        to_host = panel.device.to_host
        offsets, close = to_host(panel.offsets), panel.close
        last = panel.offsets[1:] - 1
        seconds = to_host((panel.clock_ns[last] - panel.time_ns[last]) // 10**9)
        quoted = [
            quoted_decimals(to_host(close[max(first, stop - QUOTES) : stop]).tolist())
            for first, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        ]
        return cls(
            bool((panel.time_ns % NS_PER_DAY).any()),
            {panel.symbols[k]: int(seconds[k]) for k in np.flatnonzero(seconds)},
            {symbol: n for symbol, n in zip(panel.symbols, quoted, strict=True) if n > 2},
        )

    @classmethod
    def from_json(cls, content: Any) -> Display:
        """The display that `to_json` wrote; one that knows nothing for any other content."""
        try:
            return cls(**content)
        except TypeError:
            return cls()

    def to_json(self) -> dict[str, Any]:
        """The same as JSON holds it."""
        return asdict(self)

    def bar(self, symbol: str, time: str) -> str:
        """The time of a bar: its session date, and of intraday bars the hour and the zone.

        time: ISO 8601, UTC, to the second; any other text is returned as it is.
        """
        try:
            stamp = datetime.datetime.fromisoformat(time.removesuffix("Z"))
        except ValueError:
            return time
        intraday = stamp.time() != datetime.time() if self.intraday is None else self.intraday
        if not intraday:
            return stamp.date().isoformat()
        zone = "UTC"
        if symbol in self.utc_offset_s:
            offset = datetime.timedelta(seconds=self.utc_offset_s[symbol])
            stamp = stamp.replace(tzinfo=datetime.UTC).astimezone(datetime.timezone(offset))
            zone = stamp.strftime("%z")
            zone = f"{zone[:3]}:{zone[3:5]}"
        return f"{stamp:%Y-%m-%d %H:%M}{f':{stamp:%S}' if stamp.second else ''} {zone}"

    def session(self, symbol: str, time: str) -> str:
        """The session date of a bar, as 2024-03-21; arguments as of `bar`."""
        return self.bar(symbol, time)[:10]

    def prices(self, symbol: str, prices: Sequence[float | None]) -> list[str]:
        """The prices of one signal as text, all with the same decimals; None is not known, as NaN.

        prices: close, entry from, entry to, stop, target.
        """
        known = [math.nan if price is None else price for price in prices]
        decimals = decimals_of(known, self.decimals.get(symbol, 0))
        return [price_text(price, decimals) for price in known]
