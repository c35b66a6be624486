"""Prices as text, with the digits that tell them apart; imports no numpy until it is asked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

UNKNOWN = "–"
FEWEST = 2  # decimals of prices of 1 and more
DIGITS = 4  # significant digits of prices below 1
MOST = 12  # decimals, whatever the prices
QUOTED_DIGITS = 6  # significant digits up to which a price counts as one that an exchange quotes
SMALLEST = 1e-8  # smaller prices are written with an exponent
CLOSE = 0.002  # of the largest price: a smaller difference is shown with two digits
SAME = 1e-7  # relative difference of prices that are equal in float32


def price_text(price: float, decimals: int = FEWEST) -> str:
    """A price with so many decimals and commas between thousands; a dash for NaN and infinity.

    Prices between 0 and 1e-8 have an exponent: no number of decimals suits them.

    >>> price_text(1234.5), price_text(0.00002013, 8), price_text(float("nan")), price_text(2.5e-10)
    ('1,234.50', '0.00002013', '–', '2.5e-10')
    """
    if not math.isfinite(price):
        return UNKNOWN
    return f"{price:.4g}" if 0 < abs(price) < SMALLEST else f"{price:,.{decimals}f}"


def decimals_of(prices: Sequence[float], quoted: int = 0) -> int:
    """The decimals of prices that are read together, such as close, entry, stop and target of a signal.

    At least two, below 1 at least four significant digits of the largest price, and at least `quoted`; then as many
    more as tell the prices apart, 12 at most. If their smallest difference is below 0.2 % of the largest price, as that
    of currencies, it is shown with two digits. Prices that are equal in float32 need not be told apart.

    prices: in the symbol's currency; NaN and infinity do not count.  quoted: see `quoted_decimals`.

    >>> decimals_of([187.25, 186.6, 184.0]), decimals_of([2.013e-05, 1.99e-05]), decimals_of([12.0, 11.996])
    (2, 8, 4)
    """
    known: list[float] = []
    for price in sorted(abs(price) for price in prices if math.isfinite(price)):
        if not known or price - known[-1] > SAME * price:
            known.append(price)
    largest = known[-1] if known else 0.0
    digits = DIGITS - 1 - math.floor(math.log10(largest)) if 0 < largest < 1 else FEWEST
    smallest = min((b - a for a, b in itertools.pairwise(known)), default=0.0)
    if 0 < smallest < CLOSE * largest:
        digits = max(digits, math.ceil(-math.log10(smallest) - 1e-6) + 1)  # 1e-6: a cent is 0.00999...
    decimals = min(max(FEWEST, digits, quoted), MOST)
    while decimals < MOST and len({price_text(price, decimals) for price in known}) < len(known):
        decimals += 1
    return decimals


def quoted_decimals(closes: Sequence[float]) -> int:
    """The decimals with which closes are quoted: 5 for 1.08345, 1.0834 and 1.083; 0 where they are no such decimals.

    A price counts as quoted if its shortest text as float32 has six significant digits at most. Prices that were
    adjusted or computed have more, all but a few by chance; so give several closes of a symbol, which must all be such.

    >>> quoted_decimals([1.08345, 1.083]), quoted_decimals([187.25, 188.0]), quoted_decimals([187.25342, 188.0])
    (5, 2, 0)
    """
    import numpy as np

    most = 0
    for close in closes:
        if not math.isfinite(close):
            continue
        text = np.format_float_positional(np.float32(close), unique=True, trim="-")
        whole, _, fraction = text.partition(".")
        if len(f"{whole}{fraction}".strip("0")) > QUOTED_DIGITS:
            return 0
        most = max(most, len(fraction))
    return most


def aligned(texts: Sequence[str]) -> list[str]:
    """Texts of one column with spaces around them, so that the decimal points stand below each other.

    >>> aligned(["187.25", "1.08345", "–"])
    ['187.25   ', '  1.08345', '  –      ']
    """
    parts = [text.partition(".") for text in texts]
    left = max((len(whole) for whole, _, _ in parts), default=0)
    right = max((len(f"{point}{fraction}") for _, point, fraction in parts), default=0)
    return [f"{whole:>{left}}{f'{point}{fraction}':<{right}}" for whole, point, fraction in parts]
