"""Par and zero curves by tenor, of one date or of many, and their discounts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from gpupipe.kernels.bond_curves import KEY_SHIFT, par_nodes, zero_nodes
from gpupipe.runtime.device import Device, device_of
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.bonds.valuation.conversion import NO_DAY, days_of, plain

MAX_AGE_DAYS = 7  # a curve day before a weekend with holidays on both of its sides is still known
NO_ROW, TOO_OLD = -1, -2  # of the curve of a bond
CurveKind = Literal["par", "zero"]


@dataclass(frozen=True)
class Curve:
    """Rates by tenor, of one curve or of one for each of many dates.

    tenors: float64 (n_tenors,), years, rising, above 0.
    rates: float64 (n_tenors,) or (n_curves, n_tenors), percent a year; NaN where a tenor is not quoted.
    kind: "par", yields of bonds at 100 with two coupons a year (as the US Treasury publishes them), or "zero", zero
        rates compounded continuously.
    dates: datetime64[D] or int64 days (n_curves,), rising: a bond takes the curve of the last date at or before its
        settlement. None: there is one curve, or the table has a column `curve`, the row of each bond's curve.
    max_age_days: days from that date to the settlement after which the curve is too old, and the bond has none; None:
        a curve is never too old. Without dates it says nothing.

    Time is days / 365.25 from the settlement. Discounts are bootstrapped at half-years from par rates, and their
    logarithms are lines between the nodes.

    >>> curve = Curve([1.0, 30.0], [5.0, 5.0], kind="zero")
    >>> times, log_discount = curve.nodes()
    >>> np.exp(log_discount[0, 1]).round(6), curve.n_curves
    (np.float64(0.22313), 1)

    Raises UserError where types or shapes do not fit, tenors or dates do not rise, or the kind is unknown.
    """

    tenors: Any
    rates: Any
    kind: CurveKind = "par"
    dates: Any = None
    max_age_days: float | None = MAX_AGE_DAYS

    def __post_init__(self) -> None:
        xp = device_of(self.rates).xp
        tenors = np.ascontiguousarray(_numbers("tenors", self.tenors, "years, such as 0.25 for three months"))
        rates = xp.ascontiguousarray(xp.atleast_2d(_numbers("rates", self.rates, "percent a year, NaN for none")))
        if self.kind not in get_args(CurveKind):
            raise UserError(f"curve kind {self.kind!r} is unknown; expected par or zero")
        rising = tenors.ndim == 1 and len(tenors) and np.isfinite(tenors).all() and (np.diff(tenors) > 0).all()
        if not rising or not tenors[0] > 0:
            raise UserError(f"tenors {np.array2string(tenors, threshold=8)} have to be years above 0 that rise")
        if rates.ndim != 2 or rates.shape[1] != len(tenors):
            raise UserError(f"rates have shape {tuple(rates.shape)}; expected ({len(tenors)},) or (n, {len(tenors)})")
        if bool(xp.isinf(rates).any()):
            raise UserError("a rate of the curve is infinite; expected percent a year, NaN where a tenor is not quoted")
        object.__setattr__(self, "tenors", tenors)
        object.__setattr__(self, "rates", rates)
        age = self.max_age_days
        if age is not None and (isinstance(age, bool) or not isinstance(age, (int, float, np.number)) or not age >= 0):
            raise UserError(f"max_age_days is {age!r}; expected a number of days, 0 or more, or None for any")
        if self.dates is not None:
            days = np.atleast_1d(days_of("dates", np.asarray(plain(self.dates))))
            if days.shape != (len(rates),) or (np.diff(days) <= 0).any() or (days == NO_DAY).any():
                raise UserError(f"dates have shape {days.shape}; expected ({len(rates)},), one a curve, rising")
            object.__setattr__(self, "dates", days)

    @property
    def n_curves(self) -> int:
        """The number of curves."""
        return len(self.rates)

    def rows(self, settlement: Any, given: Any) -> Any:
        """int64 (n_bonds,): the row of each bond's curve, NO_ROW for none, TOO_OLD where the last one is.

        settlement: int64 days.  given: the table's column `curve`, or None.
        Raises UserError where there are several curves, without dates, and no such column.
        """
        xp = device_of(settlement).xp
        if given is not None:
            return xp.where((given >= 0) & (given < self.n_curves), given, NO_ROW)
        if self.dates is not None:
            dates = xp.asarray(self.dates)
            row = xp.searchsorted(dates, settlement, side="right") - 1
            limit = np.inf if self.max_age_days is None else self.max_age_days
            old = (row >= 0) & (settlement - dates[xp.maximum(row, 0)] > limit)
            return xp.where(old, TOO_OLD, row)
        if self.n_curves > 1:
            raise UserError(
                f"{self.n_curves} curves without dates: give Curve(..., dates=...), or a column 'curve' with the row "
                "of each bond's curve"
            )
        return xp.zeros(len(settlement), np.int64)

    def nodes(self, device: Device | None = None, bumped: bool = False) -> tuple[Any, Any]:
        """Times of the nodes in years, float64 (n_nodes,), and logarithms of the discounts, (n, n_nodes).

        bumped: after the n_curves rows come, for each tenor, those with its rate KEY_SHIFT percent higher, then lower.
        """
        device = device or device_of(self.rates)
        xp, times = device.xp, self.tenors
        if self.kind == "par":
            halves = np.arange(1, max(1, int(np.ceil(2 * times[-1] - 1e-9))) + 1) * 0.5
            times = np.concatenate([times[times < 0.5], halves])
        rates = device.asarray(self.rates)
        if bumped:
            shifts = np.zeros((1 + 2 * len(self.tenors), 1, len(self.tenors)))
            for k in range(len(self.tenors)):
                shifts[1 + 2 * k, 0, k], shifts[2 + 2 * k, 0, k] = KEY_SHIFT, -KEY_SHIFT
            rates = (rates[None] + device.asarray(shifts)).reshape(-1, len(self.tenors))
        log_discount = xp.empty((len(rates), len(times)))
        kernel = par_nodes if self.kind == "par" else zero_nodes
        on_device = device.asarray(times)
        kernel(len(rates), device.asarray(self.tenors), xp.ascontiguousarray(rates), on_device, log_discount)
        return on_device, log_discount


def _numbers(name: str, values: Any, what: str) -> Any:
    """float64 of numbers, or lists of them; UserError for what holds none."""
    if hasattr(values, "__cuda_array_interface__"):
        return values.astype(np.float64, copy=False)
    try:
        array = np.asarray(plain(values))
    except ValueError:
        raise UserError(f"{name} of the curve have rows of different lengths; expected {what}") from None
    if array.dtype.kind not in "iuf":
        held = type(array.reshape(-1).tolist()[0]).__name__ if array.size else "nothing"
        raise UserError(f"{name} of the curve hold {held}; expected numbers: {what}")
    return array.astype(np.float64, copy=False)
