"""The timeline is what the log says: lanes, idle share, and preparation that training hid."""

from __future__ import annotations

import datetime
import math

import pytest

from gpupipe import config, pipeline, runlog, timeline
from tests.tiny import QUICK, tiny_market

START = datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC)


def event(kind, begin, end, thread="a", run="r", **more):
    time = (START + datetime.timedelta(seconds=end)).isoformat()
    return {"time": time, "run": run, "event": kind, "thread": thread, "stage": kind, "unit": f"{kind} {begin}",
            "seconds": end - begin, **more}  # fmt: skip


def test_shares_are_of_what_was_done():
    found = timeline.intervals([
        event("unit", 0, 100, run="earlier"),
        event("features", 0, 2), event("labels", 2, 3), event("prepared", 3, 4), event("unit", 4, 8),
        event("prepared", 5, 7, "b"), event("unit", 7, 9, "b"), event("prepared", 8.5, 10), event("unit", 10, 12),
        event("unit", 3, 4, reused=True), {"time": START.isoformat(), "run": "r", "event": "stage", "stage": "x"},
    ])  # fmt: skip
    assert {one.lane for one in found} == {"thread 1", "thread 2"}
    assert [one.begin for one in found if one.event == "prepared"] == [3, 5, 8.5]
    assert timeline.idle_share(found, 2) == pytest.approx(1 - (2 + 1 + 1 + 4 + 2 + 2 + 1.5 + 2) / 24)
    # Of 7.5 seconds 2 beside the first unit and half a second beside the second.
    assert timeline.hidden_share(found) == pytest.approx(2.5 / 7.5)
    assert math.isnan(timeline.hidden_share([one for one in found if one.event == "unit"]))
    assert timeline.intervals([event("features", 0, 1)]) == []
    assert timeline.intervals([event("unit", 0, 1, worker=1)])[0].lane == "worker 2"


def test_a_run_prepares_its_later_folds_beside_training(tmp_path):
    settings = config.make("fast", settings=QUICK)
    pipeline.execute(tiny_market(), None, settings, tmp_path, 2)
    found = timeline.intervals(runlog.read(tmp_path / runlog.FILE))
    kinds = {(one.event, one.stage) for one in found}
    assert {("features", "features"), ("prepared", "prepare"), ("prepared", "bins"), ("unit", "linear")} <= kinds
    prepared = [one for one in found if one.stage == "prepare"]
    assert len(prepared) == 1 + settings.split.parts - (settings.split.stacking == "forward")
    first = min(one.begin for one in found if one.event == "unit")
    assert sum(one.end <= first for one in prepared) == 1  # nothing is trained before, and the others come later
