"""The market that is shipped: auctions and par curve of the US Treasury."""

import os
import pathlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpupipe.workloads.bonds import schema
from gpupipe.workloads.bonds.market import make
from gpupipe.workloads.bonds.treasuries import par_curve_table, treasury_market, treasury_tables

FOLDER = os.environ.get("GPUPIPE_DATA")


@pytest.fixture(scope="module")
def market():
    return treasury_market()


def test_what_is_shipped_is_what_the_script_makes(tmp_path):
    if not FOLDER or not pathlib.Path(FOLDER, make.AUCTIONS).is_file():
        pytest.skip("GPUPIPE_DATA names no folder with the Treasury's files")
    make.make(pathlib.Path(FOLDER), tmp_path)
    for name in (make.AUCTIONS, make.PAR_CURVE):
        shipped = pathlib.Path(make.__file__).parent / name
        assert pq.read_table(shipped).equals(pq.read_table(tmp_path / name))
        assert shipped.stat().st_size < 200_000


def test_the_panel_is_as_its_docstring_says(market):
    panel, report = market
    assert (panel.n_rows, panel.n_symbols) == (400, 342)
    assert report.clean and report.notes and report.kind == "treasuries" and "real data" in report.description
    assert (report.first_time, report.last_time) == ("2008-04-30", "2018-01-02")
    assert schema.curve_tenors(panel) == ("m1", "m3", "m6", "y1", "y2", "y3", "y5", "y7", "y10", "y20", "y30")
    assert np.isfinite(panel.clean).all() and np.isfinite(panel.columns["yield"]).all()
    assert set(panel.frequency) == {2} and set(panel.rating_rank) == {0} and panel.groups == ("treasury",)
    assert set(panel.attributes["day_count"]) == {"act/act"} and set(panel.attributes["callable"]) == {"no"}
    days = schema.days_of(panel)
    assert (panel.issue <= days).all() and (panel.maturity > days).all()
    assert not panel.curve_age.any()  # there is a curve of every day of an auction
    assert not np.isnan(panel.curve_y10).any()


def test_auctions_lie_near_the_curve(market):
    panel, _ = market
    spread = panel.columns["yield"] - schema.reference_rate(panel)
    assert round(float(np.median(np.abs(spread))), 3) == 0.016 and np.quantile(np.abs(spread), 0.95) < 0.08


def test_auctions_are_held_before_the_issue():
    auctions = pq.read_table(pathlib.Path(make.__file__).parent / make.AUCTIONS)
    before = (auctions["issue_date"].to_numpy() - auctions["auction_date"].to_numpy()).astype("m8[D]").astype(int)
    assert (before.min(), np.median(before), before.max()) == (1, 5, 15)
    assert auctions.num_rows == 400 and sum(auctions["reopening"].to_pylist()) == 63


def test_tables_are_read_by_name():
    bonds, quotes, curve = treasury_tables()
    assert bonds.num_rows == 342 and quotes.num_rows == 400
    assert curve.equals(par_curve_table()) and curve.num_rows == 7_006
    assert str(curve["date"][0]) == "1990-01-02" and str(curve["date"][-1]) == "2017-12-29"
