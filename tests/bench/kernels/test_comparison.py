"""The comparisons check before they time, and their lines hold rates."""

from __future__ import annotations

import numpy as np
import pytest

from bench.kernels import comparison, feature_peers, label_peers
from gpupipe.features.matrix import compute_features
from gpupipe.runtime.device import pick
from gpupipe.targets.triple_barrier import barrier_classes
from tests.support.talib_columns import OUR_COLUMNS


def test_a_wrong_answer_ends_it(panel):
    y = barrier_classes(panel)
    wrong = y.copy()
    wrong[3, 2] = (wrong[3, 2] + 1) % 3
    with pytest.raises(SystemExit, match="a peer has other ones"):
        comparison.same_labels("a peer", y)(wrong)
    values = compute_features(panel, OUR_COLUMNS).values.copy()
    spread = np.nanstd(values, axis=0)
    values[250, OUR_COLUMNS.index("cci_20")] += 1
    with feature_peers.talib_loop(panel) as peer, pytest.raises(SystemExit, match="cci_20 of S000: TA-Lib"):
        comparison.same_columns(peer.name, panel, values, spread)(peer.matrix(peer.run()))


def test_a_line_has_rates_and_its_check(panel):
    run = comparison.Run(panel, panel.to(pick("cpu")), 2, 1.0, 1e9)
    first, *_ = comparison.classes(run, label_peers.FASTEST)
    assert first["check"] == "all labels are the same" and first["equal"] and first["times"] == 2
    np.testing.assert_allclose(first["values_per_s"], 6 * first["rows_per_s"])
    np.testing.assert_allclose(first["gb_per_s"] * 1e9 * first["seconds"], panel.n_rows * 18)
    (line,) = comparison.whole_set(run)
    assert "computed alone have the same bits" in line["check"] and "ratio" not in line
