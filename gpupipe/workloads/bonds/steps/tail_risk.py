"""Step 7: tail risk, by full revaluation of every bond under the curve moves and issuers' moves of past dates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.workloads.bonds.found import Found
from gpupipe.workloads.bonds.seeds import seed_of

NUMBER = 7
LEVELS = (0.95, 0.99)
# What moves the bonds, and the array of the losses under it.
PORTFOLIOS = {
    "all": "loss", "curve alone": "loss_curve_alone", "issuers independent": "loss_issuers_independent",
}  # fmt: skip
BONDS_AT_ONCE = 1 << 20  # bonds times scenarios that are valued in one call


@dataclass(frozen=True)
class Holdings:
    """The bonds of the last date, each with the same par.

    table: their terms, as `schema.bond_table`.  yield_, dirty: float64 (n,).
    floats: bool (n,), whether the coupons follow the curve.
    curve_move: float64 (n_scenarios, n), percent, of the curve at each bond's years; at the coupon period if it floats.
    group: by name, the code of each bond's issuer, sector and rating.

        >>> Holdings({}, *(np.zeros(1) for _ in range(2)), np.zeros(1, bool), np.zeros((3, 1)), {}).curve_move.shape
        (3, 1)
    """

    table: Mapping[str, np.ndarray]
    yield_: np.ndarray
    dirty: np.ndarray
    floats: np.ndarray
    curve_move: np.ndarray
    group: Mapping[str, np.ndarray]


def issuer_moves(
    change: np.ndarray, date: np.ndarray, issuer: np.ndarray, rating: np.ndarray, of_issuer: np.ndarray,
    of_rating: np.ndarray, scenario_dates: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """float64 (n_scenarios, n_bonds): by how much the spread of each bond's issuer moved on each scenario's date.

    Issuers move together as they did on that date, and with the curve of that date: their correlation is kept. Where
    the issuer had no quotes then, its rating's mean moves it; else all bonds' mean.
    change: float64 (n_rows,), the spread less that of the date before, NaN without a quote then.
    date, issuer, rating: int64 (n_rows,).
    of_issuer, of_rating: int64 (n_bonds,).
    """
    known = np.isfinite(change)
    moves = np.zeros((len(scenario_dates), len(of_issuer)))
    for s, at in enumerate(scenario_dates):
        rows = np.flatnonzero(known & (date == at))
        if not len(rows):
            continue
        total = float(change[rows].mean())
        by_issuer = _mean_by(change[rows], issuer[rows], int(issuer.max()) + 1)
        by_rating = _mean_by(change[rows], rating[rows], int(max(rating.max(), of_rating.max())) + 1)
        own, rated = by_issuer[of_issuer], by_rating[of_rating]
        moves[s] = np.where(np.isfinite(own), own, np.where(np.isfinite(rated), rated, total))
    return moves


def _mean_by(values: np.ndarray, code: np.ndarray, n: int) -> np.ndarray:
    count = np.bincount(code, minlength=n)
    total = np.bincount(code, weights=values, minlength=n)
    return np.divide(total, count, out=np.full(n, np.nan), where=count > 0)


def run(
    holdings: Holdings, spread_move: np.ndarray, price: Callable[[Mapping[str, Any]], np.ndarray], settings: Config,
    context: FitContext,
) -> Found:  # fmt: skip
    """Losses of all bonds in every scenario, and VaR and CVaR of all, of sectors, of ratings and of each bond.

    price(table): float64, dirty prices from the table's yields.
    Losses are shares of the value: of one bond, or of a group that holds the same par of each.
    VaR is the quantile of the losses at its level; CVaR the mean of the losses at or above it.
    "all": the curve and all issuers move as they did on a past date. "curve alone": spreads stay. "issuers
    independent": the curve moves as it did, and each issuer as it did on another past date, drawn for it; what "all"
    loses beyond it comes from moves that issuers have in common, with each other and with the curve.
    arrays: loss, loss_curve_alone, loss_issuers_independent float64 (n_scenarios,), of these three; bond_var, bond_cvar
    float64 (n_bonds,) of the first, at the first level, NaN where a bond has no price in some scenario. Such a bond is
    left out of its groups; of a group of such bonds alone VaR and CVaR are None, and losses of all of them NaN.
    """
    moves, value = holdings.curve_move, holdings.dirty
    facts: dict[str, Any] = {"scenarios": len(moves), "bonds": len(value), "levels": list(LEVELS)}
    groups = [name for name in holdings.group if name != "issuer"]
    if not len(moves):
        nothing = np.full(len(value), np.nan)
        arrays = {column: np.zeros(0) for column in PORTFOLIOS.values()}
        return Found({**arrays, "bond_var": nothing, "bond_cvar": nothing}, {**facts, **{name: {} for name in groups}})
    spread_moves = {
        "all": spread_move,
        "curve alone": np.zeros_like(moves),
        "issuers independent": _independent(spread_move, holdings.group["issuer"], seed_of(settings.seed, NUMBER)),
    }
    losses = {name: _losses(holdings, spread_moves[name], price) for name in PORTFOLIOS}
    arrays = {column: _portfolio(losses[name], value) for name, column in PORTFOLIOS.items()}
    facts |= {name: _tail(arrays[column]) for name, column in PORTFOLIOS.items()}
    loss = losses["all"]
    for name in groups:
        code = holdings.group[name]
        facts[name] = {
            str(k): _tail(_portfolio(loss[:, code == k], value[code == k])) for k in np.unique(code)
        }  # fmt: skip
    bond_var = np.quantile(loss, LEVELS[0], axis=0)
    in_tail = ~(loss < bond_var)  # with the NaN of a bond without a price
    bond_cvar = np.where(in_tail, loss, 0.0).sum(axis=0) / in_tail.sum(axis=0)
    return Found({**arrays, "bond_var": bond_var, "bond_cvar": bond_cvar}, facts)


def _losses(
    holdings: Holdings, spread_move: np.ndarray, price: Callable[[Mapping[str, Any]], np.ndarray]
) -> np.ndarray:  # fmt: skip
    """float64 (n_scenarios, n_bonds): losses as shares of each bond's value, under the curve's moves and the spreads'.

    Coupons that float move with the curve, so that such a bond loses by its spread alone.
    """
    n_bonds, move = len(holdings.yield_), holdings.curve_move + spread_move
    at_once = max(1, BONDS_AT_ONCE // max(1, n_bonds))
    losses = np.empty(move.shape)
    for begin in range(0, len(move), at_once):
        some = move[begin : begin + at_once]
        table = {name: np.tile(column, len(some)) for name, column in holdings.table.items()}
        table["yield"] = (holdings.yield_ + some).ravel()
        coupon_move = np.where(holdings.floats, holdings.curve_move[begin : begin + at_once], 0.0)
        table["coupon"] = table["coupon"] + coupon_move.ravel()
        losses[begin : begin + len(some)] = 1 - price(table).reshape(some.shape) / holdings.dirty
    return losses


def _portfolio(loss: np.ndarray, value: np.ndarray) -> np.ndarray:
    """float64 (n_scenarios,): the loss of equal par of each bond; a bond without a price is left out.

    NaN where every bond lacks a price, today or in some scenario.
    """
    known = np.isfinite(loss).all(axis=0) & np.isfinite(value)
    return loss[:, known] @ (value[known] / value[known].sum()) if known.any() else np.full(len(loss), np.nan)


def _independent(move: np.ndarray, issuer: np.ndarray, seed: int) -> np.ndarray:
    """Moves of spreads with the scenarios of each issuer in an order of its own, so that no correlation is kept."""
    rng = np.random.default_rng(seed)
    mixed = np.empty_like(move)
    for k in np.unique(issuer):
        mixed[:, issuer == k] = move[rng.permutation(len(move))][:, issuer == k]
    return mixed


def _tail(loss: np.ndarray) -> dict[str, float | None]:
    """VaR and CVaR by level; None where the losses are not known."""
    found: dict[str, float | None] = {}
    is_known = bool(np.isfinite(loss).all())
    for level in LEVELS:
        var = float(np.quantile(loss, level))
        found[f"var_{level:.0%}"] = var if is_known else None
        found[f"cvar_{level:.0%}"] = float(loss[loss >= var].mean()) if is_known else None
    return found
