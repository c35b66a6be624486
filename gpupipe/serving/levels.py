"""How far entry, stop and target of a signal lie from the close; imports no numpy."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from gpupipe.runtime.errors import UserError

MAX_AGE = 5  # times of the data: a week of daily bars, in which a halt ends


@dataclass(frozen=True)
class Levels:
    """Prices of a signal, in average true ranges (ATR 14) of the bar. target: times the distance of the stop.

    >>> levels, close, atr = Levels(), 100.0, 2.0
    >>> distance = levels.stop_atr * atr
    >>> close - distance, close + levels.target * distance  # stop and target of a BUY
    (97.0, 107.5)
    """

    stop_atr: float = 1.5
    target: float = 2.5
    band_atr: float = 0.25

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value >= 0 and (value > 0 or name == "band_atr")):
                raise UserError(f"--{name.replace('_', '-')} {value}: expected a number above 0")
