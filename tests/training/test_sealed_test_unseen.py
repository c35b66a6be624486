"""Nothing that a run publishes for use is chosen on the sealed test: other bars there change measures alone."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from gpupipe.data.panel import PRICES, Panel
from gpupipe.workloads import equity
from tests.support import tiny

MEASURES = ("metrics", "baselines", "class_shares", "run_key")  # keys of metadata that are about the sealed test too


def with_another_future(panel: Panel, begin: np.int64) -> Panel:
    """The panel with wild prices and volumes from a time on."""
    rng, late = np.random.default_rng(0), panel.time_ns >= begin
    factor = np.where(late, rng.uniform(0.7, 1.4, panel.n_rows), 1).astype(np.float32)
    columns = {name: panel.columns[name] * factor for name in PRICES}
    columns["volume"] = panel.volume * factor
    return dataclasses.replace(panel, columns={**panel.columns, **columns})


def for_use(out) -> dict[str, object]:
    """Model files, byte for byte, and metadata without seconds and measures."""

    def strip(value):
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in MEASURES and not k.startswith("seconds")}
        return value

    names = [name for name in json.loads((out / "manifest.json").read_bytes())["files"] if name.startswith("trained_")]
    return {
        name: strip(json.loads(content)) if name.endswith("metadata.json") else content
        for name in names for content in [(out / name).read_bytes()]
    }  # fmt: skip


def test_other_bars_from_the_sealed_test_on_change_no_model_cutoff_expected_return_or_expected_move(tmp_path):
    settings = equity.make("fast", settings=(*tiny.QUICK, "training.models=xgb_joint,linear,direction,meta_learner"))
    panel, outs = tiny.tiny_market(), (tmp_path / "a", tmp_path / "b")
    first = tiny.execute(panel, None, settings, outs[0], jobs=1)[0]
    begin = np.datetime64(first["split"]["test_from"], "ns").astype(np.int64)
    second = tiny.execute(with_another_future(panel, begin), None, settings, outs[1], jobs=2)[0]
    assert first["ranking"] != second["ranking"]  # the sealed test is another one
    one, other = map(for_use, outs)
    assert one.keys() == other.keys() and [name for name in one if one[name] != other[name]] == []
    learned = [about["models"]["direction"]["expected_return"] for about in one.values() if isinstance(about, dict)]
    assert learned and all(plain["ranker"] == "direction" for plain in learned)
    for section, keys in (
        (lambda whole: whole["volatility_value"]["lines"], ("horizon", "model", "factor", "exponent")),
        (lambda whole: whole["expected_returns"], ("label", "model", "side", "level", "slope", "lean")),
    ):
        chosen = [[tuple(line[key] for key in keys) for line in section(whole)] for whole in (first, second)]
        assert chosen[0] == chosen[1] and chosen[0]
