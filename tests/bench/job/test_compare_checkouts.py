"""The comparison of two checkouts sees a changed byte, a changed figure and a missing file, and ignores times."""

from __future__ import annotations

import hashlib
import json
import pathlib

import pytest

from bench import runs
from bench.job import compare_checkouts

MODEL = "trained_5pct/energy/1d/linear.npz"
METADATA = "trained_5pct/energy/1d/metadata.json"


def write_out(out, model=b"model", gain=0.25, seconds=1.0, rows=3):
    """A finished run by hand: a model, its metadata, a walk-forward, a summary."""
    contents = {
        MODEL: model,
        METADATA: json.dumps({"rows": rows, "run_key": f"{seconds}", "seconds": {"linear": seconds}}).encode(),
        "walk_forward/energy.parquet": b"predictions",
        "summary.json": json.dumps({
            "elapsed_s": seconds, "averages": [{"gain": gain, "low": float("nan"), "seconds": seconds}],
            "versions": {"python": "3"}, "data": {"rows_kept": rows},
        }).encode(),
        "report.html": f"took {seconds}".encode(),
    }  # fmt: skip
    for name, content in contents.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    files = {name: {"sha256": hashlib.sha256(content).hexdigest()} for name, content in contents.items()}
    (out / "manifest.json").write_text(json.dumps({"files": files}))
    return out


@pytest.fixture
def before(tmp_path):
    return write_out(tmp_path / "before")


def test_times_and_the_report_may_differ(before, tmp_path):
    assert list(compare_checkouts.differences(before, write_out(tmp_path / "after", seconds=9.0))) == []


def test_one_changed_byte_is_found(before, tmp_path):
    after = write_out(tmp_path / "after", model=b"modem")
    assert list(compare_checkouts.differences(before, after)) == [f"{MODEL}: other bytes"]


def test_a_changed_figure_is_found_with_its_path(before, tmp_path):
    after = write_out(tmp_path / "after", gain=0.5, rows=4)
    assert list(compare_checkouts.differences(before, after)) == [
        "summary.json/averages[0]/gain: 0.25 before, 0.5 after", "summary.json/data/rows_kept: 3 before, 4 after",
        f"{METADATA}/rows: 3 before, 4 after",
    ]  # fmt: skip


def test_a_file_of_one_side_is_found(before, tmp_path):
    after = write_out(tmp_path / "after")
    manifest = json.loads((after / "manifest.json").read_text())
    manifest["files"]["trained_5pct/energy/1d/other.npz"] = manifest["files"].pop(MODEL)
    (after / "manifest.json").write_text(json.dumps(manifest))
    assert list(compare_checkouts.differences(before, after)) == [
        f"{MODEL}: only before", "trained_5pct/energy/1d/other.npz: only after"
    ]  # fmt: skip


def test_json_values_are_compared_by_value():
    unequal = compare_checkouts.unequal
    assert list(unequal({"a": [1, float("nan")]}, {"a": [1.0, float("nan")]})) == []
    assert list(unequal({"a": 1, "b": 2}, {"b": [2], "c": 3})) == [
        "/a: only before", "/b: 2 before, [2] after", "/c: only after"
    ]  # fmt: skip
    assert list(unequal([1], [1, 2])) == [": [1] before, [1, 2] after"]


def test_the_command_runs_both_checkouts_and_times_them(tmp_path, monkeypatch, capsys):
    """With jobs that only write their OUT by hand; `after` is the slower one, and differs where it is called so."""
    ran = []

    def run_job(options, out, cwd):
        ran.append((cwd.name, out.name))
        assert f"--data={tmp_path / 'bars.csv'}" in options and options[0] == "--sectors"
        write_out(out, model=b"other" if cwd.name == "changed" else b"model", seconds=float(len(ran)))
        return runs.Run(1.0 if cwd.name == "old" else 1.5, out=out)

    monkeypatch.setattr(runs, "run_job", run_job)
    monkeypatch.chdir(tmp_path)
    data = ["--jobs", "two", "--data", "bars.csv"]
    assert compare_checkouts.main(["old", "new", *data, "--time", "2"]) == 0
    assert [name for name, _ in ran] == ["old", "new", "old", "new", "new", "old"]
    text = capsys.readouterr().out
    assert "two: 1 models; no differences" in text and "ratio 1.500; paired +50.0 % (standard error 0.0 %)" in text
    assert json.loads(text.splitlines()[-1])["jobs"][0]["ratio"] == 1.5
    assert compare_checkouts.main(["old", "changed", *data, "--keep", str(tmp_path / "kept")]) == 1
    assert f"  {MODEL}: other bytes" in capsys.readouterr().out
    assert pathlib.Path(tmp_path, "kept", "before", "two", "manifest.json").exists()


def test_a_job_that_cannot_run_is_refused():
    with pytest.raises(SystemExit, match="no job three; there are tiny, demo, two"):
        compare_checkouts.main(["old", "new", "--jobs", "three"])
    with pytest.raises(SystemExit, match="add --data FILE --sector-map FILE"):
        compare_checkouts.main(["old", "new", "--jobs", "two"])
