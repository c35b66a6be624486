"""Cached results: computed once, loaded afterwards, computed again when their inputs or contents change."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.store.cache import WAITS, Request, ResultCache, load_array, objects_of, save_array
from gpupipe.store.content_store import Store


@pytest.fixture
def out(tmp_path):
    return tmp_path / "OUT"


class Squares:
    """Arrays of squares, as a run of its own caches them; `calls` are the numbers that were computed, call by call."""

    def __init__(self, out, **options):
        self.results, self.calls = ResultCache(Store(out), "run", **options), []

    def one(self, number, **more):
        def make():
            self.calls.append([number])
            return np.arange(number) ** 2

        return self.results.cached("square", self.wanted(number, **more), make, self.save, self.load)

    def several(self, *numbers):
        def make(missing):
            self.calls.append([numbers[k] for k in missing])
            return [np.arange(numbers[k]) ** 2 for k in missing]

        wanted = [self.wanted(number) for number in numbers]
        return self.results.cached_together("square", wanted, make, self.save, self.load)

    def wanted(self, number, **more):
        return Request(f"squares/{number}", {"number": number, "settings": {"power": 2}, **more})

    def save(self, array):
        return {"arrays": {"squares": save_array(self.results.store, array)}}

    def load(self, record):
        return load_array(self.results.store, record["arrays"]["squares"])


def test_a_result_is_computed_once_and_loaded_afterwards(out):
    first, again = Squares(out), Squares(out)
    computed, loaded = first.one(5), again.one(5)
    assert (first.calls, again.calls) == ([[5]], []) and (computed.reused, loaded.reused) == (False, True)
    np.testing.assert_array_equal(computed.value, np.arange(5) ** 2)
    np.testing.assert_array_equal(loaded.value, computed.value)
    assert loaded.value.dtype == computed.value.dtype and loaded.record == computed.record
    assert loaded.seconds == computed.seconds >= 0
    assert first.results.counts() == {"square": {"reused": 0, "made": 1}, "why": {"not there before": 1}}
    assert again.results.counts() == {"square": {"reused": 1, "made": 0}, "why": {}}
    assert again.results.states == {"squares/5": "done"} and again.results.is_there(again.wanted(5))
    assert Store(out).runs() == {"run": {again.wanted(5).key}}


def test_a_result_is_computed_again_when_a_part_changes(out):
    Squares(out).one(5)
    changed = Squares(out)
    changed.one(5, settings={"power": 3})
    changed.one(5, models=["another digest"])
    assert changed.calls == [[5], [5]] and changed.results.states == {"squares/5": "stale"}
    assert changed.results.why == {"power": 1, WAITS: 1}
    back = Squares(out)
    back.one(5)
    assert back.calls == []  # results of other parts do not replace it


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(path.read_bytes() + b"!"), lambda path: path.unlink()])
def test_a_result_is_computed_again_when_its_content_was_altered_or_lost(out, harm, caplog):
    (digest,) = objects_of(Squares(out).one(5).record)
    harm(out / ".gpupipe" / "objects" / digest)
    again = Squares(out)
    np.testing.assert_array_equal(again.one(5).value, np.arange(5) ** 2)
    assert again.calls == [[5]] and again.results.why == {"altered": 1}
    assert f"squares/5 was altered or lost in {out}" in caplog.text
    last = Squares(out)
    assert last.one(5).reused and last.calls == []


def test_the_missing_ones_of_several_are_computed_by_one_call(out):
    Squares(out).one(3)
    squares = Squares(out)
    results = squares.several(2, 3, 4)
    assert squares.calls == [[2, 4]] and [result.reused for result in results] == [False, True, False]
    for number, result in zip((2, 3, 4), results, strict=True):
        np.testing.assert_array_equal(result.value, np.arange(number) ** 2)
    assert squares.results.counts()["square"] == {"reused": 1, "made": 2}
    again = Squares(out)
    assert all(result.reused for result in again.several(4, 2)) and again.calls == []


def test_asking_computes_and_writes_nothing(out):
    asking = Squares(out, lookup_only=True)
    assert asking.one(5) is None and asking.several(2, 3) is None and asking.calls == []
    asking.results.count_waiting("square", "squares/9")
    assert asking.results.states == dict.fromkeys(("squares/5", "squares/2", "squares/3", "squares/9"), "missing")
    assert not out.exists()
    Squares(out).several(2, 5)
    again = Squares(out, lookup_only=True)
    there = again.one(5)
    assert there.reused and there.value is None and objects_of(there.record)
    assert again.several(2, 3) is None and again.calls == []
    assert again.one(5, settings={"power": 3}) is None
    assert again.results.states == {"squares/5": "stale", "squares/2": "done", "squares/3": "missing"}
    again.results.count_waiting("square", "squares/2")
    assert again.results.states["squares/2"] == "stale"
    (digest,) = objects_of(there.record)
    path = out / ".gpupipe" / "objects" / digest
    path.write_bytes(b"altered")
    assert Squares(out, lookup_only=True).one(5) is None and path.read_bytes() == b"altered"


def test_contents_of_a_record_are_named_once():
    record = {"arrays": {"a": "1", "b": "2"}, "models": [{"files": {".npz": "3", ".ubj": "1"}}, None]}
    assert objects_of(record) == ["1", "2", "3"] and objects_of({}) == []
