"""How far entry, stop and target of a signal lie from the close; imports no numpy."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from gpupipe.runtime.errors import UserError

MAX_AGE = 5  # times of the data: a week of daily bars, in which a halt ends


@dataclass(frozen=True)
class Levels:
    """Distances of the prices of a signal, in average true ranges (ATR 14) of the bar.

    target: times the distance of the stop.
    stop_moves: the stop's distance in expected moves instead: standard deviations of the return over the label's bars,
    as its model implies them (`expected_moves`).

    >>> Levels().prices(1, close=100.0, atr=2.0)
    (99.5, 100.5, 97.0, 107.5)
    >>> Levels(stop_moves=1.0).prices(-1, close=100.0, atr=2.0, expected_move=0.04)
    (99.5, 100.5, 104.0, 90.0)
    """

    stop_atr: float = 1.5
    target: float = 2.5
    band_atr: float = 0.25
    stop_moves: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0 and (value > 0 or name == "band_atr")):
                raise UserError(f"--{name.replace('_', '-')} {value}: expected a number above 0")

    def prices(
        self, sign: int, close: float, atr: float, expected_move: float = math.nan
    ) -> tuple[float, float, float, float]:
        """Entry from, entry to, stop, target; NaN where there is none.

        sign: 1 of a BUY, -1 of a SELL, 0 of a HOLD, which has no prices.  close, atr: prices; without an ATR that is
        known there are none.  expected_move: a fraction of the close; where stop_moves needs it and it is NaN, there is
        an entry, but neither stop nor target.
        """
        if sign == 0 or not math.isfinite(atr):
            return (math.nan,) * 4
        band = self.band_atr * atr
        stop = self.stop_atr * atr if self.stop_moves is None else self.stop_moves * expected_move * close
        # A stop or a target of a very volatile symbol may lie at or below 0, where no price is: a stop of 0 is none.
        stop_price, target = (
            level if level > 0 else math.nan for level in (close - sign * stop, close + sign * self.target * stop)
        )
        return max(close - band, 0.0), close + band, stop_price, target
