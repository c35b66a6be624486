"""A run of networks from the command line: OUT/latest, ONNX and int8, scan and backtest, and going on from it."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="sequence networks are trained by Torch, which has no CPU build for this Python")
pytest.importorskip("onnxruntime", reason="ONNX files are checked by onnxruntime")

from gpupipe.artifacts.load import load
from gpupipe.artifacts.onnx.checking import session_of
from gpupipe.cli import main
from gpupipe.data import simulate
from gpupipe.estimators.torch.sequence_model import FittedNetwork
from gpupipe.evaluation import next_return

QUICK = ("--preset", "fast", "--epochs", "2", "--sequence-length", "8", "--features", "roc_1,natr_14,rsi_14", "--jobs",
         "1", "--horizons", "1", "--thresholds", "0.02", "--skip-plots")  # fmt: skip
HEADS = ("label_1d_2pct", "direction_1d", "log_return_1")


def bars():
    return simulate(n_symbols=2, n_bars=500, seed=7).replace(group_by="symbol")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, OUT) of a run of two symbols, with int8 weights."""
    place = tmp_path_factory.mktemp("files")
    pq.write_table(bars().to_arrow(), place / "bars.parquet")
    arguments = ("--data", str(place / "bars.parquet"), "--out", str(place / "OUT"), "--quantize", "int8", "--quiet")
    assert main.main(["sequence", *QUICK, *arguments]) == 0
    return place, place / "OUT"


def test_every_symbol_has_its_files_in_latest(finished):
    out = finished[1]
    run_key = load(out).manifest["run_key"]
    for symbol in ("SIM0000", "SIM0001"):
        folder = out / "latest" / symbol
        assert {path.name for path in folder.iterdir()} == {
            "model.safetensors", "scaler.json", "metadata.json", "history.parquet", "model.onnx", "model_int8.onnx"
        }  # fmt: skip
        network = FittedNetwork.from_content((folder / "model.safetensors").read_bytes())
        about, scaler = (json.loads((folder / f"{name}.json").read_bytes()) for name in ("metadata", "scaler"))
        assert about["sector"] == symbol and about["length"] == network.length == 8
        assert about["run_key"] == run_key and tuple(about["heads"]) == HEADS
        assert scaler["columns"] == about["features"]["names"] == ["roc_1", "natr_14", "rsi_14"]
        history = pq.read_table(folder / "history.parquet")
        assert history["epoch"].to_pylist() == [1, 2] and set(history["symbol"].to_pylist()) == {symbol}
        assert (folder / "model_int8.onnx").stat().st_size < (folder / "model.onnx").stat().st_size
    assert (out / "latest").resolve() == (out / "versions" / run_key[:12]).resolve()


def test_the_onnx_file_of_a_symbol_predicts_all_heads(finished):
    out = finished[1]
    models, panel = load(out), bars()
    rows = models.warm_rows(panel.of_group("SIM0001"))
    session = session_of((out / "latest" / "SIM0001" / "model.onnx").read_bytes())
    names = [output.name for output in session.get_outputs()]
    assert set(names) == set(HEADS)
    outputs = dict(zip(names, session.run(names, {session.get_inputs()[0].name: models.inputs(rows)}), strict=True))
    predicted = models.predict(panel.of_group("SIM0001"))
    for label, name in (("label_1d_2pct", "sequence_1d_2pct"), ("direction_1d", "sequence_direction_1d")):
        np.testing.assert_allclose(outputs[label], predicted.of(name)[rows.rows], atol=1e-5)
    assert outputs["log_return_1"].shape == (rows.n, 1)


def test_a_run_without_networks_has_no_latest(tmp_path, finished):
    arguments = ("--data", str(finished[0] / "bars.parquet"), "--out", str(tmp_path), "--models", "linear", "--quiet")
    assert main.main(["sequence", *QUICK, *arguments]) == 0
    assert (tmp_path / "manifest.json").is_file() and not (tmp_path / "latest").exists()


def test_the_run_says_what_the_next_return_is_worth(finished, capsys):
    place, out = finished
    whole = json.loads((out / "summary.json").read_bytes())
    arguments = ("--data", str(place / "bars.parquet"), "--out", str(out))
    assert main.main(["sequence", *QUICK, *arguments, "--skip-onnx"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for symbol in ("SIM0000", "SIM0001"):
        measured = whole["returns"][symbol]
        assert next_return.sentence(symbol, measured) in printed
        for gain in measured["gain"].values():
            assert f"{100 * gain['gain']:z.2f} [{100 * gain['low']:z.2f}, {100 * gain['high']:z.2f}]" in printed
        assert f"turn 1 into {measured['positions']['final_equity']:.3f} after" in printed
    assert "Nothing to do" in printed and "latest points to" in printed


def test_a_network_scans_and_trades_like_any_other(finished, capsys):
    place, out = finished
    data = ("--models", str(out), "--data", str(place / "bars.parquet"))
    assert main.main(["scan", *data, "--family", "sequence", "--json"]) == 0
    assert main.main(["backtest", *data, "--quiet"]) == 0
    values = load(out).predict(bars()).of("sequence_direction_1d")
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
