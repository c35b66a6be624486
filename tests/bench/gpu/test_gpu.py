"""The script for a GPU: what can be tried of it without one."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import bench.gpu.__main__ as on_gpu
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
    seconds, loss = on_gpu.trained(problem, "fast", "fp32", captured=False)
    assert len(seconds) == on_gpu.EPOCHS and min(seconds) > 0 and np.isfinite(loss)


def test_a_line_is_kept_at_once(tmp_path, capsys):
    for number in (1, 2):
        on_gpu.add(tmp_path / "deep" / "lines.jsonl", {"kind": "windows", "gb_s": number})
    lines = [json.loads(line) for line in (tmp_path / "deep" / "lines.jsonl").read_text().splitlines()]
    assert [line["gb_s"] for line in lines] == [1, 2] and "gb_s" in capsys.readouterr().out
