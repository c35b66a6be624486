"""The feature kernels: compiled loop equals plain body, formulas equal pandas, edge cases, and the kernel compiler."""

from __future__ import annotations

import numba
import numpy as np
import pandas as pd
import pytest

import gpupipe.kernels.compile as compiler
from gpupipe.data.panel import BARS, PRICES, Panel
from gpupipe.features.formulas import FEATURES
from gpupipe.features.matrix import compute_features, feature_names, warm_up_of
from gpupipe.kernels.compile import Kernel, all_kernels, inline, kernel
from tests.support.panels import random_panel


def with_columns(panel: Panel, **changes) -> Panel:
    """The panel with some rows changed: `close={row: value}`."""
    columns = {name: getattr(panel, name).copy() for name in BARS}
    for name, rows in changes.items():
        for row, value in rows.items():
            columns[name][row] = value
    return panel.replace(**columns)


def constant_panel(n_bars: int = 320, price: float = 17.3, volume: float = 0.0) -> Panel:
    panel = random_panel((n_bars,) * 2)
    prices = {name: np.full(panel.n_rows, price, dtype=np.float32) for name in PRICES}
    return panel.replace(**prices, volume=np.full(panel.n_rows, volume, dtype=np.float32))


def dirty_panel() -> Panel:
    """Symbols of 90, 1, 30, 75 bars with NaN, zero, negative, infinite and huge values, and some equal prices."""
    panel = random_panel((90, 1, 30, 75))
    flat = {row: np.float32(50) for row in range(50, 75)}
    return with_columns(
        panel,
        open={**flat, 20: np.nan},
        high={**flat, 100: np.inf},
        low={**flat, 105: 0},
        close={**flat, 33: -1, 130: 1e-6, 131: 1e6},
        volume={**dict.fromkeys(range(60, 80), 0), 25: np.nan, 140: -5},
    )


def run_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(self: Kernel, n: int, *arguments) -> None:
        for i in range(n):
            item_arguments = (arguments[0][0], *arguments[1:]) if self.cooperative else arguments
            with np.errstate(all="ignore"):
                self.body(np.int64(i), *item_arguments)

    monkeypatch.setattr(Kernel, "__call__", call)


@pytest.mark.parametrize("panel", [random_panel((320, 1, 25, 300)), dirty_panel()], ids=["clean", "dirty"])
def test_compiled_loop_equals_plain_body(panel, monkeypatch):
    compiled = compute_features(panel, "all").values
    run_plainly(monkeypatch)
    plain = compute_features(panel, "all").values
    for k, name in enumerate(feature_names("all")):
        np.testing.assert_array_equal(compiled[:, k], plain[:, k], name)


def test_cpu_equals_cuda(device):
    """Within float32 rounding of float64 sums: the GPU contracts a * b + c, and its log and sqrt round differently."""
    panel = random_panel((320, 1, 40, 120, 320))
    on_device = compute_features(panel.to(device), "all")
    expected = compute_features(panel, "all").values
    for k, name in enumerate(feature_names("all")):
        values = device.to_host(on_device.values)[:, k]
        spread = np.nanstd(expected[:, k])
        np.testing.assert_allclose(values, expected[:, k], rtol=1e-5, atol=1e-6 * spread, err_msg=name)


def _yang_zhang(o, h, l, c, n):  # noqa: E741
    gap, body, up, down = np.log(o / c.shift()), np.log(c / o), np.log(h / o), np.log(l / o)
    satchell = (up * (up - body) + down * (down - body)).rolling(n).mean()
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    return np.sqrt(gap.rolling(n).var() + k * body.rolling(n).var() + (1 - k) * satchell)


def pandas_columns(bars: pd.DataFrame) -> dict[str, pd.Series]:
    """Columns of one symbol that TA-Lib does not have, computed by their formulas."""
    o, h, l, c = (bars[name] for name in PRICES)  # noqa: E741
    r, g = np.log(c / c.shift()), np.log(o / c.shift())
    tr = np.maximum(h, c.shift()) - np.minimum(l, c.shift())
    tr = (tr / c.shift())[1:].reindex(c.index)
    co, hl = np.log(c / o), np.log(h / l)
    columns = {"gap": o / c.shift() - 1, "bar_return": c / o - 1, "bar_range": (h - l) / c, "body": (c - o) / (h - l)}
    columns["upper_shadow"] = (h - np.maximum(o, c)) / (h - l)
    columns["lower_shadow"] = (np.minimum(o, c) - l) / (h - l)
    columns["range_ratio_20"] = tr / tr.rolling(20).mean()
    for n in (20, 60):
        columns[f"vol_of_vol_{n}"] = tr.rolling(n).std(ddof=0) / tr.rolling(n).mean()
        columns[f"downside_volatility_{n}"] = np.sqrt((np.minimum(r, 0) ** 2).rolling(n).mean())
        columns[f"max_abs_gap_{n}"] = g.abs().rolling(n).max()
    for n in (5, 20, 60):
        columns[f"max_abs_return_{n}"] = r.abs().rolling(n).max()
    for short, long in ((5, 20), (5, 60), (20, 60)):
        columns[f"volatility_ratio_{short}_{long}"] = np.sqrt(
            (r**2).rolling(short).mean() / (r**2).rolling(long).mean()
        )
    columns["gap_volatility_20"] = np.sqrt((g**2).rolling(20).mean())
    columns["skewness_60"] = r.rolling(60).apply(lambda x: ((x - x.mean()) ** 3).mean() / x.std(ddof=0) ** 3)
    columns["kurtosis_60"] = r.rolling(60).apply(lambda x: ((x - x.mean()) ** 4).mean() / x.std(ddof=0) ** 4 - 3)
    columns["autocorrelation_60"] = r.rolling(60).apply(_autocorrelation)
    columns["parkinson_20"] = np.sqrt((hl**2).rolling(20).mean() / (4 * np.log(2)))
    columns["garman_klass_20"] = np.sqrt((hl**2 / 2 - (2 * np.log(2) - 1) * co**2).rolling(20).mean())
    up, down = np.log(h / o), np.log(l / o)
    columns["rogers_satchell_20"] = np.sqrt((up * (up - co) + down * (down - co)).rolling(20).mean())
    columns["yang_zhang_20"] = _yang_zhang(o, h, l, c, 20)
    columns["bars_since_high_60"] = h.rolling(60).apply(lambda x: 59 - x.argmax(), raw=True)
    columns["bars_since_low_60"] = l.rolling(60).apply(lambda x: 59 - x.argmin(), raw=True)
    time = pd.to_datetime(bars["time"])
    columns["weekday"], columns["elapsed_days"] = time.dt.day_of_week, time.diff() / pd.Timedelta(days=1)
    return columns


def _autocorrelation(x: pd.Series) -> float:
    d = (x - x.mean()).to_numpy()
    return (d[1:] * d[:-1]).sum() / (d**2).sum()


def frame_of(panel: Panel) -> pd.DataFrame:
    frame = pd.DataFrame({name: getattr(panel, name).astype(np.float64) for name in BARS})
    sector = np.array(panel.sector)[panel.symbol_of_row]
    return frame.assign(time=panel.time_ns, symbol=panel.symbol_of_row, sector=sector)


def test_columns_equal_their_formulas_in_pandas():
    panel = random_panel((320, 200))
    for symbol, bars in frame_of(panel).groupby("symbol"):
        expected = pandas_columns(bars)
        features = compute_features(panel, list(expected))
        for name, column in expected.items():
            rows = features.column(name)[panel.offsets[symbol] : panel.offsets[symbol + 1]]
            np.testing.assert_allclose(rows, column, rtol=2e-6, atol=3e-7, err_msg=name)


def test_cross_sections_equal_pandas_on_a_panel_with_holes():
    lengths = (150, 90, 150, 120, 150, 150, 3)
    panel = with_columns(random_panel(lengths), close={row: np.nan for row in (40, 200, 201, 333)})
    compared = compute_features(panel, ["roc_1", "roc_5", "roc_20", "natr_14"])
    frame = frame_of(panel).assign(**{name: compared.column(name).astype(np.float64) for name in compared.names})
    features = compute_features(panel, "cross_sectional")
    groups = frame.groupby(["sector", "time"])
    for name in compared.names:
        x, group = frame[name], groups[name]
        expected = {
            f"sector_rank_{name}": ((group.rank() - 1) / (group.transform("count") - 1)).where(
                group.transform("count") > 1, x.where(x.isna(), 0.5)
            ),
            f"sector_excess_{name}": x - group.transform("mean"),
            f"sector_mean_{name}": group.transform("mean").where(x.notna()),
            f"sector_dispersion_{name}": group.transform("std", ddof=0).where(x.notna()),
        }
        for column, values in expected.items():
            if column in features.names:
                np.testing.assert_allclose(features.column(column), values, rtol=1e-5, atol=1e-6, err_msg=column)
    means = groups["natr_14"].mean().unstack("sector")
    ratio = (means / means.rolling(60).mean()).stack().rename("ratio")
    joined = frame.join(ratio, on=["time", "sector"])["ratio"].where(frame["natr_14"].notna())
    np.testing.assert_allclose(features.column("sector_natr_ratio_60"), joined, rtol=1e-5)


def test_an_unknown_bar_affects_only_the_windows_that_hold_it():
    panel = random_panel((320,) * 3)
    row = 100
    broken = with_columns(panel, **{name: {row: np.nan} for name in BARS})
    base, values = compute_features(panel, "all"), compute_features(broken, "all")
    energy = slice(320, 640)  # the other sector
    np.testing.assert_array_equal(values.values[energy], base.values[energy])
    for name in feature_names("all"):
        column = values.column(name)
        np.testing.assert_array_equal(column[:row], base.column(name)[:row], name)
        assert not np.isnan(column[row + 1 + warm_up_of(name) : 320]).any(), name
        assert np.isnan(column[row]) or FEATURES[name].family == "calendar", name


def test_no_feature_is_ever_infinite():
    values = compute_features(dirty_panel(), "all").values
    assert not np.isinf(values).any()
    assert (~np.isnan(values)).any(axis=0).sum() >= 80
    tiny_to_huge = with_columns(random_panel((90,)), **{name: {70: 1e-38, 71: 3e38} for name in PRICES})
    assert not np.isinf(compute_features(tiny_to_huge, "all").values).any()


CONSTANT_VALUES = {
    "rsi_14": 50, "willr_14": -50, "stoch_slowk_14": 50, "stoch_slowd_14": 50, "cci_20": 0, "natr_14": 0, "adx_14": 0,
    "log_natr_14": np.log(1e-4), "vol_of_vol_20": 0, "range_ratio_20": 1, "volatility_20": 0, "max_abs_return_20": 0,
    "skewness_60": 0, "kurtosis_60": 0, "autocorrelation_60": 0, "volatility_ratio_5_60": 1, "yang_zhang_20": 0,
    "bb_percent_20": 0.5, "bb_width_20": 0, "macd_line_ratio": 0, "sma_ratio_50": 0, "ema_ratio_50": 0, "body": 0,
    "volume_ratio_1_20": 1, "volume_variation_20": 0, "mfi_14": 50, "cmf_20": 0, "obv_slope_20": 0,
    "bars_since_high_60": 0, "sector_natr_ratio_60": 1, "sector_rank_roc_1": 0.5, "sector_dispersion_roc_1": 0,
}  # fmt: skip


@pytest.mark.parametrize("price", [17.3, 1e-6, 1e6])
def test_constant_prices_without_volume_have_the_documented_values(price):
    features = compute_features(constant_panel(price=price), "all")
    assert not np.isinf(features.values).any()
    for name in feature_names("all"):
        column = features.column(name)[:320]
        if FEATURES[name].family != "alpha158":  # Qlib has NaN where it divides by 0
            assert not np.isnan(column[warm_up_of(name) :]).any(), name
        if name in CONSTANT_VALUES:
            np.testing.assert_allclose(column[warm_up_of(name) :], CONSTANT_VALUES[name], atol=1e-6, err_msg=name)


def test_constant_prices_after_large_moves_are_exact():
    """No rounding error of earlier moves survives in a window: the volatility of constant prices is 0, not 1e-9."""
    panel = random_panel((320,))
    still = {name: dict.fromkeys(range(150, 320), panel.close[149]) for name in PRICES}
    features = compute_features(with_columns(panel, **still), "all")
    for name in ("volatility_60", "downside_volatility_60", "parkinson_20", "garman_klass_20", "rogers_satchell_20",
                 "yang_zhang_20", "gap_volatility_20", "bb_width_20", "sma_ratio_50", "skewness_60"):  # fmt: skip
        assert (features.column(name)[215:] == 0).all(), name
    assert (features.column("volatility_ratio_5_60")[215:] == 1).all()


@pytest.mark.parametrize("lengths", [(1,), (2,), (1, 1, 1), (59,)])
def test_symbols_shorter_than_a_window_have_nan_only(lengths):
    features = compute_features(random_panel(lengths), "all")
    for name in feature_names("all"):
        longest = max(lengths)
        assert np.isnan(features.column(name)).all() == (warm_up_of(name) >= longest), name


def test_a_panel_without_rows_has_features_without_rows():
    empty = random_panel((0, 0))
    assert compute_features(empty).values.shape == (0, compute_features(random_panel((2,))).n_features)


def test_every_kernel_states_its_types_and_is_listed():
    for item in all_kernels():
        assert item.signature[0] == numba.int64 and len(item.signature) == len(item.types) + 1


@inline
def _twice(x):
    """2 x."""
    return x * TWO


TWO = np.float32(2)


@kernel(types=("f4[:]", "f4[:]"))
def _doubled(i, x, y):
    """y = 2 x."""
    y[i] = _twice(x[i])  # through an inlined function and a constant


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_loop_gives_equal_results_on_any_number_of_threads(n_threads, monkeypatch):
    monkeypatch.setattr(compiler, "n_threads", lambda: n_threads)
    compiler._pool.cache_clear()
    try:
        for n in (0, 1, 2, 5, 1000):
            x, y = np.arange(n, dtype=np.float32), np.full(n, np.nan, dtype=np.float32)
            _doubled(n, x, y)
            np.testing.assert_array_equal(y, 2 * x)
    finally:
        compiler._pool.cache_clear()


def test_the_definition_holds_code_without_comments_and_docstrings():
    assert "x * TWO" in _doubled.definition and "TWO = np.float32(2.0)" in _doubled.definition
    assert "through an inlined" not in _doubled.definition and "y = 2 x" not in _doubled.definition


def test_a_loop_runs_without_a_cache(monkeypatch):
    """Once without a folder for numba's cache, and once where writing to it fails."""
    real = compiler.njit

    def without_folder(**options):
        if options.get("cache"):

            def refuse(function):
                raise RuntimeError("cannot cache function: no locator available")

            return refuse
        return real(**options)

    def full_disk(**options):
        compile_only = real(**{k: v for k, v in options.items() if k != "cache"})

        def refuse(function):
            dispatcher = compile_only(function)
            monkeypatch.setattr(dispatcher._cache, "save_overload", _no_space)
            return dispatcher

        return refuse if options.get("cache") else compile_only

    for broken in (without_folder, full_disk):
        monkeypatch.setattr(compiler, "njit", broken)
        again = Kernel(_doubled.body, types=_doubled.types)
        x, y = np.arange(5, dtype=np.float32), np.zeros(5, dtype=np.float32)
        again(5, x, y)
        np.testing.assert_array_equal(y, 2 * x)


def _no_space(*_):
    raise OSError(28, "No space left on device")


def test_read_only_inputs_do_not_compile_a_second_loop():
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, dtype=np.float32)
    for writeable in (True, False):
        x.setflags(write=writeable)
        _doubled(5, x, y)
    assert _doubled.written == (False, True)
    assert len(_doubled.cpu.signatures) == 1
    np.testing.assert_array_equal(y, 2 * x)


def test_arrays_of_another_type_or_order_are_refused():
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, dtype=np.float32)
    with pytest.raises(ValueError, match=r"x is float64 \(5,\), expected float32 of 1 dimensions in C order"):
        _doubled(5, x.astype(np.float64), y)
    with pytest.raises(ValueError, match=r"y is float32 \(5, 1\), expected float32 of 1"):
        _doubled(5, x, y[:, None])
    with pytest.raises(ValueError, match="expected float32 of 1 dimensions in C order"):
        _doubled(2, x[::2], y)
    with pytest.raises(ValueError, match="takes x, y after n; got 1"):
        _doubled(5, x)
    y.setflags(write=False)
    with pytest.raises(ValueError, match="writes to y, which is read-only"):
        _doubled(5, x, y)


def test_every_output_of_the_feature_kernels_is_recognised_as_written():
    for item in all_kernels():
        assert any(item.written), item.__name__
        outputs = [name for name, written in zip(item.names, item.written, strict=True) if written]
        reads_a_matrix = item.__module__.rpartition(".")[2] in ("windows", "environment", "episodes")
        if "columns" in item.names and not reads_a_matrix:
            assert outputs == ["out"], item.__name__


def test_wrong_types_are_refused():
    with pytest.raises(ValueError, match="has 1 types for its arguments x, y"):
        kernel(types=("f4[:]",))(_doubled.body)
    with pytest.raises(ValueError, match="'f2' is unknown; expected one of f4"):
        kernel(types=("f4[:]", "f2"))(_doubled.body)
    forms = r"alone or with \[:\], \[:,:\] or \[:,:,:\]$"
    with pytest.raises(ValueError, match=forms):
        kernel(types=("f4[:]", "f4[:,:,:,:]"))(_doubled.body)
    assert kernel(types=("f4[:]", "f4[:,:,:]"))(_doubled.body).signature[2].ndim == 3
