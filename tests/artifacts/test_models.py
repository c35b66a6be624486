"""What a finished run left: loaded again it predicts what training reported, and nothing altered is accepted."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from gpupipe import load
from gpupipe.artifacts import publish
from gpupipe.artifacts.manifest import altered_files, read_manifest, write_manifest
from gpupipe.cross_validation.split import split
from gpupipe.cross_validation.walk_forward import holdout
from gpupipe.data import simulate
from gpupipe.evaluation import metrics
from gpupipe.features import matrix
from gpupipe.features.matrix import compute_features
from gpupipe.pipeline import supervised
from gpupipe.store.content_store import StoreError, dump_json, sha256
from gpupipe.targets.triple_barrier import tp_dd_labels
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, cut, in_sectors, tiny_market


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(OUT, summary, the models of training with their predictions and the split, by sector)."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patched:
        reported = tiny.listen_to_training(patched)
        summary, worked = tiny.execute(tiny_market(), None, equity.make("fast", settings=QUICK), out, 1)
    assert worked
    return out, summary, reported


@pytest.fixture
def out(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(finished[0], tmp_path / "OUT")


def rows_of(panel, sector):
    return np.flatnonzero((np.array(panel.sector) == sector)[panel.symbol_of_row])


def test_it_predicts_bit_for_bit_what_training_reported(finished):
    out, _, trained_by_sector = finished
    panel = tiny_market()
    predictions = load(out).predict(panel)
    assert predictions.values.shape == (panel.n_rows, 24, 3) and predictions.values.dtype == np.float32
    assert set(trained_by_sector) == set(SECTORS)
    for sector, (trained, rows) in trained_by_sector.items():
        for part, at in (("validation", rows.validation), ("test", rows.test)):
            for family, reported in getattr(trained, part).items():
                for k, label in enumerate(trained.labels):
                    loaded = predictions.of(f"{family}{label.removeprefix('label')}")[rows_of(panel, sector)[at]]
                    np.testing.assert_array_equal(loaded, reported[:, k], err_msg=f"{sector} {family} {label}")


def test_the_reported_losses_follow_from_the_loaded_models_alone(finished):
    """Split, labels and measure computed again from the panel, as somebody would who trusts nothing."""
    out, summary, _ = finished
    panel, settings = tiny_market(), equity.make("fast", settings=QUICK)
    predictions = load(out).predict(panel)
    datasets = {}
    for sector in SECTORS:
        own = panel.of_group(sector)
        labels = tp_dd_labels(own, settings.labels.horizons, settings.labels.thresholds)
        datasets[sector] = tiny.join(own, compute_features(own), labels, sector)
    at = holdout(list(datasets.values()), settings.split)
    checked = 0
    for row in summary["models"]:
        if row["kind"] == "baseline":
            continue
        dataset = datasets[row["sector"]]
        test = split(dataset, at).test
        probability = predictions.of(f"{row['model']}{row['label'].removeprefix('label')}")
        y = dataset.y[test, dataset.target.names.index(row["label"])]
        losses = metrics.log_losses(probability[rows_of(panel, row["sector"])[test]], y)
        assert len(test) == row["test_rows"]
        assert float(losses.mean()) == pytest.approx(row["test_log_loss"], rel=1e-12)
        checked += 1
    assert checked == 72


def test_rows_that_are_not_warm_have_no_prediction(finished):
    panel = tiny_market()
    predictions = load(finished[0]).predict(panel)
    known = ~np.isnan(predictions.values)
    assert (known.all(axis=(1, 2)) == known.any(axis=(1, 2))).all()
    bar = np.arange(panel.n_rows) - panel.offsets[panel.symbol_of_row]
    np.testing.assert_array_equal(known.any(axis=(1, 2)), bar >= bar[known.any(axis=(1, 2))].min())
    assert 50 < bar[known.any(axis=(1, 2))].min() <= 61
    probability = predictions.values[known.any(axis=(1, 2))]
    np.testing.assert_allclose(probability.sum(axis=2), 1, atol=2e-6)


def test_the_future_changes_no_prediction(finished):
    panel = tiny_market()
    models = load(finished[0])
    before = models.predict(panel).values
    last = panel.offsets[1:] - 1
    close, high = panel.close.copy(), panel.high.copy()
    close[last], high[last] = close[last] * 1.1, high[last] * 1.3
    after = models.predict(panel.replace(close=close, high=high)).values
    earlier = np.ones(panel.n_rows, bool)
    earlier[last] = False
    np.testing.assert_array_equal(after[earlier], before[earlier])
    assert (after[last] != before[last]).any(axis=(1, 2)).all()
    shorter = cut(panel, lambda k, bars: bars < 200)
    kept = np.concatenate([np.arange(a, a + 200) for a in panel.offsets[:-1]])
    np.testing.assert_array_equal(models.predict(shorter).values, before[kept])


def test_new_data_and_fewer_families(finished):
    models = load(finished[0])
    panel = in_sectors(simulate(n_symbols=55, n_bars=100, seed=9), SECTORS)
    whole = models.predict(panel)
    some = models.predict(panel, ["meta_learner", "linear"])
    assert len(whole.names) == 24 and len(some.names) == 8
    for name in some.names:
        np.testing.assert_array_equal(some.of(name), whole.of(name))
    for family in equity.DEFAULT_MODELS:  # a meta-learner alone, too, though it needs the others
        alone = models.predict(panel, [family])
        assert len(alone.names) == 4
        for name in alone.names:
            np.testing.assert_array_equal(alone.of(name), whole.of(name))
    with pytest.raises(ValueError, match=r"no model 'oracle' in .*; there are .*linear"):
        models.predict(panel, ["oracle"])
    with pytest.raises(ValueError, match="no model 'linear_9d_2pct'; there are"):
        whole.of("linear_9d_2pct")


def test_sectors_that_were_not_trained(finished):
    models = load(finished[0])
    panel = in_sectors(simulate(n_symbols=22, n_bars=100, seed=9), ["energy", "materials"])
    values = models.predict(panel).values
    assert np.isnan(values[rows_of(panel, "materials")]).all()
    assert not np.isnan(values[rows_of(panel, "energy")]).all()
    with pytest.raises(StoreError, match="has models for energy, technology, utilities, none for materials"):
        models.predict(in_sectors(panel, ["materials"]))


def test_a_history_too_short_for_the_features_is_all_unknown(finished):
    predictions = load(finished[0]).predict(in_sectors(simulate(n_symbols=22, n_bars=20), SECTORS))
    assert np.isnan(predictions.values).all()


def test_predictions_as_a_table(finished):
    panel = tiny_market()
    predictions = load(finished[0]).predict(panel, ["linear"])
    table = predictions.to_arrow()
    assert table.num_rows == panel.n_rows
    assert table.column_names[:3] == ["symbol", "time", "sector"]
    words = [f"{name}_{word}" for name in predictions.names for word in ("sell", "hold", "buy")]
    assert table.column_names[3:] == words
    np.testing.assert_array_equal(table["linear_3d_4pct_buy"].to_numpy(), predictions.of("linear_3d_4pct")[:, 2])
    assert table["sector"].cast("string").to_pylist()[0] == panel.sector[0]


def test_models_refuse_other_features(finished, monkeypatch):
    models = load(finished[0])
    with pytest.raises(StoreError, match=r"were trained on other features \(hash 0000.*train again"):
        dataclasses.replace(models, features_hash="0" * 64).predict(tiny_market())
    real = matrix.compute_features

    def changed(panel, names, *more):
        features = real(panel, names, *more)
        return dataclasses.replace(features, definitions=(*features.definitions[:-1], "another formula"))

    monkeypatch.setattr("gpupipe.artifacts.load.compute_features", changed)
    with pytest.raises(StoreError, match="were trained on other features"):
        models.predict(tiny_market())


def test_a_folder_without_a_finished_run_is_refused(tmp_path, out):
    with pytest.raises(StoreError, match=r"has no manifest.json: it is no finished run; run gpupipe with --out"):
        load(tmp_path / "nowhere")
    (out / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"has no manifest.json"):
        load(out)


@pytest.mark.parametrize("name", ["linear.npz", "xgb_joint.ubj", "metadata.json"])
@pytest.mark.parametrize("how", ["a bit", "cut", "gone"])
def test_an_altered_file_is_refused(out, name, how):
    path = out / "trained_2pct/energy/1d" / name
    content = path.read_bytes()
    path.unlink()  # it may be a link to other models
    if how == "a bit":
        path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    if how == "cut":
        path.write_bytes(content[:-1])
    with pytest.raises(StoreError, match=rf"{name} is gone or was altered since it was written: run again with --out"):
        load(out)
    manifest = read_manifest(out)
    assert altered_files(out, manifest) == [f"trained_2pct/energy/1d/{name}"]


def rewrite(out, change):
    manifest = json.loads((out / "manifest.json").read_bytes())
    change(manifest)
    (out / "manifest.json").write_bytes(dump_json(manifest))


@pytest.mark.parametrize("name", ["../secret.npz", "/etc/hostname", "trained_2pct/../../secret.npz", "link.npz"])
def test_a_manifest_that_names_a_path_outside_is_refused(out, name):
    secret = out.parent / "secret.npz"
    secret.write_bytes(b"secret")
    (out / "link.npz").symlink_to(secret)
    rewrite(out, lambda manifest: manifest["files"].update({name: {"sha256": sha256(b"secret"), "bytes": 6}}))
    with pytest.raises(StoreError, match="names a path outside of its folder"):
        load(out)
    with pytest.raises(StoreError, match="names a path outside of its folder"):
        altered_files(out, read_manifest(out))


@pytest.mark.parametrize("target", ["x", {}, {"kind": "classes"}, None])
def test_a_manifest_without_a_usable_target_is_refused(out, target):
    manifest = json.loads((out / "manifest.json").read_bytes())
    (out / "manifest.json").write_bytes(dump_json({**manifest, "target": target}))
    with pytest.raises(
        StoreError, match=r"manifest\.json: its target or lookback cannot be used .* run again with --out"
    ):
        load(out)


def test_models_of_a_label_that_the_target_does_not_name_are_refused(out):
    manifest = json.loads((out / "manifest.json").read_bytes())
    first = load(out).target.take([0]).as_dict()
    (out / "manifest.json").write_bytes(dump_json({**manifest, "target": first}))
    with pytest.raises(StoreError, match="there are models of label_1d_4pct, "):
        load(out)


def test_a_newer_format_is_refused(out):
    rewrite(out, lambda manifest: manifest.update(format=2))
    with pytest.raises(StoreError, match="has format 2, this gpupipe reads 1: use the gpupipe that wrote it"):
        load(out)
    for text in ("[]", "{}"):
        (out / "manifest.json").write_text(text)
        with pytest.raises(StoreError, match="has format None"):
            load(out)
    (out / "manifest.json").write_text('{"format": 1, "fi')
    with pytest.raises(StoreError, match=r"is not JSON .*delete it and run again"):
        load(out)


def test_a_run_is_complete_when_its_manifest_is_there(out):
    """While files are replaced there is none: an earlier one would call them good that are not."""
    happened = []
    with pytest.MonkeyPatch.context() as patched:
        publish_one, write = publish.publish, write_manifest

        def publishing(store, *arguments):
            happened.append(("publish", (out / "manifest.json").exists()))
            return publish_one(store, *arguments)

        def writing(store, *arguments):
            happened.append(("manifest", (out / "manifest.json").exists()))
            return write(store, *arguments)

        patched.setattr(publish, "publish", publishing)
        patched.setattr(supervised, "write_manifest", writing)
        tiny.execute(tiny_market(), None, equity.make("fast", settings=[*QUICK, "training.models=linear"]), out, 1)
    assert {name for name, _ in happened} == {"publish", "manifest"} and happened[-1][0] == "manifest"
    assert not any(there for _, there in happened)


def test_no_model_holds_an_object(finished):
    """Loaded with pickle forbidden; a .ubj is XGBoost's UBJSON, which begins with an open brace."""
    for path in finished[0].glob("trained_*/**/*"):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as saved:
                assert all(saved[name].dtype.kind in "fi" for name in saved.files)
        if path.suffix == ".ubj":
            assert path.read_bytes()[:1] == b"{"
