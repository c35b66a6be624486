"""One row of features hardly says whose row it is."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality import identity
from gpupipe.features.matrix import compute_features, feature_names, warm_up_of
from tests.support.market import demo_panel


@pytest.mark.filterwarnings("ignore:Variables are collinear")
def test_one_row_hardly_names_its_symbol(monkeypatch):
    """Between the last row that is learned from and the first that is asked for lies more than any window."""
    monkeypatch.setattr(identity, "N_TRAIN", 10_000)
    monkeypatch.setattr(identity, "N_TEST", 4_000)
    panel = demo_panel(n_symbols=200)
    names = [name for name in feature_names() if warm_up_of(name) <= 45]
    assert len(names) > 120
    features = compute_features(panel, names)
    by_features = identity.named(panel, features.values, True)
    by_level = identity.named(panel, identity.levels(panel), True)
    print(by_features, by_level)
    assert max(by_features.values()) < 20 / panel.n_symbols
    assert max(by_level.values()) > 2 * max(by_features.values()), "what should give a symbol away does not"
    leaky = np.column_stack([features.values, identity.levels(panel)])
    assert max(identity.named(panel, leaky, True).values()) > max(by_features.values())
