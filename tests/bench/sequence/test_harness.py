"""The whole benchmark on a short series: every step, the file, the picture; both ways train the same."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from bench import runs
from bench.sequence.__main__ import main

torch = pytest.importorskip("torch", reason="torch is not installed (the extra torch)")
pytest.importorskip("pandas", reason="pandas is not installed (the extra bench)")

from bench.sequence import origin, ours, picture  # noqa: E402
from bench.sequence.problem import problem_of, read_series  # noqa: E402
from gpupipe.estimators.torch.settings import PRESETS  # noqa: E402

SHORT = dataclasses.replace(PRESETS["fast"], length=20, batch=64, step_rows=0, patience=3, epochs=6)


@pytest.fixture(scope="module")
def problem(series):
    return problem_of("walk", read_series(series), "atb9", lookback=40)


@pytest.fixture(scope="module")
def measured(series, tmp_path_factory):
    """(options, lines of the file) of one call with every step."""
    out = tmp_path_factory.mktemp("sequence") / "lines.jsonl"
    options = ["--data", str(series.parent), "--series", series.stem, "--presets", "fast,legacy"]
    options += ["--seeds", "1", "--jobs", "2", "--epochs", "2", "--times", "1", "--features", "atb9", "--out", str(out)]
    assert main(options) == 0
    return options, [json.loads(line) for line in out.read_text().splitlines()]


def test_every_step_adds_its_lines(measured):
    _, lines = measured
    kinds = [line["kind"] for line in lines]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {
        "equality": 2, "stages": 1, "epoch": 1, "pace": 1, "training": 3, "folds": 1
    }  # fmt: skip
    for line in lines:
        if line["kind"] == "training":
            assert line["epochs"] == 2 and np.isfinite(line["validation_loss"]) and line["peak_bytes"] > 2**26
            assert line["validation_loss"] == min(epoch["validation_loss"] for epoch in line["curve"])
        elif line["kind"] == "stages":
            assert all(facts["origin"] > 0 and facts["ours"] > 0 for facts in line["stages"].values())
    assert {line["jobs"] for line in lines if line["kind"] == "training"} == {2}
    assert not any("/" in json.dumps(line.get("data", "")) for line in lines), "no folders of this machine"


def test_a_second_call_measures_nothing_and_tells_the_bars(measured, capsys, monkeypatch):
    options, lines = measured
    monkeypatch.setattr("bench.sequence.results.Results.add", lambda *_: pytest.fail("measured again"))
    assert main(options) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["finished"] and all(bar["holds"] is None for bar in result["bars"]), "two epochs are no measurement"
    of_fast = next(bar for bar in result["bars"] if bar["name"].startswith("epoch of fast"))
    line = next(line for line in lines if line["kind"] == "epoch" and line["preset"] == "fast")
    assert of_fast["measured"] == {"walk_1h": line["ratio"]}


def test_time_that_is_up_ends_the_call_in_order(measured, tmp_path, capsys):
    options, _ = measured
    assert main([*options[:-1], str(tmp_path / "lines.jsonl"), "--limit-s", "-1"]) == 0
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["finished"]


def test_the_picture_is_drawn_from_the_lines(measured, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (the extra bench)")
    options, _ = measured
    assert picture.main([options[-1], "--out", str(tmp_path / "picture.svg")]) == 0
    assert "<svg" in (tmp_path / "picture.svg").read_text()
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(SystemExit, match="nothing to draw"):
        picture.main([str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "none.svg")])


def test_bad_options_end_in_one_line(series, tmp_path):
    with pytest.raises(SystemExit, match="no preset fats; there are fast"):
        main(["--data", str(tmp_path), "--presets", "fats"])
    with pytest.raises(SystemExit, match=r"btcusd_1h\.parquet.* not in the folder"):
        main(["--data", str(tmp_path)])


def inputs_of(problem, settings):
    table, _ = origin.scaled(problem.dataset.X, problem.parts.training, "minmax")
    parts = (problem.parts.training, problem.parts.validation)
    return [(origin.windows(table, rows, settings.length), problem.dataset.y[rows]) for rows in parts]


def test_windows_of_both_ways_are_equal(problem):
    (copies, _), _ = inputs_of(problem, SHORT)
    gathered = ours.windows(problem, problem.parts.training, SHORT.length, "minmax")
    np.testing.assert_allclose(gathered, copies, rtol=0, atol=1e-5)


def test_the_usual_way_keeps_the_best_weights_and_stops_by_patience(problem, monkeypatch):
    (X, y), (X_validation, y_validation) = inputs_of(problem, SHORT)
    network = ours.network_of(problem, SHORT, seed=1)
    losses, weights = iter([0.9, 0.7, 0.8, 0.75, 0.71]), []

    def loss_of(trained, *_):
        weights.append({name: value.clone() for name, value in trained.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(origin, "loss_of", loss_of)
    curve = origin.train(network, X, y, X_validation, y_validation, SHORT, seed=1)
    assert len(curve.epochs) == 5 and curve.best.validation_loss == 0.7, "three epochs without a better one"
    assert all(torch.equal(value, weights[1][name]) for name, value in network.state_dict().items())
    assert not torch.equal(weights[1]["output.weight"], weights[4]["output.weight"])


def test_the_loss_of_both_ways_is_the_same(problem):
    """Before any step, on the validation rows: the same network, windows and labels."""
    _, (X, y) = inputs_of(problem, SHORT)
    network = ours.network_of(problem, SHORT, seed=3)
    theirs = origin.loss_of(network, X, y, 64)
    assert ours.loss_of(network, problem, dataclasses.replace(SHORT, scaling="minmax")) == pytest.approx(
        theirs, rel=1e-4
    )


def test_a_training_ends_with_the_call_that_began_it(series, tmp_path):
    """Its parent is killed; no training is left behind that would slow what is timed next."""
    code = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-m', 'bench.sequence.training', '--data', sys.argv[1], '--preset', 'legacy', "
        "'--way', 'ours', '--features', 'atb9', '--parent', str(os.getpid())]\n"
        "print(subprocess.Popen(command, stdout=open(sys.argv[2], 'w')).pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(series), str(tmp_path / "result")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=runs.ROOT) as parent:
        training = int(parent.stdout.readline())
        assert pathlib.Path(f"/proc/{training}").exists()
        parent.kill()
    deadline = time.monotonic() + 60  # loading Torch takes some seconds, more on a busy machine
    while is_running(training) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not is_running(training)
    assert not (tmp_path / "result").read_text(), "it did not end by itself"


def is_running(process):
    """Whether a process is there and no zombie, which whoever adopted it may not have buried yet."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
