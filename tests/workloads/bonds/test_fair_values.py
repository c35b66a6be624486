"""The values of quotes: a quoted yield that is not that of its price is told."""

import logging

from gpupipe.workloads.bonds.fair_values import fair_values
from tests.support.bond_tables import QUOTES, changed, read


def test_a_yield_that_contradicts_its_price_is_told(caplog):
    panel, _ = read()
    yields = fair_values(panel, "street").yield_.tolist()
    quoted = [yields[0] + 0.2, yields[1] - 0.3, None, yields[3] + 5.0, None]
    panel, _ = read(quotes=changed(QUOTES, ytm=quoted))
    caplog.clear()
    with caplog.at_level(logging.WARNING, "gpupipe"):
        found = fair_values(panel, "street").yield_
    assert found.tolist() == yields  # the price counts, and floating bonds are left out
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("1 of 2 quotes have a yield more than 0.25 percentage points from that of their price")
    assert message.endswith(f"(first A: yield {quoted[1]:.4g}, of its price {yields[1]:.4g})")
