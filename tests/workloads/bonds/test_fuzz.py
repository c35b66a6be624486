"""Whatever stands in the cells, a market is read or refused in one line, and no quote is lost unsaid."""

import random

import numpy as np
import pyarrow as pa
import pytest

from gpupipe.runtime.errors import UserError
from tests.support.bond_tables import BONDS, CURVE, QUOTES, read

ODD = (
    "", " ", "NaN", "NA", "-", "inf", "-1e400", "1e999", "0", "-3", "1,5", "99-16", "5%", "0x10", "true", "2020-02-30",
    "1899-12-30", "9999-12-31", "2020-01-02T09:30Z", "20200102", "43832", "02/01/2020", "Z", "é", "\u202e", "a\nb", "'",
    "AAA", "Caa1", "zero", "floating", "C", None,
)  # fmt: skip


def texts(table, draw, share):
    """The table as texts, some of them odd, some rows twice."""
    columns = {name: [None if value is None else str(value) for value in values] for name, values in table.items()}
    for values in columns.values():
        for row in range(len(values)):
            if draw.random() < share:
                values[row] = draw.choice(ODD)
    again = [k for k in range(len(next(iter(columns.values())))) if draw.random() < share]
    return pa.table({n: pa.array(v + [v[k] for k in again], pa.string()) for n, v in columns.items()})


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_odd_cells(share):
    n_read = 0
    for seed in range(120):
        draw = random.Random(seed)
        tables = [texts(table, draw, share) for table in (BONDS, QUOTES, CURVE)]
        try:
            panel, report = read(*tables)
        except UserError as error:
            assert "\n" not in str(error) and str(error).isprintable()
            continue
        n_read += 1
        of_quotes = [f for f in report.findings if f.kind.startswith("quotes")]
        gone = sum(f.rows for f in of_quotes if f.action in ("quarantined", "merged"))
        assert report.rows_kept + gone == report.rows_read == tables[1].num_rows
        assert sum(f.rows for f in report.findings if f.action == "quarantined") == report.quarantine.num_rows
        assert (panel.clean >= 1).all() and (panel.clean <= 300).all() and (panel.maturity > panel.issue).all()
        assert np.isin(panel.frequency, (0, 1, 2, 4, 12)).all()
    assert n_read or share == 0.5
