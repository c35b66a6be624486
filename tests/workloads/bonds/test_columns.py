"""Columns, values and baselines of bonds: equal to loops, and blind to what comes later."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.data.panel import NS_PER_DAY
from gpupipe.workloads.bonds import baselines, columns, fair_values, schema
from gpupipe.workloads.bonds.schema import NO_DAY
from gpupipe.workloads.bonds.steps import factors, regimes
from tests.support.bond_run import market, rows_of_market


def changed_after(panel, time_ns):
    """The panel with other prices, ratings and curves in all rows later than a time."""
    rng = np.random.default_rng(1)
    later = panel.time_ns > time_ns
    made = {"clean": np.where(later, panel.columns["clean"] * rng.uniform(0.7, 1.2, panel.n_rows), panel.clean)}
    made["rating_rank"] = np.where(later, rng.integers(1, 8, panel.n_rows), panel.columns["rating_rank"])
    for name in panel.columns:
        if name.startswith("curve_") and name != "curve_age":
            made[name] = np.where(later, panel.columns[name] + rng.normal(0, 1, panel.n_rows), panel.columns[name])
    return panel.replace(**made)


def found_of(panel):
    """Everything that a run derives from quotes until a date, by name, (n_rows,) or (n_dates,) first."""
    fair = fair_values.fair_values(panel, "street")
    rows = columns.rows_of(panel, fair)
    by_row = {**fair.arrays(), **{name: rows.X[:, k] for k, name in enumerate(rows.names)}}
    at_maturity = schema.rate_at_maturity(panel)
    expected = baselines.baselines(fair.spread, at_maturity, fair.years, rows.rating, rows.date)
    by_row |= {f"baseline {name}": column for name, column in expected.items()}
    states = regimes.state_of_dates(rows.X, rows.names, fair.spread, rows.date, len(rows.dates))
    return by_row, {"state": states, "curve": rows.curves.rates}, rows


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_what_comes_later_changes_nothing_before(part):
    panel = market().panel
    dates = np.unique(panel.time_ns)
    cut = dates[int(part * len(dates))]
    before_by_row, before_by_date, rows = found_of(panel)
    after_by_row, after_by_date, _ = found_of(changed_after(panel, cut))
    until, moved = panel.time_ns <= cut, 0
    for name, column in before_by_row.items():
        assert np.array_equal(column[until], after_by_row[name][until], equal_nan=True), name
        moved += not np.array_equal(column[~until], after_by_row[name][~until], equal_nan=True)
    assert moved > 25
    for name, states in before_by_date.items():
        assert np.array_equal(states[rows.dates <= cut], after_by_date[name][rows.dates <= cut], equal_nan=True), name


def test_rows_that_do_not_exist_yet_change_nothing_before():
    panel = market().panel
    cut = np.unique(panel.time_ns)[25]
    whole, _, _ = found_of(panel)
    kept = panel.time_ns <= cut
    part, _, _ = found_of(panel.take(kept))
    for name, column in part.items():
        assert np.array_equal(column, whole[name][kept], equal_nan=True), name


def _level(panel, fair, rows, date, others, name, issuer, sector, band, i):
    """Log spread of row i less the mean of the others of its date in its group."""
    key = {"rating": rows.rating, "sector": sector, "issuer": issuer, "peers": [*zip(rows.rating, band, strict=True)]}[
        name
    ]
    logs = np.log(np.maximum(fair.spread, 0.05))
    same = [j for j in np.flatnonzero(date == date[i]) if j != i and np.isfinite(logs[j]) and _equal(key[j], key[i])]
    return logs[i] - np.mean(logs[same]) if same else np.nan


def _equal(a, b):
    return a == b


def _less_means(name, levels):
    """The last of the levels less its mean over 12, 24 and all of them."""
    return {
        f"{name}{ending}": levels[-1] - np.mean([level for level in levels[-n:] if np.isfinite(level)])
        if np.isfinite(levels[-1])
        else np.nan
        for ending, n in (("", 12), ("_24", 24), ("_all", len(levels)))
    }


def _index(spread, date, issuer, own):
    """By how much the log spreads of the issuer's other bonds have moved, by date, between the rows of a bond."""
    logs = np.log(np.maximum(spread, 0.05))
    path = [0.0]
    for i in list(own)[1:]:
        moved = 0.0
        for at in range(date[i - 1] + 1, date[i] + 1):
            others = [j for j in np.flatnonzero((date == at) & (issuer == issuer[i])) if j not in own]
            changes = [logs[j] - logs[j - 1] for j in others if _follows(j, date)]
            moved += np.mean(changes) if changes else 0.0
        path.append(path[-1] + moved)
    return np.array(path)


def _follows(j, date):
    """Whether row j is the quote of its bond on the date after that of the row before; rows are sorted by bond."""
    return j > 0 and date[j] == date[j - 1] + 1


def test_columns_are_those_of_loops():
    panel, fair, rows = rows_of_market()
    X, spread, date = dict(zip(rows.names, rows.X.T, strict=True)), fair.spread, rows.date
    symbol, clean = panel.symbol_of_row, panel.clean
    issuer, sector = (np.array(panel.attributes[name])[symbol] for name in ("issuer", "sector"))
    band = [sum(year >= edge for edge in columns.BANDS) for year in fair.years]
    for i in np.random.default_rng(0).choice(panel.n_rows, 60, replace=False):
        begin = panel.offsets[symbol[i]]
        own = [spread[j] for j in range(max(begin, i - 5), i + 1) if np.isfinite(spread[j])]
        others = [j for j in np.flatnonzero(date == date[i]) if j != i and np.isfinite(spread[j])]
        peers = {
            "rating": [j for j in others if rows.rating[j] == rows.rating[i]],
            "peers": [j for j in others if rows.rating[j] == rows.rating[i] and band[j] == band[i]],
            "sector": [j for j in others if sector[j] == sector[i]],
            "issuer": [j for j in others if issuer[j] == issuer[i]],
        }
        expected = {f"spread_less_{k}": spread[i] - np.mean(spread[j]) if j else np.nan for k, j in peers.items()}
        for k in peers:
            levels = [
                _level(panel, fair, rows, date, others, k, issuer, sector, band, at) for at in range(begin, i + 1)
            ]
            expected |= _less_means(f"level_{k}", levels)
        index = _index(fair.spread, date, issuer, range(begin, i + 1))
        expected |= _less_means("index_issuer", np.log(np.maximum(spread[begin : i + 1], 0.05)) - index)
        logs = np.log(np.maximum(spread, 0.05))
        expected["level_own"] = logs[i] - np.mean(logs[max(begin, i - 11) : i + 1])
        expected["spread_less_own"] = spread[i] - np.mean(own)
        expected["spread_change_2"] = spread[i] - spread[i - 2] if i - 2 >= begin else np.nan
        expected["unchanged"] = sum(clean[j] == clean[j - 1] for j in range(max(begin + 1, i - 2), i + 1))
        expected["market_spread"] = np.mean([spread[i], *(spread[j] for j in others)])
        expected["days_since_quote"] = (panel.time_ns[i] - panel.time_ns[i - 1]) / NS_PER_DAY if i > begin else np.nan
        expected["age_years"] = (panel.time_ns[i] / NS_PER_DAY - panel.columns["issue"][i]) / 365.25
        for name, value in expected.items():
            assert X[name][i] == pytest.approx(value, rel=2e-6, abs=2e-6, nan_ok=True), (name, i)


def test_prices_that_repeat_are_counted_also_in_a_bonds_first_quotes():
    panel = market().panel
    first = panel.offsets[0]
    clean = panel.clean.copy()
    clean[first : first + 2] = 99.0
    panel = panel.replace(clean=clean)
    rows = columns.rows_of(panel, fair_values.fair_values(panel, "street"))
    assert rows.X[first : first + 4, rows.names.index("unchanged")].tolist() == [0, 1, 1, 1]


def test_a_bond_without_an_issue_date_has_no_age():
    panel = market().panel
    issue = panel.columns["issue"].copy()
    issue[0] = NO_DAY
    panel, fair = panel.replace(issue=issue), rows_of_market()[1]
    age = columns.rows_of(panel, fair).X[:, columns.rows_of(panel, fair).names.index("age_years")]
    assert np.isnan(age[0]) and np.isfinite(age[1:]).all()


def test_spreads_of_the_simulated_market_are_the_truth():
    made = market()
    fair = fair_values.fair_values(made.panel, "street")
    assert np.allclose(fair.spread, made.truth["spread"].to_numpy(), atol=1e-6)
    assert np.array_equal(fair.curve_yield, schema.reference_rate(made.panel))


def test_the_curve_of_a_date_has_its_missing_tenors_between_their_neighbours():
    panel, _, rows = rows_of_market()
    tenors = schema.curve_tenors(panel)
    column = panel.columns["curve_y5"].copy()
    column[rows.date == 7] = np.nan
    made = columns.curve_by_date(panel.replace(curve_y5=column), rows.date, len(rows.dates))
    whole = columns.curve_by_date(panel, rows.date, len(rows.dates))
    at, k = list(made.years).index(5.0), [tenors.index(name) for name in ("y3", "y7")]
    assert made.rates[7, at] == pytest.approx(whole.rates[7, k].mean())
    assert np.array_equal(np.delete(made.rates, 7, axis=0), np.delete(whole.rates, 7, axis=0))


def test_the_curve_of_a_date_is_the_newest_that_its_rows_carry():
    panel, _, rows = rows_of_market()
    of_date = np.flatnonzero(rows.date == 5)
    whole = columns.curve_by_date(panel, rows.date, len(rows.dates)).rates[5]
    changed = {name: panel.columns[name].copy() for name in panel.columns if name.startswith("curve_")}
    for name, column in changed.items():
        if name == "curve_age":
            column[of_date[1:]] += 3  # older ones, with other rates
        else:
            column[of_date[1:]] += 0.5
            column[of_date[-1]] = np.nan
    changed["curve_age"][of_date[-1]] = -1
    assert np.array_equal(columns.curve_by_date(panel.replace(**changed), rows.date, len(rows.dates)).rates[5], whole)


def test_a_floating_bond_is_compared_at_its_maturity():
    panel = market().panel
    floats = (np.array(panel.attributes["type"]) == schema.FLOATING)[panel.symbol_of_row]
    own, at_maturity = schema.reference_rate(panel), schema.rate_at_maturity(panel)
    assert np.array_equal(own[~floats], at_maturity[~floats]) and (own[floats] < at_maturity[floats]).mean() > 0.9


def test_baselines_are_those_of_loops():
    panel, fair, rows = rows_of_market()
    at_maturity = schema.rate_at_maturity(panel)
    found = baselines.baselines(fair.spread, at_maturity, fair.years, rows.rating, rows.date)
    assert np.array_equal(found[baselines.LAST], fair.spread)
    yields = fair.spread + at_maturity
    for i in np.random.default_rng(2).choice(panel.n_rows, 25, replace=False):
        same = rows.date == rows.date[i]
        bucket = same & (rows.rating == rows.rating[i])
        assert found[baselines.RATING][i] == pytest.approx(np.mean(fair.spread[bucket]))
        grade = same & ((rows.rating <= 4) == (rows.rating[i] <= 4))
        fit = baselines.svensson(fair.years[grade], yields[grade], fair.years[[i]])[0]
        expected = fit if grade.sum() >= baselines.FEWEST else yields[grade].mean()
        assert found[baselines.SVENSSON][i] == pytest.approx(expected - at_maturity[i])


def test_svensson_finds_a_curve_of_its_own_family():
    years = np.linspace(0.5, 30, 40)
    g = lambda x: -np.expm1(-x) / x  # noqa: E731
    yields = 4 - 2 * g(years / 1.0) + 1.5 * (g(years / 1.0) - np.exp(-years)) + (g(years / 5) - np.exp(-years / 5))
    assert np.abs(baselines.svensson(years, yields, years) - yields).max() < 1e-3


def test_factor_scores_do_not_depend_on_later_dates():
    curve = np.cumsum(np.random.default_rng(4).normal(0, 0.1, (40, 6)), axis=0)
    loading = np.linalg.qr(np.random.default_rng(5).normal(size=(6, 6)))[0][:3]
    found = {"loading": loading, "mean": np.full(6, 0.01)}
    whole, part = factors.scores(found, curve), factors.scores(found, curve[:9])
    assert np.array_equal(whole[:9], part, equal_nan=True) and np.isnan(whole[0]).all()
    assert whole[5] == pytest.approx(loading @ (curve[5] - curve[4] - 0.01))
