"""TA-Lib's columns in other libraries are ours."""

from __future__ import annotations

import numpy as np
import pytest

from bench import runs
from bench.kernels import comparison, feature_peers
from gpupipe.features.matrix import compute_features
from tests.support.panels import random_panel
from tests.support.talib_columns import OUR_COLUMNS


@pytest.mark.parametrize("make", feature_peers.IN_LIBRARIES[1:])  # the pool has TA-Lib's own answers
def test_columns_of_peers_equal_ours(make):
    panel = random_panel((300, 260, 40, 1, 2))
    values = compute_features(panel, OUR_COLUMNS).values
    try:
        with make(panel) as peer:
            agrees = comparison.same_columns(peer.name, panel, values, np.nanstd(values, axis=0))
            assert f"{len(OUR_COLUMNS)} columns of every symbol" in agrees(peer.matrix(peer.run()))
    except runs.SkippedError as error:
        pytest.skip(str(error))
