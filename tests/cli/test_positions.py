"""gpupipe backtest --positions: what it prints, what it writes, what it refuses in one line."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.cli import main
from tests.backtest.test_position_measures import minutes, planted
from tests.backtest.test_position_trades import sticky
from tests.support.panels import random_panel


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(bars, positions with skill, those of a coin) as files."""
    folder = tmp_path_factory.mktemp("positions")
    panel, state = planted()
    times = pa.array(panel.time_ns + 10**18).cast(pa.timestamp("ns", "UTC"))
    bars = panel.to_arrow().drop_columns(["sector", "symbol", "time"]).append_column("timestamp", times)
    pq.write_table(bars, folder / "gold.parquet")
    for name, position in (("planted", state), ("coin", sticky(4000, 50, stay=0.95)[0])):
        pq.write_table(pa.table({"time": times, "position": position}), folder / f"{name}.parquet")
    return folder / "gold.parquet", folder / "planted.parquet", folder / "coin.parquet"


def call(capsys, *arguments):
    """Exit code, standard output and standard error of the command."""
    capsys.readouterr()
    code = main.main(["backtest", "--device", "cpu", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_table_and_the_files(files, capsys, tmp_path):
    bars, planted_file, coin = files
    out = tmp_path / "OUT"
    code, printed, _ = call(capsys, "--positions", planted_file, "--data", bars, "--out", out, "--trials", "20")
    assert code == 0 and "planted: skill." in printed and "buy and hold" in printed and "over 20 paths tried" in printed
    whole = json.loads((out / "statistics.json").read_bytes())
    assert whole["statistics"][0]["skill"] == "skill" and whole["positions"]["rows"] == 4000
    assert sorted(whole["files"]) == ["equity.parquet", "statistics.parquet", "trades.parquet"]
    assert pq.read_table(out / "trades.parquet").num_rows == whole["statistics"][0]["trades"]
    assert set(pq.read_table(out / "equity.parquet")["path"].to_pylist()) == {"planted", "buy_and_hold"}
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert call(capsys, "--positions", planted_file, "--data", bars, "--out", out, "--trials", "20")[0] == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before

    code, printed, _ = call(capsys, "--positions", coin, "--data", bars, "--out", out)
    assert code == 0 and "coin: no skill." in printed and "over 1 path tried" in printed
    assert json.loads((out / "statistics.json").read_bytes())["statistics"][0]["path"] == "coin"


def test_nothing_is_written_without_a_folder_and_json_is_json(files, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed, _ = call(capsys, "--positions", files[2], "--data", files[0], "--json", "--fill", "close",
                            "--size", "0.5", "--halts", "fill", "--commission", "0")  # fmt: skip
    whole = json.loads(printed)
    assert code == 0 and not list(tmp_path.iterdir())
    assert whole["rules"] == {"fill": "close", "halts": "fill", "size": 0.5, "commission_bps": 0.0, "spread_bps": 2.0,
                              "slippage_bps": 1.0}  # fmt: skip
    assert call(capsys, "--positions", files[2], "--data", files[0], "--quiet")[1] == ""


def test_several_symbols_have_rows_of_their_own(capsys, tmp_path):
    panel = minutes(random_panel((2000, 2000)))
    panel = panel.replace(time_ns=np.tile(minutes(random_panel((2000,))).time_ns, 2) + 10**18)
    table = panel.to_arrow()
    pq.write_table(table.drop_columns(["sector"]), tmp_path / "bars.parquet")
    positions = table.select(["symbol", "time"]).append_column("position", pa.array(sticky(4000, 1)[0]))
    pq.write_table(positions, tmp_path / "p.parquet")
    code, printed, _ = call(capsys, "--positions", tmp_path / "p.parquet", "--data", tmp_path / "bars.parquet")
    assert (
        code == 0 and all(name in printed for name in ("all", "S000", "S001")) and printed.count("buy and hold ") == 3
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ("--entry", "close"),
            "--entry: does not go with --positions, which needs no model: --fill open or close",
        ),
        (
            ("--call", "f1", "--overlapping"),
            "--call, --overlapping: does not go with --positions, which",
        ),
        (("--with", "x.csv"), "--with: does not go with --positions"),
        (("--portfolio", "long"), "--portfolio: does not go with --positions"),
        (("--size", "0"), "size 0.0: expected a multiple of the balance above 0"),
        (("--trials", "0"), "--trials 0: expected the number of paths that were tried, 1 or more"),
        (("--spread", "-1"), "spread_bps -1.0: expected basis points"),
    ],
)
def test_options_that_do_not_apply_are_refused(files, capsys, options, reason):
    code, printed, errors = call(capsys, "--positions", files[1], "--data", files[0], *options)
    assert (code, printed) == (2, "") and errors.startswith(f"gpupipe: {reason}") and errors.count("\n") == 1


def test_options_of_positions_alone_are_refused(capsys):
    code, _, errors = call(capsys, "--fill", "close", "--trials", "3")
    assert code == 2 and errors == "gpupipe: --fill, --trials: only with --positions FILE\n"


def test_positions_that_do_not_fit_are_one_line_and_nothing_is_written(files, capsys, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("time,position\n2024-01-01T00:00,1\n2024-01-01T00:15,7\n")
    code, _, errors = call(capsys, "--positions", path, "--data", files[0], "--out", tmp_path / "OUT")
    assert code == 2 and errors.count("\n") == 1 and "the first is 7 in row 2" in errors
    path.write_text("time,position\n2024-01-01T00:00,1\n2024-01-01T00:15,0\n")
    code, _, errors = call(capsys, "--positions", path, "--data", files[0], "--out", tmp_path / "OUT")
    assert code == 2 and errors.count("\n") == 1 and "no overlap: positions from 2024-01-01 to" in errors
    assert not (tmp_path / "OUT").exists()


def test_a_folder_of_another_backtest_is_left_alone(files, capsys, tmp_path):
    (tmp_path / "statistics.json").write_text('{"run_key": "x"}')
    code, _, errors = call(capsys, "--positions", files[1], "--data", files[0], "--out", tmp_path)
    assert code == 2 and "holds a statistics.json that is not of positions" in errors
    assert [file.name for file in tmp_path.iterdir()] == ["statistics.json"]
    code, _, errors = call(capsys, "--positions", files[1], "--data", files[0], "--out", tmp_path / "statistics.json")
    assert code == 2 and "is a file, expected a folder" in errors
