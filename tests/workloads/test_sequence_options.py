"""Every option of `gpupipe sequence` that overrides a preset acts: the network, or what is written, is another."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="sequence networks are trained by Torch, which has no CPU build for this Python")
pytest.importorskip("onnxruntime", reason="ONNX files are checked by onnxruntime")

from gpupipe.artifacts.load import load
from gpupipe.cli import main
from gpupipe.data import simulate
from gpupipe.estimators.torch.sequence_model import FittedNetwork

BASE = {
    "--preset": "fast", "--epochs": "6", "--sequence-length": "8", "--patience": "6", "--batch-size": "64",
    "--features": "roc_1,natr_14", "--horizons": "1", "--thresholds": "0.02", "--jobs": "1",
}  # fmt: skip
FILES = {"model.safetensors", "scaler.json", "metadata.json", "history.parquet", "model.onnx"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("options") / "bars.parquet"
    pq.write_table(simulate(n_symbols=1, n_bars=700, seed=7).replace(group_by="symbol").to_arrow(), path)
    return path


def run(data, out, *flags, **changed):
    """OUT of a run with some options changed, and with flags."""
    options = {**BASE, **{f"--{name.replace('_', '-')}": value for name, value in changed.items()}}
    words = [word for pair in options.items() for word in pair]
    if "--report" not in flags:
        words.append("--skip-plots")
    flags = tuple(flag for flag in flags if flag != "--report")
    assert main.main(["sequence", "--data", str(data), "--out", str(out), "--quiet", *words, *flags]) == 0
    return out


def network_of(out):
    return FittedNetwork.from_content((out / "latest" / "model.safetensors").read_bytes())


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    return run(data, tmp_path_factory.mktemp("plain") / "OUT")


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("epochs", "2", lambda network: len(network.history) == 2),
        ("batch_size", "32", lambda network: len(network.history) <= 6),
        ("sequence_length", "12", lambda network: network.length == 12),
        ("model_type", "balanced", lambda network: network.architecture == "balanced"),
        ("learning_rate", "0.0005", lambda network: network.history[0, network.columns.index("rate")] == 0.0005),
        ("patience", "1", lambda network: len(network.history) <= 6),
        ("precision", "bf16", lambda network: network.length == 8),
        ("preset", "legacy", lambda network: network.architecture == "legacy"),
        ("seed", "7", lambda network: network.length == 8),
    ],
)
def test_an_option_changes_the_network(data, plain, tmp_path, name, value, what):
    length = {"sequence_length": "12"} if value == "legacy" else {}  # legacy leaves no bar of a window of 8
    network = network_of(run(data, tmp_path / "OUT", **{name: value}, **length))
    assert what(network)
    # Patience acts where the validation loss rises: here it is compared by the epochs that were trained.
    if name == "patience":
        losses = network.history[:, network.columns.index("validation_loss")]
        assert len(losses) == 6 or losses[-1] >= losses.min()
        longer = network_of(plain)
        assert len(longer.history) >= len(losses)
    else:
        assert network.content != network_of(plain).content


def test_what_is_written_follows_the_options(data, plain, tmp_path):
    assert {path.name for path in (plain / "latest").iterdir()} == FILES and not (plain / "report.html").exists()
    without = run(data, tmp_path / "a", "--skip-onnx")
    assert {path.name for path in (without / "latest").iterdir()} == FILES - {"model.onnx"}
    assert network_of(without).content == network_of(plain).content  # the network is the same
    small = run(data, tmp_path / "b", "--quantize", "int8")
    assert (small / "latest" / "model_int8.onnx").stat().st_size < (small / "latest" / "model.onnx").stat().st_size


def test_folds_train_at_several_origins(data, plain, tmp_path):
    out = run(data, tmp_path / "OUT", folds="2")
    assert json.loads((out / "summary.json").read_bytes())["walk_forward"]["origins"]
    assert load(out).manifest["settings"]["split"]["walk_forward"] == 2
    assert network_of(out).content != network_of(plain).content  # the last origin learns from more rows


def test_from_goes_on_with_a_lower_rate(data, plain, tmp_path):
    began, went_on = network_of(plain), network_of(run(data, tmp_path / "OUT", **{"from": str(plain)}))
    rate = went_on.columns.index("rate")
    assert went_on.history[0, went_on.columns.index("epoch")] == 0  # the earlier network competes
    assert went_on.history[-1, rate] < began.history[0, rate] and went_on.rates[: len(began.rates)] == began.rates
    losses = went_on.history[:, went_on.columns.index("validation_loss")]
    assert losses.min() <= losses[0]
