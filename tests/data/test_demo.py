"""The demo matches its description, and its seven unadjusted events are adjusted."""

import importlib.util

import numpy as np
import pytest

from gpupipe.data import DataError, demo, load, read

EXPECTED_SECTORS = {
    "communication_services": 30,
    "consumer_discretionary": 66,
    "consumer_staples": 42,
    "energy": 43,
    "financials": 68,
    "healthcare": 56,
    "industrials": 59,
    "materials": 32,
    "real_estate": 17,
    "technology": 74,
    "utilities": 37,
}


@pytest.fixture(scope="module")
def loaded():
    return load("demo", device="cpu")


def test_facts(loaded):
    panel, report = loaded
    assert panel.n_symbols == 524 and report.sectors == EXPECTED_SECTORS
    assert (report.first_time, report.last_time) == ("2009-08-21", "2010-08-20")
    assert report.rows_read == 122_574 and report.quarantine.num_rows == 78 and panel.n_rows == 122_574 - 78
    assert report.kind == "demo" and "524 S&P 500 stocks" in report.description
    actions = {f.kind: (f.action, f.rows, f.symbols) for f in report.findings}
    assert actions.pop("split or spin-off")[::2] == ("adjusted", 7)
    assert actions.pop("looks like an unadjusted split") == ("flagged", 1, 1)  # ARG 2010-02-05, a takeover bid
    assert actions.pop("high or low far from open and close") == ("repaired", 4, 4)
    assert {action for action, _, _ in actions.values()} == {"quarantined"}


def test_volume_is_in_shares(loaded):
    panel, _ = loaded
    assert panel.volume[0] == 3_475_800 and panel.close[0] == np.float32(25.55)  # A on 2009-08-21


@pytest.mark.parametrize("event", demo.EVENTS, ids=lambda event: event[0])
def test_events_are_adjusted(loaded, event):
    panel, _ = loaded
    symbol, day = event[0], np.datetime64(demo._iso(event[1]), "ns").astype(np.int64)
    k = panel.symbols.index(symbol)
    rows = slice(panel.offsets[k], panel.offsets[k + 1])
    event_row = int(np.searchsorted(panel.time_ns[rows], day))
    gap = panel.open[rows][event_row] / panel.close[rows][event_row - 1]
    assert 0.8 < gap < 1.06  # ETFC: minus 15 % over the 20 days that it traded as ETFCD
    if event[2] is None:
        assert gap == pytest.approx(1, abs=1e-6)
    volume_ratio = np.median(panel.volume[rows][:event_row]) / np.median(panel.volume[rows][event_row:])
    assert 0.2 < volume_ratio < 4


def test_sectors_of_moved_industries(loaded):
    panel, _ = loaded
    sector = dict(zip(panel.symbols, panel.sector, strict=True))
    assert [sector[s] for s in ("AMT", "CBG", "PLD", "WY")] == ["real_estate"] * 4
    assert [sector[s] for s in ("T", "CMCSA", "IPG", "GOOG", "VIA.B", "ERTS")] == ["communication_services"] * 6
    assert [sector[s] for s in ("AAPL", "XOM", "AMD", "BRK.B")] == ["technology", "energy", "technology", "financials"]


def test_without_a_source_the_demo_is_read_and_reported(loaded):
    panel, report = load(device="cpu", sectors="utilities")
    assert report.description.startswith("no data were named: the demo") and panel.groups == ("utilities",)
    assert report.rows_selected < report.rows_read == 122_574


def test_without_the_package_a_market_is_simulated_and_reported(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == demo.PACKAGE else real(name, *a))
    reports = []
    panel = read(device="cpu", report=reports.append)
    assert panel.symbols[0] == "SIM0000"
    assert reports[0].description.startswith("the demo package is not installed (pip install -e '.[demo]'")
    assert "a simulated market, no real prices: 110 symbols" in reports[0].description
    with pytest.raises(DataError, match="the demo package is not installed"):
        read("demo", device="cpu")
