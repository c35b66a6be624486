"""Simulate a market of any size: seeded, with the statistics of real bars and an optional known signal."""

from __future__ import annotations

import difflib
import itertools
import math
from typing import Any

import numpy as np

from gpupipe.data.errors import DataError
from gpupipe.data.panel import BARS, Panel
from gpupipe.data.sectors import GICS

DAY_NS, MINUTE_NS = 86_400 * 10**9, 60 * 10**9
FIRST_DAY = "2015-01-02"
SESSION_BARS, SESSION_START = 390, 14 * 60 + 30  # minutes of a session, and the minute of the day it opens at, UTC

# Standard deviations of a daily bar's return, by factor; those of a minute bar are smaller by sqrt(390).
MARKET, SECTOR, IDIOSYNCRATIC = 0.009, 0.007, 0.015
DEGREES_OF_FREEDOM = 5.0  # of the Student t
VOLATILITY_MEMORY, VOLATILITY_SPREAD = 0.97, 0.35  # AR(1) of log volatility: coefficient, stationary deviation
PRESSURE_MEMORY = 0.9  # AR(1) coefficient of the buying pressure
DRIFT = 0.5  # drift of the next bar at signal = 1 and full pressure, as a share of the bar's standard deviation
LEAN = 0.9  # share of the shadows' asymmetry that the pressure determines

_OPTIONS: dict[str, tuple[str, Any]] = {
    "symbols": ("n_symbols", int),
    "bars": ("n_bars", int),
    "bar": ("bar", str),
    "seed": ("seed", int),
    "signal": ("signal", float),
    "memory": ("memory", float),
    "tilt": ("tilt", float),
    "lean": ("lean", float),
}


def options(text: str) -> dict[str, Any]:
    """Parse `simulate`'s arguments, such as "symbols=500,bars=1000,bar=1min"; DataError for anything else.

    >>> options("symbols=500, bars=1000, signal=0.5")
    {'n_symbols': 500, 'n_bars': 1000, 'signal': 0.5}
    """
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
    """Describe the simulated market in one line."""
    shown = {name: arguments.get(key, _DEFAULTS[key]) for name, (key, _) in _OPTIONS.items()}
    return (
        "a simulated market, no real prices: {symbols:,} symbols, {bars:,} bars of {bar}, seed {seed}, "
        "signal {signal:g}, memory {memory:g}, tilt {tilt:g}, lean {lean:g}".format(**shown)
    )


_DEFAULTS = {"n_symbols": 110, "n_bars": 750, "bar": "1d", "seed": 0, "signal": 0.0, "memory": 1.0, "tilt": 0.0,
             "lean": 1.0}  # fmt: skip


def simulate(
    n_symbols: int = 110,
    n_bars: int = 750,
    bar: str = "1d",
    seed: int = 0,
    signal: float = 0.0,
    memory: float = 1.0,
    tilt: float = 0.0,
    lean: float = 1.0,
) -> Panel:
    """Simulate bars of `n_symbols` symbols on the host; equal arguments give equal bytes.

    Symbol s is in sector s modulo 11 of `GICS`. The log return of symbol s in sector k at bar t is

        r = beta_s * market_t + gamma_s * sector_kt + idiosyncratic_st + drift_st

    The first three terms are each exp(h_t) times a Student t with 5 degrees of freedom, scaled to deviation 1 (fat
    tails). h is a stationary AR(1) with coefficient 0.97 (volatility clusters). A quarter of r and some noise come
    overnight, before the open. Shadows lengthen with volatility, volume grows with |r|, and
    low <= min(open, close), high >= max(open, close) hold exactly.

    The signal. Every symbol has a buying pressure u, an AR(1) with coefficient 0.9 and deviation 1. In bar t it shows
    only in the shadows:

        lower / (lower + upper) = (1 + lean * 0.9 * tanh(u_t)) / 2,   lower = log(min(open, close) / low),
                                                                      upper = log(high / max(open, close))

    It moves the next bar: drift_{t+1} = signal * 0.5 * deviation_{t+1} * tanh(u_t), where deviation is that of
    the other three terms given h. With signal 0 the shadows do not predict future closes. Highs and lows remain
    predictable: volatility from its past and from the symbol, and shadows from earlier shadows, as the pressure lasts.

    The memory. At 0 nothing persists: h stays 0; beta, gamma and the idiosyncratic volatility are equal for all
    symbols; the pressure's coefficient is 0. Then the past predicts only the drift, and u_t is all that predicts it.
    Between 0 and 1, memory multiplies the deviations of all these, and the coefficient.

    The tilt is a signal of direction alone. With probability tilt * |tanh(u_t)| the return of the next bar gets the
    sign of u_t and keeps its size, so that P(r_{t+1} > 0) = (1 + tilt * tanh(u_t)) / 2. Without memory a path is as
    likely as its mirror image given the other sign, and u_t does not tell how far the price will move. A drift does:
    it makes large moves along with it more likely by more than it makes those against it less likely.

    The lean is how far the shadows follow the pressure: at 0 a bar's shadows are equal, and neither the next close
    (by a signal) nor later shadows can be told from them. With signal 0, tilt 0 and lean 0 the past predicts
    volatility and nothing of the direction, but for what the barriers themselves do: +5 % and -5 % are not equally
    far in logarithms.

    bar: "1d" (business days from 2015-01-02, stamped 00:00 UTC) or "1min" (390 a day from 14:30 UTC).
    signal, memory, tilt, lean: in [0, 1].
    Symbol s has random streams of its own, so its values do not depend on n_symbols.
    Raises DataError for other values.

    >>> panel = simulate(n_symbols=2, n_bars=3, seed=1)
    >>> panel.n_rows, panel.symbols, panel.groups
    (6, ('SIM0000', 'SIM0001'), ('communication_services', 'consumer_discretionary'))
    """
    _check_arguments(n_symbols, n_bars, seed, {"signal": signal, "memory": memory, "tilt": tilt, "lean": lean})
    time_ns = _times(n_bars, bar)
    scale = 1.0 if bar == "1d" else 1.0 / math.sqrt(SESSION_BARS)
    market = _shocks(np.random.default_rng([seed, 0]), n_bars, MARKET * scale, memory)
    sectors = [_shocks(np.random.default_rng([seed, 1, k]), n_bars, SECTOR * scale, memory) for k in range(len(GICS))]
    columns = {name: np.empty((n_symbols, n_bars), np.float32) for name in BARS}
    for s in range(n_symbols):
        rng = np.random.default_rng([seed, 2, s])
        tilted = np.random.default_rng([seed, 3, s]).random(n_bars) / tilt if tilt else None
        bars = _symbol_bars(rng, market, sectors[s % len(GICS)], scale, signal, memory, tilted, lean)
        for name, values in bars.items():
            columns[name][s] = values
    digits = max(4, len(str(n_symbols - 1)))
    return Panel.of_bars(
        **{name: values.reshape(-1) for name, values in columns.items()},
        time_ns=np.tile(time_ns, n_symbols),
        offsets=np.arange(n_symbols + 1, dtype=np.int64) * n_bars,
        symbols=tuple(f"SIM{s:0{digits}d}" for s in range(n_symbols)),
        sector=tuple(GICS[s % len(GICS)] for s in range(n_symbols)),
    )


def _check_arguments(n_symbols: int, n_bars: int, seed: int, shares: dict[str, float]) -> None:
    if n_symbols < 1 or n_bars < 1:
        raise DataError(f"simulated: symbols and bars must be at least 1, got {n_symbols} and {n_bars}")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise DataError(f"simulated: {name} must be in 0..1, got {share}")
    if seed < 0:
        raise DataError(f"simulated: seed must be at least 0, got {seed}")


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
    """Draw a stationary AR(1) of deviation 1, float64 (n,).

    A plain loop: scipy.signal.lfilter gives the same bits, and importing it takes as long as seven million bars.
    """
    noise = rng.standard_normal(n) * math.sqrt(1 - memory**2)
    noise[0] /= math.sqrt(1 - memory**2)
    steps = itertools.accumulate(noise.tolist(), lambda value, shock: memory * value + shock)
    return np.fromiter(steps, np.float64, n)


def _shocks(rng: np.random.Generator, n: int, deviation: float, memory: float) -> tuple[np.ndarray, np.ndarray]:
    """`(returns, deviation of each)`: Student t with autoregressive volatility."""
    volatility = deviation * np.exp(memory * VOLATILITY_SPREAD * _autoregression(rng, n, VOLATILITY_MEMORY))
    unit = rng.standard_t(DEGREES_OF_FREEDOM, n) * math.sqrt((DEGREES_OF_FREEDOM - 2) / DEGREES_OF_FREEDOM)
    return volatility * unit, volatility


def _symbol_bars(
    rng: np.random.Generator,
    market: tuple[np.ndarray, np.ndarray],
    sector: tuple[np.ndarray, np.ndarray],
    scale: float,
    signal: float,
    memory: float,
    tilted: np.ndarray | None,
    lean: float,
) -> dict[str, np.ndarray]:
    """The bars of one symbol.  tilted: float64 (n_bars,), uniform draws in [0, 1 / tilt]; None for no tilt."""
    n = market[0].size
    beta, gamma = rng.normal(1.0, memory * 0.25), rng.normal(1.0, memory * 0.25)
    idiosyncratic = _shocks(rng, n, IDIOSYNCRATIC * scale * math.exp(rng.normal(0.0, memory * 0.3)), memory)
    deviation = np.sqrt((beta * market[1]) ** 2 + (gamma * sector[1]) ** 2 + idiosyncratic[1] ** 2)
    pressure = np.tanh(_autoregression(rng, n, memory * PRESSURE_MEMORY))
    returns = beta * market[0] + gamma * sector[0] + idiosyncratic[0]
    returns[1:] += signal * DRIFT * deviation[1:] * pressure[:-1]
    if tilted is not None:
        follows = tilted[1:] < np.abs(pressure[:-1])
        returns[1:] = np.where(follows, np.copysign(returns[1:], pressure[:-1]), returns[1:])
    close = np.log(rng.lognormal(4.0, 0.7)) + np.cumsum(returns)
    gap = 0.25 * returns + 0.3 * deviation * rng.standard_normal(n)
    open_ = close - returns + gap
    shadows = deviation * (0.3 + np.abs(rng.standard_normal(n)))
    lower = shadows * (1 + lean * LEAN * pressure) / 2
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
