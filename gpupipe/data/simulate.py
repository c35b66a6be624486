"""A simulated market: any size, seeded, with the shape of real bars and, if wanted, a known signal in it."""

from __future__ import annotations

import difflib
import math
from typing import Any

import numpy as np

from gpupipe.data.errors import DataError
from gpupipe.data.panel import COLUMNS, Panel
from gpupipe.data.sectors import GICS

DAY_NS, MINUTE_NS = 86_400 * 10**9, 60 * 10**9
FIRST_DAY = "2015-01-02"
SESSION_BARS, SESSION_START = 390, 14 * 60 + 30  # minutes of a session, and its first minute of the day, UTC

# Standard deviations of one daily bar's return, by source; a minute has these divided by sqrt(390).
MARKET, SECTOR, OWN = 0.009, 0.007, 0.015
DEGREES = 5.0  # Student t
VOLATILITY_MEMORY, VOLATILITY_SPREAD = 0.97, 0.35  # AR(1) of log volatility: coefficient, stationary deviation
PRESSURE_MEMORY = 0.9  # AR(1) of the buying pressure
DRIFT = 0.5  # share of a bar's deviation that the pressure moves the next bar by, at signal = 1
LEAN = 0.9  # how far the shadows follow the pressure

_OPTIONS: dict[str, tuple[str, Any]] = {
    "symbols": ("n_symbols", int),
    "bars": ("n_bars", int),
    "bar": ("bar", str),
    "seed": ("seed", int),
    "signal": ("signal", float),
    "memory": ("memory", float),
}


def options(text: str) -> dict[str, Any]:
    """`simulate`'s arguments from "symbols=500,bars=1000,seed=1,signal=0.5,bar=1min"; DataError for anything else."""
    chosen = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, separator, value = (piece.strip() for piece in item.partition("="))
        if name not in _OPTIONS or not separator:
            near = difflib.get_close_matches(name, _OPTIONS, n=1)
            raise DataError(
                f"simulated: {item!r} is not understood{f'; did you mean {near[0]}=...?' if near else ''} "
                f"(options: {', '.join(_OPTIONS)})"
            )
        argument, convert = _OPTIONS[name]
        try:
            chosen[argument] = convert(value)
        except ValueError as error:
            raise DataError(f"simulated: {name}={value!r} is not a number") from error
    return chosen


def describe(**arguments: Any) -> str:
    """A sentence that says what is simulated."""
    shown = {name: arguments.get(key, _DEFAULTS[key]) for name, (key, _) in _OPTIONS.items()}
    return (
        "a simulated market, no real prices: {symbols:,} symbols, {bars:,} bars of {bar}, seed {seed}, "
        "signal {signal:g}, memory {memory:g}".format(**shown)
    )


_DEFAULTS = {"n_symbols": 110, "n_bars": 750, "bar": "1d", "seed": 0, "signal": 0.0, "memory": 1.0}


def simulate(
    n_symbols: int = 110, n_bars: int = 750, bar: str = "1d", seed: int = 0, signal: float = 0.0, memory: float = 1.0
) -> Panel:
    """Bars of `n_symbols` symbols in the eleven GICS sectors in turn, on the host; the same arguments, the same bytes.

    The log return of symbol s in sector k at bar t is

        r = beta_s * market_t + gamma_s * sector_kt + own_st + drift_st

    where market, sector and own are each exp(h_t) * a Student t with 5 degrees of freedom scaled to deviation 1
    (fat tails), and h is a stationary AR(1), coefficient 0.97 (volatility clusters). A quarter of r and some noise
    come overnight, before the open. Shadows lengthen with volatility, volume grows with |r|, and
    low <= min(open, close), high >= max(open, close) hold exactly.

    The signal. Every symbol has a buying pressure u, an AR(1) with coefficient 0.9 and deviation 1. It shows in the
    bar it belongs to, and nowhere else: the lower shadow is the share

        lower / (lower + upper) = (1 + 0.9 * tanh(u_t)) / 2,   lower = log(min(open, close) / low),
                                                               upper = log(high / max(open, close))

    and it moves the next bar: drift_{t+1} = signal * 0.5 * deviation_{t+1} * tanh(u_t), where deviation is that of
    the other three terms given h. With signal 0 the shadows tell nothing about future closes. Highs and lows still can
    be foretold: volatility from its past and from whose it is, and, as the pressure lasts, shadows from shadows.

    The memory. At 0 nothing lasts: h stays 0, beta, gamma and own volatility are the same for all, the pressure's
    coefficient is 0. Then the past tells nothing at all but what the signal moves, and u_t all that there is to know
    of that. Between 0 and 1 it multiplies the deviations of all these, and the coefficient.

    bar: "1d" (business days from 2015-01-02, stamped 00:00 UTC) or "1min" (390 a day from 14:30 UTC).
    signal, memory: in [0, 1].  Symbol s draws from its own stream, so its values do not depend on n_symbols.
    Raises DataError for other values.
    """
    if n_symbols < 1 or n_bars < 1:
        raise DataError(f"simulated: symbols and bars must be at least 1, got {n_symbols} and {n_bars}")
    if not 0 <= signal <= 1:
        raise DataError(f"simulated: signal must be in 0..1, got {signal}")
    if not 0 <= memory <= 1:
        raise DataError(f"simulated: memory must be in 0..1, got {memory}")
    if seed < 0:
        raise DataError(f"simulated: seed must be at least 0, got {seed}")
    time_ns = _times(n_bars, bar)
    scale = 1.0 if bar == "1d" else 1.0 / math.sqrt(SESSION_BARS)
    market = _shocks(np.random.default_rng([seed, 0]), n_bars, MARKET * scale, memory)
    of_sector = [_shocks(np.random.default_rng([seed, 1, k]), n_bars, SECTOR * scale, memory) for k in range(len(GICS))]
    columns = {name: np.empty((n_symbols, n_bars), np.float32) for name in COLUMNS}
    for s in range(n_symbols):
        rng = np.random.default_rng([seed, 2, s])
        one = _symbol(rng, market, of_sector[s % len(GICS)], scale, signal, memory)
        for name, values in one.items():
            columns[name][s] = values
    digits = max(4, len(str(n_symbols - 1)))
    return Panel.of_bars(
        **{name: values.reshape(-1) for name, values in columns.items()},
        time_ns=np.tile(time_ns, n_symbols),
        offsets=np.arange(n_symbols + 1, dtype=np.int64) * n_bars,
        symbols=tuple(f"SIM{s:0{digits}d}" for s in range(n_symbols)),
        sector=tuple(GICS[s % len(GICS)] for s in range(n_symbols)),
    )


def _times(n_bars: int, bar: str) -> np.ndarray:
    if bar == "1d":
        days = np.busday_offset(FIRST_DAY, np.arange(n_bars), roll="forward")
        return days.astype("datetime64[ns]").astype(np.int64)
    if bar == "1min":
        days = np.busday_offset(FIRST_DAY, np.arange(n_bars) // SESSION_BARS, roll="forward")
        minute = SESSION_START + np.arange(n_bars) % SESSION_BARS
        return days.astype("datetime64[ns]").astype(np.int64) + minute * MINUTE_NS
    raise DataError(f"simulated: bar must be 1d or 1min, got {bar!r}")


def _autoregression(rng: np.random.Generator, n: int, memory: float) -> np.ndarray:
    """A stationary AR(1) of deviation 1, float64 (n,)."""
    from scipy.signal import lfilter

    noise = rng.standard_normal(n) * math.sqrt(1 - memory**2)
    noise[0] /= math.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], noise)


def _shocks(rng: np.random.Generator, n: int, deviation: float, memory: float) -> tuple[np.ndarray, np.ndarray]:
    """`(returns, deviation of each)`: Student t with a volatility that remembers."""
    volatility = deviation * np.exp(memory * VOLATILITY_SPREAD * _autoregression(rng, n, VOLATILITY_MEMORY))
    unit = rng.standard_t(DEGREES, n) * math.sqrt((DEGREES - 2) / DEGREES)
    return volatility * unit, volatility


def _symbol(
    rng: np.random.Generator,
    market: tuple[np.ndarray, np.ndarray],
    sector: tuple[np.ndarray, np.ndarray],
    scale: float,
    signal: float,
    memory: float,
) -> dict[str, np.ndarray]:
    n = market[0].size
    beta, gamma = rng.normal(1.0, memory * 0.25), rng.normal(1.0, memory * 0.25)
    own, own_deviation = _shocks(rng, n, OWN * scale * math.exp(rng.normal(0.0, memory * 0.3)), memory)
    deviation = np.sqrt((beta * market[1]) ** 2 + (gamma * sector[1]) ** 2 + own_deviation**2)
    lean = np.tanh(_autoregression(rng, n, memory * PRESSURE_MEMORY))
    returns = beta * market[0] + gamma * sector[0] + own
    returns[1:] += signal * DRIFT * deviation[1:] * lean[:-1]
    close = np.log(rng.lognormal(4.0, 0.7)) + np.cumsum(returns)
    gap = 0.25 * returns + 0.3 * deviation * rng.standard_normal(n)
    open_ = close - returns + gap
    shadows = deviation * (0.3 + np.abs(rng.standard_normal(n)))
    lower = shadows * (1 + LEAN * lean) / 2
    volume = (
        rng.lognormal(14.0, 1.0) * scale**2 * np.exp(0.5 * np.abs(returns) / deviation + 0.3 * rng.standard_normal(n))
    )
    limits = np.log(np.finfo(np.float32).tiny), np.log(np.finfo(np.float32).max)
    bars = {
        "open": open_,
        "high": np.maximum(open_, close) + (shadows - lower),
        "low": np.minimum(open_, close) - lower,
        "close": close,
    }
    # exp and rounding to float32 both keep the order, so the bar stays consistent.
    prices = {name: np.exp(np.clip(values, *limits)).astype(np.float32) for name, values in bars.items()}
    return {**prices, "volume": np.maximum(np.rint(volume), 1.0).astype(np.float32)}
