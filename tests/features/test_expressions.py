"""Formulas and their program: each operation against plain numpy, blocks of rows, resuming, shared subexpressions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gpupipe.data.panel import Panel
from gpupipe.features import compute
from gpupipe.features import expressions as e
from gpupipe.features.expressions import BAR, Series, lower
from gpupipe.features.formulas import Feature
from gpupipe.kernels import operations
from gpupipe.kernels.program import run_program
from tests.support.panels import random_panel

close, volume = BAR.close, BAR.volume


def computed(panel: Panel, *columns: Series) -> np.ndarray:
    out = np.empty((panel.n_rows, len(columns)), dtype=np.float32)
    features = [Feature(f"column_{k}", "trend", "", "", lambda bar, x=x: x, (), False) for k, x in enumerate(columns)]
    compute.compute(panel, features, compute.float_sink(panel, out))
    return out


def with_holes(lengths=(130, 1, 7, 90), rows=(40, 41, 100, 150)) -> Panel:
    panel = random_panel(lengths, 3)
    known = panel.close.copy()
    known[list(rows)] = np.nan
    return panel.replace(close=known)


def rolled(x: pd.Series, n: int, function) -> pd.Series:
    return x.rolling(n).apply(function, raw=True)


def average(x: pd.Series, n: int, decay: float, skip: int = 0) -> pd.Series:
    """The mean of n values after `skip`, then decay * previous + (1 - decay) * x; a NaN restarts it."""
    out, seen = [], []
    for v in x:
        seen = [] if np.isnan(v) else [*seen, v]
        if len(seen) < skip + n:
            out.append(np.nan)
        elif len(seen) == skip + n:
            out.append(np.mean(seen[skip:]))
        else:
            out.append(decay * out[-1] + (1 - decay) * v)
    return pd.Series(out, x.index)


def decayed(x: pd.Series, n: int) -> pd.Series:
    out, seen, value = [], 0, 0.0
    for v in x:
        seen, value = (0, 0.0) if np.isnan(v) else (seen + 1, value * (1 - 1 / n) + v if seen >= n - 1 else value + v)
        out.append(value if seen >= n else np.nan)
    return pd.Series(out, x.index)


def since(x: pd.Series, starts: pd.Series) -> pd.Series:
    """The sum since the last start; a NaN of either restarts it."""
    out, value = [], 0.0
    for v, start in zip(x, starts, strict=True):
        value = v if np.isnan(value) or np.isnan(start) or start else value + v
        out.append(value)
    return pd.Series(out, x.index)


def line(x):
    return np.polyfit(np.arange(len(x)), x, 1)


OPERATIONS = {
    "lag": (e.lag(close, 3), lambda c, v: c.shift(3)),
    "lag of lag": (e.lag(e.lag(close, 3), 4), lambda c, v: c.shift(7)),
    "change": (e.change(close, 2), lambda c, v: c - c.shift(2)),
    "lag first": (e.lag(close, 2) - close, lambda c, v: c.shift(2) - c),
    "lag plus": (e.lag(close, 2) + close, lambda c, v: c.shift(2) + c),
    "two lags": (e.lag(close, 2) / e.lag(volume, 5), lambda c, v: c.shift(2) / v.shift(5)),
    "constants": (2.0 - (3.0 * close + 1.0) / 4.0, lambda c, v: 2 - (3 * c + 1) / 4),
    "negative": (-close, lambda c, v: -c),
    "log": (e.log(close), lambda c, v: np.log(c)),
    "log of negative values": (e.log(e.change(close)), lambda c, v: np.log(c.diff().where(c.diff() > 0))),
    "sqrt": (e.sqrt(e.change(close)), lambda c, v: np.sqrt(c.diff().where(c.diff() >= 0))),
    "sign": (e.sign(e.change(close)), lambda c, v: np.sign(c.diff())),
    "floor": (e.floor(close), lambda c, v: np.floor(c)),
    "fill": (e.fill(close, 7.0), lambda c, v: c.fillna(7)),
    "greater": (close > e.lag(close, 1), lambda c, v: (c > c.shift()).where(c.notna() & c.shift().notna())),
    "less": (close < 50.0, lambda c, v: (c < 50).where(c.notna())),
    "at least": (close >= e.lag(close, 1), lambda c, v: (c >= c.shift()).where(c.notna() & c.shift().notna())),
    "equal": (e.equal(close, e.highest(close, 4)),
              lambda c, v: (c == c.rolling(4).max()).where(c.rolling(4).max() > 0)),
    "where": (e.where(close > e.lag(close, 1), close, e.lag(volume, 1)),
              lambda c, v: c.where(c > c.shift(), v.shift()).where(c.notna() & c.shift().notna())),
    "maximum": (e.maximum(close, e.lag(close, 1)), lambda c, v: np.maximum(c, c.shift())),
    "minimum": (e.minimum(close, e.lag(close, 1)), lambda c, v: np.minimum(c, c.shift())),
    **{f"total {n}": (e.total(close, n), lambda c, v, n=n: c.rolling(n).sum()) for n in (1, 2, 3, 7, 16, 61)},
    **{f"mean {n}": (e.mean(close, n), lambda c, v, n=n: rolled(c, n, np.mean)) for n in (1, 5, 20)},
    **{f"highest {n}": (e.highest(close, n), lambda c, v, n=n: c.rolling(n).max()) for n in (1, 2, 3, 8, 21)},
    **{f"lowest {n}": (e.lowest(close, n), lambda c, v, n=n: c.rolling(n).min()) for n in (1, 2, 3, 8, 21)},
    "weighted total": (e.weighted_total(close, 13), lambda c, v: rolled(c, 13, lambda x: (x[::-1] * range(13)).sum())),
    "bars since highest": (e.bars_since_highest(close, 9), lambda c, v: rolled(c, 9, lambda x: x[::-1].argmax())),
    "oldest highest": (e.bars_since_highest(e.floor(close), 9, oldest=True),
                       lambda c, v: rolled(np.floor(c), 9, lambda x: 8 - x.argmax())),
    "newest lowest": (e.bars_since_lowest(e.floor(close), 9),
                      lambda c, v: rolled(np.floor(c), 9, lambda x: x[::-1].argmin())),
    "absolute deviation": (e.absolute_deviation(close, 9),
                           lambda c, v: rolled(c, 9, lambda x: abs(x - x.mean()).mean())),
    **{f"moment {p}": (e.central_moment(close, 9, p),
                       lambda c, v, p=p: rolled(c, 9, lambda x: ((x - x.mean()) ** p).mean()))
       for p in (2, 3, 4)},
    "deviation": (e.deviation(close, 9), lambda c, v: rolled(c, 9, np.std)),
    "comoment": (e.comoment(close, e.log(volume), 9), lambda c, v: c.rolling(9).cov(np.log(v), ddof=0)),
    "rank": (e.rank(e.floor(close), 9), lambda c, v: np.floor(c).rolling(9).rank(pct=True)),
    "quantile": (e.quantile(close, 9, 0.8), lambda c, v: c.rolling(9).quantile(0.8)),
    "median of ties": (e.quantile(e.floor(close), 8, 0.5), lambda c, v: np.floor(c).rolling(8).median()),
    "ema": (e.ema(close, 6), lambda c, v: average(c, 6, 1 - 2 / 7)),
    "late ema": (e.ema(close, 6, 4), lambda c, v: average(c, 6, 1 - 2 / 7, 4)),
    "ema of ema": (e.ema(e.ema(close, 6), 3), lambda c, v: average(average(c, 6, 1 - 2 / 7), 3, 0.5)),
    "wilder": (e.wilder(close, 6), lambda c, v: average(c, 6, 5 / 6)),
    "wilder total": (e.wilder_total(close, 6), lambda c, v: decayed(c, 6)),
    "total since": (e.total_since(close, volume > 3e5), lambda c, v: since(c, v > 3e5)),
    "total since no start": (e.total_since(close, 0.0 * volume), lambda c, v: since(c, 0 * v)),
    "total since an unknown start": (e.total_since(volume, close > 105.0),
                                     lambda c, v: since(v, (c > 105).where(c.notna()).astype(float))),
    "sine": (e.sine(close), lambda c, v: np.sin(2 * np.pi * c)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_the_plain_formula(name):
    series, formula = OPERATIONS[name]
    panel = with_holes()
    got = computed(panel, series)[:, 0]
    for a, b in zip(panel.offsets[:-1], panel.offsets[1:], strict=True):
        bars = [pd.Series(x[a:b].astype(np.float64)) for x in (panel.close, panel.volume)]
        with np.errstate(all="ignore"):
            expected = formula(*bars).to_numpy(dtype=np.float64)
        spread = np.nanstd(expected) if np.isfinite(expected).any() else 1.0
        np.testing.assert_allclose(got[a:b], expected, rtol=1e-6, atol=1e-6 * spread)
    assert np.isfinite(got).sum() > 15


ALL = [series for series, _ in OPERATIONS.values()]


@pytest.mark.parametrize("block", [1, 16, 50, 64])
def test_blocks_of_rows_change_no_bit(block, monkeypatch):
    panel = with_holes()
    whole = computed(panel, *ALL)
    monkeypatch.setattr(compute, "BLOCK", block)
    np.testing.assert_array_equal(computed(panel, *ALL), whole)


@pytest.mark.parametrize("n_new", [1, 3, 40])
def test_resuming_from_a_state_equals_a_recomputation_bit_for_bit(n_new):
    """Only the last bars are computed, from the halo before them and the state of the previous run."""
    panel = with_holes((200, 180), rows=(40, 41, 90, 250, 330))
    program = lower(ALL)
    whole = computed(panel, *ALL)
    aside = np.empty((panel.n_rows, 0), np.float32)

    def run(rows: list[np.ndarray], starts: list[int], states: np.ndarray) -> np.ndarray:
        chosen = np.concatenate(rows)
        offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
        out = np.full((len(chosen), len(ALL)), -1, np.float32)
        bars = [getattr(panel, name)[chosen] for name in ("open", "high", "low", "close", "volume", "time_ns")]
        scratch = np.empty((1, program.n_registers, 512))
        run_program(
            len(rows), scratch, *bars, offsets, offsets[:-1] + np.array(starts), program.operations, program.values,
            program.outputs, np.int64(program.halo), np.int64(300), states, out, aside[: len(chosen)],
            np.empty((len(chosen), 0), np.uint8), np.empty(0, np.float32), np.zeros(1, np.int64),
        )  # fmt: skip
        return out

    symbols = [np.arange(a, b) for a, b in zip(panel.offsets[:-1], panel.offsets[1:], strict=True)]
    states = np.zeros((2, program.n_states, 4))
    run([rows[:-n_new] for rows in symbols], [0, 0], states)
    later = run([rows[-n_new - program.halo :] for rows in symbols], [program.halo] * 2, states)
    for k, rows in enumerate(symbols):
        end = (k + 1) * (n_new + program.halo)
        np.testing.assert_array_equal(later[end - n_new : end], whole[rows[-n_new:]])
    assert (later[: program.halo] == -1).all(), "earlier rows must not be written again"


def test_shared_subexpressions_are_computed_once():
    alone = [len(lower([column]).operations) for column in (e.mean(close, 20), e.mean(close, 40))]
    together = lower([e.mean(close, 20), e.mean(close, 40)])
    assert len(together.operations) < sum(alone) - 4
    assert e.mean(close, 20) is e.mean(BAR.close, 20)
    assert together.n_registers <= 6


def test_a_group_of_recursions_overwrites_no_register_that_it_reads():
    """Threads of a GPU run the recursions of a group side by side, each at another row."""
    columns = [e.ema(close + float(k), 5 + k) for k in range(12)]
    table = lower(columns).operations
    first = int(np.flatnonzero(table[:, operations.B] == 12)[0])
    group = table[first : first + 12]
    assert not set(group[:, operations.A]) & set(group[:, operations.OUT])
    assert len(set(group[:, operations.OUT])) == 12


def test_halo_is_the_look_back_of_the_longest_path():
    assert lower([e.total(e.highest(close, 5), 10)]).halo == 4 + 9
    assert lower([e.lag(e.ema(e.lag(close, 3), 10), 2)]).halo == 5


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda: 1 if close > BAR.open else 2, lambda: max(close, BAR.open), lambda: 0 < close < 1,
        lambda: close > 1 and close < 2,
    ],
)  # fmt: skip
def test_a_formula_has_no_truth_value(evaluate):
    with pytest.raises(TypeError, match="use where, maximum, minimum"):
        evaluate()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: e.lag(close, -1), "lag is -1"),
        (lambda: e.total(close, 0), "window is 0"),
        (lambda: e.mean(close, 2.5), "window is 2.5"),
        (lambda: e.ema(close, 0), "period is 0"),
        (lambda: e.central_moment(close, 5, 5), "power is 5"),
        (lambda: e.quantile(close, 5, 1.5), "q is 1.5"),
    ],
)
def test_invalid_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
