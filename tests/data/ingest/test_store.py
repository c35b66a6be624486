"""The files of a bar store: if killed at any moment, it holds the old version or the new one, and no foreign files."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pyarrow.parquet as pq
import pytest

from gpupipe.cli.main import main
from gpupipe.data import DataError, data_hash, load
from gpupipe.data.ingest import clean_store, ingest, restore_store, verify_store
from gpupipe.store.content_store import Store, StoreError
from tests.support.ingested import days, file_contents, market, only, panel_of, same, scaled, stored_panel

ROOT = pathlib.Path(__file__).parents[3]


class KilledError(BaseException):
    """Simulates a kill: every later step raises it again."""


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    ingest(days(market(), 0, 30), folder, calendar="none")
    return folder


def die_at(monkeypatch, step):
    """Count the renames and removals of files, and prevent them from the `step`th on. Returns the counter."""
    n_steps = [0]
    for real in (os.replace, os.unlink, os.rmdir):

        def counted(*arguments, real=real, **options):
            n_steps[0] += 1
            if n_steps[0] >= step:
                raise KilledError
            return real(*arguments, **options)

        monkeypatch.setattr(os, real.__name__, counted)
    return n_steps


@pytest.mark.parametrize("action", ["ingest", "restore", "clean"])
def test_killed_between_any_two_steps_it_is_the_old_version_or_the_new_one(store, tmp_path, monkeypatch, action):
    after = scaled(market(), "S001", 0.5)

    def act(folder):
        if action == "ingest":
            ingest(days(after, 20, 40), folder, calendar="none")
        elif action == "restore":
            restore_store(folder, 1)
        else:
            clean_store(folder)

    if action != "ingest":
        ingest(days(after, 20, 40), store, calendar="none")
    before = data_hash(stored_panel(store))
    finished = tmp_path / "finished"
    shutil.copytree(store, finished)
    with monkeypatch.context() as patched:
        steps = die_at(patched, 10**9)
        act(finished)
    after_hash = data_hash(stored_panel(finished))
    assert steps[0] >= (5 if action == "clean" else 10)
    seen = set()
    for step in range(1, steps[0] + 1):
        killed = tmp_path / f"killed{step}"
        shutil.copytree(store, killed)
        with monkeypatch.context() as patched, pytest.raises(KilledError):
            die_at(patched, step)
            act(killed)
        killed_hash = data_hash(stored_panel(killed))
        assert killed_hash in (before, after_hash) and verify_store(killed) == [], step
        seen.add(killed_hash)
        if action == "restore" and killed_hash == after_hash:
            continue  # done: another restore would add another generation
        act(killed)
        assert data_hash(stored_panel(killed)) == after_hash and verify_store(killed) == []
        current = {file["path"] for file in json.loads((killed / "manifest.json").read_bytes())["files"]}
        assert {path.relative_to(killed).as_posix() for path in killed.glob("sector=*/*")} == current, step
    assert seen == {before, after_hash}


def test_a_store_works_after_a_process_was_killed(store, tmp_path):
    more = tmp_path / "more.parquet"
    pq.write_table(days(market(), 28, 40), more)
    code = (
        "import os, pathlib, signal\nfrom gpupipe.data.ingest import ingest, parts\n"
        "write = parts.write_atomic\n"
        "def die(path, content):\n"
        "    write(path, content) if path.suffix == '.parquet' else os.kill(os.getpid(), signal.SIGKILL)\n"
        f"parts.write_atomic = die\ningest({str(more)!r}, {str(store)!r}, calendar='none')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert len(list(store.glob("sector=*/*.parquet"))) == 4 and same(store, days(market(), 0, 30))
    assert main(["ingest", str(more), "--store", str(store), "--calendar", "none", "--quiet"]) == 0
    assert len(list(store.glob("sector=*/*.parquet"))) == 4 and same(store, market())


def test_the_main_job_reads_only_the_current_version(store):
    after = scaled(market(), "S001", 0.5)
    ingest(days(after, 20, 40), store, calendar="none")
    (store / "sector=energy" / "part-000009-0123456789ab.parquet").write_bytes(b"PAR1 of a killed ingest")
    panel, report = load(str(store), None, "energy", "cpu")
    assert data_hash(panel) == data_hash(panel_of(only(after, "S001", "S003")))
    assert report.description == "store (Parquet, 1 file)" and report.clean  # the other files are of technology


def test_a_file_is_sorted_and_has_one_row_group(tmp_path):
    folder = tmp_path / "large"
    ingest("simulated:symbols=11,bars=3000,seed=1", folder, calendar="none")
    path = next(folder.glob("sector=*/*.parquet"))
    file = pq.ParquetFile(path)
    assert file.metadata.num_row_groups == 1 and file.metadata.num_rows >= 3_000
    column = file.metadata.row_group(0).column(file.schema.names.index("close"))
    assert column.compression == "ZSTD" and "BYTE_STREAM_SPLIT" in column.encodings
    assert file.metadata.row_group(0).column(0).has_dictionary_page
    table = file.read()
    keys = list(zip(table["symbol"].to_pylist(), table["time"].to_pylist(), strict=True))
    assert keys == sorted(keys)


def test_an_altered_or_missing_file_is_reported(store):
    path = next(store.glob("sector=energy/*.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    assert verify_store(store) == [f"{path} was altered"]
    with pytest.raises(StoreError, match="was altered: restore a generation"):
        ingest(market(), store, calendar="none")
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match="bytes and the manifest says"):
        stored_panel(store)
    path.unlink()
    with pytest.raises(DataError, match="is missing: the store is damaged"):
        stored_panel(store)


@pytest.mark.parametrize("path", ["../x/part-000001-0123456789ab.parquet", "/etc/passwd", "sector=a/b.parquet"])
def test_a_manifest_names_no_file_outside(store, path):
    manifest = json.loads((store / "manifest.json").read_bytes())
    manifest["files"][0]["path"] = path
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="is no file of a bar store"):
        stored_panel(store)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    folder = tmp_path / "foreign"
    (folder / "sector=energy").mkdir(parents=True)
    pq.write_table(market(), folder / "sector=energy" / "bars.parquet")
    before = file_contents(folder)
    with pytest.raises(StoreError, match=r"holds sector=energy/bars\.parquet and is no bar store: choose a new folder"):
        ingest(market(), folder, calendar="none")
    assert file_contents(folder) == before
    with pytest.raises(StoreError, match="is no bar store: gpupipe ingest SOURCE"):
        clean_store(folder)


def test_two_ingests_exclude_each_other(store):
    with Store(store).lock(), pytest.raises(StoreError, match=r"is in use by process .* another --store"):
        ingest(market(), store, calendar="none")
    lock = Store(store).lock()
    lock.__enter__()
    threading.Timer(0.3, lock.__exit__, (None, None, None)).start()
    assert ingest(market(), store, calendar="none", wait_s=30).new_bars == 40  # waits until the lock is released


def test_the_command(store, tmp_path, capsys):
    more = tmp_path / "more.parquet"
    pq.write_table(days(scaled(market(), "S001", 0.5), 20, 40), more)
    options = [str(more), "--store", str(store), "--calendar", "none"]
    assert main(["ingest", *options, "--dry-run"]) == 0
    assert "nothing was written (--dry-run)" in capsys.readouterr().out
    assert main(["ingest", *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["status"] == "OK" and report["changes"][0]["factor"] == 0.5 and report["new_bars"] == 40
    assert main(["ingest", *options]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("OK  ") and out.splitlines()[-1].endswith("the store holds these bars")
    for action in (["--verify"], ["--restore", "1"], ["--clean"]):
        assert main(["ingest", "--store", str(store), *action]) == 0
    assert "removed 2 earlier versions" in capsys.readouterr().out
    assert main(["ingest", "--store", str(store)]) == 2
    assert "expected a SOURCE or one of --clean" in capsys.readouterr().err
    assert main(["ingest", str(tmp_path / "no.csv"), "--store", str(tmp_path / "new")]) == 2
    assert "no such file" in capsys.readouterr().err and not (tmp_path / "new").exists()
    pq.write_table(market().drop_columns(["sector"]), more)
    assert main(["ingest", str(more), "--store", str(tmp_path / "new")]) == 2
    assert "was taken: 4 symbols without a sector left out" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "5", "null", "{", '{"format": 1, "generation": 1, "files": [{}]}'])
def test_a_damaged_earlier_manifest_is_named_and_clean_removes_it(store, capsys, content):
    ingest(days(market(), 0, 31), store, calendar="none")
    path = store / ".gpupipe/generations/000001.json"
    path.write_text(content)
    arguments = ["ingest", "--store", str(store)]
    for action in (["simulated:symbols=2,bars=40", "--calendar", "none"], ["--restore", "1"]):
        assert main([*arguments, *action]) == 2
        error = capsys.readouterr().err
        assert str(path) in error and f"gpupipe ingest --clean --store {store}" in error and error.count("\n") == 1
    assert main([*arguments, "--clean"]) == 0
    assert "removed 1 earlier versions" in " ".join(capsys.readouterr().out.split()) and not path.exists()
    assert same(store, days(market(), 0, 31)) and verify_store(store) == []
