"""gpupipe bonds: what its options set, what is refused in one line, and what other commands do with its OUT."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("optuna")

from gpupipe.cli import bonds, main
from gpupipe.report import bond_words
from gpupipe.store.content_store import Store
from gpupipe.workloads.bonds import results
from tests.support import kill
from tests.support.bond_files import NAMES, tables, write
from tests.support.bond_run import lasting

# Settings with which all models of the small market are fitted within two seconds.
FEW = tuple(f"--set={setting}" for setting in (
    "search.trials=1", "search.folds=2", "search.depths=2", "forest.n_trees=4", "forest.trees_at_once=2",
    "boosting.rounds=4", "network.epochs=1", "network.width=4", "bonds.least_rows=20", "bonds.tail_dates=12",
))  # fmt: skip
QUICK = (*FEW, "--jobs", "1", "--seed", "3", "--skip-plots")
VALUES = {
    "--convention": ("quantlib", "bonds.convention", "quantlib"),
    "--trials": ("3", "search.trials", 3),
    "--regimes": ("2", "bonds.n_regimes", 2),
    "--factors": ("5", "bonds.n_factors", 5),
    "--sample": ("25%", "bonds.sample", 0.25),
}


def call(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    capsys.readouterr()
    code = main.main([*map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def settings_of(*arguments):
    request = bonds.request_of(main.parser_for(["bonds"]).parse_args(["bonds", *arguments]))
    return request.job.settings().as_dict()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The options that name the three files."""
    return write(tmp_path_factory.mktemp("files"), tables())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, files):
    """OUT of a run on the files."""
    out = tmp_path_factory.mktemp("finished") / "OUT"
    assert main.main(["bonds", *QUICK, *files, "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def out(finished, tmp_path):
    """A copy of the finished OUT."""
    return shutil.copytree(finished, tmp_path / "OUT")


def contents(out):
    """Files of OUT by path, without the log, which grows, and the lock."""
    paths = [path for path in out.rglob("*") if path.is_file() and path.name not in ("run.jsonl", "lock")]
    return {path.relative_to(out): path.read_bytes() for path in paths}


def refused(capsys, *arguments):
    """The one line with which a command is refused."""
    code, printed, error = call(capsys, *arguments)
    assert code == 2 and printed == "" and error.startswith("gpupipe: ") and error.count("\n") == 1, error
    assert error.strip().isprintable()
    return error


# Options.


@pytest.mark.parametrize("option", VALUES)
def test_an_option_sets_one_value_and_only_that(option):
    value, name, expected = VALUES[option]
    before, after = settings_of(), settings_of(option, value)
    section, field = name.split(".")
    assert after[section].pop(field) == expected != before[section].pop(field)
    assert after == before


@pytest.mark.parametrize(("sample", "value"), [("10%", 0.1), ("500", 500.0), ("100%", 0.0), ("0.5%", 0.005)])
def test_a_sample_is_a_share_or_a_number(sample, value):
    assert settings_of("--sample", sample)["bonds"]["sample"] == pytest.approx(value)


def test_the_help_lists_every_option(capsys):
    with pytest.raises(SystemExit) as done:
        main.main(["bonds", "--help"])
    printed = capsys.readouterr().out
    assert done.value.code == 0
    for option in (*VALUES, "--bonds", "--quotes", "--curve", "--market", "--rates", "--strict", "--out", "--jobs"):
        assert f"{option} " in printed, option


# Bad options: nothing is read, nothing is written.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bonds", "b.csv"), "--curve and --quotes missing"),
        (("--sample", "0"), "--sample 0: expected a share such as 10%, or a number of bonds"),
        (("--sample", "-3"), "--sample -3: expected"),
        (("--sample", "101%"), "--sample 101%: expected"),
        (("--sample", "0.5"), "--sample 0.5: expected"),
        (("--sample", "ten"), "--sample ten: expected"),
        (("--sample", "nan%"), "--sample nan%: expected"),
        (("--top", "-1"), "--top -1: expected 0 or more"),
        (("--jobs", "0"), "--jobs 0: expected 1 or more"),
        (("--convention", "streat"), "convention"),
        (("--trials", "0"), "search.trials"),
        (("--regimes", "0"), "bonds.n_regimes"),
        (("--set", "bonds.trian=0.5"), "trian"),
        (("--set", "bonds.train=0.9"), "bonds.train"),
        (("--n-bonds", "0"), "expected bonds >= 1"),
        (("--n-months", "0"), "months in 1..120"),
        (("--n-months", "100000"), "months in 1..120"),
        (("--mispricing", "-1"), "mispricing"),
        (("--rates", "percent"), "--rates: no effect without files"),
        (("--strict",), "--strict: no effect without files"),
        (("--market", "treasuries", "--n-bonds", "50"), "--n-bonds: no effect with --market treasuries"),
        (("--config", "missing.toml"), "missing.toml"),
        (("--memory", "plenty"), "--memory plenty: expected a size such as 8GiB or 900M"),
        (("--market", "treasuries", "--memory", "1M"), "--memory 0.00 GiB is too little"),
        (("--market", "treasuries", "--workers", "-1"), "--workers -1: expected 1 or more"),
        (("--market", "treasuries", "--scheduler", "tcp://a:1", "--jobs", "2"), "leave one out"),
        (("look",), "expected options alone, or `scan OUT`"),
        (("--max-quarantined", "0.5"), "--max-quarantined: no effect without files"),
        (("--max-quarantined", "0"), "--max-quarantined: no effect without files"),
        (("--market", "treasuries", "--mispricing", "0"), "--mispricing: no effect with --market treasuries"),
    ],
)
def test_bad_options_are_refused_in_one_line_and_nothing_is_written(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "bonds", *arguments, "--out", "OUT", "--quiet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--market", "tresuries"), "invalid choice: 'tresuries'"),
        (("--bond", "b.csv"), ""),
        (("--sampel", "10%"), "unrecognized arguments: --sampel"),
        (("--n-bonds", "many"), "invalid int value"),
        (("--rates", "bp"), "invalid choice: 'bp'"),
    ],
)
def test_misspelt_options_are_refused_by_the_parser(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    if not message:  # an abbreviation would be a guess
        message = "--curve and --quotes missing"
        assert message in refused(capsys, "bonds", *arguments)
        return
    with pytest.raises(SystemExit) as done:
        call(capsys, "bonds", *arguments, "--out", "OUT")
    assert done.value.code == 2 and message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


# Bad files: one line, and an earlier OUT stays as it was.


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_missing_or_no_table_is_refused_and_an_earlier_run_stays(capsys, tmp_path, out, files, name):
    before, at = contents(out), files.index(f"--{name}") + 1
    bad = {
        "missing.csv": None, "noise.parquet": os.urandom(64), "empty.csv": b"", "picture.png": b"\x89PNG\r\n\x1a\n\x00",
        "no_columns.csv": b"a,b\n1,2\n", "words.csv": "id,date\nA,gestern\né,2020-13-45\n".encode("latin-1"),
        "a [bold]name[é].csv": None,
    }  # fmt: skip
    for file, content in bad.items():
        path = tmp_path / file
        if content is not None:
            path.write_bytes(content)
        error = refused(capsys, "bonds", *QUICK, *files[:at], path, *files[at + 1 :], "--out", out)
        assert path.name in error or name in error, error
    assert contents(out) == before


def with_rows(name, **columns):
    """The tables with rows appended to one of them."""
    made = tables()
    for column, values in columns.items():
        made[name][column] = [*made[name][column], *values]
    n = max(map(len, made[name].values()))
    for column, values in made[name].items():
        made[name][column] = [*values, *[values[-1]] * (n - len(values))]
    return made


def changed(name, column, value, rows=slice(None)):
    made = tables()
    values = np.array(made[name][column], object)
    values[rows] = value
    made[name][column] = values.tolist()
    return made


BAD_ROWS = {
    "negative maturities": (changed("bonds", "maturity", "1999-01-01"), "maturity is not after"),
    "all prices outside": (changed("quotes", "clean", 301.0), "price is outside 1..300"),
    "no price": (changed("quotes", "clean", None), "neither a price nor a yield is known"),
    "dates in the future": (changed("quotes", "date", "2199-01-01"), "future"),
    "unknown bonds": (changed("quotes", "id", "stranger"), "bond is not among the instruments"),
    "rates outside": (changed("curve", "y10", 101.0), "a rate is outside"),
    "no rates": ({**tables(), "curve": {"date": tables()["curve"]["date"]}}, "tenor"),
    "a curve of later days": (changed("curve", "date", "2020-01-01", slice(None)), "conflicts"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_rows_that_leave_nothing_are_refused_in_one_line_and_an_earlier_run_stays(capsys, tmp_path, out, what):
    made, message = BAD_ROWS[what]
    before = contents(out)
    assert message in refused(capsys, "bonds", *QUICK, *write(tmp_path, made), "--out", out)
    assert contents(out) == before


def test_some_bad_rows_are_quarantined_and_told(capsys, tmp_path):
    """Of each kind of row that README lists one; all others are valued."""
    made = tables()
    quoted = made["quotes"]
    rows = [k for k in range(0, 60, 10)]
    first = {k: (quoted["id"][k], quoted["date"][k]) for k in rows}
    quoted["clean"][rows[0]], quoted["clean"][rows[1]] = 0.5, 300.5
    for name, value in (("id", first[rows[2]][0]), ("date", first[rows[2]][1]), ("clean", 55.0)):
        quoted[name] = [*quoted[name], value]  # conflicts with a quote of its day
    again = quoted["id"][rows[3]], quoted["date"][rows[3]], quoted["clean"][rows[3]]
    for name, value in zip(("id", "date", "clean"), again, strict=True):
        quoted[name] = [*quoted[name], value]  # repeats one
    made["bonds"]["maturity"][-1] = "1999-01-01"
    for name in made["curve"]:
        made["curve"][name] = made["curve"][name][:5] + made["curve"][name][6:]  # a day is missing
    out = tmp_path / "OUT"
    options = (*QUICK, *write(tmp_path, made), "--out", out, "--max-quarantined", "0.5")
    code, printed, error = call(capsys, "bonds", *options)
    assert code == 0, error
    for kind in ("price is outside 1..300", "conflicts with another", "repeats another quote", "days are missing",
                 "its bond was quarantined"):  # fmt: skip
        assert kind in printed, kind
    kept = pq.read_table(out / "quarantine.parquet")["reason"].to_pylist()
    assert sum("price is outside" in reason for reason in kept) == 2
    assert sum("conflicts" in reason for reason in kept) == 2
    error = refused(capsys, "bonds", *options, "--strict")
    assert "strict: " in error and not kill.broken_promises(out)


def test_an_out_that_is_a_file_or_that_another_run_holds_is_refused(capsys, tmp_path, files, out):
    (tmp_path / "file").write_text("mine")
    assert "is a file, expected a folder" in refused(capsys, "bonds", *QUICK, *files, "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    for command in (("bonds", "scan"), ("status",), ("verify",), ("report",), ("clean",)):
        refused(capsys, *command, tmp_path / "file")
    with Store(out).lock():
        refused(capsys, "bonds", *QUICK, *files, "--out", out, "--trials", "2", "--quiet")
    assert not kill.broken_promises(out)


def test_an_out_of_another_workload_is_refused_by_scan_and_replaced_by_a_run_with_a_warning(
    capsys, tmp_path, out, files
):
    manifest = json.loads((out / "manifest.json").read_text())
    other = tmp_path / "other"
    other.mkdir()
    (other / "trained.bin").write_bytes(b"model")
    manifest["files"], manifest["run_key"] = {}, "of another run"
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert "holds no finished run of bonds" in refused(capsys, "bonds", "scan", other)
    assert call(capsys, "bonds", *QUICK, *files, "--out", other, "--quiet")[0] == 0
    assert (other / "trained.bin").read_bytes() == b"model" and not kill.broken_promises(other)


@pytest.mark.parametrize("command", ["scan --data demo --models {}", "backtest --data demo --models {}",
                                     "export {} --to onnx"])  # fmt: skip
def test_commands_of_other_workloads_refuse_an_out_of_bonds(capsys, monkeypatch, tmp_path, out, command):
    monkeypatch.chdir(tmp_path)
    before = contents(out)
    assert "holds no models of bars" in refused(capsys, *command.format(out).split(), "--quiet")
    assert contents(out) == before


# An OUT that is damaged.


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_model_that_is_cut_in_half_is_found_and_made_again(capsys, caplog, out, files, finished):
    chosen = json.loads((out / "summary.json").read_text())["bonds"]["chosen"]
    damaged = [path for path in (out / "bonds" / "models").glob(f"{chosen}*") if path.suffix != ".json"]
    assert damaged
    for path in damaged:
        cut(path)
    code, printed, error = call(capsys, "verify", out)
    assert code == 1 and chosen in printed + error
    assert "bonds/models" in refused(capsys, "bonds", "scan", out, *files)
    with caplog.at_level(logging.WARNING, "gpupipe"):
        assert call(capsys, "bonds", *QUICK, *files, "--out", out, "--quiet")[0] == 0
    assert any("was altered since it was written" in record.getMessage() for record in caplog.records)
    assert lasting(out) == lasting(finished) and call(capsys, "verify", out)[0] == 0


@pytest.mark.parametrize("name", ["summary.json", "manifest.json", results.SIGNALS, results.INTERVALS, results.STATES])
def test_a_file_that_is_cut_in_half_ends_in_one_line_and_a_run_mends_it(capsys, out, files, finished, name):
    cut(out / name)
    for arguments in ((), files):
        assert name.rpartition("/")[2] in refused(capsys, "bonds", "scan", out, *arguments)
    again = ("bonds", *QUICK, *files, "--out", out, "--quiet")
    if name == "manifest.json":
        assert "delete it and run again" in refused(capsys, *again)
        (out / name).unlink()
    code, _, error = call(capsys, *again)
    assert code == 0, error
    assert lasting(out) == lasting(finished) and not kill.broken_promises(out)


# What is printed, and other commands on an OUT of bonds.


def test_a_run_is_shown_found_finished_and_printed_as_json(capsys, out, files):
    code, printed, error = call(capsys, "bonds", *QUICK, *files, "--out", out)
    assert (code, error) == (0, "") and "Nothing to do" in printed and "moves against the others" in printed
    code, printed, error = call(capsys, "bonds", *QUICK, *files, "--out", out, "--json")
    assert (code, error) == (0, "") and json.loads(printed) == json.loads((out / "summary.json").read_bytes())
    assert call(capsys, "bonds", *QUICK, *files, "--out", out, "--quiet")[1] == ""


def test_scan_shows_the_signals_of_the_run_or_of_files(capsys, out, files):
    before = contents(out)
    code, printed, error = call(capsys, "bonds", "scan", out)
    assert (code, error) == (0, "") and "rich beyond the 90 % interval" in printed and "advice" in printed
    rows = json.loads(call(capsys, "bonds", "scan", out, "--json")[1])
    found = json.loads(call(capsys, "bonds", "scan", out, *files, "--json")[1])
    assert [row["bond"] for row in found] == [row["bond"] for row in rows] and len(rows) > 20
    assert np.allclose([r["fair_spread"] for r in found], [r["fair_spread"] for r in rows], rtol=0, atol=2e-6)
    assert contents(out) == before


def test_scan_refuses_options_and_files_that_mean_nothing(capsys, tmp_path, out, files):
    for arguments in (("--trials", "3"), ("--sample", "10%"), ("--n-bonds", "9"), ("--skip-plots",), ("--seed", "1"),
                      ("--seed", "0"), ("--mispricing", "0"), ("--set", "search.trials=2"), ("--workers", "0"),
                      ("--memory", "1GiB"), ("--workers", "2"), ("--scheduler", "tcp://a:1")):  # fmt: skip
        assert "no effect with `gpupipe bonds scan`" in refused(capsys, "bonds", "scan", out, *arguments)
    assert "missing" in refused(capsys, "bonds", "scan", out, *files[:2])
    refused(capsys, "bonds", "scan", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_status_verify_report_and_clean(capsys, out):
    code, printed, _ = call(capsys, "status", out)
    assert code == 0 and all(name in printed for name in ("tail_risk", "bayesian", "all units       13"))
    assert json.loads(call(capsys, "status", out, "--json")[1])
    assert call(capsys, "verify", out)[0] == 0
    pytest.importorskip("altair")
    code, printed, error = call(capsys, "report", out)
    assert (code, error) == (0, "") and "Curve fit" in (out / "report.html").read_text(encoding="utf-8")
    code, _, _ = call(capsys, "clean", out)
    assert code == 0 and call(capsys, "verify", out)[0] == 0 and not kill.broken_promises(out)


def test_treasuries_have_fair_values_without_a_model(capsys, tmp_path):
    pytest.importorskip("altair")
    out = tmp_path / "OUT"
    code, printed, error = call(capsys, "bonds", "--market", "treasuries", "--out", out, "--jobs", "1")
    words = " ".join(printed.split())
    assert code == 0 and words.count("No model was fitted, and fair values are those of the curve fit") == 1, error
    assert "Curve fit: the yields of 400 quotes lie" in words and "Tail risk of one period" in words
    assert "simulated" not in words.lower() and "No model was fitted" in (out / "report.html").read_text("utf-8")
    whole = json.loads(call(capsys, "bonds", "--market", "treasuries", "--out", out, "--jobs", "1", "--json")[1])
    assert "bonds.least_rows" in whole["bonds"]["no_models"] and whole["bonds"]["chosen"] is None
    code, printed, error = call(capsys, "bonds", "scan", out)
    assert code == 0 and "No model was fitted: rich and cheap is what lies off the curve fit" in " ".join(
        printed.split()
    )
    assert json.loads(call(capsys, "bonds", "scan", out, "--json")[1])
    for command in ("status", "verify", "report", "clean", "verify"):
        assert call(capsys, command, out)[0] == 0
    assert bond_words.verdict_lines(whole)[0] in (out / "report.html").read_text("utf-8")


# Names that look like markup, characters that a terminal lacks.


def test_brackets_and_other_scripts_in_names_are_kept(capsys, tmp_path):
    made = tables()
    odd = {made["bonds"]["id"][0]: "A[b]é", made["bonds"]["id"][1]: "[red]債券", made["bonds"]["id"][2]: "[/] ü"}
    for name in ("bonds", "quotes"):
        made[name]["id"] = [odd.get(bond, bond) for bond in made[name]["id"]]
    made["bonds"]["issuer"] = [f"[bold]Müller {issuer}" for issuer in made["bonds"]["issuer"]]
    folder = tmp_path / "données [x]"
    folder.mkdir()
    out = tmp_path / "OUT [é]"
    options = write(folder, made, "[i]é ")
    code, printed, error = call(capsys, "bonds", *QUICK, *options, "--out", out)
    assert code == 0 and "[i]é quotes.csv" in " ".join(printed.split()), error
    code, printed, _ = call(capsys, "bonds", "scan", out, "--top", "99")
    assert code == 0 and ("[bold]Müller" in printed) == ("clean" in printed)
    rows = json.loads(call(capsys, "bonds", "scan", out, "--json")[1])
    quoted = set(pq.read_table(out / results.SIGNALS)["bond"].to_pylist())
    assert {row["bond"] for row in rows} == quoted and set(odd.values()) & quoted
    assert all(row["issuer"].startswith("[bold]Müller") for row in rows)


def printed_in(encoding, monkeypatch, *arguments):
    """What a command prints where standard output has an encoding; its exit code has to be 0."""
    content = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding))
        assert main.main([*map(str, arguments)]) == 0
        sys.stdout.flush()
        return content.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_is_not_utf_8_is_no_error(tmp_path, monkeypatch, encoding):
    made = tables()
    made["bonds"]["issuer"] = [f"Müller 債券 {issuer}" for issuer in made["bonds"]["issuer"]]
    dates = sorted(set(made["quotes"]["date"]))[:2]  # too few for models
    keep = [k for k, date in enumerate(made["quotes"]["date"]) if date in dates]
    made["quotes"] = {name: [values[k] for k in keep] for name, values in made["quotes"].items()}
    out = tmp_path / "OUT"
    run = ("bonds", *QUICK, *write(tmp_path, made), "--out", out)
    assert "No model was fitted" in printed_in(encoding, monkeypatch, *run)
    printed = printed_in(encoding, monkeypatch, "bonds", "scan", out, "--top", 99)
    assert ("M?ller ??" if encoding == "ascii" else "Müller ??") in printed
    whole = json.loads(printed_in(encoding, monkeypatch, *run, "--json"))
    assert whole == json.loads((out / "summary.json").read_bytes())
    rows = json.loads(printed_in(encoding, monkeypatch, "bonds", "scan", out, "--json"))
    assert all(row["issuer"].startswith("Müller 債券") for row in rows)
