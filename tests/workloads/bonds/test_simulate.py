"""The simulated market: what was put into it, and that nothing else predicts."""

import numpy as np
import pytest

from gpupipe.data import DataError, data_hash
from gpupipe.workloads.bonds import schema, spread_paths
from gpupipe.workloads.bonds.reading import read_bonds
from gpupipe.workloads.bonds.simulate import month_ends, simulated_market
from tests.support.street_price import price_of_yield, yield_of_price


def market(**options):
    return simulated_market(**{"n_bonds": 400, "n_months": 40, "seed": 3, "price_of_yield": price_of_yield, **options})


@pytest.fixture(scope="module")
def plain():
    return market()


@pytest.fixture(scope="module")
def planted():
    return market(mispricing=15.0, half_life=3.0)


def changes(panel, values):
    """Changes of a column of the truth to the next quote, and the rows they begin at."""
    same = np.diff(panel.symbol_of_row) == 0
    return np.diff(values)[same], np.flatnonzero(same)


def test_it_is_named_as_simulated(plain, planted):
    for simulated, words in ((plain, "no mispricing"), (planted, "a mispricing of 15 % of the spread")):
        assert simulated.report.kind == "simulated"
        assert simulated.report.description.startswith("a simulated corporate market, no real quotes")
        assert words in simulated.report.description and simulated.report.clean


def test_equal_arguments_give_equal_bytes_and_seeds_differ(plain):
    again = market()
    assert again.report.data_hash == plain.report.data_hash == data_hash(again.panel)
    assert again.truth.equals(plain.truth) and again.quotes.equals(plain.quotes)
    assert market(seed=4).report.data_hash != plain.report.data_hash


def test_what_is_read_from_its_tables_is_its_panel(plain):
    panel, report = read_bonds(
        plain.instruments, plain.quotes, plain.curve, price_of_yield=price_of_yield, rates="percent"
    )
    assert report.data_hash == plain.report.data_hash
    assert plain.truth["id"].to_pylist() == [panel.symbols[k] for k in panel.symbol_of_row]
    np.testing.assert_array_equal(plain.truth["date"].cast("int32").to_numpy(), schema.days_of(panel))


def test_the_quoted_price_gives_back_the_spread(planted):
    panel = planted.panel
    yields = yield_of_price(schema.bond_table(panel), panel.clean)
    np.testing.assert_allclose(yields - schema.reference_rate(panel), planted.truth["spread"].to_numpy(), atol=1e-8)


def test_the_market_has_what_is_said_of_it(plain):
    panel = plain.panel
    days = np.unique(schema.days_of(panel)).astype("M8[D]")
    assert len(days) == 40 and str(days[-1]) == "2017-12-29" and panel.curve_age.max() == 0
    assert {"fixed", "zero", "floating"} == set(panel.attributes["type"])
    assert 0.05 < np.mean([text == "yes" for text in panel.attributes["callable"]]) < 0.35
    bonds_of = [panel.attributes["issuer"].count(name) for name in set(panel.attributes["issuer"])]
    assert np.median(bonds_of) == 8
    assert panel.rating_rank.min() >= 1 and panel.rating_rank.max() <= 7
    moved = [len(set(panel.rating_rank[a:b])) > 1 for a, b in zip(panel.offsets[:-1], panel.offsets[1:], strict=True)]
    assert 0.02 < np.mean(moved) < 0.7
    months = (panel.time_ns.astype("M8[ns]").astype("M8[M]")).astype(np.int64)
    steps = np.diff(months)[np.diff(panel.symbol_of_row) == 0]
    assert steps.min() == 1 and 0.02 < np.mean(steps > 1) < 0.2  # quotes that are missing
    spread = plain.truth["spread"].to_numpy()
    medians = [np.median(spread[panel.rating_rank == rank]) for rank in (2, 3, 4, 5, 6)]
    assert medians == sorted(medians) and spread.min() > 0
    assert (panel.maturity - schema.days_of(panel)).min() > 30 and (panel.issue <= schema.days_of(panel)).all()


def test_without_a_mispricing_nothing_is_mispriced(plain):
    assert not plain.truth["mispricing"].to_numpy().any()
    np.testing.assert_array_equal(plain.truth["spread"].to_numpy(), plain.truth["fair_spread"].to_numpy())


def test_a_mispricing_changes_nothing_but_the_quotes(plain, planted):
    np.testing.assert_array_equal(planted.truth["fair_spread"].to_numpy(), plain.truth["fair_spread"].to_numpy())
    assert planted.instruments.equals(plain.instruments)
    assert planted.quotes.drop_columns(["clean"]).equals(plain.quotes.drop_columns(["clean"]))


def test_a_mispricing_has_its_size_and_half_life(planted):
    share = planted.truth["mispricing"].to_numpy() / planted.truth["fair_spread"].to_numpy()
    assert abs(share.std() - 0.15) < 0.01
    change, rows = changes(planted.panel, share)
    months = planted.panel.time_ns.astype("M8[ns]").astype("M8[M]").astype(np.int64)
    next_month = months[rows + 1] - months[rows] == 1
    slope = np.polyfit(share[rows][next_month], change[next_month], 1)[0]
    assert abs(slope - (0.5 ** (1 / 3) - 1)) < 0.02
    expected = planted.truth["expected_change"].to_numpy()[rows]
    moved = changes(planted.panel, planted.truth["spread"].to_numpy())[0]
    assert np.corrcoef(expected, moved)[0, 1] > 0.2


def test_spreads_of_issuers_are_martingales():
    # Means over seeds: a factor's mean is 1 whatever the rating and the regime before.
    ratios, calm, begins = [], [], []
    for seed in range(60):
        paths = spread_paths.issuer_paths(200, 24, np.arange(200) % 11, seed)
        alive = np.arange(23) + 1 < paths.default_month[:, None]
        ratio = np.where(alive, np.exp(np.diff(paths.log_spread, axis=1)), np.nan)
        ratios.append(np.nanmean(ratio, axis=0))
        calm.append(paths.regime[:-1] == spread_paths.CALM)
        begins.append([np.nanmean(ratio[paths.rating[:, :-1] == k]) for k in (1, 3, 5)])
    ratios, calm = np.concatenate(ratios), np.concatenate(calm)
    for chosen in (calm, ~calm):
        mean, error = ratios[chosen].mean(), ratios[chosen].std() / np.sqrt(chosen.sum())
        assert abs(mean - 1) < 3 * error < 0.05
    begins = np.array(begins)
    assert (np.abs(begins.mean(axis=0) - 1) < 3 * begins.std(axis=0) / np.sqrt(len(begins))).all()


def test_the_past_predicts_no_change_of_the_spread():
    # Means over seeds of the change times what is known before it. No regression: its slopes are biased towards a
    # reversion to the mean of the sample, as those of every random walk are.
    products = []
    for seed in range(30):
        simulated = market(n_bonds=300, n_months=30, seed=seed)
        panel, spread = simulated.panel, simulated.truth["spread"].to_numpy()
        symbol = panel.symbol_of_row
        rows = np.flatnonzero((symbol[1:-1] == symbol[:-2]) & (symbol[1:-1] == symbol[2:])) + 1
        last, before, change = spread[rows], spread[rows - 1], spread[rows + 1] / spread[rows] - 1
        _, month = np.unique(panel.time_ns[rows], return_inverse=True)
        market_change = np.bincount(month, last / before - 1) / np.bincount(month)
        known = (1.0, np.log(last), last / before - 1, market_change[month], panel.rating_rank[rows] == 7)
        products.append([np.mean(change * value) for value in known])
    products = np.array(products)
    error = products.std(axis=0, ddof=1) / np.sqrt(len(products))
    assert (np.abs(products.mean(axis=0)) < 3 * error).all() and (error < 0.02).all()


def test_defaults_end_the_quotes():
    paths = spread_paths.issuer_paths(3_000, 60, np.zeros(3_000, np.int64), 1)
    share = (paths.default_month < 60).mean()
    assert 0.005 < share < 0.2
    simulated = market(n_bonds=2_000, n_months=60, seed=1)
    panel = simulated.panel
    last = schema.days_of(panel)[panel.offsets[1:] - 1]
    ended = last < np.unique(last)[-4]
    matured = panel.maturity[panel.offsets[:-1]] - last < 120
    assert (ended & ~matured).any()


def test_one_bond_and_one_month():
    assert market(n_bonds=1, n_months=12, seed=0).panel.n_symbols == 1
    one = market(n_bonds=50, n_months=1)
    assert set(np.diff(one.panel.offsets)) == {1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_bonds": 0}, "expected bonds >= 1 and months in 1..120"),
        ({"n_months": 121}, "expected bonds >= 1 and months in 1..120"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"mispricing": 21.0}, "mispricing must be in 0..20 % of the spread"),
        ({"mispricing": float("nan")}, "mispricing must be in"),
        ({"half_life": 0.0}, "half_life must be above 0"),
    ],
)
def test_other_arguments_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        market(**options)


def test_month_ends_are_the_last_days_that_are_given():
    days = np.array(["2024-01-30", "2024-01-31", "2024-02-01", "2024-04-15"], "M8[D]").astype(np.int64)
    assert month_ends(days).astype("M8[D]").astype(str).tolist() == ["2024-01-31", "2024-02-01", "2024-04-15"]
