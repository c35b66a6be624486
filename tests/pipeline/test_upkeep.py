"""What an OUT says of itself, what is found to be altered, what is removed, and who may use it when."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from gpupipe.cli import main
from gpupipe.pipeline import upkeep
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import Store, StoreError
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, SOURCE, tiny_market

ROOT = pathlib.Path(__file__).parents[2]
FEW = (*QUICK, "training.models=linear,xgb_hist,meta_learner", "labels.thresholds=0.02")
COMMAND = (
    "--data", SOURCE, "--sectors", ",".join(SECTORS), "--preset", "fast", "--jobs", "1", *(f"--set={s}" for s in FEW),
)  # fmt: skip
UNITS = 4 * 4 + 2 * 4 * 4 + 2 * 3 * (2 + 3) + 1  # linear; hist of two labels; predictions; the stack


def settings_of(*more):
    return equity.make("fast", settings=[*FEW, *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("upkeep") / "OUT"
    tiny.execute(tiny_market(), None, settings_of(), out, 1)
    return out


@pytest.fixture
def out(finished, tmp_path):
    """A copy to alter, with no links."""
    shutil.copytree(finished, tmp_path / "OUT")
    return tmp_path / "OUT"


def files_in(out):
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def said(capsys, *arguments):
    capsys.readouterr()
    code = main.main([str(one) for one in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_status_of_a_finished_run(finished, capsys):
    found = upkeep.status(finished)
    assert found.finished and found.count("done") == UNITS and found.others == 0
    assert found.count("stale") == found.count("missing") == 0
    assert found.stages["linear final"] == {"done": 4 + 6, "stale": 0, "missing": 0}
    assert found.stages["xgb_hist part2"] == {"done": 8 + 3, "stale": 0, "missing": 0}
    assert 0 < found.own_bytes < found.object_bytes  # predictions, and models that are published too
    code, printed, _ = said(capsys, "status", finished)
    assert code == 0 and "a finished run" in printed and f"{UNITS:,}" in printed
    assert json.loads(said(capsys, "status", finished, "--json")[1])["done"] == UNITS


def test_status_of_half_a_run_names_what_to_give(finished):
    for arguments, words in (
        ({"panel": tiny_market(), "settings": settings_of()}, "give workload too"),
        ({"workload": equity.EQUITY}, "give panel and settings too"),
    ):
        with pytest.raises(ValueError, match=words):
            upkeep.status(finished, **arguments)


def test_status_for_other_settings_names_what_is_stale_and_missing(finished, capsys):
    before = files_in(finished)
    assert upkeep.status(finished, equity.EQUITY, tiny_market(), settings_of()).count("done") == UNITS
    found = upkeep.status(finished, equity.EQUITY, tiny_market(), settings_of("linear.l2=30.0"))
    stale = 4 * 4 + 3 * (2 + 3) + 1  # linear, what it says, and the stack
    assert (found.count("done"), found.count("stale"), found.count("missing")) == (UNITS - stale, stale, 0)
    more = upkeep.status(finished, equity.EQUITY, tiny_market(), settings_of("training.models=linear,random_forest"))
    assert more.stages["random_forest final"] == {"done": 0, "stale": 0, "missing": 4 + 6}
    code, printed, _ = said(capsys, "status", finished, *COMMAND, "--set=linear.l2=30.0", "--json")
    told = json.loads(printed)
    assert code == 0 and (told["done"], told["stale"]) == (UNITS - stale, stale)
    assert files_in(finished) == before


def test_verify_names_what_is_altered_or_gone(out, capsys):
    assert upkeep.verify(out).wrong == {}
    code, printed, _ = said(capsys, "verify", out)
    assert code == 0 and printed.endswith("all as they were written\n")
    store = out / ".gpupipe"
    altered, gone = sorted((store / "objects").iterdir())[:2]
    altered.write_bytes(altered.read_bytes() + b"!")
    gone.unlink()
    (out / "summary.json").write_text("{}")
    model = sorted(out.glob("trained_*/energy/1d/linear.npz"))[0]
    model.unlink()
    unit = sorted((store / "units").iterdir())[0]
    unit.write_text("{")
    wrong = upkeep.verify(out).wrong
    expected = {altered: "altered", gone: "missing", out / "summary.json": "altered", model: "missing", unit: "altered"}
    assert wrong == {path.relative_to(out).as_posix(): what for path, what in expected.items()}
    code, printed, _ = said(capsys, "verify", out)
    assert code == 1 and f"altered  {altered.relative_to(out).as_posix()}" in printed
    tiny.execute(tiny_market(), None, settings_of(), out, 1)  # the same run puts all of it right
    assert upkeep.verify(out).wrong == {}


def test_clean_removes_what_nothing_refers_to_and_nothing_else(out, finished, capsys):
    assert upkeep.clean(out).n_files == 0
    before = files_in(out)
    tiny.execute(tiny_market(), None, settings_of("linear.l2=30.0"), out, 1)
    now = upkeep.status(out, equity.EQUITY, tiny_market(), settings_of("linear.l2=30.0"))
    assert now.count("done") == UNITS and now.others == 4 * 4 + 3 * 5 + 1
    (out / "notes.txt").write_text("the user's own")
    (out / ".manifest.json.12.34.tmp").write_text("half")
    (out / ".gpupipe" / "cache").mkdir()
    (out / ".gpupipe" / "cache" / "bins0").write_bytes(b"bins")
    there = files_in(out)
    planned = upkeep.clean(out, dry_run=True)
    assert files_in(out) == there and planned.n_bytes > 0
    code, printed, _ = said(capsys, "clean", out)
    assert code == 0 and printed.startswith("removed units: 32 (")
    gone = there - files_in(out)
    assert gone == {name for names in planned.paths.values() for name in names}
    assert {".manifest.json.12.34.tmp", ".gpupipe/cache/bins0"} <= gone and "notes.txt" not in gone
    assert upkeep.clean(out).n_files == 0 and upkeep.verify(out).wrong == {}
    assert upkeep.status(out, equity.EQUITY, tiny_market(), settings_of("linear.l2=30.0")).count("done") == UNITS
    tiny.execute(tiny_market(), None, settings_of(), out, 1)
    upkeep.clean(out)
    assert files_in(out) - {"notes.txt"} == {name for name in before if "/runs/" not in name} | {
        name for name in files_in(out) if "/runs/" in name
    }


def test_clean_keeps_what_a_stopped_run_will_go_on_with(out, monkeypatch):
    from gpupipe.estimators.linear.softmax_linear import SoftmaxLinear

    def stop(*arguments):
        raise RuntimeError("the lamp fell on the keyboard")

    with monkeypatch.context() as patched:
        patched.setattr(SoftmaxLinear, "fit_pool", stop)
        with pytest.raises(RuntimeError, match="lamp"):
            tiny.execute(tiny_market(), None, settings_of("hist.l2=1.0", "linear.l2=30.0"), out, 1)
    assert (out / "manifest.json").exists()  # of the run before, which still stands
    assert upkeep.clean(out).n_files == 0
    asked = upkeep.status(out, equity.EQUITY, tiny_market(), settings_of())
    assert asked.count("done") == UNITS


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    for command in ("status", "verify", "clean"):
        code, printed, errors = said(capsys, command, tmp_path)
        assert code == 2 and printed == "" and "holds no run: expected the --out of a gpupipe run" in errors
    with pytest.raises(UserError):
        upkeep.clean(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_not_cleaned(out):
    with Store(out).lock(), pytest.raises(StoreError, match=r"is in use by process \d+ on .* since \d{4}-"):
        upkeep.clean(out)


def test_runs_at_the_same_time_wait_or_are_refused(tmp_path):
    """Real processes: one holds OUT; one is refused; two wait, and of these one does the job and the other nothing."""
    out = tmp_path / "OUT"
    code = f"import sys\nfrom gpupipe.store.content_store import Store\nwith Store({str(out)!r}).lock():\n"
    code += "    print('held', flush=True)\n    sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    command = [sys.executable, "-m", "gpupipe.run", *COMMAND, "--out", str(out)]
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as holder:
        assert holder.stdout.readline() == "held\n"
        refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1
        assert f"is in use by process {holder.pid} on " in refused.stderr and "--wait" in refused.stderr
        waiting = []
        for log in logs:
            with log.open("w") as stream:
                waiting.append(subprocess.Popen([*command, "--wait"], cwd=ROOT, stdout=stream, stderr=stream))
        words, until = f"waiting for process {holder.pid} on ", time.monotonic() + 60
        while not all(words in " ".join(log.read_text().split()) for log in logs) and time.monotonic() < until:
            time.sleep(0.05)
        holder.stdin.close()
    assert [one.wait() for one in waiting] == [0, 0], [log.read_text() for log in logs]
    texts = [" ".join(log.read_text().split()) for log in logs]
    assert all(words in text for text in texts)
    assert sorted("Nothing to do" in text for text in texts) == [False, True]
    assert upkeep.verify(out).wrong == {} and upkeep.status(out).count("done") == UNITS


def test_waiting_ends_when_the_holder_does(tmp_path):
    code = (
        f"import time\nfrom gpupipe.store.content_store import Store\nwith Store({str(tmp_path)!r}).lock():\n"
        "    print('held', flush=True)\n    time.sleep(1.0)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    told = []
    with pytest.raises(StoreError, match=f"is in use by process {holder.pid} on "), Store(tmp_path).lock():
        pass
    with Store(tmp_path).lock(wait_s=60.0, waiting=told.append):
        assert holder.wait() == 0
    holder.stdout.close()
    assert len(told) == 1 and told[0].startswith(f"process {holder.pid} on ")
