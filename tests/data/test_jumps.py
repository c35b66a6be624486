"""Bad prices: a jump that comes back, and a high or low far from its bar; splits and crashes are left alone."""

import numpy as np
import pyarrow as pa
import pytest

from gpupipe import tp_dd_labels
from gpupipe.data import load
from gpupipe.data.validate import BAD_EXTREME, JUMP, QUARANTINED, SPLIT

N = 60
COMES_BACK = QUARANTINED[JUMP - 1]


def bars(n=N, seed=0):
    """Quiet bars of one symbol around 50."""
    close = 50 * np.exp(np.random.default_rng(seed).normal(0, 0.005, n).cumsum())
    opens = np.concatenate([[50.0], close[:-1]])
    return {
        "open": opens, "high": np.maximum(opens, close) * 1.002, "low": np.minimum(opens, close) * 0.998,
        "close": close, "volume": np.full(n, 1000.0),
    }  # fmt: skip


def judged(columns):
    """The panel, and `{(kind, action): rows}` of the findings."""
    n = len(columns["close"])
    days = np.datetime64("2021-01-04") + np.arange(n)
    panel, report = load(pa.table({"symbol": ["A"] * n, "date": days, "sector": ["x"] * n, **columns}), device="cpu")
    return panel, {(item.kind, item.action): item.rows for item in report.findings}


def scaled(first, last, factor, names=("open", "high", "low", "close")):
    columns = bars()
    for name in names:
        columns[name][first:last] *= factor
    return columns


@pytest.mark.parametrize("factor", [0.01, 0.1 / 1.02, 100.0, 11.0])
@pytest.mark.parametrize("n_bars", [1, 2, 3])
def test_a_run_that_comes_back_is_quarantined(factor, n_bars):
    panel, findings = judged(scaled(20, 20 + n_bars, factor))
    assert findings == {(COMES_BACK, "quarantined"): n_bars} and panel.n_rows == N - n_bars
    assert panel.low.min() > 45 and panel.high.max() < 55


def test_less_than_ten_times_is_flagged_and_kept():
    panel, findings = judged(scaled(20, 22, 7.0))
    assert findings == {(COMES_BACK, "flagged"): 2} and panel.n_rows == N


@pytest.mark.parametrize(("first", "last"), [(20, 24), (0, 2), (N - 1, N), (N - 3, N)])
def test_what_does_not_come_back_in_three_bars_looks_like_a_split(first, last):
    panel, findings = judged(scaled(first, last, 0.01))
    assert {kind for kind, _ in findings} == {SPLIT} and panel.n_rows == N


@pytest.mark.parametrize("names", [("open", "low"), ("close", "low")])
def test_a_bar_with_one_bad_open_or_close_is_quarantined(names):
    panel, findings = judged(scaled(20, 21, 0.01, names))
    assert findings == {(COMES_BACK, "quarantined"): 1} and panel.n_rows == N - 1


def made_of_closes(close):
    """Bars whose opens are the closes before, as some feeds make them."""
    opens = np.concatenate([close[:1], close[:-1]])
    return {
        "open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close), "close": close,
        "volume": np.full(len(close), 1000.0),
    }  # fmt: skip


@pytest.mark.parametrize("factor", [0.01, 100.0])
@pytest.mark.parametrize(("first", "n_closes"), [(20, 1), (20, 2), (N - 2, 1)])
def test_bad_closes_that_the_next_opens_repeat(first, n_closes, factor):
    close = bars()["close"]
    close[first : first + n_closes] *= factor
    panel, findings = judged(made_of_closes(close))
    assert findings == {(COMES_BACK, "quarantined"): n_closes + 1} and panel.n_rows == N - n_closes - 1
    assert not (tp_dd_labels(panel, (1, 5), (0.1,)).y % 2 == 0).any()  # neither SELL nor BUY


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_a_bad_last_close_is_flagged(factor):
    close = bars()["close"]
    close[-1] *= factor
    assert judged(made_of_closes(close))[1] == {(SPLIT, "flagged"): 1}


@pytest.mark.parametrize("after", [2.0, 1.6, 0.5])
def test_a_run_at_a_hundredth_comes_back_beside_a_split_or_a_gap(after):
    columns = scaled(21, N, after)
    for name in ("open", "high", "low", "close"):
        columns[name][20] /= 100
    assert judged(columns)[1][COMES_BACK, "quarantined"] == 1


def test_two_jumps_and_their_neighbours_of_another_symbol():
    first, second = scaled(20, 21, 0.01), scaled(40, 43, 100.0)
    days = np.tile(np.datetime64("2021-01-04") + np.arange(N), 2)
    columns = {name: np.concatenate([first[name], second[name] / 1000]) for name in first}
    table = pa.table({"symbol": ["A"] * N + ["B"] * N, "date": days, "sector": ["x"] * 2 * N, **columns})
    panel, report = load(table.take(np.random.default_rng(1).permutation(2 * N)), device="cpu")
    (quarantined,) = [item for item in report.findings if item.action == "quarantined"]
    assert (quarantined.kind, quarantined.rows, quarantined.symbols) == (COMES_BACK, 4, 2)
    assert np.diff(panel.offsets).tolist() == [N - 1, N - 3] and report.quarantine.num_rows == 4
    assert sorted(report.quarantine["reason"].to_pylist()) == [COMES_BACK] * 4


@pytest.mark.parametrize(("name", "factor"), [("high", 100.0), ("low", 0.01)])
def test_a_lone_high_or_low_is_repaired_and_makes_no_label(name, factor):
    clean, _ = judged(bars())
    panel, findings = judged(scaled(30, 31, factor, (name,)))
    assert findings == {(BAD_EXTREME, "repaired"): 1} and panel.n_rows == N
    opposite = max if name == "high" else min
    assert getattr(panel, name)[30] == opposite(panel.open[30], panel.close[30])
    np.testing.assert_array_equal(tp_dd_labels(panel).y, tp_dd_labels(clean).y)


def test_a_crash_a_takeover_and_a_wide_day_are_left_alone():
    crash = bars()
    for name, factor in (("low", 0.3), ("close", 0.4)):
        crash[name][20] *= factor  # 60 % in a day, and back at the next open
    takeover = scaled(30, N, 2.9)
    wide = bars()
    for name in ("high", "close"):
        wide[name][-1] *= 6  # six times within a day, and the close is there
    for columns in (crash, takeover, wide):
        panel, findings = judged(columns)
        assert panel.n_rows == N and all(action == "flagged" for _, action in findings)


def test_strict_stops():
    columns = scaled(20, 21, 0.01)
    days = np.datetime64("2021-01-04") + np.arange(N)
    with pytest.raises(ValueError, match="strict: 1 row quarantined: price jumps and comes back"):
        load(pa.table({"symbol": ["A"] * N, "date": days, "sector": ["x"] * N, **columns}), strict=True)
