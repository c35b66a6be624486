"""A simulated corporate market on the real par curve of the US Treasury: seeded, with an optional mispricing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.data.errors import DataError
from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport
from gpupipe.data.sectors import GICS
from gpupipe.workloads.bonds import spread_paths
from gpupipe.workloads.bonds.judge import PRICES
from gpupipe.workloads.bonds.par_curve import interpolated, tenor_years
from gpupipe.workloads.bonds.reading import read_bonds
from gpupipe.workloads.bonds.schema import FIXED, FLOATING, NO_DAY, ZERO, Curve, PriceOfYield
from gpupipe.workloads.bonds.spread_paths import IssuerPaths
from gpupipe.workloads.bonds.treasuries import par_curve_table

BONDS_BY_ISSUER = 8
MOST_MONTHS, LARGEST_MISPRICING = 120, 20.0
TENORS, TENOR_SHARES = np.array([3, 5, 7, 10, 15, 20, 30]), np.array([0.10, 0.22, 0.18, 0.28, 0.06, 0.06, 0.10])
LONGEST_ZERO, LARGEST_COUPON = 10, 10.0  # years; percent: with more, a price could rise beyond what is read
FLOATING_SHARE, ZERO_SHARE, CALLABLE_SHARE = 0.08, 0.04, 0.20
LAST_DAYS = 30  # before maturity, in which a bond is not quoted
MOST_MISSING = 0.25  # share of months without a quote, of the least liquid bond


@dataclass(frozen=True)
class SimulatedMarket:
    """A simulated market: its panel, the tables it was read from, and the truth about it.

    panel, report: as of `reading.read_bonds`; the report's kind is "simulated".
    instruments, quotes, curve: Arrow tables, as `read_bonds` takes them; they hold nothing of the truth.
    truth: Arrow table, one row for each row of the panel, in that order: id, date; spread and fair_spread, percent over
        `schema.reference_rate`; mispricing = spread - fair_spread; expected_change, of the spread until the next month
        end, given all of the truth; regime, calm or stress.

    Nothing in it but the curve was ever quoted.
    """

    panel: Panel
    report: DataReport
    instruments: Any
    quotes: Any
    curve: Any
    truth: Any


@dataclass(frozen=True)
class _Bonds:
    """What a bond is, each (n_bonds,). Dates are days since 1970-01-01; illiquidity is in 0..1; factor multiplies the
    issuer's spread.
    """

    issuer: np.ndarray
    type: np.ndarray
    tenor: np.ndarray
    issue: np.ndarray
    maturity: np.ndarray
    coupon: np.ndarray
    margin: np.ndarray
    frequency: np.ndarray
    call_date: np.ndarray
    illiquidity: np.ndarray
    factor: np.ndarray


def simulated_market(
    n_bonds: int = 5_000,
    n_months: int = 60,
    seed: int = 0,
    *,
    price_of_yield: PriceOfYield,
    mispricing: float = 0.0,
    half_life: float = 3.0,
    group_by: str = "sector",
) -> SimulatedMarket:
    """Simulate quotes of corporate bonds at month ends; equal arguments give equal bytes.

    The curve is real: the Treasury's par curve that is shipped, and the last `n_months` month ends of it (the last is
    2017-12-29). All else is made up. A bond's yield is its reference rate (`schema.reference_rate`) + its spread, and
    `price_of_yield` makes the clean price from it, which is what is quoted. The spread of bond b of issuer i is

        fair_bt = level_it * duration_b * liquidity_b * call_b * walk_bt        in percent
        level_it = rating * sector * issuer * market, see `spread_paths.issuer_paths`

    rating: seven ratings, AAA to CCC, with migrations, of the issuer, quoted with each price. sector: one of `GICS`.
    The market's spreads widen by a quarter as stress begins and narrow as it ends; walks are at least twice as wide in
    stress. An issuer has about eight bonds. duration_b, liquidity_b and call_b are constants: (tenor / 10)^0.2, up to
    1.4 for the least liquid bonds, and 1.15 for callable ones, which are never called. The less liquid a bond, the
    wider its walk and the more months without a quote, up to a quarter, at random. Quotes begin at issue and end 30
    days before maturity, or with the issuer's default. 8 % of the bonds float, 4 % pay no coupon.

    Without a mispricing the last spread is the best forecast in squared error. Given all that is known at a month end,
    the truth included, the mean of a bond's spread at the next one is its spread now: each factor above is a martingale
    (`spread_paths`), whether a quote is missing does not depend on spreads, and whether an issuer defaults depends on
    rating and regime of the month before only. What can be predicted is how far spreads move, which issuers default,
    and the median of the change, as jumps are rare and large: it differs from 0 by up to 3 % of the spread, by regime
    and rating. So absolute errors and ranks of changes are no measure of skill here. Yields and prices also depend on
    the real curve, of which nothing is known here.

    mispricing: in percent of the spread, 0 to 20: the standard deviation of a stationary AR(1) m_bt of each bond,
        spread_bt = fair_bt * (1 + m_bt), which is expected to shrink by half in `half_life` months. Then
        spread - fair_spread is what a model can find: the bond's spread comes back to its issuer's level.
        Quotes with an error that does not last are a mispricing with a half-life of a tenth of a month.
    With the same seed, bonds, fair spreads and quoted months are the same for every mispricing.

    A quote is never a repetition of the last one (stale): what the other bonds did meanwhile would predict the next. A
    bond whose issuer defaults before its issue is never issued, so that there may be a few less than `n_bonds`.

    n_bonds >= 1; n_months in 1..120. Raises DataError for other values.
    """
    _check(n_bonds, n_months, seed, mispricing, half_life)
    curve_table = par_curve_table()
    curve = _curve_of(curve_table)
    days = month_ends(curve.day)[-n_months:]
    n_issuers = max(1, round(n_bonds / BONDS_BY_ISSUER))
    rng = np.random.default_rng([seed, 5])
    sector = rng.integers(len(GICS), size=n_issuers)
    paths = spread_paths.issuer_paths(n_issuers, n_months, sector, seed)
    bonds = _bonds(rng, n_bonds, n_issuers, paths, curve, days)
    scale = 1 + bonds.illiquidity[:, None]
    own_rng = np.random.default_rng([seed, 6])
    own = spread_paths.walk(own_rng, (n_bonds, n_months), spread_paths.BOND, paths.regime, scale)
    fair = np.exp(paths.log_spread[bonds.issuer] + np.cumsum(own, axis=1)) * bonds.factor[:, None]
    share = spread_paths.mispricings(n_bonds, n_months, mispricing / 100, half_life, seed)
    bond, month = np.nonzero(_quoted(np.random.default_rng([seed, 8]), bonds, paths, days))
    fair, share = fair[bond, month], share[bond, month]
    clean = price_of_yield(_priced_table(bonds, bond, days[month], curve, fair * (1 + share)))
    kept = np.flatnonzero((clean >= PRICES[0]) & (clean <= PRICES[1]))  # as of every market that is read
    bond, month, clean, fair, share = bond[kept], month[kept], clean[kept], fair[kept], share[kept]
    ids = np.array([f"SIM{k:0{len(str(n_bonds - 1))}d}" for k in range(n_bonds)])
    instruments = _instruments_table(bonds, ids, sector, paths).take(np.unique(bond))
    quotes = _quotes_table(ids[bond], days[month], clean, paths.rating[bonds.issuer[bond], month])
    panel, report = read_bonds(
        instruments, quotes, curve_table, price_of_yield=price_of_yield, rates="percent", group_by=group_by
    )
    planted = f"a mispricing of {mispricing:g} % of the spread with a half-life of {half_life:g} months"
    report = dataclasses.replace(
        report,
        description=(
            f"a simulated corporate market, no real quotes: {n_bonds:,} bonds of {n_issuers:,} issuers, {n_months} "
            f"month ends, seed {seed}, {planted if mispricing else 'no mispricing'}; on the real par curve of the US "
            "Treasury"
        ),
        kind="simulated",
        reader="made on the host",
    )
    decay = 0.5 ** (1.0 / half_life) - 1.0
    truth = {
        "spread": fair * (1 + share), "fair_spread": fair, "mispricing": fair * share,
        "expected_change": decay * fair * share,
    }  # fmt: skip
    truth_table = _truth_table(ids[bond], days[month], truth, paths.regime[month])
    return SimulatedMarket(panel, report, instruments, quotes, curve_table, truth_table)


def _check(n_bonds: int, n_months: int, seed: int, mispricing: float, half_life: float) -> None:
    if n_bonds < 1 or not 1 <= n_months <= MOST_MONTHS:
        raise DataError(f"simulated: expected bonds >= 1 and months in 1..{MOST_MONTHS}, got {n_bonds} and {n_months}")
    if seed < 0:
        raise DataError(f"simulated: seed must be at least 0, got {seed}")
    if not 0 <= mispricing <= LARGEST_MISPRICING:
        raise DataError(
            f"simulated: mispricing must be in 0..{LARGEST_MISPRICING:g} % of the spread, got {mispricing:g}"
        )
    if not half_life > 0:
        raise DataError(f"simulated: half_life must be above 0 months, got {half_life:g}")


def _curve_of(table: Any) -> Curve:
    tenors = tuple(name for name in table.column_names if name != "date")
    rates = np.stack([table[tenor].to_numpy() for tenor in tenors], axis=1)
    return Curve(table["date"].cast("int32").to_numpy().astype(np.int64), tenors, rates)


def month_ends(day: np.ndarray) -> np.ndarray:
    """The last of the given days, int64 and rising, of every month.

    >>> month_ends(np.array(["2024-01-02", "2024-01-31", "2024-02-28"], "M8[D]").astype(np.int64)).astype("M8[D]")
    array(['2024-01-31', '2024-02-28'], dtype='datetime64[D]')
    """
    month = day.astype("datetime64[D]").astype("datetime64[M]")
    last: np.ndarray = day[np.append(month[1:] != month[:-1], True)]
    return last


def _mid_month(day: np.ndarray, plus_months: np.ndarray) -> np.ndarray:
    """int64 days: the 15th of the month of a day, some months later."""
    month = day.astype("datetime64[D]").astype("datetime64[M]") + plus_months.astype("timedelta64[M]")
    middle: np.ndarray = month.astype("datetime64[D]").astype(np.int64) + 14
    return middle


def _bonds(
    rng: np.random.Generator, n_bonds: int, n_issuers: int, paths: IssuerPaths, curve: Curve, days: np.ndarray
) -> _Bonds:
    issuer = np.arange(n_bonds) % n_issuers
    draws = rng.random((6, n_bonds))
    kind = np.full(n_bonds, FIXED, dtype="<U8")
    kind[draws[0] < FLOATING_SHARE] = FLOATING
    kind[(draws[0] >= FLOATING_SHARE) & (draws[0] < FLOATING_SHARE + ZERO_SHARE)] = ZERO
    tenor = rng.choice(TENORS, n_bonds, p=TENOR_SHARES)
    tenor = np.where(kind == ZERO, np.minimum(tenor, LONGEST_ZERO), tenor)
    # Issued at random from before the first month end until three months before the last one.
    earliest = days[0] - 0.8 * 365.25 * np.minimum(tenor, 8)
    latest = max(days[0] - 1, days[-1] - 92)
    issue = _mid_month((earliest + draws[1] * (latest - earliest)).astype(np.int64), np.zeros(n_bonds))
    illiquidity = draws[2] ** 2
    callable_ = (draws[3] < CALLABLE_SHARE) & (kind == FIXED) & (tenor >= 5)
    factor = (tenor / 10) ** 0.2 * (1 + 0.4 * illiquidity) * np.where(callable_, 1.15, 1.0)
    at_issue = np.minimum(np.searchsorted(days, issue), len(days) - 1)
    spread = np.exp(paths.log_spread[issuer, at_issue]) * factor
    known = np.maximum(np.searchsorted(curve.day, issue, side="right") - 1, 0)
    par = interpolated(tenor_years(curve.tenors), curve.rates[known], tenor.astype(np.float64))
    coupon = np.where(kind == FIXED, np.clip(np.rint((par + spread) * 8) / 8, 0.125, LARGEST_COUPON), 0.0)
    frequency = np.where(kind == FLOATING, 4, np.where((kind == FIXED) & (draws[4] < 0.1), 1, 2))
    return _Bonds(
        issuer,
        kind,
        tenor,
        issue,
        _mid_month(issue, 12 * tenor),
        np.where(kind == FLOATING, np.nan, coupon),
        np.where(kind == FLOATING, np.rint(spread * 20) / 20, 0.0),
        frequency,
        np.where(callable_, _mid_month(issue, (12 * tenor * 0.4).astype(np.int64)), NO_DAY),
        illiquidity,
        factor,
    )


def _quoted(rng: np.random.Generator, bonds: _Bonds, paths: IssuerPaths, days: np.ndarray) -> np.ndarray:
    """bool (n_bonds, n_months): the months in which a bond is quoted; its first one always."""
    alive = (bonds.issue[:, None] <= days) & (days < bonds.maturity[:, None] - LAST_DAYS)
    alive &= np.arange(len(days)) < paths.default_month[bonds.issuer][:, None]
    first = alive & (np.cumsum(alive, axis=1) == 1)
    shown: np.ndarray = first | (alive & (rng.random(alive.shape) >= MOST_MISSING * bonds.illiquidity[:, None]))
    return shown


def _priced_table(
    bonds: _Bonds, bond: np.ndarray, day: np.ndarray, curve: Curve, spread: np.ndarray
) -> dict[str, np.ndarray]:
    """The table from which prices are made, see `schema.bond_table`, with the yields."""
    tenors, rates = tenor_years(curve.tenors), curve.rates[np.searchsorted(curve.day, day)]
    is_floating = bonds.type[bond] == FLOATING
    period = 1.0 / bonds.frequency[bond]
    years = np.where(is_floating, period, (bonds.maturity[bond] - day) / 365.25)
    running = interpolated(tenors, rates, period) + bonds.margin[bond]
    dates = {"issue": bonds.issue[bond], "maturity": bonds.maturity[bond], "call_date": bonds.call_date[bond]}
    dates |= {"first_coupon": np.full(len(bond), NO_DAY), "settlement": day}
    return {
        "type": np.where(is_floating, FIXED, bonds.type[bond]),
        "day_count": np.where(is_floating, "act/360", "30/360"),
        "coupon": np.where(is_floating, running, bonds.coupon[bond]),
        "margin": bonds.margin[bond],
        "call_price": np.where(bonds.call_date[bond] == NO_DAY, np.nan, 100.0),
        "frequency": bonds.frequency[bond],
        **{name: values.astype("datetime64[D]") for name, values in dates.items()},
        "yield": interpolated(tenors, rates, years) + spread,
    }


def _instruments_table(bonds: _Bonds, ids: np.ndarray, sector: np.ndarray, paths: IssuerPaths) -> Any:
    import pyarrow as pa

    has_call = bonds.call_date != NO_DAY
    digits = len(str(int(bonds.issuer.max())))
    issuers = [f"Simulated issuer {k:0{digits}d}" for k in bonds.issuer]
    return pa.table(
        {
            "id": pa.array(ids.tolist()),
            "type": pa.array(bonds.type.tolist()),
            "coupon": pa.array(bonds.coupon, from_pandas=True),
            "frequency": pa.array(bonds.frequency),
            "issue": _dates(bonds.issue),
            "maturity": _dates(bonds.maturity),
            "rating": pa.array([spread_paths.RATINGS[k] for k in paths.rating[bonds.issuer, 0]]),
            "issuer": pa.array(issuers),
            "sector": pa.array([GICS[k] for k in sector[bonds.issuer]]),
            "callable": pa.array(has_call),
            "day_count": pa.array(np.where(bonds.type == FLOATING, "act/360", "30/360").tolist()),
            "call_date": _dates(bonds.call_date),
            "call_price": pa.array(np.where(has_call, 100.0, np.nan), from_pandas=True),
            "margin": pa.array(bonds.margin),
        }
    )


def _quotes_table(ids: np.ndarray, day: np.ndarray, clean: np.ndarray, rating: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.table(
        {
            "id": pa.array(ids).dictionary_encode(),
            "date": _dates(day),
            "clean": pa.array(clean),
            "rating": pa.DictionaryArray.from_arrays(pa.array(rating.astype(np.int32)), list(spread_paths.RATINGS)),
        }
    )


def _truth_table(ids: np.ndarray, day: np.ndarray, values: dict[str, np.ndarray], regime: np.ndarray) -> Any:
    import pyarrow as pa

    columns = {name: pa.array(array) for name, array in values.items()}
    regimes = pa.DictionaryArray.from_arrays(pa.array(regime.astype(np.int32)), ["calm", "stress"])
    return pa.table({"id": pa.array(ids).dictionary_encode(), "date": _dates(day), **columns, "regime": regimes})


def _dates(day: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(day.astype("datetime64[D]"))
