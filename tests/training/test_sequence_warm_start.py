"""A network goes on from last night's: what it keeps, what it refuses, and what out-of-fold fits train."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from gpupipe.artifacts.load import load
from gpupipe.estimators import registry
from gpupipe.estimators.earlier import EarlierModels
from gpupipe.estimators.torch.sequence import network_of
from gpupipe.estimators.torch.sequence_model import predict_sequence
from gpupipe.pipeline.listener import Listener
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.fitting import fit_group, fit_pool
from tests.support.tiny import QUICK, cut, fold_of, planted, tiny_market

pytest.importorskip("torch", reason="the family sequence trains with Torch")

SETTINGS = (
    *QUICK, "sequence.network=fast", "sequence.length=12", "sequence.epochs=4", "sequence.step_rows=256",
    "labels.horizons=1", "labels.thresholds=0.02", "split.parts=2", "training.models=linear,sequence,meta_learner",
)  # fmt: skip


def job(out, *more, days=0, source=None, listener=None):
    panel = cut(tiny_market(), lambda k, bars: bars < 260 - days)
    chosen = equity.make("fast", settings=[*SETTINGS, *more])
    return tiny.execute(panel, None, chosen, out, 1, listener, warm_start=source)[0]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """Last night's run."""
    out = tmp_path_factory.mktemp("old") / "OUT"
    job(out, days=1)
    return out


def model_of(out, sector="energy"):
    return load(out).by_group[sector]["label_1d_2pct"]["sequence"]


def starting_from(models):
    return registry.estimator("sequence").starting_from(
        EarlierModels("key", {"a": models}, None, "2020-01-01", "digest")
    )


def test_tonight_it_goes_on_from_the_network_and_says_so(old, tmp_path, caplog):
    heard, out = [], tmp_path / "OUT"
    summary = job(out, source=old, listener=Listener(detail=heard.append))
    assert not caplog.records
    was, now = network_of(model_of(old)), network_of(model_of(out))
    assert now.rates[: len(was.rates)] == was.rates, "the whole schedule, of both nights"
    assert now.scaler.as_dict() == was.scaler.as_dict() and now.history[0, 0] == 0
    # Of the final network epochs 0 to 4; out of fold as many as lead to the final network, each from nothing.
    final = [text for text in heard if "/final/" in text]
    assert len(final) == 5 and "epoch 0 of at most 4" in final[0]
    for part in ("part1", "part2"):
        texts = [text for text in heard if f"/{part}/" in text]
        assert len(texts) == len(now.rates) and texts[-1].split(": ")[1].startswith(f"epoch {len(now.rates)} of ")
    assert summary["warm_start"]["families"]["sequence"]["warm"] == 3
    key = json.loads((old / "manifest.json").read_text())["run_key"]
    rows = [row for row in summary["models"] if row["model"] == "sequence" and row["kind"] == "model"]
    assert {row["warm_start_run"] for row in rows} == {key}
    assert model_of(out).describe()["warm_start"]["run_key"] == key


def test_it_keeps_the_earlier_network_where_training_on_makes_it_worse():
    fit, validation = planted(900, 0)[0], planted(900, 1)[0]
    training_set = fold_of({"a": fit}, {"a": validation})
    settings = equity.make("fast", settings=["sequence.length=6", "sequence.epochs=10", "sequence.step_rows=256"])
    first = fit_pool("sequence", training_set, settings)
    wild = equity.make(
        "fast", settings=["sequence.length=6", "sequence.epochs=2", "sequence.step_rows=256", "sequence.rate=5.0"]
    )
    kept = fit_pool("sequence", training_set, wild, estimator=starting_from(first))
    assert network_of(kept[0]).rates == network_of(first[0]).rates
    assert np.array_equal(predict_sequence(kept, validation.features), predict_sequence(first, validation.features))
    assert kept[0].warm is not None and len(network_of(kept[0]).history) == 3
    part = fold_of({"a": fit.slice(0, 600)}, {})
    cold = registry.estimator("sequence")
    models = fit_pool("sequence", part, wild, kept, cold)
    assert network_of(models[0]).rates == network_of(first[0]).rates and models[0].warm is None
    assert fit_group("sequence", part, "a", wild, models, kept) == models


@pytest.mark.parametrize(
    "setting", ["sequence.length=10", "sequence.network=balanced", "sequence.scaling=minmax", "labels.thresholds=0.03"]
)
def test_another_network_is_trained_from_nothing_with_one_sentence(old, tmp_path, caplog, setting):
    summary = job(tmp_path / "OUT", setting, source=old)
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("sequence")]
    assert len(told) == 1 and told[0].startswith(f"sequence is trained from nothing, not from {old}: ")
    name = setting.split("=")[0]
    assert name in told[0] and "without --warm-start" in told[0]
    assert summary["warm_start"]["families"]["sequence"]["warm"] == 0


def test_in_its_own_folder_night_after_night(old, tmp_path):
    """The same bytes as from another folder, and nothing to do the second time."""
    out = tmp_path / "OUT"
    shutil.copytree(old, out)
    job(out, source=out)
    job(tmp_path / "other", source=old)
    assert model_of(out).files() == model_of(tmp_path / "other").files()
