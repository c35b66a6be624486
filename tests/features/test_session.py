"""The set "session": its columns against plain pandas, on real bars and on bars with holes; no look-ahead; edges."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from gpupipe import begin_features, compute_bins, compute_features, load_state, read
from gpupipe.cli import main
from gpupipe.data.panel import BARS, PRICES, Panel
from gpupipe.dataset.audit import audit
from gpupipe.features import compute
from gpupipe.features.formulas import FEATURES, SESSION
from gpupipe.features.matrix import feature_names, warm_up_of
from gpupipe.workloads.equity import make
from tests.features.test_kernels import constant_panel, run_plainly
from tests.support.panels import random_panel

DAY_NS = 86_400_000_000_000
QUARTER_NS = DAY_NS // 96  # 15 minutes
OWN = [name for name in SESSION if FEATURES[name].family == "intraday"]


def quarter_hours(lengths=(700, 650, 1, 260), seed=5) -> Panel:
    """Random 15-minute bars without bars at night and at weekends; prices of 17.3, 1e-6, 100 and 1e6 at the start."""
    panel = random_panel(lengths, seed)
    starts = np.array([10, 4 * 96 + 33, 50, 95])[: len(lengths)]  # 1970-01-01 was a Thursday
    grid = np.arange(40 * 96)
    grid = grid[(grid % 96 < 88) & ((grid // 96 + 3) % 7 < 5)]
    times = [grid[grid >= start][:length] for start, length in zip(starts, lengths, strict=True)]
    price = np.array([0.173, 1e-8, 1, 1e4])[panel.symbol_of_row]
    columns = {name: (getattr(panel, name) * price).astype(np.float32) for name in PRICES}
    return panel.replace(**columns, time_ns=np.concatenate(times) * QUARTER_NS)


def with_holes(panel: Panel) -> Panel:
    """Prices and volumes of some bars unknown, also of a day's first bar; a day without trades; days left out."""
    columns = {name: getattr(panel, name).copy() for name in BARS}
    day = panel.session_day
    first = np.flatnonzero(np.append(True, day[1:] != day[:-1]))
    for k, name in enumerate(BARS):
        columns[name][[100 + k, first[4 + k], first[12] + 3 * k]] = np.nan
    columns["volume"][200:330] = 0
    columns["close"][first[3] + 5 : first[3] + 9] = np.nan
    keep = np.ones(panel.n_rows, dtype=bool)
    keep[first[9] : first[11] + 20] = False  # two days and the beginning of a third
    return panel.replace(**columns).take(keep, keep_empty=True)


@pytest.fixture(params=["xauusd_15m", "btcusd_1h"])
def real_bars(request, sp500_folder) -> Panel:
    return read(sp500_folder / f"{request.param}.parquet", no_sector="other")


def round_distance(price: float, n: int) -> float:
    """(price - nearest multiple of a step) / step, in exact arithmetic."""
    if not price > 0:
        return np.nan
    step = Fraction(10) ** Decimal(price).adjusted() / n
    steps = Fraction(price) / step
    return float(steps - (steps + Fraction(1, 2)) // 1)


def volume_profile(typical: pd.Series, close: pd.Series, volume: pd.Series, n: int) -> pd.Series:
    """(volume below the close - volume above it) / volume of n bars; `typical` and `close` three times the prices."""
    out = np.full(len(close), np.nan)
    for t in range(n - 1, len(close)):
        traded, price = volume[t - n + 1 : t + 1], typical[t - n + 1 : t + 1]
        balance = (np.sign(close[t] - price) * traded).sum(skipna=False)
        out[t] = 0.0 * balance if traded.sum() == 0 else balance / traded.sum(skipna=False)
    return pd.Series(out)


def plain_columns(bars: pd.DataFrame) -> dict[str, pd.Series]:
    """The columns of the family "intraday" of one symbol's bars, by their formulas."""
    o, h, l, c, v = (bars[name] for name in BARS)  # noqa: E741
    time = pd.to_datetime(bars["clock_ns"])
    day, hour = time.dt.normalize(), time.dt.hour
    angle = 2 * np.pi * (bars["clock_ns"] % DAY_NS) / DAY_NS
    columns = {"time_sine": np.sin(angle), "time_cosine": np.cos(angle)}
    columns["session_asia"], columns["session_london"] = hour < 9, (hour >= 8) & (hour < 17)
    columns["session_new_york"], columns["session_overlap"] = (hour >= 13) & (hour < 22), (hour >= 13) & (hour < 17)
    columns["session_return"] = c / o.groupby(day).transform(lambda x: x.iloc[0]) - 1
    typical = h + l + c
    paid, known = typical * v, (typical * v).notna()
    traded = v.where(known).groupby(day).cumsum()
    ratio = 3 * c * traded / paid.groupby(day).cumsum() - 1
    columns["session_vwap_ratio"] = ratio.where(traded > 0, 0.0).where(known)
    for n in (10, 100):
        columns[f"round_distance_{n}"] = pd.Series([round_distance(price, n) for price in c])
    columns["volume_profile_60"] = volume_profile(typical, 3 * c, v, 60)
    return columns


def check_against_pandas(panel: Panel) -> None:
    features = compute_features(panel, OWN)
    for first, end in zip(panel.offsets[:-1], panel.offsets[1:], strict=True):
        bars = pd.DataFrame({name: getattr(panel, name)[first:end].astype(np.float64) for name in BARS})
        expected = plain_columns(bars.assign(clock_ns=panel.clock_ns[first:end]))
        assert set(expected) == set(OWN)
        for name, column in expected.items():
            rows = features.column(name)[first:end]
            np.testing.assert_allclose(rows, column.astype(np.float64), rtol=1e-6, atol=1e-7, err_msg=name)


def test_the_set_has_36_columns_and_no_other_set_has_those_of_its_own_family():
    assert feature_names("session") == tuple(SESSION) and len(set(SESSION)) == 36
    assert set(OWN) == set(feature_names("intraday")) and len(OWN) == 11
    assert not set(OWN) & set(feature_names(["all", "default", "core", "*"]))
    assert feature_names(["session", "roc_60"]) == (*SESSION, "roc_60")
    assert max(map(warm_up_of, SESSION)) <= 60  # a row is warm once windows of 61 bars are full
    assert make(settings=["features.names=session"]).features.names == ("session",)


def test_the_command_lists_36_columns(capsys):
    assert main.main(["features", "session", "--json"]) == 0
    assert {column["name"] for column in json.loads(capsys.readouterr().out)} == set(SESSION)


def test_columns_equal_plain_pandas_on_real_bars(real_bars):
    check_against_pandas(real_bars)


@pytest.mark.parametrize("panel", [quarter_hours(), with_holes(quarter_hours())], ids=["clean", "holes"])
def test_columns_equal_plain_pandas_on_made_bars(panel):
    check_against_pandas(panel)


def test_days_and_hours_are_those_of_the_clock_of_the_bars():
    panel = with_holes(quarter_hours())
    check_against_pandas(panel.replace(local_ns=panel.time_ns - 5 * DAY_NS // 24))


def test_nothing_looks_ahead_on_real_bars(real_bars):
    findings = audit(real_bars, "session", (1,), (0.02,), multiples=())
    assert len(findings) == 36 + 1 and [finding.name for finding in findings if not finding.clean] == []


@pytest.mark.parametrize("panel", [quarter_hours(), with_holes(quarter_hours())], ids=["clean", "holes"])
def test_nothing_looks_ahead_on_made_bars(panel):
    findings = audit(panel, "session", (1,), (0.02,))
    assert [finding.name for finding in findings if not finding.clean] == []


@pytest.mark.parametrize("panel", [quarter_hours((300, 1)), with_holes(quarter_hours())], ids=["clean", "holes"])
def test_compiled_loop_equals_plain_body(panel, monkeypatch):
    compiled = compute_features(panel, "session").values
    run_plainly(monkeypatch)
    np.testing.assert_array_equal(compiled, compute_features(panel, "session").values)


def test_a_gpu_gives_the_same_columns(device):
    panel = with_holes(quarter_hours())
    on_device = device.to_host(compute_features(panel.to(device), "session").values)
    expected = compute_features(panel, "session").values
    for k, name in enumerate(SESSION):  # the tolerance of tests/features/test_kernels.py
        spread = np.nanstd(expected[:, k])
        np.testing.assert_allclose(on_device[:, k], expected[:, k], rtol=1e-5, atol=1e-6 * spread, err_msg=name)


@pytest.mark.parametrize("block", [1, 17, 96, 500])
def test_blocks_of_rows_change_no_bit(block, monkeypatch):
    panel = with_holes(quarter_hours())
    whole = compute_features(panel, "session").values
    monkeypatch.setattr(compute, "BLOCK", block)
    np.testing.assert_array_equal(compute_features(panel, "session").values, whole)


@pytest.mark.parametrize("n_bars", [1, 23, 96])
def test_new_rows_equal_a_recomputation_bit_for_bit(n_bars, tmp_path):
    """A state may end anywhere in a day: the sums of the day go on."""
    panel = with_holes(quarter_hours((700, 650)))
    whole = compute_features(panel, "session").values
    times = np.unique(panel.time_ns)
    _, state = begin_features(panel.take(panel.time_ns < times[300]), "session")
    state.save(tmp_path / "state.npz")
    state = load_state(tmp_path / "state.npz", panel.device)
    for k in range(300, 480, n_bars):
        new = (panel.time_ns >= times[k]) & (panel.time_ns < times[k + n_bars])
        features, state = state.advance(panel.take(new))
        np.testing.assert_array_equal(features.values, whole[new])


def test_columns_are_binned_as_others_are():
    panel = with_holes(quarter_hours())
    values = compute_features(panel, OWN).values
    bins = compute_bins(panel, OWN, [np.float32([-0.25, 0.25])] * len(OWN)).values
    binned = (values >= -0.25).astype(np.uint8) + (values >= 0.25)
    np.testing.assert_array_equal(bins, np.where(np.isnan(values), 255, binned))


def test_of_daily_bars_the_day_is_the_bar():
    panel = random_panel((80, 30))
    features = compute_features(panel, "session")
    typical = (panel.high.astype(np.float64) + panel.low + panel.close) / 3
    np.testing.assert_allclose(features.column("session_vwap_ratio"), panel.close / typical - 1, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(features.column("session_return"), features.column("bar_return"))
    assert (features.column("time_sine") == 0).all() and (features.column("time_cosine") == 1).all()
    assert (features.column("session_asia") == 1).all() and (features.column("session_new_york") == 0).all()


def test_the_first_bar_of_a_day_forgets_the_day_before():
    panel = quarter_hours((300,))
    first = np.flatnonzero(np.diff(panel.session_day, prepend=-1))
    assert len(first) >= 3
    features = compute_features(panel, ["session_vwap_ratio", "session_return"])
    typical = (panel.high.astype(np.float64) + panel.low + panel.close)[first] / 3
    np.testing.assert_allclose(features.values[first, 0], panel.close[first] / typical - 1, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(features.values[first, 1], panel.close[first] / panel.open[first] - 1, atol=1e-7)
    # One large day changes no later day: nothing of a sum outlives its day.
    volume = panel.volume.copy()
    volume[first[0] : first[1]] *= np.float32(1e9)
    later = compute_features(panel.replace(volume=volume), ["session_vwap_ratio"]).values[first[1] :, 0]
    np.testing.assert_array_equal(later, features.values[first[1] :, 0])


@pytest.mark.parametrize("price", [17.3, 1e-6, 1e6])
def test_constant_prices_without_volume_have_the_documented_values(price):
    features = compute_features(constant_panel(price=price), "session")
    assert not np.isinf(features.values).any()
    distances = {f"round_distance_{n}": round_distance(float(np.float32(price)), n) for n in (10, 100)}
    expected = {"session_vwap_ratio": 0, "session_return": 0, "volume_profile_60": 0, **distances}
    for name in SESSION:
        column = features.column(name)[:320]
        assert not np.isnan(column[warm_up_of(name) :]).any(), name
        if name in expected:
            np.testing.assert_allclose(column[warm_up_of(name) :], expected[name], atol=1e-6, err_msg=name)


def test_neither_price_level_nor_volume_level_matters():
    """Powers of two scale without rounding; a round number depends on the digits of a price, which they change."""
    panel = with_holes(quarter_hours())
    price, volume = (np.float32(2.0**power)[panel.symbol_of_row] for power in np.array([[-9, 3, 0, 11], [4, -6, 0, 9]]))
    columns = {name: getattr(panel, name) * price for name in PRICES}
    scaled = panel.replace(**columns, volume=panel.volume * volume)
    names = [name for name in SESSION if not name.startswith("round_distance")]
    np.testing.assert_array_equal(compute_features(scaled, names).values, compute_features(panel, names).values)


@pytest.mark.parametrize("n", [10, 100])
def test_round_numbers_are_round_at_any_price(n):
    """Every power of ten that float32 holds, prices at, just below and just above it, and halfway between levels."""
    prices = np.float32([10.0**k for k in range(-37, 39)])
    prices = np.concatenate([prices, np.nextafter(prices, np.float32(0)), np.nextafter(prices, np.float32(np.inf))])
    ordinary = np.float32([17.3, 2065.7, 2065, 2050, 34567.8, 0.0645, 9.99, 9.5, 1e-6, 1e6, 1.17e-38, 3.4e38])
    prices = np.concatenate([prices, ordinary])
    panel = random_panel((len(prices),)).replace(**dict.fromkeys(PRICES, prices))
    values = compute_features(panel, f"round_distance_{n}").values[:, 0]
    expected = np.array([round_distance(float(price), n) for price in prices])
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert (abs(values) <= 0.5).all() and (abs(values[:76]) < 1e-4).all()
    by_hand = {2065.7: (-0.343, -0.43), 2065: (-0.35, -0.5), 2050: (-0.5, 0.0), 9.5: (-0.0, -0.0)}
    for price, distances in by_hand.items():
        at = np.flatnonzero(prices == np.float32(price))[0]
        assert values[at] == pytest.approx(distances[n == 100], abs=2e-5), price


def test_extreme_prices_are_never_infinite():
    panel = quarter_hours((300,))
    columns = {name: getattr(panel, name).copy() for name in BARS}
    for name in PRICES:
        columns[name][100:104] = np.float32([1e-38, 3e38, 1e-45, 17.3])
    columns["volume"][102:105] = np.float32([3e38, 1e-45, 0])
    values = compute_features(panel.replace(**columns), "session").values
    assert not np.isinf(values).any() and not np.isnan(values[180:, SESSION.index("session_vwap_ratio")]).any()
