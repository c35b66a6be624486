"""Incremental features: new rows equal a full recomputation bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpupipe import begin_features, compute_features, load_state, panel_feature
from gpupipe.data.panel import Panel
from gpupipe.features.expressions import Across
from gpupipe.features.formulas import FEATURES
from gpupipe.store.content_store import StoreError
from tests.features.test_features import panel_with_holes
from tests.support.panels import random_panel

DAY = 86_400_000_000_000


def between(panel: Panel, first: int, last: int) -> Panel:
    """The rows of the days first to last - 1; symbols without rows are left out."""
    return panel.take((panel.time_ns >= first * DAY) & (panel.time_ns < last * DAY))


def history() -> Panel:
    """Six symbols of two sectors with holes: the last starts late, another ends early, prices are missing."""
    panel = random_panel((420, 420, 420, 300, 420, 420), 8)
    late = panel.time_ns.copy()
    keep = ~((panel.symbol_of_row == 5) & (late < 330 * DAY))
    keep[[500, 501, 900, 1640, 1650]] = False
    panel = panel.take(keep, keep_empty=True)
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
            position = panel.symbols.index(symbol)
            times = features.panel.time_ns[features.panel.offsets[k] : features.panel.offsets[k + 1]]
            symbol_times = panel.time_ns[panel.offsets[position] : panel.offsets[position + 1]]
            rows += list(panel.offsets[position] + np.searchsorted(symbol_times, times))
        np.testing.assert_array_equal(features.values, whole.values[rows])
    assert features.hash == whole.hash
    assert state.tail.n_rows < panel.n_rows


def test_a_saved_state_resumes(tmp_path, device):
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


def test_invalid_updates_and_states_are_refused(clean_registry, tmp_path):
    panel = panel_with_holes()
    _, state = begin_features(between(panel, 0, 300))
    with pytest.raises(
        ValueError, match="S000 has a bar at 1970-10-27T00:00:00, but the state already covers 1970-10-27"
    ):
        state.advance(between(panel, 299, 310))
    other = between(panel, 300, 310).replace(sector=("energy", *panel.sector[1:]))
    with pytest.raises(ValueError, match="S000 was in sector technology and is in energy now"):
        state.advance(other)
    # Without cross-sectional columns, a bar may be earlier than its sector's last bar.
    _, alone = begin_features(between(panel, 0, 300).where([True, False, False, False]), "rsi_14")
    features, _ = alone.advance(between(panel, 250, 300).where([False, False, True, False]))
    assert features.n_rows == 50

    @panel_feature("momentum", source="the test")
    def panel_close(panel):
        """close"""
        return panel.close

    with pytest.raises(ValueError, match="panel_close is a function of a panel"):
        begin_features(panel, "panel_close")
    with pytest.raises(ValueError, match="expected a Panel"):
        state.advance(between(panel, 300, 310).to_arrow())
    state.save(tmp_path / "state.npz")
    (tmp_path / "half.npz").write_bytes((tmp_path / "state.npz").read_bytes()[:5000])
    (tmp_path / "empty.npz").write_bytes(b"")
    cases = (("half.npz", "is incomplete"), ("empty.npz", "is incomplete"), ("none.npz", "No such file"))
    for name, message in cases:
        with pytest.raises(StoreError, match=message):
            load_state(tmp_path / name, panel.device)
    dataclasses.replace(state, hash="another").save(tmp_path / "old.npz")
    with pytest.raises(StoreError, match="other formulas"):
        load_state(tmp_path / "old.npz", panel.device)


def test_cross_sections_from_a_time_on_have_the_bits_of_a_full_run():
    panel = history()
    whole = compute_features(panel, "all")
    out = np.full(whole.values.shape, np.float32(7))
    times = np.unique(panel.time_ns)
    across = [k for k, name in enumerate(whole.names) if isinstance(FEATURES[name].series, Across)]
    assert max(FEATURES[whole.names[k]].series.n for k in across) > 5
    for since in (times[-1], times[-5], times[40], times[0], times[0] - 1, times[-1] + 1):
        values = compute_features(panel, "all", out, compared_since=int(since)).values
        later = panel.time_ns >= since
        np.testing.assert_array_equal(values[later], whole.values[later])
        np.testing.assert_array_equal(np.delete(values, across, axis=1), np.delete(whole.values, across, axis=1))
        assert np.isnan(values[~later][:, across]).all()
