"""The command line: what it prints, what it refuses in one line, and what it leaves alone."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

import gpupipe
from gpupipe.cli import main, run
from tests.support.tiny import QUICK, SECTORS, SOURCE, tiny_market

ROOT = pathlib.Path(__file__).parents[2]
SETS = tuple(f"--set={setting}" for setting in QUICK)
SIMULATED = ("--data", SOURCE, "--sectors", ",".join(SECTORS))
QUICKEST = ("--preset", "fast", *SETS, "--models", "linear,random_forest", "--horizons", "1", "--jobs", "1")


def call(capsys, *arguments):
    """Exit code, standard output and standard error of `gpupipe run`."""
    capsys.readouterr()
    code = run.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(OUT, printed) of one run on real files: a Parquet file with a bad row, and a sector map."""
    place = tmp_path_factory.mktemp("run")
    table = tiny_market().to_arrow().drop_columns(["sector"])
    bad = table.slice(0, 1).set_column(table.column_names.index("close"), "close", pa.array([-1.0], pa.float32()))
    bad = bad.set_column(1, "time", pa.array([0]).cast(table.schema.field("time").type))
    pq.write_table(
        pa.concat_tables([table, bad], promote_options="default").unify_dictionaries(), place / "bars.parquet"
    )
    names = pa.table({"symbol": list(tiny_market().symbols), "sector": list(tiny_market().sector)})
    pcsv.write_csv(names, place / "sectors.csv")
    command = [sys.executable, "-W", "error::UserWarning", "-m", "gpupipe.run"]
    arguments = [*files(place), *QUICKEST, "--out", place / "OUT"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return place, done.stdout


def files(place):
    return ("--data", str(place / "bars.parquet"), "--sector-map", str(place / "sectors.csv"))


def test_what_the_user_sees(finished):
    place, printed = finished
    assert "\x1b" not in printed  # a pipe gets no colours and no progress bar
    for words in (
        "bars.parquet", "quarantined", "device", "linear", "forest", "all sectors (average)", *SECTORS,
        "Work by stage", "rows/s", "12 of 12 models", "summary.parquet", "1 bar, 2 %", "units of work, 100 %",
    ):  # fmt: skip
        assert words in printed, words
    assert max(len(line) for line in printed.splitlines()) <= 120
    assert {path.name for path in (place / "OUT").iterdir()} == {
        "data_report.json", "quarantine.parquet", "manifest.json", "summary.json", "summary.parquet", "folds.svg",
        "trained_2pct", "trained_4pct", ".gpupipe", "run.jsonl", "curves.parquet", "label_shares.parquet",
        "ranking.parquet", "calibration_slices.parquet",
    }  # fmt: skip
    assert pq.read_table(place / "OUT" / "quarantine.parquet").num_rows == 1
    manifest = json.loads((place / "OUT/manifest.json").read_text())
    assert {"data_report.json", "quarantine.parquet", "summary.json", "summary.parquet", "folds.svg"} <= set(
        manifest["files"]
    )
    assert not {name for name in manifest["files"] if name.startswith("/") or ".." in name}


def test_again_there_is_nothing_to_do_and_it_says_so(finished, capsys):
    place, _ = finished
    code, printed, errors = call(capsys, *files(place), *QUICKEST, "--out", place / "OUT")
    assert code == 0 and errors == "" and "Nothing to do" in printed and "12 of 12 models" in printed


def test_json_prints_json_and_nothing_else(finished, capsys, tmp_path):
    place, _ = finished
    code, printed, errors = call(capsys, *files(place), *QUICKEST, "--out", place / "OUT", "--json")
    assert code == 0 and errors == ""
    assert printed == (place / "OUT" / "summary.json").read_text() and json.loads(printed)["n_models"] == 12
    code, fresh, errors = call(capsys, *SIMULATED, *QUICKEST, "--out", tmp_path / "OUT", "--json")
    assert code == 0 and errors == "" and json.loads(fresh)["data"]["kind"] == "simulated"


def test_quiet_prints_nothing(finished, capsys):
    place, _ = finished
    for more in ((), ("--dry-run",)):
        assert call(capsys, *files(place), *QUICKEST, "--out", place / "OUT", "--quiet", *more) == (0, "", "")


def test_a_dry_run_prints_the_plan_and_writes_nothing(capsys, tmp_path):
    out = tmp_path / "OUT"
    code, printed, errors = call(capsys, *SIMULATED, *QUICKEST, "--out", out, "--dry-run")
    assert code == 0 and errors == "" and not out.exists()
    for words in ("12 models", "7,800", *SECTORS, "linear"):
        assert words in printed, words
    code, printed, errors = call(capsys, *SIMULATED, *QUICKEST, "--out", out, "--dry-run", "--json")
    plan = json.loads(printed)
    assert code == 0 and errors == "" and not out.exists()
    assert plan["models"] == 12 and [one["sector"] for one in plan["sectors"]] == list(SECTORS)
    assert (
        all(one["train"] > one["test"] > 0 for one in plan["sectors"]) and 10**8 < plan["estimated_peak_bytes"] < 10**10
    )


def test_the_plan_is_what_is_done(capsys, tmp_path):
    _, printed, _ = call(capsys, *SIMULATED, *QUICKEST, "--out", tmp_path / "OUT", "--dry-run", "--json")
    code, summary, _ = call(capsys, *SIMULATED, *QUICKEST, "--out", tmp_path / "OUT", "--json")
    plan, summary = json.loads(printed), json.loads(summary)
    assert code == 0 and plan["models"] == summary["n_models"] and plan["split"] == summary["split"]
    for one in plan["sectors"]:
        rows = {row["rows_train"] for row in summary["models"] if row["sector"] == one["sector"]}
        assert rows == {one["train"]}


def refused(capsys, out, words, *arguments):
    code, printed, errors = call(capsys, *arguments, "--out", out)
    assert code == 2, (arguments, errors)
    assert printed == "" or "Data" in printed  # what was read may be told before
    lines = errors.splitlines()
    assert len(lines) == 1 and lines[0].startswith("gpupipe: "), errors
    for word in (words,) if isinstance(words, str) else words:
        assert word in lines[0], lines[0]
    assert not out.exists() or out.is_file()


@pytest.mark.parametrize(
    "words, arguments",
    [
        (
            ("no symbol has sector 'enrgy'", "did you mean 'energy'"),
            ("--data", SOURCE, "--sectors", "enrgy,technology"),
        ),
        ("no sector is named", (*SIMULATED, "--sectors", ",")),
        (("training.max_bins", "did you mean 'training.max_bin'"), (*SIMULATED, "--set", "training.max_bins=3")),
        ("expected section.field=value", (*SIMULATED, "--set", "training.max_bin")),
        ("training.max_bin = 1000: expected 2 to 256", (*SIMULATED, "--set", "training.max_bin=1000")),
        (("unknown preset 'fsat'", "did you mean 'fast'"), (*SIMULATED, "--preset", "fsat")),
        (("unknown model family 'xgb_hits'", "'xgb_hist'"), (*SIMULATED, "--models", "xgb_hits")),
        ("at least one other family", (*SIMULATED, "--models", "")),
        ("--horizons 1,x: expected numbers separated by commas", (*SIMULATED, "--horizons", "1,x")),
        ("--horizons 1.5: expected numbers", (*SIMULATED, "--horizons", "1.5")),
        ("labels.horizons = (5, 1): expected", (*SIMULATED, "--horizons", "5,1")),
        ("labels.horizons = (0,): expected", (*SIMULATED, "--horizons", "0")),
        ("labels.thresholds = (5.0,): expected", (*SIMULATED, "--thresholds", "5")),
        ("--thresholds five: expected numbers", (*SIMULATED, "--thresholds", "five")),
        ("--cpcv 6;2: expected numbers separated by commas, as 6,2", (*SIMULATED, "--cpcv", "6;2")),
        ("split.cpcv = (6,): expected N,K", (*SIMULATED, "--cpcv", "6")),
        ("split.walk_forward = 1: expected 2 to 100 origins", (*SIMULATED, "--walk-forward", "1")),
        ("lower the groups of --cpcv", (*SIMULATED, "--cpcv", "20,1")),
        (
            ("origin 1: no label can be trained", "fewer origins"),
            (*SIMULATED, *SETS, "--thresholds", "0.9", "--walk-forward"),
        ),
        ("seed = -1: expected 0 or more", (*SIMULATED, "--seed", "-1")),
        ("--jobs 0: expected 1 or more", (*SIMULATED, "--jobs", "0")),
        ("--place xgb_jiont=cpu: expected one of xgb_joint, ", (*SIMULATED, "--place", "xgb_jiont=cpu")),
        ("--place linear=gpu: expected linear=cpu", (*SIMULATED, "--place", "linear=gpu")),
        (
            "the run is on the CPU (asked for), where xgb_joint.pool=cpu alone is possible",
            (*SIMULATED, "--device", "cpu", "--place", "linear=cpu", "--place", "xgb_joint.pool=cuda"),
        ),
        ("--place cannot be combined with workers", (*SIMULATED, *SETS, "--place", "linear=cpu", "--workers", "2")),
        (("features.names", "nearest is 'momentum"), (*SIMULATED, "--set", "features.names=momentun")),
        ("nowhere.toml' does not exist", (*SIMULATED, "--config", "nowhere.toml")),
        ("nowhere.parquet", ("--data", "nowhere.parquet")),
        ("simulated: 'bar5=3' is not understood", ("--data", "simulated:bar5=3")),
        ("sector map nowhere.csv: no such file", (*SIMULATED, "--sector-map", "nowhere.csv")),
        ("usable times are too few", ("--data", "simulated:symbols=11,bars=80")),
        ("no group has enough rows", (*SIMULATED, *SETS, "--set", "training.min_rows=100000")),
        ("no label can be trained", (*SIMULATED, *SETS, "--thresholds", "0.9")),
    ],
)
def test_what_the_user_must_mend_is_one_line_and_nothing_is_written(capsys, tmp_path, words, arguments):
    refused(capsys, tmp_path / "OUT", words, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_used(capsys, tmp_path):
    table, out = tiny_market().to_arrow(), tmp_path / "OUT"
    (tmp_path / "text.parquet").write_text("symbol,date,open\n")
    refused(capsys, out, "named like Parquet, but it holds CSV", "--data", tmp_path / "text.parquet")
    pq.write_table(table.drop_columns(["sector"]), tmp_path / "bars.parquet")
    (tmp_path / "map.csv").write_text("symbol,sector\n" + "".join(f"{s},energy\n" for s in tiny_market().symbols[1:]))
    refused(
        capsys, out, ("sector", tiny_market().symbols[0]), "--data", tmp_path / "bars.parquet", "--sector-map",
        tmp_path / "map.csv",
    )  # fmt: skip
    refused(capsys, out, "sector", "--data", tmp_path / "bars.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    refused(capsys, out, "the data hold no rows", "--data", tmp_path / "empty.parquet")
    nothing = table.slice(0, 50).set_column(table.column_names.index("low"), "low", pa.array([-1.0] * 50, pa.float32()))
    pq.write_table(nothing, tmp_path / "bad.parquet")
    refused(capsys, out, "no row is left", "--data", tmp_path / "bad.parquet")
    both = pa.concat_tables([nothing.slice(0, 1), table.slice(1)]).unify_dictionaries()
    pq.write_table(both, tmp_path / "strict.parquet")
    refused(capsys, out, ("strict: ", "1 row quarantined"), "--data", tmp_path / "strict.parquet", "--strict")


def test_an_out_that_is_a_file_is_refused(capsys, tmp_path):
    out = tmp_path / "OUT"
    out.write_text("mine")
    refused(capsys, out, "is a file, expected a folder", *SIMULATED)
    assert out.read_text() == "mine"


def test_an_out_in_use_is_refused_and_names_who_has_it(capsys, tmp_path):
    from gpupipe.store.content_store import Store

    with Store(tmp_path).lock():
        code, _, errors = call(capsys, *SIMULATED, *QUICKEST, "--out", tmp_path)
    assert code == 2 and "is in use by process" in errors and errors.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "tune", "nightly"])
def test_a_stage_that_cannot_be_placed_is_refused_before_anything_is_done(capsys, tmp_path, command):
    arguments = ("--data", SOURCE, "--preset", "fast", "--device", "cpu", "--out", str(tmp_path / "OUT"))
    for place, words in (("lin=cpu", "expected one of xgb_joint"), ("linear=cuda", "linear=cpu alone is possible")):
        assert main.main([command, *arguments, "--place", place]) == 2
        errors = capsys.readouterr().err
        assert words in errors and errors.count("\n") == 1
    assert not (tmp_path / "OUT").exists()


def test_cuda_that_cannot_be_had_is_one_line(capsys, tmp_path):
    from gpupipe.runtime.device import why_no_cuda

    if why_no_cuda() is None:
        pytest.skip("there is a CUDA device")
    refused(capsys, tmp_path / "OUT", "device 'cuda' cannot be had: ", *SIMULATED, "--device", "cuda")


def test_a_bug_is_not_dressed_as_a_mistake_of_the_user(monkeypatch, tmp_path):
    from gpupipe.pipeline import job

    monkeypatch.setattr(job, "execute", lambda *arguments: [][1])
    with pytest.raises(IndexError):
        run.main([*SIMULATED, *QUICKEST, "--out", str(tmp_path / "OUT"), "--quiet"])


def test_stopped_by_the_user(monkeypatch, capsys, tmp_path):
    from gpupipe.pipeline import job

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "execute", stop)
    code, _, errors = call(capsys, *SIMULATED, *QUICKEST, "--out", tmp_path / "OUT", "--quiet")
    assert code == 130 and "the same command goes on where this one was" in errors


def test_a_file_of_settings(capsys, tmp_path):
    (tmp_path / "gpupipe.toml").write_text('preset = "fast"\nseed = 5\n[training]\nmodels = ["linear"]\n')
    arguments = (*SIMULATED, *SETS, "--config", tmp_path / "gpupipe.toml", "--out", tmp_path / "OUT", "--json")
    code, printed, _ = call(capsys, *arguments, "--horizons", "2")
    settings = json.loads(printed)["settings"]
    assert code == 0 and settings["preset"] == "fast" and settings["seed"] == 5
    assert settings["training"]["models"] == ["linear"] and settings["labels"]["horizons"] == [2]


def test_the_python_call_and_the_command_make_the_same_models(finished, tmp_path):
    place, _ = finished
    panel = gpupipe.read(*[files(place)[k] for k in (1, 3)], device="cpu")
    gpupipe.train(
        panel, "fast", tmp_path, settings=QUICK, jobs=2, training__models=("linear", "random_forest"),
        labels__horizons=(1,),
    )  # fmt: skip
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.glob("trained_*/*/*/*.*z")}
    assert len(made) == 6
    assert all((place / "OUT" / name).read_bytes() == content for name, content in made.items())


def test_console_command(capsys, tmp_path):
    with pytest.raises(SystemExit) as done:
        main.main(["--version"])
    assert done.value.code == 0 and capsys.readouterr().out == f"gpupipe {gpupipe.__version__}\n"
    with pytest.raises(SystemExit) as done:
        main.main([])
    assert done.value.code == 2 and "run" in capsys.readouterr().err
    arguments = ["run", *SIMULATED, *QUICKEST, "--models", "linear", "--out", str(tmp_path), "--quiet"]
    assert main.main(arguments) == 0 and (tmp_path / "manifest.json").exists()
    assert main.main(["run", "--data", "nowhere.csv"]) == 2
    capsys.readouterr()
    assert main.main(["features", "momentum"]) == 0
    assert "warm-up" in capsys.readouterr().out
    assert main.main(["features", "rsi_14"]) == 0
    _, only = capsys.readouterr().out.splitlines()
    assert only.split()[0] == "rsi_14"
    assert main.main(["features", "momentun"]) == 2
    assert capsys.readouterr().err.startswith("gpupipe: no feature or family 'momentun'")


def test_help_names_every_option():
    done = subprocess.run([sys.executable, "-m", "gpupipe.run", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.startswith("usage: python -m gpupipe.run ")
    for option in (
        "data", "sector-map", "sectors", "horizons", "thresholds", "models", "preset", "config", "set", "device",
        "out", "seed", "jobs", "dry-run", "quiet", "json", "strict", "max-quarantined", "walk-forward", "cpcv",
    ):  # fmt: skip
        assert f"--{option}" in done.stdout, option


def test_doctor_through_the_command(capsys):
    assert main.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main.main(["doctor"]) == 0
    assert "xgboost" in capsys.readouterr().out


def test_the_console_command_is_declared():
    import importlib.metadata
    import tomllib

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert declared == {"gpupipe": "gpupipe.cli.main:main"}
    installed = [e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == "gpupipe"]
    assert all(entry.load() is main.main for entry in installed)
    done = subprocess.run(
        [sys.executable, "-m", "gpupipe.cli.main", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout == f"gpupipe {gpupipe.__version__}\n"
