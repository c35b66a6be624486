"""Features that go on: new rows alone equal a recomputation bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe import begin_features, compute_features, load_state, panel_feature
from gpupipe.data.panel import COLUMNS, Panel
from gpupipe.features.expressions import Across
from gpupipe.features.formulas import FEATURES
from gpupipe.store.content_store import StoreError
from tests.features.test_features import panel_with_holes
from tests.support.panels import random_panel

DAY = 86_400_000_000_000


def between(panel: Panel, first: int, last: int) -> Panel:
    """The rows of days first to last - 1; symbols without any are left out."""
    rows = np.flatnonzero((panel.time_ns >= first * DAY) & (panel.time_ns < last * DAY))
    n_rows = np.bincount(panel.symbol_of_row[rows], minlength=panel.n_symbols)
    there = np.flatnonzero(n_rows)
    return Panel.of_bars(
        **{name: getattr(panel, name)[rows] for name in (*COLUMNS, "time_ns")},
        offsets=np.concatenate([[0], np.cumsum(n_rows[there])]).astype(np.int64),
        symbols=tuple(panel.symbols[k] for k in there), sector=tuple(panel.sector[k] for k in there),
    )  # fmt: skip


def history() -> Panel:
    """Six symbols of two sectors with holes: the last begins late, another ends early, prices are missing."""
    panel = random_panel((420, 420, 420, 300, 420, 420), 8)
    late = panel.time_ns.copy()
    keep = ~((panel.symbol_of_row == 5) & (late < 330 * DAY))
    keep[[500, 501, 900, 1640, 1650]] = False
    n_rows = np.bincount(panel.symbol_of_row[keep], minlength=6)
    panel = dataclasses.replace(
        panel, **{name: getattr(panel, name)[keep] for name in (*COLUMNS, "time_ns")},
        offsets=np.concatenate([[0], np.cumsum(n_rows)]).astype(np.int64),
    )  # fmt: skip
    panel.close[[300, 390, 700, 1500]] = np.nan
    panel.volume[[310, 800]] = 0
    return panel


@pytest.mark.parametrize("days", [1, 7, 60])
def test_new_rows_equal_a_recomputation_bit_for_bit(days):
    panel = history()
    whole = compute_features(panel, "all")
    features, state = begin_features(between(panel, 0, 290), "all")
    first = compute_features(between(panel, 0, 290), "all")
    np.testing.assert_array_equal(features.values, first.values)
    for day in range(290, 420 if days > 1 else 345, days):
        features, state = state.advance(between(panel, day, min(day + days, 420)))
        rows = []
        for k, symbol in enumerate(features.panel.symbols):
            own = panel.symbols.index(symbol)
            times = features.panel.time_ns[features.panel.offsets[k] : features.panel.offsets[k + 1]]
            of_symbol = panel.time_ns[panel.offsets[own] : panel.offsets[own + 1]]
            rows += list(panel.offsets[own] + np.searchsorted(of_symbol, times))
        np.testing.assert_array_equal(features.values, whole.values[rows])
    assert features.hash == whole.hash
    assert state.tail.n_rows < panel.n_rows


def test_a_state_is_saved_and_goes_on(tmp_path, device):
    panel = panel_with_holes()
    whole = compute_features(panel)
    _, state = begin_features(between(panel, 0, 300).to(device))
    state.save(tmp_path / "state.npz")
    features, _ = load_state(tmp_path / "state.npz", device.kind).advance(between(panel, 300, 320).to(device))
    new = panel.time_ns >= 300 * DAY
    if device.kind == "cpu":
        np.testing.assert_array_equal(features.values, whole.values[new])
    again, _ = state.advance(between(panel, 300, 320).to(device))
    np.testing.assert_array_equal(device.to_host(features.values), device.to_host(again.values))


def test_what_cannot_go_on_is_refused(own, tmp_path):
    panel = panel_with_holes()
    _, state = begin_features(between(panel, 0, 300))
    with pytest.raises(ValueError, match="S000 has a bar of 1970-10-27T00:00:00, and the state is of 1970-10-27"):
        state.advance(between(panel, 299, 310))
    other = between(panel, 300, 310).replace(sector=("energy", *panel.sector[1:]))
    with pytest.raises(ValueError, match="S000 was of technology, and is of energy now"):
        state.advance(other)
    # Without columns that compare symbols, a bar may come that is late for its sector.
    _, alone = begin_features(between(panel, 0, 300).where([True, False, False, False]), "rsi_14")
    features, _ = alone.advance(between(panel, 250, 300).where([False, False, True, False]))
    assert features.n_rows == 50

    @panel_feature("momentum", source="the test")
    def of_panel(panel):
        """close"""
        return panel.close

    with pytest.raises(ValueError, match="of_panel is a function of the whole panel"):
        begin_features(panel, "of_panel")
    with pytest.raises(ValueError, match="expected a Panel"):
        state.advance(between(panel, 300, 310).to_arrow())
    state.save(tmp_path / "state.npz")
    (tmp_path / "half.npz").write_bytes((tmp_path / "state.npz").read_bytes()[:5000])
    (tmp_path / "empty.npz").write_bytes(b"")
    cases = (("half.npz", "or not whole"), ("empty.npz", "or not whole"), ("none.npz", "No such file"))
    for name, message in cases:
        with pytest.raises(StoreError, match=message):
            load_state(tmp_path / name, panel.device)
    dataclasses.replace(state, hash="another").save(tmp_path / "old.npz")
    with pytest.raises(StoreError, match="other formulas"):
        load_state(tmp_path / "old.npz", panel.device)


def test_rows_compared_from_a_time_on_have_the_bits_of_all_rows():
    panel = history()
    whole = compute_features(panel, "all")
    memory = np.full(whole.values.shape, np.float32(7))
    times = np.unique(panel.time_ns)
    across = [k for k, name in enumerate(whole.names) if isinstance(FEATURES[name].series, Across)]
    assert max(FEATURES[whole.names[k]].series.n for k in across) > 5
    for since in (times[-1], times[-5], times[40], times[0], times[0] - 1, times[-1] + 1):
        found = compute_features(panel, "all", memory, compared_since=int(since)).values
        later = panel.time_ns >= since
        np.testing.assert_array_equal(found[later], whole.values[later])
        np.testing.assert_array_equal(np.delete(found, across, axis=1), np.delete(whole.values, across, axis=1))
        assert np.isnan(found[~later][:, across]).all()
