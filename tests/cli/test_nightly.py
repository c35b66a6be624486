"""A night does every step; a second one changes nothing but the log; one more day changes what depends on it."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpupipe import report
from gpupipe.artifacts import summary
from gpupipe.cli import backtest, main, nightly, scan
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import Store
from tests.support import kill
from tests.support.tiny import QUICK, tiny_market

pytest.importorskip("altair")
ROOT = pathlib.Path(__file__).parents[2]
LOGS = ("nightly.jsonl", "run.jsonl", "lock", "nightly.lock")  # a lock names the process that had it last
OPTIONS = (
    "nightly", "--preset", "fast", "--models", "xgb_joint,linear,meta_learner", "--family", "linear", "--calendar",
    "none",
    *(f"--set={setting}" for setting in (*QUICK, "labels.horizons=1", "labels.thresholds=0.02")),
)  # fmt: skip


def contents(out: pathlib.Path) -> dict[str, str]:
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in LOGS and "_log" not in path.parts)
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def timeless(out: pathlib.Path) -> dict[str, str]:
    """`contents` of what says nothing of how long a night took, or of what it took from earlier ones; as
    tests.support.kill."""
    told = ("summary.json", "summary.parquet", "manifest.json", "metadata.json", "report.html")
    kept = {
        name: digest for name, digest in contents(out).items()
        if name.startswith("bars/") or not (name.startswith(".gpupipe/") or pathlib.Path(name).name in told)
    }  # fmt: skip
    whole = kill.timeless(summary.read(out))
    measured = json.dumps([whole[name] for name in ("models", "averages", "verdict", "run_key")])
    return {**kept, **kill.contents(out), "measured": measured}


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
    assert main.main(night) == 0
    printed = capsys.readouterr().out
    assert [printed.count(f"  {name} ") for name in ("ingest", "train", "backtest", "scan", "report")] == [1] * 5
    assert {"manifest.json", "report.html", "signals.parquet", "signals.sqlite", "bars/manifest.json",
            "backtest/statistics.json"} <= set(contents(out))  # fmt: skip
    first, key = contents(out), summary.read(out)["run_key"]
    assert main.main(night) == 0
    assert contents(out) == first  # nothing but the logs
    pq.write_table(market.to_arrow(), tmp_path / "bars.parquet")
    assert main.main([*night, "--quiet"]) == 0
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
        assert main.main([*OPTIONS, option, "--data", "demo", "--out", str(tmp_path / "OUT")]) == 2
        assert f"{option} is for gpupipe run" in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--models", "linear", "--family", "meta_learner"],
         "--family meta_learner: this night trains no such model, but linear; choose one of these, as --family linear"),
        (["--family", "xgb_hist"], "--family xgb_hist: this night trains no such model, but xgb_joint, linear, meta"),
        (["--top", "0"], "--top 0: expected 1 or more"), (["--memory", "much"], "--memory"),
    ],
)  # fmt: skip
def test_what_a_later_step_could_not_do_is_refused_before_anything_is_ingested(night, capsys, options, expected):
    assert night(*options) == 2 and night.did == [] and not night.out.exists()
    assert expected in capsys.readouterr().err


def test_the_usual_family_is_refused_where_it_is_not_trained(night, monkeypatch, capsys):
    """Also where OUT holds models of that family, which this night would replace."""
    night.out.mkdir()
    (night.out / "manifest.json").write_text("{}")
    assert main.main(["nightly", "--models", "linear", "--data", "demo", "--out", str(night.out)]) == 2
    assert "--family meta_learner: this night trains no such model" in capsys.readouterr().err
    monkeypatch.setitem(report.NEEDS, "no_such_module", "no-such-package")
    assert night() == 2 and night.did == [] and "no-such-package" in capsys.readouterr().err


def test_a_step_that_fails_ends_those_that_need_it(tmp_path, capsys):
    out = tmp_path / "OUT"
    assert main.main([*OPTIONS, "--data", str(tmp_path / "none.parquet"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "gpupipe: ingest: " in error and "none.parquet" in error and error.count("\n") == 1
    assert steps(out) == [{"ingest": "FAIL", **dict.fromkeys(("train", "backtest", "scan", "report"), "SKIPPED")}]
    assert not (out / "manifest.json").exists()


@pytest.fixture
def night(monkeypatch, tmp_path):
    """A night whose steps do nothing, or what a test says; `night(*more)` is its exit code."""
    did = []
    for name in nightly.NEEDS:
        monkeypatch.setattr(nightly, f"_{name}", lambda *_, name=name: did.append(name) or [])

    def go(*more):
        did.clear()
        return main.main([*OPTIONS, "--data", "demo", "--out", str(tmp_path / "OUT"), *more])

    go.did, go.out = did, tmp_path / "OUT"
    return go


def report_of_nothing_new():
    return types.SimpleNamespace(status="OK", warnings=())


def failing(error):
    def step(*_):
        raise error

    return step


@pytest.mark.parametrize(
    ("name", "skipped"),
    [("ingest", ["train", "backtest", "scan", "report"]), ("train", ["backtest", "scan", "report"]), ("backtest", []),
     ("scan", []), ("report", [])],
)  # fmt: skip
def test_what_does_not_need_a_failed_step_is_done(night, monkeypatch, capsys, name, skipped):
    monkeypatch.setattr(nightly, f"_{name}", failing(UserError("it is\nbroken: mend it")))
    assert night() == 2
    assert capsys.readouterr().err == f"gpupipe: {name}: it is broken: mend it\n"
    (found,) = steps(night.out)
    assert found == {**dict.fromkeys(nightly.NEEDS, "OK"), name: "FAIL", **dict.fromkeys(skipped, "SKIPPED")}
    assert night.did == [one for one in nightly.NEEDS if one != name and one not in skipped]


def test_exit_codes(night, monkeypatch, capsys):
    assert night() == 0
    monkeypatch.setattr(nightly, "_ingest", lambda *_: ["78 rows quarantined"])
    assert night() == 0 and "WARN" in capsys.readouterr().out
    for name in ("backtest", "scan"):
        monkeypatch.setattr(nightly, f"_{name}", failing(OSError(28, "No space left on device")))
    assert night() == 2 and capsys.readouterr().err.count("No space left") == 2  # each that failed, in one line
    monkeypatch.setattr(nightly, "_scan", failing(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):  # not the user's to mend: a traceback, and the log says where
        night()
    monkeypatch.setattr(nightly, "_scan", failing(KeyboardInterrupt()))
    assert night() == 130
    assert [one.get("scan") for one in steps(night.out)] == ["OK", "OK", "FAIL", "FAIL", "STOPPED"]
    assert [one.get("report") for one in steps(night.out)] == ["OK", "OK", "OK", None, None]


def test_two_nights_do_not_use_one_out(night, capsys):
    with Store(night.out).lock(name=nightly.LOCK):
        assert night() == 2 and night.did == []
        error = capsys.readouterr().err
        assert f"is in use by process {os.getpid()}" in error and "wait for it (--wait), or choose another" in error
        assert night("--wait", "0.3") == 2
    assert night() == 0 and len(night.did) == 5


def test_the_options_of_a_run_reach_it_and_those_of_the_source_do_not(night, monkeypatch):
    asked = []
    monkeypatch.undo()
    monkeypatch.setattr("gpupipe.cli.run.run", lambda request: asked.append(request))
    more = ["--sector-map", "s.csv", "--timeframe", "1d", "--strict", "--no-keep", "--sectors", "energy"]
    more += ["--max-quarantined", "0.2"]
    more += ["--warm-start", str(night.out)]
    parser = argparse.ArgumentParser()
    nightly.add_arguments(parser)
    chosen = parser.parse_args([*OPTIONS[1:], "--data", "x.db", "--out", str(night.out), "--jobs", "3", *more])
    request = nightly.request_of(chosen)
    nightly._train(request)
    (trained,) = asked
    data = trained.job.data
    assert data.source == str(night.out / "bars") and data.sector_map is data.timeframe is None and not data.strict
    assert trained.job.jobs == 3 and not trained.keep and trained.job.quiet
    assert trained.job.asked.assignments == tuple(chosen.set) and trained.job.asked.preset == "fast"
    monkeypatch.setattr("gpupipe.cli.backtest.run", lambda request: asked.append(request))
    nightly._backtest(request)
    assert asked.pop().data.sectors == data.sectors == "energy"  # the same data: others are refused
    assert trained.warm_start is None  # the first night has nothing to go on from
    night.out.mkdir()
    (night.out / "manifest.json").write_text("{}")
    nightly._train(request)
    assert asked[1].warm_start == str(night.out)
    ingests = []
    monkeypatch.setattr(
        "gpupipe.cli.ingest.ingested", lambda request: ingests.append(request) or report_of_nothing_new()
    )
    assert nightly._ingest(request) == []
    (ingest,) = ingests  # which is where the options of the source are used
    assert (ingest.data.source, ingest.data.sector_map, ingest.data.timeframe) == ("x.db", "s.csv", "1d")
    assert (
        ingest.data.max_quarantined == 0.2
        and ingest.data.strict
        and ingest.store == str(night.out / "bars")
        and ingest.calendar == "none"
    )


def test_a_night_asks_for_what_the_commands_themselves_ask_for_by_default(night, monkeypatch):
    asked = []
    monkeypatch.undo()
    for name in ("backtest", "scan"):
        monkeypatch.setattr(f"gpupipe.cli.{name}.run", lambda request: asked.append(request))
    parser = argparse.ArgumentParser()
    nightly.add_arguments(parser)
    request = nightly.request_of(
        parser.parse_args(["--out", "O", "--family", "linear", "--call", "top:9", "--top", "3"])
    )
    nightly._backtest(request)
    nightly._scan(request)
    signals, active = str(pathlib.Path("O/signals.parquet")), str(pathlib.Path("O/signals.sqlite"))
    usual = []
    for command, options in (
        (backtest, ["--models", "O", "--data", "O/bars", "--call", "top:9", "--quiet"]),
        (scan, ["--models", "O", "--data", "O/bars", "--family", "linear", "--call", "top:9", "--top", "3", "--to",
                signals, "--active", active]),
    ):  # fmt: skip
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        usual.append(command.request_of(parser.parse_args(options)))
    assert asked == usual


# Where a night is killed: just before the n-th file of such a name takes its place, or behind a step.
ALL_KILLS = (
    (r"part-.*parquet", 2), (r"bars/manifest\.json", 1), ("after ingest", 1), (r"units/.*json", 1),
    (r"units/.*json", 5), (r"OUT/manifest\.json", 1), ("after train", 1), (r"backtest/.*", 2), ("after backtest", 1),
    (r"signals\.parquet", 1), ("after scan", 1), (r"report\.html", 1), ("after report", 1),
)  # fmt: skip
SOME_KILLS = tuple(ALL_KILLS[k] for k in (1, 4, 7, 10))  # of these, those that a change is most likely to break
KILLED = """
import os, re, signal, sys
pattern, n, real, met = sys.argv[1], int(sys.argv[2]), os.replace, [0]
def replace(source, target, **options):
    met[0] += re.search(f"/{pattern}$", str(target)) is not None
    if met[0] == n:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(source, target, **options)
os.replace = replace
from gpupipe.cli import main, nightly
log = nightly._log
def logged(out, night, step):
    log(out, night, step)
    if f"after {step.name}" == pattern:
        os.kill(os.getpid(), signal.SIGKILL)
nightly._log = logged
sys.exit(main.main(sys.argv[3:]))
"""


def killed(out, options, pattern, n):
    command = [sys.executable, "-c", KILLED, pattern, str(n), *options, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9, (pattern, done.returncode, done.stdout + done.stderr)


def test_killed_again_and_again_a_night_ends_with_the_same_bytes(tmp_path):
    """Inside every step, and behind every step: each kill goes on from the one before."""
    pq.write_table(tiny_market().to_arrow(), tmp_path / "bars.parquet")
    options = [*OPTIONS, "--data", str(tmp_path / "bars.parquet"), "--quiet"]
    out = tmp_path / "OUT"
    assert main.main([*options, "--out", str(out)]) == 0
    whole = timeless(out)
    shutil.rmtree(out)  # the other has the same name, which reports hold
    for pattern, n in ALL_KILLS if os.environ.get("GPUPIPE_ALL_KILLS") else SOME_KILLS:
        killed(out, options, pattern, n)
    assert main.main([*options, "--out", str(out)]) == 0
    assert timeless(out) == whole
    assert not [*out.rglob("*.tmp"), *out.rglob("*-journal")]
    assert all(status in (nightly.OK, nightly.WARN) for status in steps(out)[-1].values()) and len(steps(out)[-1]) == 5
