"""The script for a GPU: what can be tried of it without one."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import bench.gpu.__main__ as on_gpu
from bench.gpu import boosters, networks, page, workloads
from gpupipe.data import simulate
from gpupipe.runtime.device import why_no_cuda


def test_without_a_gpu_it_says_why_and_writes_nothing(tmp_path):
    if not why_no_cuda():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="there is no GPU to measure on: "):
        on_gpu.main(["--data", "none.parquet", "--out", str(tmp_path / "lines.jsonl")])
    assert not list(tmp_path.iterdir())


def test_a_training_is_timed_epoch_by_epoch(tmp_path):
    pytest.importorskip("torch", reason="networks need Torch")
    from bench.sequence.problem import problem_of, read_series

    panel = simulate(n_symbols=1, n_bars=900, seed=1, bar="1min")
    pq.write_table(panel.to_arrow().drop_columns(["symbol", "sector"]), tmp_path / "walk.parquet")
    problem = problem_of("walk", read_series(tmp_path / "walk.parquet"), "core")
    seconds, loss = networks.trained(problem, "fast", "fp32", captured=False)
    assert len(seconds) == networks.EPOCHS and min(seconds) > 0 and np.isfinite(loss)


@pytest.mark.gpu
def test_networks_and_the_agent_are_measured_and_equal_the_cpu(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="networks need Torch")
    if reason := why_no_cuda():
        pytest.skip(reason)
    panel = simulate(n_symbols=1, n_bars=900, seed=1, bar="1min")
    pq.write_table(panel.to_arrow().drop_columns(["symbol", "sector"]), tmp_path / "walk.parquet")
    monkeypatch.setattr(workloads, "N_ENVIRONMENTS", 32)
    monkeypatch.setattr(workloads, "STEPS", 20)
    lines = tmp_path / "lines.jsonl"
    steps = ["--steps", "windows,epoch,loss,agent", "--presets", "fast"]
    assert on_gpu.main([*steps, "--series", str(tmp_path / "walk.parquet"), "--out", str(lines)]) == 0
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["kind"] for line in found] == ["windows", *["epoch"] * 4, "loss", "agent"]
    assert all(line["equal"] for line in found if "equal" in line)


def test_a_line_is_kept_at_once(tmp_path, capsys):
    for number in (1, 2):
        on_gpu.add(tmp_path / "deep" / "lines.jsonl", {"kind": "windows", "gb_s": number})
    lines = [json.loads(line) for line in (tmp_path / "deep" / "lines.jsonl").read_text().splitlines()]
    assert [line["gb_s"] for line in lines] == [1, 2] and "gb_s" in capsys.readouterr().out


def test_a_step_that_fails_is_a_line_and_the_next_one_runs(tmp_path, monkeypatch):
    def failing(chosen):
        yield {"ms": 1.0}
        raise ValueError("no such thing")

    monkeypatch.setattr(on_gpu, "STEPS", {"first": failing, "second": lambda chosen: [{"ms": 2.0}]})
    monkeypatch.setattr(on_gpu, "about", dict)
    monkeypatch.setattr(on_gpu, "why_no_cuda", lambda: None)
    out = tmp_path / "lines.jsonl"
    assert on_gpu.main(["--out", str(out), "--steps", "first,second"]) == 1
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["kind"], line.get("ms")) for line in lines] == [("first", 1.0), ("first", None), ("second", 2.0)]
    assert lines[1]["error"] == "ValueError: no such thing" and any("raise" in text for text in lines[1]["where"])


def test_an_unknown_step_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no step nothing; there are kernels, boosters"):
        on_gpu.main(["--out", str(tmp_path / "lines.jsonl"), "--steps", "nothing"])


@pytest.mark.parametrize("way", ["zeros", "set", "plain", "predict"])
def test_on_a_cpu_rounds_on_matrices_in_turn_are_right_in_every_way(way):
    place = boosters.Place("cpu")
    assert boosters.turns(place, 0.02, "15000", "45000", "0/0.1", "depth 4", "2", way) == {
        "rounds_unlike_a_fresh_booster": []
    }


def test_a_case_is_a_process_whose_end_is_a_line(monkeypatch):
    monkeypatch.setattr(boosters, "cases", lambda: [["reading"], ["turns", "1", "2", "0/0", "no growth", "2", "set"]])
    wrong, reading = boosters.measured("cpu", scale=0.01)
    assert "KeyError" in wrong["error"]
    assert reading["case"] == "reading" and reading["inplace_distance"] == 0 and reading["inplace_all_ms"] > 0


def test_the_page_puts_what_is_wrong_first_and_escapes_texts(tmp_path, capsys):
    about = {"device": "GPU <1>", "cupy": "14", "time": "2026-11-30"}
    lines = [
        {"kind": "kernels", "kernel": "labels.label_cube", "differ": 0, "share": 0.5},
        {"kind": "kernels", "kernel": "program.run_program", "differ": 3, "share": 0.25},
        {"kind": "boosters", "case": "turns 1 plain", "rounds_unlike_a_fresh_booster": [1]},
        {"kind": "job", "error": "UserError: <file>"},
    ]
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join(json.dumps({**about, **line}) for line in lines))
    assert page.main([str(file), "--out", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "GPU &lt;1&gt;" in text and "<file>" not in text and "2 of them are wrong or failed" in text
    wrong, _, rest = text.partition("<h2>kernels</h2>")
    assert "program.run_program" in wrong and "label_cube" not in wrong and "width:40px" in rest
