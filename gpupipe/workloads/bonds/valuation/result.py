"""What a valuation returns: columns of results, and which bonds could not be valued."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

# What the numbers in the column `status` mean; those before TYPE are of kernels.bonds.
STATUS = (
    "valued", "no yield has the price", "maturity at or before settlement", "unknown day count",
    "frequency other than 1, 2, 4, 12, or 0 without a coupon", "settlement before issue", "a value is missing",
    "first coupon not on the schedule", "no curve", "price not positive",
    "not supported by the convention treasury", "more than 32,768 coupons left", "unknown type",
    "call of a floating bond, or of frequency 0", "call price outside 50 to 200",
    "a curve without rates, or whose discounts are not positive", "the last curve is too old",
    "yield outside -90 to 900 percent a period, or its price too large",
)  # fmt: skip
TYPE, CALL, CALL_PRICE, BAD_CURVE, OLD_CURVE, YIELD_RANGE = range(12, 18)


@dataclass(frozen=True)
class Valuation(Mapping[str, Any]):
    """The results of `value`: a mapping of columns, each (n_bonds,), on the device of the table.

    columns: float64, but for status, int8, and workout, datetime64[D] (int64 days on a GPU).
    problems: how many bonds have each status other than "valued".

    >>> import numpy as np
    >>> valuation = Valuation({"clean": np.array([99.5, np.nan]), "status": np.array([0, 2], np.int8)})
    >>> valuation["clean"][0], valuation.problems
    (np.float64(99.5), {'maturity at or before settlement': 1})
    >>> print(valuation)
    2 bonds, of which 1 has a problem: maturity at or before settlement 1
    """

    columns: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def n_bonds(self) -> int:
        """The number of bonds."""
        return len(self.columns["status"])

    @property
    def problems(self) -> dict[str, int]:
        """How many bonds have each status other than "valued", by its meaning."""
        status = self.columns["status"]
        counts = [int((status == number).sum()) for number in range(1, len(STATUS))]
        return {text: count for text, count in zip(STATUS[1:], counts, strict=True) if count}

    @property
    def n_without_spread(self) -> int:
        """How many bonds are valued, and have no spread to the curve that was given."""
        if "spread" not in self.columns:
            return 0
        spread = self.columns["spread"]
        return int(((self.columns["status"] == 0) & (spread != spread)).sum())

    def __str__(self) -> str:
        problems = self.problems
        n, bad = self.n_bonds, sum(problems.values())
        if not bad:
            return f"{n:,} bonds"
        shown = ", ".join(f"{text} {count:,}" for text, count in problems.items())
        return f"{n:,} bonds, of which {bad:,} {'has a problem' if bad == 1 else 'have problems'}: {shown}"

    def to_arrow(self) -> pyarrow.Table:
        """The columns as an Arrow table, on the host."""
        import pyarrow as pa

        from gpupipe.runtime.device import device_of

        device = device_of(self.columns["status"])
        return pa.table({name: pa.array(device.to_host(column)) for name, column in self.columns.items()})
