"""A night does every step; a second one changes nothing but the log; one more day changes what depends on it."""

from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny import QUICK, tiny_market

from gpupipe import cli, nightly, summary

pytest.importorskip("altair")
LOGS = ("nightly.jsonl", "run.jsonl", "lock", "nightly.lock")  # a lock names the process that had it last
OPTIONS = (
    "nightly", "--preset", "fast", "--models", "xgb_joint,linear,meta_learner", "--family", "linear", "--calendar",
    "none",
    *(f"--set={setting}" for setting in (*QUICK, "labels.horizons=1", "labels.thresholds=0.02")),
)  # fmt: skip


def contents(out: pathlib.Path) -> dict[str, str]:
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in LOGS and "_log" not in path.parts)
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def steps(out: pathlib.Path) -> list[dict[str, str]]:
    """Of each night, in turn: the status of each step that has ended."""
    nights: list[dict[str, str]] = []
    for line in (out / "nightly.jsonl").read_text().splitlines():
        step = json.loads(line)
        if step["name"] == "ingest":
            nights.append({})
        nights[-1][step["name"]] = step["status"]
    return nights


def test_three_nights(tmp_path, capsys):
    market = tiny_market()
    times = np.unique(market.time_ns)
    pq.write_table(market.until(int(times[-2])).to_arrow(), tmp_path / "bars.parquet")
    out = tmp_path / "OUT"
    night = [*OPTIONS, "--data", str(tmp_path / "bars.parquet"), "--out", str(out)]
    assert cli.main(night) == 0
    printed = capsys.readouterr().out
    assert [printed.count(f"  {name} ") for name in ("ingest", "train", "backtest", "scan", "report")] == [1] * 5
    assert {"manifest.json", "report.html", "signals.parquet", "signals.sqlite", "bars/manifest.json",
            "backtest/statistics.json"} <= set(contents(out))  # fmt: skip
    first, key = contents(out), summary.read(out)["run_key"]
    assert cli.main(night) == 0
    assert contents(out) == first  # nothing but the logs
    pq.write_table(market.to_arrow(), tmp_path / "bars.parquet")
    assert cli.main([*night, "--quiet"]) == 0
    assert capsys.readouterr().out.count("  ingest ") == 1  # of the second night: the third was quiet
    whole = summary.read(out)
    assert whole["run_key"] != key and whole["data"]["rows_kept"] == market.n_rows
    assert contents(out)["report.html"] != first["report.html"]
    last = str(np.datetime64(int(times[-1]), "ns").astype("datetime64[s]"))
    assert set(pq.read_table(out / "signals.parquet")["time"].to_pylist()) == {last}
    found = steps(out)
    assert len(found) == 3 and all(set(one) == {"ingest", "train", "backtest", "scan", "report"} for one in found)
    assert found[1]["train"] == found[2]["train"] == nightly.OK  # that a run takes the place of last night's is no news
    assert all(set(one.values()) <= {nightly.OK, nightly.WARN} for one in found)


def test_options_of_a_run_that_a_night_has_no_use_for_are_refused(tmp_path, capsys):
    for option in ("--dry-run", "--json", "--report"):
        assert cli.main([*OPTIONS, option, "--data", "demo", "--out", str(tmp_path / "OUT")]) == 2
        assert f"{option} is for gpupipe run" in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()


def test_a_step_that_fails_ends_the_night(tmp_path, capsys):
    out = tmp_path / "OUT"
    assert cli.main([*OPTIONS, "--data", str(tmp_path / "none.parquet"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "gpupipe: ingest: " in error and "none.parquet" in error and error.count("\n") == 1
    assert steps(out) == [{"ingest": "FAIL", **dict.fromkeys(("train", "backtest", "scan", "report"), "SKIPPED")}]
    assert not (out / "manifest.json").exists()
