"""Memory: sizes, the estimate, and runs whose columns and bins lie in files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import QUICK, SECTORS, SOURCE

from gpupipe import config, memory, run
from gpupipe.errors import UserError


def test_sizes():
    assert memory.size("8GiB") == memory.size("8 g") == memory.size("8GB") == 8 * 2**30
    assert memory.size("1.5M") == 1.5 * 2**20 and memory.size("1000") == 1000 and memory.size(".5T") == 2**39
    for wrong in ("", "8 gallons", "-1G", "0", "G"):
        with pytest.raises(UserError, match=r"expected a size such as 8GiB or 900M"):
            memory.size(wrong)


def test_the_estimate_grows_with_what_is_held():
    fast, one = config.make("fast"), None
    for n_rows, n_features in ((10_000, 89), (100_000, 89), (100_000, 195), (10_000_000, 195)):
        found = memory.estimate(n_rows, n_features, 6, fast)
        assert found.in_memory > found.in_files > memory.PROGRAM_BYTES
        assert one is None or (found.in_memory > one.in_memory and found.in_files >= one.in_files)
        one = found
    # Ten million rows of 195 columns are 7.8 GB by themselves.
    assert one is not None and one.in_memory > 1.8 * 7.8e9


def test_files_are_used_only_where_they_help():
    expected = memory.Estimate(in_memory=2 * 2**30, in_files=2**30)
    assert not memory.must_use_files(expected, None) and not memory.must_use_files(expected, 2 * 2**30)
    assert memory.must_use_files(expected, 2 * 2**30 - 1) and memory.must_use_files(expected, 2**30)
    with pytest.raises(UserError, match=r"--memory 0.5GiB is too little: about 2.0 GiB are needed, and 1.0 GiB with"):
        memory.must_use_files(expected, 2**29)


def test_a_matrix_in_a_file_leaves_nothing_behind(tmp_path):
    made = memory.matrix((100, 7), tmp_path / "cache")
    made[:] = 3
    assert made.dtype == np.float32 and made.sum() == 2100 and type(made) is np.ndarray
    assert list((tmp_path / "cache").iterdir()) == []
    assert memory.matrix((0, 7), tmp_path / "cache").shape == (0, 7)


def test_a_run_in_files_gives_the_same_models(tmp_path, capsys, caplog, monkeypatch):
    job = ["--data", SOURCE, "--sectors", ",".join(SECTORS), "--preset", "fast", "--quiet", "--horizons", "1",
           "--models", "xgb_joint,linear", *(f"--set={one}" for one in QUICK)]  # fmt: skip
    assert run.main([*job, "--out", str(tmp_path / "plain")]) == 0
    # The program alone is more than that: what is tested is that files are used, not how much they save.
    monkeypatch.setattr(memory, "PROGRAM_BYTES", 0)
    assert run.main([*job, "--out", str(tmp_path / "files"), "--memory", "12M"]) == 0
    assert "columns and bins are kept in files" in caplog.text
    plain, files = (json.loads((tmp_path / name / "manifest.json").read_text())["files"] for name in ("plain", "files"))
    models = [name for name in plain if name.endswith((".ubj", ".npz"))]
    assert models and all(plain[name] == files[name] for name in models)
    assert not (tmp_path / "files" / ".gpupipe" / "cache").exists()
    assert run.main([*job, "--out", str(tmp_path / "none"), "--memory", "1K"]) == 2
    assert "is too little" in capsys.readouterr().err and not (tmp_path / "none").exists()
