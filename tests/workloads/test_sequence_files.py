"""The files of networks: ONNX and int8 weights measured on the sealed test, and OUT/latest."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="sequence networks are trained by Torch, which has no CPU build for this Python")
pytest.importorskip("onnxruntime", reason="ONNX files are checked by onnxruntime")

from gpupipe.artifacts.load import load
from gpupipe.artifacts.onnx import checking
from gpupipe.cli import main
from gpupipe.data import simulate
from gpupipe.estimators.torch.sequence_model import FittedNetwork
from gpupipe.workloads.sequence import SEQUENCE, files

QUICK = ("--preset", "fast", "--epochs", "2", "--sequence-length", "8", "--features", "roc_1,natr_14,rsi_14", "--jobs",
         "1", "--horizons", "1", "--thresholds", "0.02", "--skip-plots")  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, OUT) of a run of two symbols, with int8 weights."""
    place = tmp_path_factory.mktemp("files")
    table = simulate(n_symbols=2, n_bars=500, seed=7).to_arrow().drop_columns(["sector"])
    pq.write_table(table, place / "bars.parquet")
    arguments = ("--data", str(place / "bars.parquet"), "--out", str(place / "OUT"), "--quantize", "int8", "--quiet")
    assert main.main(["sequence", *QUICK, *arguments]) == 0
    return place, place / "OUT"


def test_every_symbol_has_its_files_in_latest(finished):
    _, out = finished
    models = load(out)
    labels = ("1d_2pct", "direction_1d")
    onnx = {f"model_{label}{end}.onnx" for label in labels for end in ("", "_int8")}
    for symbol in ("SIM0000", "SIM0001"):
        folder = out / "latest" / symbol
        assert {path.name for path in folder.iterdir()} == {
            "model.safetensors", "scaler.json", "metadata.json", "history.parquet", *onnx
        }  # fmt: skip
        network = FittedNetwork.from_content((folder / "model.safetensors").read_bytes())
        about, scaler = (json.loads((folder / f"{name}.json").read_bytes()) for name in ("metadata", "scaler"))
        assert about["symbol"] == symbol and about["length"] == network.length == 8
        assert about["run_key"] == models.manifest["run_key"] and set(about["labels"]) == {
            f"label_{labels[0]}",
            labels[1],
        }
        assert scaler["columns"] == about["columns"] == ["roc_1", "natr_14", "rsi_14"]
        history = pq.read_table(folder / "history.parquet")
        assert history.num_rows == 2 and history.column_names == list(network.columns)
    assert (out / "latest").resolve() == (out / "versions" / models.manifest["run_key"][:12]).resolve()


def test_int8_costs_are_those_of_the_sealed_test(finished):
    out = finished[1]
    manifest = json.loads((out / "onnx" / "manifest.json").read_bytes())
    models, panel = load(out), simulate(n_symbols=2, n_bars=500, seed=7).replace(group_by="symbol")
    settings = SEQUENCE.settings("fast", None, ["labels.horizons=1", "labels.thresholds=0.02"])
    for symbol in panel.symbols:
        warm = models.warm_rows(panel.of_group(symbol))
        rows, y = files._sealed_test(models, panel, settings, symbol, warm)
        begin = np.datetime64(models.metadata[symbol]["dates"]["test"][0], "ns").astype(np.int64)
        assert (panel.of_group(symbol).time_ns[rows.rows] >= begin).all() and 50 < rows.n < warm.n / 2
        windows = models.inputs(rows)
        for column, name in enumerate(("trained_2pct", "direction")):
            path = f"{name}/{symbol}/1d/sequence"
            cost = manifest["files"][f"{path}_int8.onnx"]["int8"]
            known = y[:, column] >= 0
            for key, ending in (("loss", ""), ("quantized_loss", "_int8")):
                content = (out / "onnx" / f"{path}{ending}.onnx").read_bytes()
                p = checking.scored(content, windows)[known, y[known, column]]
                assert cost[key] == pytest.approx(-np.log(p).mean(), rel=1e-6)
            assert cost["quantized_bytes"] < cost["n_bytes"] and 0 < cost["largest_difference"] < 0.05


def test_a_run_without_networks_has_no_latest(tmp_path, finished, capsys):
    place, _ = finished
    arguments = ("--data", str(place / "bars.parquet"), "--out", str(tmp_path / "OUT"), "--models", "linear", "--quiet")
    assert main.main(["sequence", *QUICK, *arguments]) == 0
    assert not (tmp_path / "OUT" / "latest").exists() and (tmp_path / "OUT" / "onnx" / "manifest.json").is_file()
    assert main.main(["sequence", *QUICK, *arguments[:3], str(tmp_path / "B"), *arguments[4:], "--skip-onnx"]) == 0
    assert not (tmp_path / "B" / "onnx").exists()


def test_a_network_scans_and_trades_like_any_other(finished, capsys):
    place, out = finished
    assert main.main(["scan", "--models", str(out), "--data", str(place / "bars.parquet"), "--family", "sequence",
                      "--json"]) == 0  # fmt: skip
    assert main.main(["backtest", "--models", str(out), "--data", str(place / "bars.parquet"), "--quiet"]) == 0
    values = load(out).predict(simulate(n_symbols=2, n_bars=500, seed=7)).of("sequence_direction_1d")
    assert np.isnan(values[:7]).all() and np.isfinite(values[100:500]).all()
    np.testing.assert_allclose(values[100:500].sum(axis=1), 1, atol=1e-6)


def test_networks_are_trained_on_from_a_finished_run(finished, tmp_path, capsys):
    place, out = finished
    base = ("--data", str(place / "bars.parquet"), "--out", str(tmp_path / "OUT"), "--quiet", "--from", str(out))
    assert main.main(["sequence", *QUICK, *base, "--sequence-length", "9"]) == 2
    assert "have length 8, and this run has 9" in capsys.readouterr().err and not (tmp_path / "OUT").exists()
    assert main.main(["sequence", *QUICK, *base]) == 0
    summary = json.loads((tmp_path / "OUT" / "summary.json").read_bytes())
    assert summary["warm_start"]["families"]["sequence"]["models"] == 4
