"""Labels against an independent plain-Python reference, on real prices, near-ties included."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from gpupipe.targets.triple_barrier import AMBIGUOUS, PER_LABEL, barrier_classes, tp_dd_labels
from tests.support.barriers import barriers_of
from tests.support.market import demo_panel, panel_of, sp500_panel
from tests.support.panels import random_panel
from tests.targets.label_reference import (
    BUY,
    HOLD,
    HORIZONS,
    SELL,
    THRESHOLDS,
    UNKNOWN,
    Settings,
    reference,
    reference_weight,
)


def assert_equal_to_reference(panel, device, **options):
    """Compare every array with the reference; options are those of tp_dd_labels. Returns the reference's y."""
    settings = Settings(**options)
    arguments = dict(vars(settings))
    if settings.volatility is not None:
        arguments["volatility"] = device.asarray(settings.volatility)
    labels = tp_dd_labels(panel.to(device), **arguments)
    expected = reference(panel, settings)
    for name in ("y", "touch", "touch_bars", "decided_bars", "exit_row"):
        np.testing.assert_array_equal(device.to_host(getattr(labels, name)), expected[name], err_msg=name)
    price_of_return = {"tp": "highest", "dd": "lowest", "forward_return": "last", "realised_return": "price"}
    entry = panel.close[:, None]
    for name, prices in price_of_return.items():
        with np.errstate(divide="ignore", invalid="ignore"):  # a close of 0 whose window is unknown
            ratio = expected[prices].astype(np.float32) / entry - np.float32(1)
        np.testing.assert_array_equal(device.to_host(getattr(labels, name)), ratio, err_msg=name)
    return expected["y"]


def test_demo_labels_equal_the_reference_row_for_row(device):
    y = assert_equal_to_reference(demo_panel(), device)
    assert all(np.isin((SELL, HOLD, BUY, UNKNOWN), column).all() for column in y.T)


@pytest.mark.parametrize("ambiguous", AMBIGUOUS)
def test_first_touch_equals_the_reference_row_for_row(device, ambiguous):
    panel = demo_panel(n_symbols=60)
    y = assert_equal_to_reference(panel, device, rule="first_touch", ambiguous=ambiguous)
    other = tp_dd_labels(panel, HORIZONS, THRESHOLDS).y
    assert (y != other).any(), "no window of these symbols reaches both prices: the rule is not tested"


@pytest.mark.parametrize("rule", ["take_profit_first", "first_touch"])
def test_calendar_windows_equal_the_reference_row_for_row(device, rule):
    y = assert_equal_to_reference(demo_panel(n_symbols=60), device, window="calendar", rule=rule)
    assert (y != UNKNOWN).all()  # the end of the history is not marked


def test_sp500_labels_equal_the_reference_row_for_row(device, sp500_folder):
    panel = sp500_panel(sp500_folder)  # every sixth symbol: the reference is a loop in Python
    assert_equal_to_reference(panel.where([k % 6 == 0 for k in range(panel.n_symbols)]), device)


def test_sp500_shares_equal_the_published_shares(device, sp500_folder):
    panel = sp500_panel(sp500_folder)
    labels = tp_dd_labels(panel.to(device))
    # Per cent of rows whose high reaches close +5 % / +10 %, whose low reaches -5 % / -10 %, in 1, 2 and 5 bars:
    # published with the data, to two decimals.
    published = [[1.16, 0.14, 1.30, 0.15], [3.41, 0.41, 3.63, 0.45], [11.67, 1.73, 10.96, 1.84]]
    tp, dd = device.to_host(labels.tp), device.to_host(labels.dd)
    for k, row in enumerate(published):
        known = ~np.isnan(tp[:, k])
        reached = [tp[known, k] >= 0.05, tp[known, k] >= 0.10, dd[known, k] <= -0.05, dd[known, k] <= -0.10]
        assert [100 * share.mean() for share in reached] == pytest.approx(row, abs=0.01)
        buys = [100 * (device.to_host(labels.y)[known, 2 * k + m] == BUY).mean() for m in range(2)]
        assert buys == pytest.approx(row[:2], abs=0.01)


def test_a_price_on_the_barrier_counts_and_one_ulp_short_of_it_does_not(device):
    rng = np.random.default_rng(7)
    close = np.exp(rng.uniform(-4, 9, 3000)).astype(np.float32)
    for t in (0.05, 0.10, 0.025):
        up, down = barriers_of(close, t)
        # The float32 product differs for some of them, so the test would detect it.
        assert (up != close * np.float32(1 + t)).any()
        for high, low, expected in (
            (up, close, BUY), (np.nextafter(up, np.float32(np.inf)), close, BUY),
            (np.nextafter(up, np.float32(0)), close, HOLD),
            (close, down, SELL), (close, np.nextafter(down, np.float32(0)), SELL),
            (close, np.nextafter(down, np.float32(np.inf)), HOLD),
            (up, down, BUY),
        ):  # fmt: skip
            panel = panel_of([[(c, c, c), (h, lo, c)] for c, h, lo in zip(close, high, low, strict=True)]).to(device)
            for rule, both in (("take_profit_first", BUY), ("first_touch", SELL)):
                y = device.to_host(tp_dd_labels(panel, (1,), (t,), rule=rule).y)[:, 0]
                touches_both = high is up and low is down
                np.testing.assert_array_equal(y[::2], both if touches_both else expected)
                np.testing.assert_array_equal(y[1::2], UNKNOWN)


# One symbol by hand, close 100 at row 0; high, low, close of the rows after it.
TWELVE = [
    (100, 100, 100), (104, 99, 100), (103, 94, 95), (106, 95, 105), (105, 100, 101), (102, 100, 102),
    (103, 101, 102), (104, 90, 92), (111, 92, 110), (112, 108, 109), (109, 98, 99), (100, 97, 98),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # h = 1, 5 %: row 1 meets the low 94 of row 2; row 2 the high 106 of row 3 against 95 * 1.05; row 4 no barrier;
        # row 6 the low 90 of row 7; row 7 the high 111; row 9 the low 98; the last row has no next row.
        ("take_profit_first", {(1, 0.05): [1, 0, 2, 1, 1, 1, 0, 2, 1, 0, 1, -1],
                               (2, 0.10): [1, 1, 2, 1, 1, 0, 0, 2, 0, 0, -1, -1],
                               (5, 0.05): [2, 2, 2, 2, 2, 2, 2, -1, -1, -1, -1, -1]}),
        # The same, but rows 0 and 1 meet 94 (row 2) before 106 (row 3), and rows 3 to 6 meet 90 before 111.
        ("first_touch", {(1, 0.05): [1, 0, 2, 1, 1, 1, 0, 2, 1, 0, 1, -1],
                         (2, 0.10): [1, 1, 2, 1, 1, 0, 0, 2, 0, 0, -1, -1],
                         (5, 0.05): [0, 0, 2, 0, 0, 0, 0, -1, -1, -1, -1, -1]}),
    ],
)  # fmt: skip
def test_twelve_rows_by_hand(device, rule, expected):
    labels = tp_dd_labels(panel_of([TWELVE]).to(device), (1, 2, 5), (0.05, 0.10), rule=rule)
    for (h, t), column in expected.items():
        k = labels.names.index(f"label_{h}d_{100 * t:g}pct")
        assert device.to_host(labels.y)[:, k].tolist() == column, (h, t)
    assert device.to_host(labels.exit_row)[:, 2].tolist() == [5, 6, 7, 8, 9, 10, 11, 11, 11, 11, 11, 11]
    assert device.to_host(labels.tp)[0].tolist() == pytest.approx([0.04, 0.04, 0.06])
    assert device.to_host(labels.dd)[0].tolist() == pytest.approx([-0.01, -0.06, -0.06])
    assert device.to_host(labels.forward_return)[0].tolist() == pytest.approx([0.0, -0.05, 0.02])


def test_calendar_window_by_hand(device):
    # Thursday, Friday, Monday: from Friday one day ahead is Saturday (empty: HOLD), two Sunday, five see Monday.
    days = [datetime.date(2010, 1, 7), datetime.date(2010, 1, 8), datetime.date(2010, 1, 11)]
    panel = panel_of([[(100, 100, 100), (106, 100, 100), (111, 100, 110)]], days=days).to(device)
    labels = tp_dd_labels(panel, window="calendar")
    assert device.to_host(labels.y).tolist() == [[2, 1, 2, 1, 2, 2], [1, 1, 1, 1, 2, 2], [1, 1, 1, 1, 1, 1]]
    assert device.to_host(labels.exit_row).tolist() == [[1, 1, 2], [1, 1, 2], [2, 2, 2]]
    assert np.isnan(device.to_host(labels.tp)).tolist() == [[False] * 3, [True, True, False], [True] * 3]


@pytest.mark.parametrize("column", ["high", "low", "close"])
@pytest.mark.parametrize("rule", ["take_profit_first", "first_touch"])
def test_a_nan_price_makes_the_windows_that_hold_it_unknown(device, column, rule):
    flat = [(100.0, 100.0, 100.0)] * 9
    panel = panel_of([flat])
    getattr(panel, column)[4] = np.nan
    y = device.to_host(tp_dd_labels(panel.to(device), rule=rule).y)
    entry = -1 if column == "close" else 1  # in its entry row a label reads the close only
    assert y[:, 0].tolist() == [1, 1, 1, -1, entry, 1, 1, 1, -1]
    assert y[:, 2].tolist() == [1, 1, -1, -1, entry, 1, 1, -1, -1]
    assert y[:, 4].tolist() == [-1, -1, -1, -1] + [-1] * 5
    assert_equal_to_reference(panel, device, rule=rule)


def test_a_nan_open_or_volume_changes_nothing(device):
    panel = random_panel((30,))
    before = tp_dd_labels(panel).y
    panel.open[7] = panel.volume[9] = np.nan
    np.testing.assert_array_equal(device.to_host(tp_dd_labels(panel.to(device)).y), before)


def test_short_and_empty_symbols(device):
    panel = random_panel((1, 0, 5, 6, 2))
    y = assert_equal_to_reference(panel, device)
    assert (y[0] == UNKNOWN).all() and (y[1:6, 4:] == UNKNOWN).all()
    assert (y[6, 4:] != UNKNOWN).all() and (y[7:, 4:] == UNKNOWN).all()
    assert tp_dd_labels(random_panel((0,)).to(device)).y.shape == (0, 6)


def test_a_label_does_not_depend_on_the_other_horizons_and_thresholds(device):
    panel = random_panel((400, 80), seed=3).to(device)
    many = tp_dd_labels(panel, (1, 2, 3, 5, 21), (0.025, 0.05, 0.10))
    assert many.names[:4] == ("label_1d_2.5pct", "label_1d_5pct", "label_1d_10pct", "label_2d_2.5pct")
    for h in many.horizons:
        for t in many.thresholds:
            single = tp_dd_labels(panel, (h,), (t,))
            k = many.names.index(single.names[0])
            np.testing.assert_array_equal(device.to_host(many.y[:, k]), device.to_host(single.y[:, 0]))
            np.testing.assert_array_equal(device.to_host(many.weight[:, k]), device.to_host(single.weight[:, 0]))
            for name in ("tp", "dd", "forward_return", "exit_row"):
                column = device.to_host(getattr(many, name)[:, many.horizon_of(k)])
                np.testing.assert_array_equal(column, device.to_host(getattr(single, name)[:, 0]))


def test_labels_read_nothing_after_their_exit_row(device):
    panel = random_panel((200,), seed=5)
    before = tp_dd_labels(panel)
    cut = 150
    for name in ("high", "low", "close"):
        getattr(panel, name)[cut:] *= np.float32(3)
    after = tp_dd_labels(panel.to(device))
    for k in range(before.n_labels):
        ended = before.exit_row[:, before.horizon_of(k)] < cut
        for name in PER_LABEL:
            old, new = getattr(before, name)[ended, k], device.to_host(getattr(after, name))[ended, k]
            np.testing.assert_array_equal(old, new)


def random_prices_with_holes(lengths=(1024, 1, 3, 700, 320, 0, 2100)):
    """Symbols that end inside a tile of rows, on its edge, or before the horizon; NaN and constant prices."""
    panel = random_panel(lengths, 5)
    close, high, low = panel.close.copy(), panel.high.copy(), panel.low.copy()
    close[[5, 1023, 1500, 1501]], high[[70, 2047]], low[[1024, 3000]] = np.nan, np.nan, np.nan
    close[[90, 2900]] = [0, -3]
    low[1700:1720] = high[1700:1720] = close[1700:1720] = 50
    return panel.replace(close=close, high=high, low=low)


@pytest.mark.parametrize("rule", ["take_profit_first", "first_touch"])
@pytest.mark.parametrize("horizons", [(9,), (3, 8, 16, 17), (64, 100)])
def test_long_horizons_equal_the_reference(device, horizons, rule):
    panel = random_prices_with_holes((1024, 1, 3, 700, 320, 0, 1000))
    y = assert_equal_to_reference(panel, device, horizons=horizons, thresholds=(0.02, 0.1, 0.3), rule=rule)
    assert {-1, 0, 1, 2} == set(np.unique(y))


@pytest.mark.parametrize("window", ["bars", "calendar"])
def test_multiples_of_volatility_are_thresholds_of_each_row(device, window):
    panel = random_panel((400, 80), seed=3)
    volatility = np.abs(np.random.default_rng(4).normal(0.02, 0.01, panel.n_rows)).astype(np.float32)
    volatility[[3, 200]] = np.nan, 0
    options = {"window": window, "multiples": (0.5, 2), "volatility": volatility}
    y = assert_equal_to_reference(panel, device, horizons=(1, 5, 20), thresholds=(0.05,), **options)
    assert (y[[3, 200], 1:3] == UNKNOWN).all() and (y[[3, 200], 0] != UNKNOWN).all()
    labels = tp_dd_labels(panel, (1, 5), (), multiples=(0.5, 2), volatility=volatility)
    assert labels.names == ("label_1d_0.5vol", "label_1d_2vol", "label_5d_0.5vol", "label_5d_2vol")


@pytest.mark.parametrize("rule", ["take_profit_first", "first_touch"])
@pytest.mark.parametrize("window", ["bars", "calendar"])
def test_weights_are_average_uniqueness(device, window, rule):
    panel = random_panel((300, 1, 3, 0, 90), 5)
    panel.close[[7, 8, 9, 250]] = panel.high[60] = np.nan
    labels = tp_dd_labels(panel.to(device), (1, 2, 5, 30), window=window, rule=rule)
    weight, bars, y = map(device.to_host, (labels.weight, labels.decided_bars, labels.y))
    np.testing.assert_allclose(weight, np.where(y >= 0, reference_weight(bars), np.nan), rtol=1e-6)
    inside = weight[100:200, -2][y[100:200, -2] >= 0]  # 30 bars: windows end at different bars, and rows differ
    assert inside.std() > 0.2 * inside.mean()


def test_weights_of_demo_labels_are_average_uniqueness(device):
    panel = demo_panel(n_symbols=20)
    labels = tp_dd_labels(panel.to(device), HORIZONS, THRESHOLDS)
    weight, bars, y = map(device.to_host, (labels.weight, labels.decided_bars, labels.y))
    np.testing.assert_allclose(weight, np.where(y >= 0, reference_weight(bars), np.nan), rtol=1e-6)


def test_a_buy_is_decided_at_its_target_and_a_sell_when_the_window_ends():
    """Six bars by hand: row 0 falls first and rises later; rows 1 to 3 reach one barrier or none."""
    high = np.array([100, 101, 106, 99, 99, 99], np.float32)
    low = np.array([100, 94, 99, 98, 98, 98], np.float32)
    panel = random_panel((6,)).replace(high=high, low=low, close=np.full(6, 100, np.float32))
    by_rule = {rule: tp_dd_labels(panel, (3,), (0.05,), rule=rule) for rule in ("take_profit_first", "first_touch")}
    assert by_rule["take_profit_first"].y[:, 0].tolist() == [BUY, BUY, HOLD, UNKNOWN, UNKNOWN, UNKNOWN]
    assert by_rule["take_profit_first"].decided_bars[:, 0].tolist() == [2, 1, 3, 2, 1, 0]
    assert by_rule["first_touch"].y[:, 0].tolist() == [SELL, BUY, HOLD, UNKNOWN, UNKNOWN, UNKNOWN]
    assert by_rule["first_touch"].decided_bars[:, 0].tolist() == [1, 1, 3, 2, 1, 0]
    # Bars 1 to 5 are held by 1, 2, 1, 2 and 3 windows: the window of row 1 is bar 2, which row 0's window also holds.
    expected = [(1 + 1 / 2) / 2, 1 / 2, (1 + 1 / 2 + 1 / 3) / 3, np.nan, np.nan, np.nan]
    np.testing.assert_allclose(by_rule["take_profit_first"].weight[:, 0], expected, rtol=1e-6)
    low[1:] = 94  # every row but the last reaches its lower barrier in the next bar
    fallen = tp_dd_labels(panel, (3,), (0.05,))
    assert fallen.y[2, 0] == SELL and fallen.decided_bars[2, 0] == 3, "a take-profit could still have won"


def test_names_and_table(device):
    labels = tp_dd_labels(random_panel((30, 20)).to(device))
    assert labels.names == (
        "label_1d_5pct", "label_1d_10pct", "label_2d_5pct", "label_2d_10pct", "label_5d_5pct", "label_5d_10pct",
    )  # fmt: skip
    table = labels.to_arrow()
    assert table.column_names[:8] == ["symbol", "time", *labels.names]
    assert table.column_names[8:10] == ["touch_1d_5pct", "touch_1d_10pct"]
    assert table.column_names[20:22] == ["decided_bars_1d_5pct", "decided_bars_1d_10pct"]
    assert table.column_names[32:34] == ["weight_1d_5pct", "weight_1d_10pct"]
    assert table.column_names[38:44] == ["tp_1d", "tp_2d", "tp_5d", "dd_1d", "dd_2d", "dd_5d"]
    assert table.column_names[-3:] == ["exit_row_1d", "exit_row_2d", "exit_row_5d"]
    assert table.num_rows == 50
    np.testing.assert_array_equal(table["label_5d_10pct"].to_numpy(), device.to_host(labels.y[:, 5]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizons": ()}, "horizons"), ({"horizons": (0, 1)}, "horizons"), ({"horizons": (5, 1)}, "rise"),
        ({"horizons": (1, 1)}, "horizons"), ({"horizons": (1.5,)}, "whole"), ({"horizons": (True,)}, "horizons"),
        ({"thresholds": ()}, "thresholds"), ({"thresholds": (5, 10)}, r"inside \(0, 1\)"),
        ({"thresholds": (0.0,)}, "thresholds"), ({"thresholds": (0.1, 0.05)}, "rise"),
        ({"thresholds": (0.05, 0.0500000001)}, "thresholds"), ({"thresholds": (float("nan"),)}, "thresholds"),
        ({"rule": "last_touch"}, "take_profit_first"), ({"window": "weeks"}, "'bars' or 'calendar'"),
        ({"multiples": (2, 1)}, "multiples"), ({"multiples": (0,)}, "multiples"), ({"multiples": (1,)}, "volatility="),
        ({"multiples": (1,), "volatility": np.ones(3, np.float32)}, r"shape \(3,\), expected \(10,\)"),
        ({"horizons": (40_000,)}, "at most 32,767"),
        ({"multiples": 2}, "multiples"), ({"multiples": None}, "multiples"),
        ({"volatility": np.ones(10, np.float32)}, "pass multiples="),
        ({"ambiguous": "coin"}, "'sell' or 'buy'|'sell'"),
    ],
)  # fmt: skip
def test_invalid_parameters_are_refused_with_the_expected_values(options, message):
    with pytest.raises(ValueError, match=message):
        tp_dd_labels(random_panel((10,)), **options)


@pytest.mark.parametrize("horizons", [(1, 2, 5), (1,), (3, 4, 7, 8, 9), (2, 30, 250), tuple(range(1, 18))])
def test_barrier_classes_equal_the_y_of_the_full_labels(device, horizons):
    panel = random_prices_with_holes().to(device)
    thresholds = (0.01, 0.05, 0.10)
    expected = device.to_host(tp_dd_labels(panel, horizons, thresholds).y)
    np.testing.assert_array_equal(device.to_host(barrier_classes(panel, horizons, thresholds)), expected)
    assert {-1, 0, 1, 2} == set(np.unique(expected))
