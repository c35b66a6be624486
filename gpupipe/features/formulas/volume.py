"""Volume: relative to its past, and combined with the direction of the price."""

from __future__ import annotations

from gpupipe.features.expressions import (
    Bar,
    Series,
    central_moment,
    change,
    comoment,
    deviation,
    ema,
    lag,
    log,
    maximum,
    mean,
    rank,
    sign,
    sqrt,
    total,
    where,
)
from gpupipe.features.formulas.registry import feature
from gpupipe.features.formulas.returns import SMALLEST_VARIANCE, log_return


@feature("volume", "ratio of two means", [(1, 5), (1, 20), (1, 60), (5, 20), (5, 60), (20, 120)])
def volume_ratio(bar: Bar, short: int, long: int) -> Series:
    """mean volume, {short} / {long} bars; 1 where nothing was traded"""
    average = mean(bar.volume, long)
    return where(average > 0.0, mean(bar.volume, short) / average, 1.0)


@feature("volume", "coefficient of variation", [20, 60])
def volume_variation(bar: Bar, n: int) -> Series:
    """std / mean of {n} volumes; 0 where nothing was traded"""
    average = mean(bar.volume, n)
    return where(average > 0.0, deviation(bar.volume, n) / average, 0.0)


@feature("volume", "standard score", [20, 60])
def volume_score(bar: Bar, n: int) -> Series:
    """(volume - mean) / std of {n} volumes; 0 without any variance"""
    spread = deviation(bar.volume, n)
    return where(spread > 0.0, (bar.volume - mean(bar.volume, n)) / spread, 0.0)


@feature("volume", "rank in the own past", [60])
def volume_rank(bar: Bar, n: int) -> Series:
    """rank of the volume among the last {n}, 1 / {n} to 1"""
    return rank(bar.volume, n)


def money_flow(bar: Bar, n: int) -> Series:
    """MFI: 100 * rising / (rising + falling), money flow being typical price * volume; 50 without any flow."""
    price = bar.high + bar.low + bar.close  # three times the typical price
    flow, move = price * bar.volume, change(price)
    rising = total(where(move > 0.0, flow, 0.0 * flow), n)
    falling = total(where(move < 0.0, flow, 0.0 * flow), n)
    return where(rising + falling > 0.0, 100.0 * rising / (rising + falling), 50.0)


@feature("volume", "TA-Lib MFI", [14])
def mfi(bar: Bar, n: int) -> Series:
    """100 * rising / (rising + falling) of {n} typical * volume; 50 where nothing flowed (TA-Lib: 0)"""
    return money_flow(bar, n)


def accumulation(bar: Bar) -> Series:
    """Accumulation: volume * position of the close in the bar's range, -1 to 1; 0 where high equals low."""
    span = bar.high - bar.low
    return where(span > 0.0, (2.0 * bar.close - bar.high - bar.low) / span * bar.volume, 0.0 * bar.volume)


@feature("volume", "Chaikin; TA-Lib AD", [20, 60])
def cmf(bar: Bar, n: int) -> Series:
    """sum of {n} place of the close in the range * volume / sum of volume; 0 where nothing was traded"""
    traded = total(bar.volume, n)
    return where(traded > 0.0, total(accumulation(bar), n) / traded, 0.0)


@feature("volume", "TA-Lib ADOSC over the average volume", [(3, 10)])
def adosc_ratio(bar: Bar, fast: int, slow: int) -> Series:
    """(EMA({fast}) - EMA({slow})) of accumulation / mean volume of {slow}; 0 where nothing was traded"""
    average = mean(bar.volume, slow)
    flow = accumulation(bar)
    return where(average > 0.0, (ema(flow, fast, slow - fast) - ema(flow, slow)) / average, 0.0)


@feature("volume", "TA-Lib OBV", [5, 20, 60])
def obv_slope(bar: Bar, n: int) -> Series:
    """(OBV - OBV[{n}]) / sum of {n} volumes; 0 where nothing was traded"""
    traded = total(bar.volume, n)
    return where(traded > 0.0, total(sign(change(bar.close)) * bar.volume, n) / traded, 0.0)


@feature("volume", "volume-weighted average price", [5, 20, 60])
def vwap_ratio(bar: Bar, n: int) -> Series:
    """close / (sum of {n} typical * volume / sum of volume) - 1; 0 where nothing was traded"""
    traded = total(bar.volume, n)
    paid = total((bar.high + bar.low + bar.close) * bar.volume, n)
    return where(traded > 0.0, 3.0 * bar.close * traded / paid - 1, 0.0)


@feature("volume", "Pearson's correlation", [20, 60])
def volume_return_correlation(bar: Bar, n: int) -> Series:
    """correlation of |r| and volume over {n} bars; 0 without any variance"""
    size = abs(log_return(bar))
    moves, trades = central_moment(size, n, 2), central_moment(bar.volume, n, 2)
    moved = (moves > SMALLEST_VARIANCE) * (trades > 0.0)
    return where(moved > 0.0, comoment(size, bar.volume, n) / sqrt(moves * trades), 0.0)


@feature("volume", "Amihud (2002), illiquidity, against its own past", [(5, 60)])
def illiquidity_ratio(bar: Bar, short: int, long: int) -> Series:
    """ln of mean of {short} |r| / (close * volume) over that of {long}

    A bar without trades counts 0; the column is 0 where no bar moved.
    """
    traded = bar.close * bar.volume
    illiquidity = where(traded > 0.0, abs(log_return(bar)) / traded, 0.0 * traded)
    recent, average = mean(illiquidity, short), mean(illiquidity, long)
    return where(average > 0.0, log(maximum(where(average > 0.0, recent / average, 1.0), 1e-3)), 0.0)


@feature("volume", "share of volume in rising bars", [20])
def up_volume_share(bar: Bar, n: int) -> Series:
    """volume of rising bars / volume, of {n} bars; 0.5 where nothing was traded"""
    traded = total(bar.volume, n)
    rising = total((bar.close > lag(bar.close, 1)) * bar.volume, n)
    return where(traded > 0.0, rising / traded, 0.5)
