"""Files whole or not at all, one holder at a time, and nothing altered is taken for what it was."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import (
    Store,
    StoreError,
    dump_json,
    pack_array,
    sha256,
    sha256_of,
    unpack_array,
    write_atomic,
)

ROOT = pathlib.Path(__file__).parents[2]


def files_under(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_write_makes_folders_and_leaves_nothing_temporary(tmp_path):
    write_atomic(tmp_path / "a" / "b" / "c.json", b"one")
    write_atomic(tmp_path / "a" / "b" / "c.json", b"two")
    assert (tmp_path / "a/b/c.json").read_bytes() == b"two" and files_under(tmp_path) == ["a/b/c.json"]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch, broken):
    target = tmp_path / "manifest.json"
    write_atomic(target, b"old")

    def crash(*arguments):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(*((pathlib.Path, "replace") if broken == "replace" else (os, "fsync")), crash)
        with pytest.raises(OSError, match="no space"):
            write_atomic(target, b"new")
        with pytest.raises(OSError, match="no space"):
            write_atomic(tmp_path / "other.json", b"new")
    assert target.read_bytes() == b"old" and files_under(tmp_path) == ["manifest.json"]


def test_content_is_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    happened = []
    sync, replace = os.fsync, pathlib.Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (happened.append("sync"), sync(fd)))
    monkeypatch.setattr(pathlib.Path, "replace", lambda a, b: (happened.append("rename"), replace(a, b))[1])
    write_atomic(tmp_path / "x", b"content")
    assert happened == ["sync", "rename", "sync"]


def test_only_what_is_published_waits_for_the_disk(tmp_path, monkeypatch):
    """What is cached is checked when it is used; a power failure costs no more than making it again."""
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), sync(fd)))
    store = Store(tmp_path)
    store.finish("0" * 40, {"name": "model", "arrays": {"y": store.put(b"content")}})
    assert synced == []
    store.publish("model.ubj", b"content")
    content, folder = synced
    assert folder == str(tmp_path) and pathlib.Path(content).parent == tmp_path and content != str(tmp_path)
    (tmp_path / ".gpupipe" / "units" / f"{'0' * 40}.json").write_bytes(b"")  # as a power failure may leave it
    assert store.finished("0" * 40) is None


def test_a_record_in_the_layout_of_earlier_versions_is_no_altered_one(tmp_path):
    record, path = {"name": "model", "seconds": 0.5}, tmp_path / ".gpupipe" / "units" / f"{'0' * 40}.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(dump_json({**record, "sha256": sha256(dump_json(record))}))
    assert Store(tmp_path).finished("0" * 40) == record
    path.write_bytes(dump_json({**record, "seconds": 0.6, "sha256": sha256(dump_json(record))}))
    assert Store(tmp_path).finished("0" * 40) is None


def test_the_hash_of_a_value_does_not_depend_on_order_or_on_numpys_types():
    plain = {"a": [1, 2.5, True, None], "b": {"x": "é"}}
    same = {"b": {"x": "é"}, "a": (np.int64(1), np.float32(2.5), np.bool_(True), float("nan"))}
    assert sha256_of(plain) == sha256_of(same) != sha256_of({**plain, "a": [1, 2.5, 1, None]})
    assert json.loads(dump_json({"x": [np.float64("inf"), np.float32("nan"), np.float32(0.5)]})) == {
        "x": [None, None, 0.5]
    }
    with pytest.raises(TypeError, match="ndarray is no type of JSON"):
        sha256_of({"x": np.zeros(2)})


def test_objects_are_kept_once_and_checked_when_read(tmp_path):
    store = Store(tmp_path)
    digest = store.put(b"content")
    assert digest == sha256(b"content") == store.put(b"content") and store.get(digest) == b"content"
    path = tmp_path / ".gpupipe" / "objects" / digest
    path.write_bytes(b"c0ntent")
    with pytest.raises(StoreError, match=r"was altered: delete .*\.gpupipe and run again"):
        store.get(digest)
    path.unlink()
    with pytest.raises(StoreError, match=r"is missing: delete .*\.gpupipe and run again"):
        store.get(digest)


def test_threads_may_keep_the_same_content_at_once(tmp_path):
    store, failed = Store(tmp_path), []
    together = threading.Barrier(8)

    def keep():
        try:
            for k in range(25):
                together.wait()
                store.put(f"content {k}".encode())
        except BaseException as error:
            failed.append(error)
            together.abort()

    threads = [threading.Thread(target=keep) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    kept_names = sorted(sha256(f"content {k}".encode()) for k in range(25))
    assert files_under(tmp_path) == [f".gpupipe/objects/{name}" for name in kept_names]


def test_units_are_remembered_by_key(tmp_path):
    store = Store(tmp_path)
    assert store.finished("k") is None
    store.finish("k", {"name": "pool", "loss": float("nan"), "n": np.int64(3)})
    assert Store(tmp_path).finished("k") == {"name": "pool", "loss": None, "n": 3}
    kept = tmp_path / ".gpupipe" / "units" / "k.json"
    kept.write_text(kept.read_text().replace("3", "4"))
    assert store.finished("k") is None and list(store.units()) == []  # altered: as if it were not there
    store.put(b"x")
    store.publish("models/a.ubj", b"x")
    store.forget_units()
    assert store.finished("k") is None and files_under(tmp_path) == ["models/a.ubj"]
    assert (tmp_path / "models/a.ubj").read_bytes() == b"x"


def test_a_name_that_leads_elsewhere_is_no_object(tmp_path):
    (tmp_path / "mine.txt").write_text("the user's own")
    store = Store(tmp_path)
    assert store.unsound(["../../mine.txt"]) == ["../../mine.txt"]
    store.drop(["../../mine.txt"])
    assert (tmp_path / "mine.txt").read_text() == "the user's own"


def test_objects_that_were_altered_are_found_dropped_and_written_again(tmp_path):
    store = Store(tmp_path)
    digest = store.put(b"content")
    store.object_file(digest).write_bytes(b"c0ntent")
    again = Store(tmp_path)
    assert again.unsound([digest, "0" * 64]) == [digest, "0" * 64]
    again.put(b"content")
    assert again.unsound([digest]) == [] and again.get(digest) == b"content"
    again.drop([digest])
    assert again.unsound([digest]) == [digest]


def test_a_run_refers_to_units_until_another_takes_its_place(tmp_path):
    store = Store(tmp_path)
    a, b, c = ("a" * 40, "b" * 40, "c" * 40)
    for run, key in (("one", a), ("one", b), ("one", a), ("two", c)):
        store.refer(run, key)
    with (tmp_path / ".gpupipe" / "runs" / "two").open("a") as stream:
        stream.write("ddd")  # cut short by a kill
    assert store.runs() == {"one": {a, b}, "two": {c}}
    Store(tmp_path).refer("two", b)
    assert store.runs() == {"one": {a, b}, "two": {b, c}}
    store.forget_runs(but="two")
    assert store.runs() == {"two": {b, c}}


def test_published_files_are_links_to_one_copy(tmp_path):
    store = Store(tmp_path)
    entry = store.publish("trained/a.ubj", b"model")
    store.publish("trained/b.ubj", b"model")
    a, b = tmp_path / "trained/a.ubj", tmp_path / "trained/b.ubj"
    assert entry == {"sha256": sha256(b"model"), "bytes": 5}
    assert a.read_bytes() == b.read_bytes() == b"model" and a.samefile(b)
    store.publish("trained/a.ubj", b"better")
    assert a.read_bytes() == b"better" and b.read_bytes() == b"model"  # the other is not changed with it
    assert files_under(tmp_path / "trained") == ["a.ubj", "b.ubj"]


def test_published_files_are_copies_where_there_are_no_links(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = Store(tmp_path)
    store.publish("a.ubj", b"model")
    store.publish("b.ubj", b"model")
    assert (tmp_path / "a.ubj").read_bytes() == (tmp_path / "b.ubj").read_bytes() == b"model"
    assert not (tmp_path / "a.ubj").samefile(tmp_path / "b.ubj")
    assert [name for name in files_under(tmp_path) if name.endswith(".tmp")] == []


def test_publishing_puts_right_what_was_altered(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "a.ubj").write_bytes(b"somebody else's")
    store.publish("a.ubj", b"model")
    assert (tmp_path / "a.ubj").read_bytes() == b"model"


def test_a_second_holder_is_refused_and_told_who_has_it(tmp_path):
    code = f"from gpupipe.store.content_store import Store\nwith Store({str(tmp_path)!r}).lock(): pass"
    with Store(tmp_path).lock():
        with pytest.raises(StoreError, match=f"is in use by process {os.getpid()} on "), Store(tmp_path).lock():
            pass
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert other.returncode and f"is in use by process {os.getpid()} on" in other.stderr
    with Store(tmp_path).lock():  # free again
        pass


def test_the_lock_of_a_dead_process_holds_nobody_up(tmp_path):
    code = (
        f"import os\nfrom gpupipe.store.content_store import Store\nwith Store({str(tmp_path)!r}).lock(): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 9
    with Store(tmp_path).lock():
        assert f"process {os.getpid()} " in (tmp_path / ".gpupipe/lock").read_text()


def test_the_lock_sweeps_up_after_a_killed_run_and_nothing_else(tmp_path):
    ours = [
        ".manifest.json.12.34.tmp",
        "trained_5pct/energy/1d/.linear.npz.12.tmp",
        ".gpupipe/units/.k.json.1.2.tmp",
        "bonds/.signals.parquet.12.34.tmp",
        "bonds/models/.basic.forest.npz.17211.tmp",
    ]
    theirs = ["trained_5pct/energy/1d/linear.npz", "notes.tmp", "elsewhere/.draft.tmp"]
    for name in ours + theirs:
        write_atomic(tmp_path / name, b"x")
    with Store(tmp_path).lock():
        assert files_under(tmp_path) == sorted([*theirs, ".gpupipe/lock"])


def test_a_refusal_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="too short"), Store(tmp_path / "OUT").lock():
        raise UserError("too short")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "OUT").mkdir()
    (tmp_path / "OUT" / "mine.txt").write_text("x")
    store = Store(tmp_path / "OUT")
    with pytest.raises(UserError, match="too short"), store.lock():
        raise UserError("too short")
    assert files_under(tmp_path) == ["OUT/mine.txt"]
    with pytest.raises(UserError, match="too short"), store.lock():
        digest = store.put(b"kept")
        raise UserError("too short")
    assert store.get(digest) == b"kept"  # what took time is not thrown away


def test_json_has_no_nan_and_one_form():
    value = {"b": [float("nan"), np.float32(0.5), (1, np.int8(2))], "a": float("-inf"), "ü": np.bool_(True)}
    text = dump_json(value)
    assert json.loads(text) == {"a": None, "b": [None, 0.5, [1, 2]], "ü": True}
    assert text == dump_json(dict(reversed(value.items()))) and text.endswith(b"}\n") and "ü".encode() in text


def test_arrays_come_back_as_they_were():
    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.empty((0, 3), np.int8), np.array([np.nan, 1.0])):
        again = unpack_array(pack_array(array))
        np.testing.assert_array_equal(again, array)
        assert again.dtype == array.dtype
    with pytest.raises(ValueError, match="allow_pickle"):
        pack_array(np.array([{}], dtype=object))
