"""Adjusted prices and volumes: splits scale volumes, dividends do not, and what is not sure is said."""

from __future__ import annotations

import fnmatch

import numpy as np
import pyarrow as pa
import pytest

from gpupipe.data import load
from gpupipe.data.adjust import VOLUME_COLUMNS, adjust
from gpupipe.features import formulas

DAY_NS = 86_400 * 10**9
N = 60
PRICES = ("open", "high", "low", "close")


def true_bars(seed=0, n=N):
    """Bars of a symbol without any event, float64."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, n)))
    open_ = np.concatenate([[50.0], close[:-1]]) * np.exp(rng.normal(0, 0.005, n))
    bars = {"open": open_, "high": np.maximum(open_, close) * 1.01, "low": np.minimum(open_, close) * 0.99}
    return {**bars, "close": close, "volume": np.round(np.exp(rng.normal(12, 0.4, n)))}


def raw_bars(bars, splits=(), dividends=(), *, raw_volume=True):
    """What a vendor of raw prices sends: `splits` (row, ratio) and `dividends` (row, share of the price)."""
    raw = {name: values.copy() for name, values in bars.items()}
    for row, ratio in splits:
        for name in PRICES:
            raw[name][:row] *= ratio
        if raw_volume:
            raw["volume"][:row] /= ratio
    for row, share in dividends:
        for name in PRICES:
            raw[name][:row] /= 1 - share
    return {**raw, "adj_close": bars["close"]}


def adjusted(raw, series=None, names=("AAA",)):
    n = len(raw["close"])
    return adjust(np.zeros(n, int) if series is None else series, np.arange(n) * DAY_NS, raw, names)


def check(result, bars):
    for name in (*PRICES, "volume"):
        np.testing.assert_allclose(getattr(result, name), bars[name], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("ratio", [4.0, 2.0, 1.5, 1.25, 20.0, 0.1, 0.5, 1 / 30, 2 / 3])
def test_a_split_scales_prices_and_volumes(ratio):
    bars = true_bars()
    check(adjusted(raw_bars(bars, [(40, ratio)])), bars)


def test_dividends_leave_volumes():
    bars = true_bars()
    result = adjusted(raw_bars(bars, dividends=[(20, 0.01), (40, 0.15)]))
    check(result, bars)
    assert result.notes == ("volumes were not scaled: adj_close / close has no step that is a split",)


def test_a_dividend_and_a_split_at_once_count_as_the_split():
    bars = true_bars()
    raw = raw_bars(bars, [(30, 2.0), (45, 0.1)], [(10, 0.004), (30, 0.02), (45, 0.01)])
    result = adjusted(raw)
    check(result, bars)
    assert result.notes == (
        "volumes were scaled with 2 splits in adj_close / close (AAA 2:1 1970-01-31, AAA 1:10 1970-02-15)",
    )


def test_symbols_may_be_interleaved_and_in_any_order():
    one, two, three = true_bars(1), true_bars(2), true_bars(3)
    raws = raw_bars(one, [(30, 4.0)]), raw_bars(two, [(20, 0.1)]), raw_bars(three, dividends=[(30, 0.01)])
    table = {name: np.stack([raw[name] for raw in raws], axis=1).ravel() for name in raws[0]}
    time_ns, series = np.repeat(np.arange(N) * DAY_NS, 3), np.tile([0, 1, 2], N)
    order = np.random.default_rng(0).permutation(3 * N)
    result = adjust(series[order], time_ns[order], {k: v[order] for k, v in table.items()}, ("A", "B", "C"))
    expected = {name: np.stack([bars[name] for bars in (one, two, three)], axis=1).ravel()[order] for name in one}
    check(result, expected)


def test_volumes_that_are_adjusted_already_stay():
    bars = true_bars()
    result = adjusted(raw_bars(bars, [(40, 4.0)], raw_volume=False))
    check(result, bars)
    assert "volumes were not scaled with 1 split" in result.notes[0] and "adjusted already" in result.notes[0]


def test_a_step_without_a_price_gap_or_a_simple_ratio_leaves_volumes_and_is_named():
    bars = true_bars()
    double = {**bars, "adj_close": bars["close"] * np.where(np.arange(N) < 40, 0.25, 1.0)}  # close is adjusted already
    result = adjusted(double)
    np.testing.assert_array_equal(result.volume, bars["volume"].astype(np.float32))
    assert "1 large step of adj_close / close (AAA 1970-02-10)" in result.notes[1] and VOLUME_COLUMNS in result.notes[1]
    special = adjusted(raw_bars(bars, dividends=[(40, 0.3712)]))  # a spin-off: 1.59 is no simple ratio
    check(special, bars)
    assert "taken for dividends or spin-offs" in special.notes[1]


def test_what_the_volumes_do_not_tell_is_said():
    bars = true_bars(n=8)
    result = adjusted(raw_bars(bars, [(6, 2.0)]))  # two bars after the split are no evidence
    check(result, bars)
    assert "do not tell for sure" in result.notes[1] and VOLUME_COLUMNS in result.notes[1]


def test_an_adjusted_close_in_cents_and_unknown_values():
    bars = true_bars()
    raw = raw_bars(bars, [(40, 4.0)])
    raw["adj_close"] = np.round(raw["adj_close"], 2)
    raw["close"][39], raw["adj_close"][10], raw["volume"][5] = np.nan, np.nan, np.nan
    result = adjusted(raw)
    expected, unknown = np.where(np.arange(N) == 5, np.nan, bars["volume"]), [10, 39]
    np.testing.assert_allclose(np.delete(result.volume, unknown), np.delete(expected, unknown), rtol=1e-6)
    assert np.isnan(result.open[unknown]).all() and np.isfinite(np.delete(result.open, unknown)).all()


def test_the_reader_adjusts_each_timeframe_and_symbol_and_says_so(tmp_path):
    one, two = true_bars(1), true_bars(2)
    tables = []
    for symbol, raw in (("AAA", raw_bars(one, [(30, 4.0)])), ("BBB", raw_bars(two, dividends=[(30, 0.01)]))):
        for frame, scale in (("1d", 1.0), ("1w", 3.0)):
            values = {name: pa.array(array * (scale if name in PRICES else 1)) for name, array in raw.items()}
            values["adj_close"] = pa.array(raw["adj_close"] * scale)
            time = pa.array(np.arange(N) * DAY_NS).cast(pa.timestamp("ns"))
            tables.append(pa.table({"symbol": [symbol] * N, "time": time, "timeframe": [frame] * N, **values}))
    table = pa.concat_tables(tables)
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows)))
    panel, report = load(shuffled, {"AAA": "x", "BBB": "x"}, device="cpu", adjusted=True, timeframe="1d")
    np.testing.assert_allclose(panel.close, np.concatenate([one["close"], two["close"]]), rtol=1e-6)
    np.testing.assert_allclose(panel.volume, np.concatenate([one["volume"], two["volume"]]), rtol=1e-6)
    assert report.notes[0] == "open, high, low and close were scaled by adj_close / close"
    assert report.notes[1].startswith("volumes were scaled with 2 splits in adj_close / close (AAA 4:1 1970-01-31")


def test_the_columns_that_are_named_exist():
    patterns = VOLUME_COLUMNS.removesuffix(" and others").split(", ")
    for pattern in patterns:
        assert fnmatch.filter([f"{name}_20" for name in formulas.FEATURES], pattern), pattern
