"""What training hides of the preparation is what the log says."""

from __future__ import annotations

import datetime
import math

import pytest

from gpupipe.runtime import run_log, timeline
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, tiny_market

START = datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC)


def event(kind, begin, end, **more):
    time = (START + datetime.timedelta(seconds=end)).isoformat()
    return {"time": time, "run": "r", "event": kind, "thread": "a", "stage": kind, "unit": f"{kind} {begin}",
            "seconds": end - begin, **more}  # fmt: skip


def test_the_hidden_share_is_of_what_was_prepared_beside_units():
    start = {"time": START.isoformat(), "run": "r", "event": "start", "thread": "a", "run_key": "k"}
    lines = [
        start, event("features", 0, 2), event("labels", 2, 3), event("prepared", 3, 4), event("unit", 4, 8),
        event("prepared", 5, 7), event("unit", 7, 9), event("prepared", 8.5, 10), event("unit", 10, 12),
        event("unit", 3, 4, reused=True),
    ]  # fmt: skip
    # Of 7.5 seconds 2 beside the first unit and half a second beside the second.
    assert timeline.hidden_share(timeline.find(lines, "k")) == pytest.approx(2.5 / 7.5)
    assert math.isnan(timeline.hidden_share(timeline.find([start, event("unit", 0, 1)], "k")))


def test_gpu_and_threads_are_idle_where_none_of_their_tasks_runs():
    start = {"time": START.isoformat(), "run": "r", "event": "start", "thread": "a", "run_key": "k"}
    lines = [
        start, event("prepared", 0, 1, device="cuda"), event("unit", 1, 5, device="cuda"),
        event("unit", 4, 6, device="cuda"), event("unit", 1, 10, device="cpu"), event("unit", 0, 9, reused=True),
    ]  # fmt: skip
    # Of 10 s the GPU has tasks for 5, overlapping ones once; of two threads' 20 s ten are used.
    idle = timeline.idle_by_device(timeline.find(lines, "k"), jobs=2)
    assert idle == {"cuda": pytest.approx(0.5), "cpu": pytest.approx(0.5)}
    assert timeline.idle_by_device(timeline.Log([], 0.0), jobs=2) == {}


def test_threads_of_the_gpu_are_named_where_others_work_beside_it():
    start = {"time": START.isoformat(), "run": "r", "event": "start", "thread": "a", "run_key": "k"}
    beside = [event("unit", 0, 1, device="cpu"), event("unit", 0, 1, device="cuda") | {"thread": "b"}]
    assert list(timeline.lanes(timeline.find([start, *beside], "k")).values()) == ["thread 1", "GPU 1"]
    alone = timeline.find([start, beside[1]], "k")
    assert list(timeline.lanes(alone).values()) == ["thread 1"]


def test_a_run_prepares_its_later_folds_once_something_is_trained(tmp_path):
    settings = equity.make("fast", settings=QUICK)
    whole, _ = tiny.execute(tiny_market(), None, settings, tmp_path, 2)
    log = timeline.find(run_log.read(tmp_path / run_log.FILE), whole["run_key"])
    prepared = [one for one in log.computed if one["stage"] == "prepare"]
    assert len(prepared) == 1 + settings.split.parts - (settings.split.stacking == "forward")
    first = min(log.since(one) - one["seconds"] for one in log.computed if one["event"] == "unit")
    milliseconds = 0.002  # times in the log are cut to them
    assert sum(log.since(one) <= first + milliseconds for one in prepared) == 1  # the others come later
    assert {one["stage"] for one in log.computed} >= {"prepare", "bins", "linear", "meta_learner"}
    assert 0 <= timeline.hidden_share(log) <= 1
