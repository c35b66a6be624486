"""Expected and observed frequencies by month and volatility add up, with errors that shared dates do not fool."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from gpupipe.evaluation import calibration_slices as by_slice

DAY_NS = 86_400_000_000_000


def simulated(rng, n_dates=60, n_symbols=40, shared=0.0, p=0.2):
    """(probability (n, 3), y, time_ns) of a calibrated model; `shared` moves the odds of all symbols of a date."""
    time_ns = np.repeat(np.arange(n_dates), n_symbols) * DAY_NS
    date_p = np.clip(p + shared * rng.normal(size=n_dates), 0.01, 0.45)
    y = np.array(1 + (rng.random(n_dates * n_symbols) < np.repeat(date_p, n_symbols)), np.int8)
    return np.tile([p / 2, 1 - 1.5 * p, p], (len(y), 1)), y, time_ns


def test_slices_add_up_to_all_rows():
    rng = np.random.default_rng(0)
    probability = rng.dirichlet((1, 8, 1), 900).astype(np.float32)
    y = rng.integers(0, 3, 900).astype(np.int8)
    time_ns = np.sort(rng.integers(0, 100, 900)) * DAY_NS
    volatility = rng.lognormal(size=900).astype(np.float32)
    volatility[:50] = np.nan
    slices = [by_slice.by_month(time_ns), by_slice.by_volatility(volatility, volatility[100:])]
    lines = by_slice.slice_lines({"model": "m"}, probability, y, time_ns, slices, 2)
    table = pd.DataFrame(lines)
    sums = table.groupby(["by", "side"])[["rows", "happened", "expected"]].sum()
    for side, c in (("sell", 0), ("buy", 2)):
        for by, rows in (("month", slice(None)), ("volatility", slice(50, None))):
            expected = (len(y[rows]), (y[rows] == c).sum(), probability[rows, c].astype(float).sum())
            assert tuple(sums.loc[by, side]) == pytest.approx(expected)
    assert list(dict.fromkeys(table[table["by"] == "month"]["slice"])) == ["1970-01", "1970-02", "1970-03", "1970-04"]
    quintile = pd.qcut(volatility[100:], 5, labels=False)
    np.testing.assert_array_equal(slices[1].number[100:], quintile)
    assert (slices[1].number[:50] == -1).all()


def test_cuts_come_from_training_rows_alone():
    turbulent = by_slice.by_volatility(np.full(5, 9.0), np.arange(5.0))
    assert turbulent.number.tolist() == [4] * 5
    assert by_slice.by_volatility(np.ones(3), np.full(4, np.nan)).number.tolist() == [-1] * 3


@pytest.mark.parametrize("shared", [0.0, 0.1])
def test_a_calibrated_model_is_seldom_two_standard_errors_off_even_if_dates_share_shocks(shared):
    rng, off, naive = np.random.default_rng(1), [], []
    for _ in range(200):
        probability, y, time_ns = simulated(rng, shared=shared)
        whole = [by_slice.Slices("month", ("all",), np.zeros(len(y), np.int64))]
        line = by_slice.slice_lines({}, probability, y, time_ns, whole, 1)[0]
        assert line["side"] == "buy"
        off.append(by_slice.errors_off(line))
        naive.append(off[-1] * line["error"] / math.sqrt(0.2 * 0.8 / len(y)))
    assert np.std(off) == pytest.approx(1.0, abs=0.2)
    if shared:  # rows of a date are not independent: their binomial error is too small
        assert np.std(naive) > 1.5 * np.std(off)


def test_no_event_at_all_is_no_proof_beyond_the_binomial_error():
    probability, y, time_ns = simulated(np.random.default_rng(2))
    y[:] = 1
    line = by_slice.slice_lines({}, probability, y, time_ns, [by_slice.by_month(time_ns)], 5)[0]
    assert line["happened"] == 0 and line["error"] == pytest.approx(math.sqrt(0.2 * 0.8 / line["rows"]))


def test_few_dates_or_events_have_no_error_and_are_not_called_furthest_off():
    probability, y, time_ns = simulated(np.random.default_rng(3), n_dates=9)
    months = [by_slice.by_month(time_ns)]
    few = by_slice.slice_lines({}, probability, y, time_ns, months, 1)
    assert all(math.isnan(line["error"]) and math.isnan(by_slice.errors_off(line)) for line in few)
    assert by_slice.furthest_off(few) is None
    probability, y, time_ns = simulated(np.random.default_rng(4), n_dates=31, p=0.004)
    rare = by_slice.slice_lines({}, probability, y, time_ns, months[:0], 1)
    assert rare == []
    rare = by_slice.slice_lines({}, probability, y, time_ns, [by_slice.by_month(time_ns)], 1)
    assert rare[0]["expected"] < 5 and math.isnan(rare[0]["error"])
    lines = [{"error": 0.1, "happened": 2, "expected": 1.0, "rows": 10}, {"error": 0.01, "happened": 0, "expected": 1.0,
             "rows": 10}, {"error": None, "happened": 9, "expected": 1.0, "rows": 10}]  # fmt: skip
    assert by_slice.furthest_off(lines) is lines[1] and by_slice.errors_off(lines[1]) == pytest.approx(-10)


def test_two_classes_have_one_line_a_slice_and_no_rows_none():
    time_ns = np.arange(20) * DAY_NS
    probability = np.tile([0.5, 0.5], (20, 1))
    lines = by_slice.slice_lines({}, probability, np.int8([0, 1] * 10), time_ns, [by_slice.by_month(time_ns)], 1)
    assert {line["side"] for line in lines} <= {"buy", "sell"} and all(line["happened"] == 10 for line in lines)
    empty = np.zeros(0)
    nothing = by_slice.slice_lines({}, probability[:0], np.int8([]), time_ns[:0], [by_slice.by_month(time_ns[:0])], 1)
    assert nothing == [] and by_slice.by_volatility(empty, empty).number.tolist() == []
