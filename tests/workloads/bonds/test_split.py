"""Which rows train, validate and test: neither an issuer nor a date is on two sides."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe.runtime.errors import UserError
from gpupipe.targets.next_period import next_row
from gpupipe.workloads.bonds import recipe
from gpupipe.workloads.bonds import split as split_module
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.settings import BondSettings
from gpupipe.workloads.bonds.split import PARTS, date_after, folds_in_time, forward_folds, issuer_share, split_rows
from tests.support.bond_run import made_rows, market, rows_of_market

SETTINGS = BondSettings(least_rows=2, train=0.5, validation=0.25)


@pytest.fixture(autouse=True)
def one_row_a_date_is_enough(monkeypatch):
    """Markets made by hand have few bonds."""
    monkeypatch.setattr(split_module, "FEWEST_ON_DATE", 1)


def rows_of_issuers(n_dates, shares):
    """(date, next_row, share) of one bond for each share, quoted on all dates."""
    date = np.tile(np.arange(n_dates), len(shares))
    after = np.where(date < n_dates - 1, np.arange(len(date)) + 1, -1)
    return date, after, np.repeat(shares, n_dates)


def test_twelve_dates_by_hand():
    date, after, share = rows_of_issuers(12, [0.1, 0.2, 0.6, 0.9])
    split = split_rows(date, 12, after, share, SETTINGS)
    assert split.first == (6, 9)
    # Issuers 0 and 1 train on dates 0 to 4, as the target of date 5 is that of validation's first date.
    assert split.train.tolist() == [*range(5), *range(12, 17)]
    assert split.validation.tolist() == [24 + 6, 24 + 7]  # issuer 2; the target of date 8 is a date of the test
    assert split.test.tolist() == [36 + 9, 36 + 10]  # issuer 3; the last date has no target


def test_folds_of_twelve_dates_by_hand():
    date, after, share = rows_of_issuers(12, [0.1, 0.2])
    rows = np.flatnonzero(after >= 0)  # dates 0 to 10 of both issuers
    first, second, third = folds_in_time(rows, date, after, share, 3)
    # Blocks of dates 0-3, 4-7, 8-10. Issuer 0 is fitted first, and issuer 1 predicted; then they change places.
    assert first.predict.tolist() == [12, 13, 14, 15] and first.fit.tolist() == [5, 6, 7, 8, 9, 10]
    assert second.predict.tolist() == [4, 5, 6, 7] and second.fit.tolist() == [12, 13, 14, 12 + 9, 12 + 10]
    assert third.predict.tolist() == [20, 21, 22] and third.fit.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_forward_folds_of_twelve_dates_by_hand():
    date, after, share = rows_of_issuers(12, [0.1, 0.2])
    rows = np.flatnonzero(after >= 0)
    first, second = forward_folds(rows, date, after, share, 2)  # blocks of dates 0-3, 4-7, 8-10
    assert first.predict.tolist() == [16, 17, 18, 19] and first.fit.tolist() == [0, 1, 2]
    assert second.predict.tolist() == [8, 9, 10] and second.fit.tolist() == [12, 13, 14, 15, 16, 17, 18]


def test_dates_with_few_rows_of_a_part_are_left_out(monkeypatch):
    monkeypatch.setattr(split_module, "FEWEST_ON_DATE", 3)
    date, after, share = rows_of_issuers(12, [0.1, 0.2, 0.3, 0.6, 0.61, 0.62, 0.9, 0.91, 0.92])
    whole = split_rows(date, 12, after, share, SETTINGS)
    after[2] = -1  # one of the three training issuers has no next quote on date 2
    fewer = split_rows(date, 12, after, share, SETTINGS)
    assert set(whole.train) - set(fewer.train) == {2, 12 + 2, 24 + 2}
    assert fewer.validation.tolist() == whole.validation.tolist() and len(whole.test) == 6
    with pytest.raises(split_module.TooFewRowsError, match="0 rows of validation"):
        split_rows(
            date, 12, np.where(date == share.argmax(), -1, after), np.where(share == 0.62, 0.93, share), SETTINGS
        )
    rows = np.flatnonzero((after >= 0) & (share < 0.5))
    for fold in (*folds_in_time(rows, date, after, share, 3), *forward_folds(rows, date, after, share, 3)):
        for part in (fold.fit, fold.predict):
            assert not len(part) or np.unique(date[part], return_counts=True)[1].min() >= 3


def test_targets_that_span_several_dates_are_purged():
    """Quotes on every tenth date: the target of a row is ten dates on."""
    n_dates, n_bonds = 60, 20
    bond, date = np.divmod(np.arange(n_dates * n_bonds), n_dates)
    quoted = date % 10 == bond % 10
    bond, date = bond[quoted], date[quoted]
    after = np.where(np.append(bond[1:] == bond[:-1], False), np.arange(len(bond)) + 1, -1)
    share = (bond * 0.618034) % 1
    rows = np.flatnonzero(after >= 0)
    for fold in folds_in_time(rows, date, after, share, 4):
        if len(fold.fit) and len(fold.predict):
            first, last = date[fold.predict].min(), date[after[fold.predict]].max()
            assert ((date[after[fold.fit]] < first) | (date[fold.fit] > last)).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_folds", [2, 3, 5])
def test_no_fold_shares_issuers_or_dates(seed, n_folds):
    rows = made_rows(seed, n_dates=30, n_issuers=9)
    gone = np.random.default_rng(seed).random(len(rows.date)) < 0.2  # quotes that are missing
    kept = np.flatnonzero(~gone)
    date = rows.date[kept]
    offsets = np.append(np.flatnonzero(np.append(True, np.diff(date) < 0)), len(date))
    after, share = next_row(np.ones(len(date)), date, offsets, 3), rows.share[kept]
    split = split_rows(date, 30, after, share, BondSettings(least_rows=10))
    for fold in (
        *folds_in_time(split.train, date, after, share, n_folds),
        *forward_folds(split.train, date, after, share, n_folds),
    ):
        assert not set(share[fold.fit]) & set(share[fold.predict])
        # Dates of a row: its own, and that of its target.
        dates_fit = set(date[fold.fit]) | set(date[after[fold.fit]])
        assert not dates_fit & set(date[fold.predict])
        assert set(fold.fit) | set(fold.predict) <= set(split.train)
    for fold in forward_folds(split.train, date, after, share, n_folds):
        if len(fold.fit) and len(fold.predict):
            assert date[after[fold.fit]].max() < date[fold.predict].min()


@pytest.mark.parametrize("seed", range(6))
def test_parts_of_a_market_share_neither_issuers_nor_dates(seed):
    panel, fair, rows = rows_of_market()
    after = next_row(fair.spread, panel.time_ns, panel.offsets, 45 * 86_400 * 10**9)
    share = issuer_share(sorted(set(panel.attributes["issuer"])), seed)[rows.issuer]
    split = split_rows(rows.date, len(rows.dates), after, share, BondSettings(least_rows=10))
    issuers = {name: set(rows.issuer[getattr(split, name)]) for name in PARTS}
    last_target = {name: rows.date[after[getattr(split, name)]].max() for name in PARTS}
    assert not issuers["train"] & issuers["validation"] and not issuers["train"] & issuers["test"]
    assert not issuers["validation"] & issuers["test"]
    assert last_target["train"] < split.first[0] <= rows.date[split.validation].min()
    assert last_target["validation"] < split.first[1] <= rows.date[split.test].min()
    symbol = panel.symbol_of_row
    assert (symbol[after[split.train]] == symbol[split.train]).all()


def test_the_side_of_an_issuer_depends_on_its_name_and_the_seed_alone():
    assert issuer_share(["B", "A"], 1)[1] == issuer_share(["A", "C", "D"], 1)[0] != issuer_share(["A"], 2)[0]


def test_an_issuer_with_most_rows_is_still_on_one_side_only():
    date, after, share = rows_of_issuers(8, [0.1, 0.1, 0.1, 0.4])  # the median of the rows would be 0.1
    rows = np.flatnonzero(after >= 0)
    for fold in folds_in_time(rows, date, after, share, 2):
        assert len(fold.fit) and len(fold.predict)


def test_one_issuer_is_an_error_with_what_to_do():
    date, after, share = rows_of_issuers(12, [0.1, 0.1, 0.6, 0.9])
    with pytest.raises(UserError, match=r"all quotes of training are of one issuer.*bonds of more issuers would help"):
        split_rows(date, 12, after, share, SETTINGS)


@pytest.mark.parametrize(
    ("shares", "n_dates", "said"),
    [([0.1, 0.2, 0.6], 12, "0 rows of test"), ([0.1, 0.2, 0.9], 12, "0 rows of validation"), ([0.1, 0.9], 1, "0 rows")],
)
def test_a_part_without_rows_is_an_error(shares, n_dates, said):
    with pytest.raises(UserError, match=f"the quotes give .*{said}"):
        split_rows(*_with_dates(n_dates, shares), SETTINGS)


def _with_dates(n_dates, shares):
    date, after, share = rows_of_issuers(n_dates, shares)
    return date, n_dates, after, share


def test_folds_that_leave_nothing_are_an_error():
    rows = made_rows(0)
    alone = dataclasses.replace(rows, split=dataclasses.replace(rows.split, train=rows.split.train[:3]))
    with pytest.raises(UserError, match="no block of training dates"):
        alone.folds(2)
    with pytest.raises(UserError, match="no block of training dates"):
        alone.forward(2)


def test_the_date_after_a_block():
    dates = np.array([0, 2, 5])
    assert [date_after(dates, last) for last in dates] == [2, 5, 5]


def test_a_treasury_counts_as_an_issuer_of_its_own():
    panel = market().panel
    texts = dict(panel.attributes)
    texts["issuer"] = ("US Treasury",) * panel.n_symbols
    same = recipe._share(dataclasses.replace(panel, attributes=texts), 1)
    assert len(np.unique(same)) == 1
    texts["rating"] = ("Treasury",) * panel.n_symbols
    own = recipe._share(dataclasses.replace(panel, attributes=texts), 1)
    assert len(np.unique(own)) == panel.n_symbols


@pytest.mark.parametrize(("sample", "n_bonds"), [(0, None), (1.0, 1), (5, 5), (0.5, 0.5), (1e9, None)])
def test_a_sample_is_of_the_bonds_that_are_judged(sample, n_bonds):
    panel = market().panel
    test = np.flatnonzero(panel.symbol_of_row < 20)
    place = issuer_share(panel.symbols, 4)[panel.symbol_of_row]
    bonds = set(panel.symbol_of_row[recipe.judged_rows(Found({"test": test, "place": place}), sample)])
    assert len(bonds) == (20 if n_bonds is None else int(n_bonds * (20 if n_bonds < 1 else 1)))
