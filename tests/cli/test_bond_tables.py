"""What `gpupipe bonds` and `gpupipe bonds scan` print: widths, brackets in names, simulated markets, JSON."""

from __future__ import annotations

import datetime
import io
import json
import math

import pyarrow as pa
import pytest

from gpupipe.cli import bond_tables, main
from gpupipe.cli.console import PIPE_WIDTH
from gpupipe.cli.plain_console import plain_console
from gpupipe.report import bond_words
from gpupipe.workloads.bonds import results, signals

REFERENCES = tuple(bond_tables.REFERENCES)
REAL, SIMULATED = {"kind": "bonds"}, {"kind": "simulated"}


def model(name, gain, skill):
    return {"model": name, "kind": "model", "rmse_bp": 1234.5, "rows": 1000, "rank_correlation": -0.12, "skill": skill,
            "gain_over": dict.fromkeys(REFERENCES, gain)}  # fmt: skip


def baseline(name):
    return {"model": name, "kind": "baseline", "rmse_bp": 1234.5, "rows": 1000,
            "gain_over": {name: [-54.473, -14.317, -5.4] for name in REFERENCES}}  # fmt: skip


def measured(*models):
    return {"chosen": models[0]["model"], "measured": [*map(baseline, REFERENCES), *models]}


def signal(bond="B1", side=signals.CHEAP, issuer="Issuer", **others):
    values = {"clean": 101.25, "fair_clean": 102.5, "spread": 2.5, "fair_spread": 2.25, "fair_low": 2.0,
              "fair_high": 2.4}  # fmt: skip
    about = {"bond": bond, "date": datetime.date(2024, 1, 31), "issuer": issuer, "rating": "BBB", "signal": side}
    return {**about, **values, **others}


def printed(show, *arguments, width=PIPE_WIDTH):
    stream = io.StringIO()
    show(plain_console(stream, width=width), *arguments)
    return stream.getvalue()


def shown(rows, most=10, data=REAL):
    return printed(bond_tables.show_signals, pa.Table.from_pylist(rows), most, data)


def test_models_fit_a_pipe_and_no_figure_is_cut_short():
    bonds = measured(
        model("automatic", [-0.993, -0.551, 0.996], "not known"), model("bayesian", [0.1, 0.2, 0.3], "skill")
    )
    text = printed(bond_tables.show_models, bonds)
    assert max(map(len, text.splitlines())) <= PIPE_WIDTH and "…" not in text
    lines = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert lines["automatic *"].count("-55.1 [-99.3, 99.6]") == 3 and lines["automatic *"].rstrip().endswith(
        "not known"
    )
    assert lines["bayesian"].count("20.0 [10.0, 30.0]") == 3 and lines["bayesian"].rstrip().endswith("skill")
    assert lines["last spread"].count("-1,432") == 3 and "[" not in lines["last spread"]


def test_a_model_without_rows_has_dashes():
    nothing = {**model("basic", [None] * 3, "not known"), "rmse_bp": None, "rank_correlation": None}
    text = printed(bond_tables.show_models, measured(nothing))
    assert text.count("not known") == 4


@pytest.mark.parametrize("name", ["A[b]C", "[red]", "[/]", "[link=x]y", ":smile:"])
def test_names_with_brackets_are_printed_as_they_are(name):
    text = shown([signal(bond=name, issuer=name)])
    assert text.count(name) == 2


def test_rich_and_cheap_bonds_are_at_most_so_many_of_each_and_fit():
    rows = [signal(f"US{k:010d}", side, "International Business Machines Corporation", clean=-12345.678)
            for side in (signals.RICH, signals.FAIR, signals.CHEAP) for k in range(4)]  # fmt: skip
    text = shown(rows, most=2)
    assert max(map(len, text.splitlines())) <= PIPE_WIDTH and "International Business ..." in text
    assert text.startswith("2024-01-31: 12 bonds, 4 cheap and 4 rich beyond the 90 % interval")
    sides = [line.split()[-1] for line in text.splitlines() if line.startswith(" US")]
    assert sides == ["cheap", "cheap", "rich", "rich"] and "2.25 [2.00, 2.40]" in text


def test_a_simulated_market_is_named_and_a_real_one_is_not():
    assert shown([signal()], data=SIMULATED).startswith("Simulated market. 2024-01-31")
    assert "imulated" not in shown([signal()]) and bond_words.market(REAL) == ""


def test_without_bonds_or_signals_there_is_no_table():
    assert shown([signal()][:0]) == "No bond has a fair value on the last date.\n"
    assert shown([signal(side=signals.FAIR)]).count("\n") == 1


def test_unknown_numbers_are_dashes_in_the_table_and_null_in_json():
    rows = [signal(fair_clean=math.nan, fair_low=None)]
    assert "2.25 [-, 2.40]" in shown(rows)
    (found,) = json.loads(json.dumps(bond_tables.rows_for_json(pa.Table.from_pylist(rows)), allow_nan=False))
    assert found["fair_clean"] is None and found["fair_low"] is None and found["date"] == "2024-01-31"


@pytest.mark.parametrize(
    ("skills", "sentence"),
    [
        (("skill", "no skill"), "Skill: a."),
        (("no skill", "no skill"), "No model has skill."),
        (("not known", "not known"), "Whether any model has skill is not known."),
        (("not known", "no skill"), "No model has skill."),
    ],
)
def test_skill_in_words(skills, sentence):
    bonds = measured(*(model(name, [0.1, 0.2, 0.3], skill) for name, skill in zip("ab", skills, strict=True)))
    assert bond_words.gain_sentence(bonds) == sentence
    assert ("no advice" in bond_words.skill_of_signals(bonds)) == (skills[0] != "skill")


def call(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    capsys.readouterr()
    code = main.main(["bonds", *map(str, arguments)])
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.mark.parametrize("arguments", [("scan",), ("scan", "OUT", "more"), ("look", "OUT")])
def test_words_that_mean_nothing_are_refused(capsys, arguments):
    code, _, error = call(capsys, *arguments)
    assert code == 2 and error.startswith("gpupipe: gpupipe bonds") and error.count("\n") == 1


def test_a_folder_without_a_run_is_refused(capsys, tmp_path):
    code, _, error = call(capsys, "scan", tmp_path)
    assert code == 2 and "holds no finished run of bonds" in error and error.count("\n") == 1


def test_scan_shows_the_last_date_of_a_run(capsys, tmp_path):
    pytest.importorskip("optuna")
    tiny = ("--n-bonds", 240, "--n-months", 36, "--set=search.trials=1", "--set=search.depths=3",
            "--set=forest.n_trees=25", "--set=network.epochs=2", "--set=boosting.rounds=5", "--jobs", 1,
            "--skip-plots")  # fmt: skip
    code, out, _ = call(capsys, *tiny, "--out", tmp_path)
    assert code == 0 and bond_words.market(SIMULATED) in out and max(map(len, out.splitlines())) <= PIPE_WIDTH
    code, out, error = call(capsys, "scan", tmp_path)
    assert (code, error) == (0, "") and out.startswith("Simulated market. 2017-12-29")
    assert "predicted the sealed test with" in out or "no advice" in out
    code, out, _ = call(capsys, "scan", tmp_path, "--json")
    rows = json.loads(out)
    assert code == 0 and rows and set(rows[0]) == set(signals.COLUMNS)
    assert len(rows) == sum(json.loads((tmp_path / "summary.json").read_text())["bonds"]["signals"].values())
    (tmp_path / results.SIGNALS).unlink()
    code, out, error = call(capsys, "scan", tmp_path)
    assert code == 2 and error.count("\n") == 1
