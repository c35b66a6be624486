"""The results file: nothing is lost, and nothing is measured twice."""

from __future__ import annotations

import pytest

from bench.sequence.curve import Curve, Epoch
from bench.sequence.intervals import estimate, paired_ratio
from bench.sequence.results import Results, TimeIsUpError


def counted():
    calls = []
    return calls, lambda: calls.append(1) or {"ratio": float(len(calls))}


def test_a_measurement_is_stored_at_once_and_used_again(tmp_path):
    path, (calls, measure) = tmp_path / "lines.jsonl", counted()
    first = Results(path, {"features": "core"}).get("epoch", {"series": "a"}, measure)
    again = Results(path, {"features": "core"})
    assert again.get("epoch", {"series": "a"}, measure) == first and len(calls) == 1
    again.get("epoch", {"series": "b"}, measure)
    again.get("folds", {"series": "a"}, measure)
    Results(path, {"features": "atb9"}).get("epoch", {"series": "a"}, measure)
    assert len(calls) == 4, "another series, kind or feature set is another measurement"
    assert len(again.of_kind("epoch")) == 2 and again.codes == [first["code"]]


def test_a_line_that_a_kill_cut_is_measured_again(tmp_path):
    path, (calls, measure) = tmp_path / "lines.jsonl", counted()
    results = Results(path, {})
    for series in "ab":
        results.get("epoch", {"series": series}, measure)
    whole = path.read_bytes()
    for size in range(len(whole) - 40, len(whole)):
        path.write_bytes(whole[:size])
        calls.clear()
        for _ in range(2):
            resumed = Results(path, {})
            assert [resumed.get("epoch", {"series": s}, measure)["series"] for s in "ab"] == ["a", "b"]
        assert len(calls) == (size < len(whole) - 1), "only the line that was cut, and once"


def test_other_machines_count_on_request_alone(tmp_path, monkeypatch):
    path, (calls, measure) = tmp_path / "lines.jsonl", counted()
    monkeypatch.setattr("bench.sequence.results.processor", lambda: "another")
    Results(path, {}).get("epoch", {}, measure)
    monkeypatch.undo()
    Results(path, {}, any_machine=True).get("epoch", {}, measure)
    assert len(calls) == 1
    Results(path, {}).get("epoch", {}, measure)
    assert len(calls) == 2


def test_no_measurement_begins_after_the_limit(tmp_path):
    path, (calls, measure) = tmp_path / "lines.jsonl", counted()
    Results(path, {}).get("epoch", {"series": "a"}, measure)
    late = Results(path, {}, limit_s=-1)
    assert late.get("epoch", {"series": "a"}, measure)["ratio"] == 1, "what is stored is used"
    with pytest.raises(TimeIsUpError):
        late.get("epoch", {"series": "b"}, measure)
    assert len(calls) == 1


def test_estimates_are_students():
    value = estimate([1.0, 2.0, 3.0])
    assert value.mean == 2 and value.high - value.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert (estimate([4.0]).low, estimate([4.0]).n) == (None, 1)
    with pytest.raises(ValueError, match="no value"):
        estimate([])
    ratio = paired_ratio({1: 2.0, 2: 3.0, 5: 9.0}, {1: 1.0, 2: 2.0, 3: 1.0})
    assert ratio is not None and (ratio.mean, ratio.n) == (1.75, 2)
    assert paired_ratio({1: 1.0}, {2: 1.0}) is None


def test_a_curve_knows_its_first_best_epoch():
    losses = (0.9, 0.7, 0.8, 0.7)
    curve = Curve(tuple(Epoch(k + 1.0, 1.0, loss, 0.1) for k, loss in enumerate(losses)))
    assert (curve.best.seconds, curve.seconds) == (2.0, 4.0)
    assert (curve.seconds_to(0.9), curve.seconds_to(0.75), curve.seconds_to(0.5)) == (1.0, 2.0, None)
    assert Curve.from_list(curve.as_list()) == curve
