"""The log of a run: whole lines as things happen, of every thread, warnings included, and nothing where nothing is."""

from __future__ import annotations

import json
import logging
import threading
import warnings

import numpy as np
import pytest

from bench.job import overhead
from gpupipe.data import load
from gpupipe.pipeline import job
from gpupipe.runtime import device, run_log
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import Store
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, tiny_market

FAST = [*QUICK, "labels.horizons=1", "training.models=linear,meta_learner"]


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    out = tmp_path_factory.mktemp("logged") / "OUT"
    tiny.execute(tiny_market(), None, equity.make("fast", settings=FAST), out, 2)
    return out, run_log.read(out / run_log.FILE)


def test_a_run_says_what_it_did(logged):
    out, events = logged
    assert events[0]["event"] == "start" and events[-1]["event"] == "end" and events[-1]["status"] == "done"
    assert len({one["run"] for one in events}) == 1 and all(one["time"].endswith("Z") for one in events)
    assert [one["time"] for one in events] == sorted(one["time"] for one in events)
    manifest = json.loads((out / "manifest.json").read_text())
    assert events[0]["run_key"] == manifest["run_key"] and events[0]["settings"] == equity.make(
        "fast", settings=FAST).digest()  # fmt: skip
    assert events[0]["versions"]["gpupipe"] and events[0]["rows"] == tiny_market().n_rows
    assert run_log.FILE not in manifest["files"]  # it goes on after the manifest is written
    units = [one for one in events if one["event"] == "unit"]
    totals = next(one for one in events if one["event"] == "totals")
    assert len(units) == totals["units"] == 4 * 4 + 1  # a family on 4 folds, pooled and in 3 sectors; the meta-learner
    assert units.pop()["stage"] == "meta_learner"
    for one in units:
        assert one["stage"] == "linear" and one["device"] == "cpu" and one["rows"] > 0 and one["bytes"] > 0
        assert one["seconds"] > 0 and one["reused"] is False and one["thread"]
    made = {(one["event"], one["unit"]) for one in events if one["event"] in ("features", "labels")}
    assert made == {(what, sector) for what in ("features", "labels") for sector in SECTORS}
    stages = [one["stage"] for one in events if one["event"] == "stage"]
    assert stages == ["features and labels", "training", "evaluation"]


def test_a_run_that_goes_on_appends_and_says_what_was_reused(tmp_path):
    """Broken off at the fifth unit, gone on with, and another time with nothing to do."""
    done = []

    def stop(text):
        done.append(text)
        if len(done) == 5:
            raise KeyboardInterrupt

    settings = equity.make("fast", settings=FAST)
    with pytest.raises(KeyboardInterrupt):
        tiny.execute(tiny_market(), None, settings, tmp_path, 1, job.Listener(advanced=stop))
    first = run_log.read(tmp_path / run_log.FILE)
    assert first[-1]["event"] == "end" and first[-1]["status"] == "interrupted"
    with (tmp_path / run_log.FILE).open("ab") as stream:
        stream.write(b'{"time": "half a li')  # as a run that is killed may leave it
    tiny.execute(tiny_market(), None, settings, tmp_path, 1)
    events = run_log.read(tmp_path / run_log.FILE)
    second = [one for one in events if one["run"] != first[0]["run"]]
    assert events[: len(first)] == first and second[0]["event"] == "start" and second[-1]["status"] == "done"
    reused = [one["reused"] for one in second if one["event"] == "unit"]
    assert reused == [True] * 5 + [False] * 12
    before = (tmp_path / run_log.FILE).read_bytes()
    assert tiny.execute(tiny_market(), None, settings, tmp_path, 1)[1] is False
    assert (tmp_path / run_log.FILE).read_bytes() == before


def test_what_is_warned_of_is_logged_and_still_shown(tmp_path, caplog):
    with pytest.warns(RuntimeWarning, match="of a library"), run_log.recording():
        load("simulated:symbols=11,bars=5", device="cpu")
        logging.getLogger("gpupipe").warning("before there is a file: %d", 1)
        with run_log.opened(tmp_path):
            logging.getLogger("gpupipe").warning("and after")
            logging.getLogger("gpupipe").info("no warning")
            warnings.warn("of a library", RuntimeWarning, stacklevel=1)
    events = run_log.read(tmp_path / run_log.FILE)
    assert [one["text"] for one in events if one["event"] == "warning"] == [
        "before there is a file: 1", "and after", "RuntimeWarning: of a library",
    ]  # fmt: skip
    assert next(one for one in events if one["event"] == "read")["rows"] == 55
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "before there is a file: 1", "and after",
    ]  # fmt: skip


def test_lines_of_many_threads_stay_whole(tmp_path):
    with run_log.opened(tmp_path):

        def work(k):
            for n in range(200):
                run_log.event("unit", unit=f"{k}-{n}", text="x" * 300)

        threads = [threading.Thread(target=work, args=(k,), name=f"worker {k}") for k in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    lines = (tmp_path / run_log.FILE).read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert len(events) == 2 + 800 and {one["unit"] for one in events[1:-1]} == {
        f"{k}-{n}" for k in range(4) for n in range(200)
    }
    assert {one["thread"] for one in events} == {"MainThread", *(f"worker {k}" for k in range(4))}


def test_values_that_json_has_not(tmp_path):
    with run_log.opened(tmp_path, n=np.int64(3), loss=float("nan"), part=np.float32(0.5), path=tmp_path, none=None):
        run_log.event("odd", text="\ud800 line\nbreak", inner={1: (float("inf"), "ü")})
    start, odd, _ = run_log.read(tmp_path / run_log.FILE)
    assert (start["n"], start["loss"], start["part"], start["path"]) == (3, None, 0.5, str(tmp_path))
    assert "none" not in start and odd["inner"] == {"1": [None, "ü"]} and odd["text"].endswith("line\nbreak")


def test_without_a_run_nothing_is_kept(tmp_path):
    run_log.event("unit", unit="nobody's")
    with run_log.recording():
        run_log.event("unit", unit="never given a file")
    assert list(tmp_path.iterdir()) == [] and not logging.getLogger("gpupipe").filters
    with run_log.opened(tmp_path):
        pass
    assert [one["event"] for one in run_log.read(tmp_path / run_log.FILE)] == ["start", "end"]


def test_a_refusal_before_anything_was_kept_leaves_no_log(tmp_path):
    out = tmp_path / "OUT"
    with pytest.raises(UserError, match="too short"), Store(out).lock(), run_log.opened(out):
        raise UserError("too short")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="too short"), Store(out).lock() as _, run_log.opened(out):
        Store(out).put(b"kept")
        raise UserError("too short")
    assert [(one["status"], one["error"]) for one in run_log.read(out / run_log.FILE)[1:]] == [
        ("refused", "UserError: too short")
    ]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with run_log.opened(tmp_path) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(run_log.os, "write", full)
            run_log.event("unit", unit="lost")
        assert journal.lost == 1
    assert run_log.read(tmp_path / run_log.FILE)[-1]["lines_lost"] == 1


def test_ranges_for_a_profiler_are_made_on_cuda_only(monkeypatch):
    """nvtx stands in for itself: a GPU and Nsight are needed to see the real one."""
    said = []

    class Nvtx:
        class annotate:  # noqa: N801
            def __init__(self, message=None, color=None, domain=None, category=None, payload=None):
                self.message = f"{domain}: {message}"

            def __enter__(self):
                said.append(self.message)

            def __exit__(self, *exception):
                said.append("out")

    monkeypatch.setitem(__import__("sys").modules, "nvtx", Nvtx)
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: name == "nvtx")
    with device.Device("cuda", "none", "").stage("xgb_joint", "energy/final"):
        pass
    with device.Device("cpu", "none", "").stage("xgb_joint", "energy/final"):
        pass
    assert said == ["gpupipe: xgb_joint energy/final", "out"]


def test_the_overhead_of_the_log_can_be_measured(capsys):
    sets = [f"--set={one}" for one in FAST]
    overhead.main(["--times", "1", "--data", "simulated:symbols=44,bars=200,signal=0.5", "--sectors", "energy", *sets])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["events"] > 10 and found["log_bytes"] > 1000 and 0 < found["own_share"] < 0.5
    assert run_log.opened.__name__ == "opened" and run_log.Journal.add.__name__ == "add"
