"""Tail risk: full revaluation equals a loop, VaR and CVaR are what they say, the correlation of issuers is kept."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.estimators.fit_context import NO_CONTEXT
from gpupipe.workloads.bonds import schema
from gpupipe.workloads.bonds.seeds import seed_of
from gpupipe.workloads.bonds.steps import tail_risk
from gpupipe.workloads.bonds.valuation import value
from tests.support.bond_run import market, rows_of_market, small_settings


def price(table):
    return np.asarray(value(table, given="yield", errors="ignore")["dirty"])


def holdings_of(n_scenarios, seed=1, common=0.0):
    """(holdings, spread moves) of the last date's bonds; common: the share of moves that all issuers have alike."""
    panel, fair, rows = rows_of_market()
    last = np.flatnonzero((rows.date == rows.date.max()) & np.isfinite(fair.yield_))
    rng = np.random.default_rng(seed)
    issuer = rows.issuer[last]
    own = rng.normal(0, 0.3, (n_scenarios, issuer.max() + 1))[:, issuer]
    moves = np.sqrt(1 - common) * own + np.sqrt(common) * rng.normal(0, 0.3, (n_scenarios, 1))
    curve = np.repeat(rng.normal(0, 0.05, (n_scenarios, 1)), len(last), axis=1)
    floats = (np.array(panel.attributes["type"]) == "floating")[panel.symbol_of_row[last]]
    group = {"issuer": issuer, "rating": rows.rating[last], "sector": issuer % 3}
    dirty = panel.clean[last] + fair.accrued[last]
    table = schema.bond_table(panel, last)
    return tail_risk.Holdings(table, fair.yield_[last], dirty, floats, curve, group), moves


def run(holdings, moves):
    return tail_risk.run(holdings, moves, price, small_settings(), NO_CONTEXT)


def test_losses_are_those_of_a_loop_over_scenarios_and_bonds(monkeypatch):
    holdings, moves = holdings_of(5)
    monkeypatch.setattr(tail_risk, "BONDS_AT_ONCE", 3 * len(holdings.yield_) // 2)  # several calls
    found = run(holdings, moves)
    loss = np.empty(moves.shape)
    assert holdings.floats.any() and not holdings.floats.all()
    for s in range(len(moves)):
        for b in range(moves.shape[1]):
            bond = {name: column[b : b + 1] for name, column in holdings.table.items()}
            bond["yield"] = holdings.yield_[b : b + 1] + holdings.curve_move[s, b] + moves[s, b]
            if holdings.floats[b]:
                bond["coupon"] = bond["coupon"] + holdings.curve_move[s, b]
            loss[s, b] = 1 - price(bond)[0] / holdings.dirty[b]
    whole = (loss * holdings.dirty).sum(axis=1) / holdings.dirty.sum()
    assert found["loss"] == pytest.approx(whole, abs=1e-12)
    assert found["bond_var"] == pytest.approx(np.quantile(loss, 0.95, axis=0))
    for b in range(moves.shape[1]):
        worst = loss[loss[:, b] >= np.quantile(loss[:, b], 0.95), b]
        assert found["bond_cvar"][b] == pytest.approx(worst.mean())
    one = holdings.group["sector"] == 1
    of_sector = (loss[:, one] * holdings.dirty[one]).sum(axis=1) / holdings.dirty[one].sum()
    assert found.facts["sector"]["1"]["var_99%"] == pytest.approx(np.quantile(of_sector, 0.99))


def losses_of_a_loop(holdings, moves):
    """float64 (n_scenarios,): the loss of equal par, from the prices of one bond in one scenario at a time."""
    lost = np.zeros(len(moves))
    for s in range(len(moves)):
        for b in range(moves.shape[1]):
            bond = {name: column[b : b + 1] for name, column in holdings.table.items()}
            bond["yield"] = holdings.yield_[b : b + 1] + holdings.curve_move[s, b] + moves[s, b]
            if holdings.floats[b]:
                bond["coupon"] = bond["coupon"] + holdings.curve_move[s, b]
            lost[s] += holdings.dirty[b] - price(bond)[0]
    return lost / holdings.dirty.sum()


def moves_of_other_dates(moves, issuer, seed):
    """Each issuer's moves in an order of its own, as the step draws it: issuers rise, a permutation for each."""
    rng = np.random.default_rng(seed)
    order = {k: rng.permutation(len(moves)) for k in sorted(set(issuer.tolist()))}
    mixed = [[moves[order[issuer[b]][s], b] for b in range(moves.shape[1])] for s in range(len(moves))]
    return np.array(mixed)


def test_losses_of_the_curve_alone_and_of_independent_issuers_are_those_of_loops():
    holdings, moves = holdings_of(6, seed=2, common=0.5)
    found = run(holdings, moves)
    mixed = moves_of_other_dates(moves, holdings.group["issuer"], seed_of(small_settings().seed, tail_risk.NUMBER))
    expected = {"all": moves, "curve alone": 0 * moves, "issuers independent": mixed}
    assert set(expected) == set(tail_risk.PORTFOLIOS)
    for name, own in expected.items():
        loss = found[tail_risk.PORTFOLIOS[name]]
        assert loss == pytest.approx(losses_of_a_loop(holdings, own), abs=1e-12), name
        worst = sorted(loss)[-1]  # of six scenarios one lies at or above the quantile of 95 %
        assert found.facts[name]["cvar_95%"] == worst >= found.facts[name]["var_95%"] > sorted(loss)[-2]
    assert not np.allclose(found["loss"], found["loss_issuers_independent"], atol=1e-5)


def test_no_move_loses_nothing_and_a_wider_spread_loses():
    holdings, moves = holdings_of(3)
    still = dataclasses.replace(holdings, curve_move=np.zeros_like(moves))
    assert np.abs(run(still, np.zeros_like(moves))["loss"]).max() < 1e-9
    assert (run(still, np.full_like(moves, 0.5))["loss"] > 0).all()


def test_a_floating_bond_loses_little_by_the_curve():
    holdings, moves = holdings_of(2)
    up = dataclasses.replace(holdings, curve_move=np.ones_like(moves))
    loss = tail_risk._losses(up, np.zeros_like(moves), price)
    years = (holdings.table["maturity"] - holdings.table["settlement"]).astype(int) / 365.25
    long = (years > 3) & np.isnat(holdings.table["call_date"])  # a bond that is called soon loses little, too
    assert loss[:, long & ~holdings.floats].min() > 0.02 > np.abs(loss[:, long & holdings.floats]).max()


def test_var_and_cvar_are_quantile_and_mean_beyond():
    loss = np.arange(101.0)
    tail = tail_risk._tail(loss)
    assert tail == {"var_95%": 95.0, "cvar_95%": 97.5, "var_99%": 99.0, "cvar_99%": 99.5}


@pytest.mark.parametrize("seed", range(3))
def test_a_common_move_of_issuers_is_a_larger_risk_than_independent_ones(seed):
    holdings, moves = holdings_of(200, seed, common=0.8)
    facts = run(dataclasses.replace(holdings, curve_move=np.zeros_like(moves)), moves).facts
    assert facts["all"]["var_95%"] > 1.5 * facts["issuers independent"]["var_95%"]
    alike = run(*_same_issuer(holdings, moves)).facts
    assert alike["issuers independent"]["var_99%"] > 0


def _same_issuer(holdings, moves):
    return dataclasses.replace(holdings, group={**holdings.group, "issuer": np.zeros(moves.shape[1], int)}), moves


def test_independent_issuers_keep_what_each_of_them_did():
    holdings, moves = holdings_of(30, common=0.5)
    issuer = holdings.group["issuer"]
    mixed = tail_risk._independent(moves, issuer, 3)
    for k in np.unique(issuer):
        own = issuer == k
        assert sorted(map(tuple, mixed[:, own])) == sorted(map(tuple, moves[:, own]))
    assert not np.array_equal(mixed, moves)


def test_moves_of_issuers_by_hand():
    change = np.array([0.1, 0.3, np.nan, -0.2, 0.5, 0.7])
    date, issuer = np.array([1, 1, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 2, 3])
    rating = np.array([4, 4, 4, 5, 5, 6])
    # Bonds: of issuer 0; of issuer 1, whose move is not known, by its rating; of issuer 9, by all bonds' mean.
    of_issuer, of_rating = np.array([0, 1, 3]), np.array([4, 4, 9])
    moves = tail_risk.issuer_moves(change, date, issuer, rating, of_issuer, of_rating, np.array([1, 2, 3]))
    assert moves[0] == pytest.approx([0.2, 0.2, 0.2 / 3])
    assert moves[1] == pytest.approx([0.6, 0.6, 0.7])
    assert moves[2].tolist() == [0, 0, 0]


def test_without_past_moves_there_is_no_risk_to_tell_of():
    holdings, moves = holdings_of(0)
    found = run(holdings, moves)
    assert found.facts["scenarios"] == 0 and np.isnan(found["bond_var"]).all()
    assert all(len(found[column]) == 0 for column in tail_risk.PORTFOLIOS.values())


def test_a_bond_without_a_price_is_left_out_of_all():
    holdings, moves = holdings_of(6)
    dirty = holdings.dirty.copy()
    dirty[0] = np.nan
    found = run(dataclasses.replace(holdings, dirty=dirty), moves)
    assert np.isnan(found["bond_var"][0]) and np.isnan(found["bond_cvar"][0]) and np.isfinite(found["loss"]).all()
    assert np.isfinite(found["bond_cvar"][1:]).all()


def test_losses_of_a_group_without_a_price_are_not_known():
    holdings, moves = holdings_of(6)
    own = holdings.group["sector"] == 1
    dirty = np.where(own, np.nan, holdings.dirty)
    facts = run(dataclasses.replace(holdings, dirty=dirty), moves).facts
    assert set(facts["sector"]["1"].values()) == {None} and None not in facts["sector"]["0"].values()
    assert None not in facts["all"].values()
    nothing = run(dataclasses.replace(holdings, dirty=np.full_like(dirty, np.nan)), moves)
    assert all(set(nothing.facts[name].values()) == {None} for name in tail_risk.PORTFOLIOS)
    assert np.isnan(nothing["loss"]).all() and len(nothing["loss"]) == 6


def test_the_market_of_the_tests_has_floating_bonds():
    assert "floating" in market().panel.attributes["type"]
