"""gpupipe sequence: what its options set, what a run says and leaves, what it refuses in one line."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpupipe
from gpupipe.artifacts.onnx import export
from gpupipe.cli import main, sequence
from gpupipe.data import simulate
from gpupipe.estimators.torch.settings import PRESETS
from gpupipe.runtime.errors import UserError

QUICK = ("--models", "linear", "--set", "linear.max_iterations=10", "--preset", "fast", "--jobs", "1", "--skip-plots",
         "--horizons", "1")  # fmt: skip


def call(capsys, verb, *arguments):
    """Exit code, standard output and standard error of a command."""
    capsys.readouterr()
    code = main.main([verb, *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def request_of(*arguments):
    parser = main.parser_for(["sequence"])
    return sequence.request_of(parser.parse_args(["sequence", *arguments]))


def settings_of(*arguments):
    return request_of("--models", "linear", *arguments).job.settings()


def write_bars(path, n_bars=600, symbols=("btcusd_1h",), seed=3, **changes):
    """Hourly bars; without a column for the symbol where there is one symbol."""
    panel = simulate(n_symbols=len(symbols), n_bars=n_bars, seed=seed)
    table = panel.to_arrow().drop_columns(["sector", "symbol", "time"])
    hours = np.tile(np.datetime64("2020-01-01", "ns") + np.arange(n_bars) * np.timedelta64(1, "h"), len(symbols))
    table = table.append_column("timestamp", pa.array(hours).cast(pa.timestamp("ns", "UTC")))
    for name, values in changes.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.float32()))
    if len(symbols) > 1:
        table = table.append_column("symbol", pa.array(np.repeat(symbols, n_bars)))
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, OUT, printed) of a run on one file of one symbol, with a column from outside."""
    place = tmp_path_factory.mktemp("sequence")
    write_bars(place / "btcusd_1h.parquet")
    lines = [
        f"2020-01-{d:02d}T{h:02d}:30:00Z,{np.sin(7 * d + h):.3f},{'x' * d}" for d in range(1, 26) for h in (1, 9, 20)
    ]
    (place / "mood.csv").write_text("\n".join(["time,Mood,words", *lines]))
    from gpupipe.cli.guard import guarded

    request = request_of(
        *QUICK, "--data", str(place / "btcusd_1h.parquet"), "--symbol", "BTCUSD", "--timeframe", "1h", "--with",
        str(place / "mood.csv"), "--multiples", "1", "--out", str(place / "OUT"), "--json",
    )  # fmt: skip
    assert guarded(lambda: sequence.run(request), request.folder) == 0
    return place, place / "OUT"


def test_the_presets_are_printed_from_the_code(capsys):
    code, printed, _ = call(capsys, "sequence", "--list-presets", "--out", "nowhere")
    assert code == 0 and not os.path.exists("nowhere")
    lines = {line.split()[0]: line.split() for line in printed.splitlines() if line.strip()}
    for name, preset in PRESETS.items():
        shown = next(line for line in printed.splitlines() if line.split()[:1] == [name])
        expected = [preset.epochs, preset.batch, preset.length, preset.patience, f"{preset.rate:g}"]
        assert shown.split()[1:6] == [str(value) for value in expected]
    assert "bidirectional LSTM 120 + LN -> LSTM 60" in " ".join(printed.split()) and lines
    code, printed, _ = call(capsys, "sequence", "--list-presets", "--json")
    rows = {row["preset"]: row for row in json.loads(printed)}
    assert list(rows) == list(PRESETS) and rows["legacy"]["step_rows"] == 32 and rows["fast"]["step_rows"] == 1024


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (("--epochs", "7"), "sequence.epochs", 7), (("--sequence-length", "33"), "sequence.length", 33),
        (("--model-type", "quality"), "sequence.network", "quality"), (("--patience", "3"), "sequence.patience", 3),
        (("--learning-rate", "0.01"), "sequence.rate", 0.01), (("--precision", "bf16"), "sequence.precision", "bf16"),
        (("--batch-size", "96"), "sequence.batch", 96), (("--batch-size", "96"), "sequence.step_rows", 0),
        (("--folds", "4"), "split.walk_forward", 4), (("--horizons", "2,3"), "labels.horizons", (2, 3)),
        (("--thresholds", "0.03"), "labels.thresholds", (0.03,)),
        (("--multiples", "1,2"), "labels.multiples", (1.0, 2.0)),
        (("--thresholds", "none", "--multiples", "1"), "labels.thresholds", ()), (("--seed", "7"), "seed", 7),
        (("--features", "atb9,roc_5"), "features.names", ("atb9", "roc_5")),
        (("--pool", "all"), "training.pool", "all"), (("--features", "atb9"), "sequence.scaling", "minmax"),
        (("--features", "core"), "sequence.scaling", "standard"),
        (("--set", "sequence.clip=3.0"), "sequence.clip", 3.0), (("--preset", "legacy"), "sequence.length", 120),
        (("--features", "atb9", "--set", "sequence.scaling=standard"), "sequence.scaling", "standard"),
        (("--epochs", "7", "--set", "sequence.epochs=9"), "sequence.epochs", 7),
    ],
)  # fmt: skip
def test_every_option_reaches_the_settings(arguments, key, value):
    def of(settings):
        section, _, name = key.rpartition(".")
        return getattr(getattr(settings, section) if section else settings, name)

    assert of(settings_of(*arguments)) == value
    assert key == "sequence.scaling" or of(settings_of()) != value


def test_a_file_of_settings_is_above_what_features_imply(tmp_path):
    (tmp_path / "mine.toml").write_text('preset = "fast"\n[sequence]\nscaling = "standard"\nclip = 2.5\n')
    chosen = settings_of("--features", "atb9", "--config", str(tmp_path / "mine.toml"))
    assert (chosen.preset, chosen.sequence.scaling, chosen.sequence.clip) == ("fast", "standard", 2.5)


def test_a_run_reports_symbols_heads_and_columns_from_outside(finished):
    out = finished[1]
    whole = json.loads((out / "summary.json").read_bytes())
    assert {row["label"] for row in whole["models"]} == {
        "label_1d_1pct",
        "label_1d_2pct",
        "label_1d_1vol",
        "direction_1d",
    }
    notes = " ".join(whole["data"]["notes"])
    assert "from mood.csv, with_mood: known for 9" in notes and "with_words was left out: it holds text" in notes
    assert whole["settings"]["features"]["names"] == ["core", "with_mood"] and whole["data"]["sectors"] == {}
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["group_by"] == "symbol" and manifest["groups"] == ["btcusd_1h"]
    assert any(name.startswith("direction/btcusd_1h/1d/") for name in manifest["files"])
    assert (
        "horizon" in pq.read_schema(out / "summary.parquet").names
        and "multiple" in pq.read_schema(out / "summary.parquet").names
    )


def test_the_table_has_a_line_for_each_head(finished, capsys):
    place, out = finished
    bars, mood = place / "btcusd_1h.parquet", place / "mood.csv"
    base = (*QUICK, "--data", bars, "--with", mood, "--multiples", "1", "--out", out)
    code, printed, error = call(capsys, "sequence", *base)
    assert (code, error) == (0, "") and "Nothing to do" in printed  # by --symbol or not: the same symbol
    heads = [line.split()[0] for line in printed.splitlines() if line.strip().startswith("btcusd_1h ")]
    assert len(heads) == 4 and "1 bar, 1 x volatility" in printed and "no skill" in printed
    assert "reference" in printed and "bars (median)" in printed


def test_models_of_symbols_predict_scan_and_trade_without_a_sector_map(finished, capsys):
    place, out = finished
    bars, mood = place / "btcusd_1h.parquet", place / "mood.csv"
    models = gpupipe.load(out)
    assert models.group_by == "symbol"
    panel = gpupipe.read(bars, group_by="symbol", device="cpu")
    with pytest.raises(UserError, match="need the column from outside with_mood"):
        models.predict(panel)
    from gpupipe.data import outside

    panel, _ = outside.join(panel, mood, None)
    values = models.predict(panel).of("linear_direction_1d")
    assert values.shape == (600, 3) and np.isfinite(values[-1]).all()
    by_sector = panel.replace(group_by="sector")
    np.testing.assert_array_equal(models.predict(by_sector).of("linear_direction_1d"), values)
    code, printed, error = call(
        capsys,
        "scan",
        "--models",
        out,
        "--data",
        bars,
        "--with",
        mood,
        "--family",
        "linear",
        "--to",
        place / "all.json",
    )
    assert (code, error) == (0, ""), error
    assert "size that would say where a trade ends: 1d_1vol, direction_1d" in " ".join(printed.split())
    signals = json.loads((place / "all.json").read_bytes())
    signals = signals["signals"] if isinstance(signals, dict) else signals
    assert {signal["sector"] for signal in signals} == {"btcusd_1h"} and len(signals) == 2
    expected = models.predict(panel).of("linear_1d_1pct")[-1]
    assert [signals[0][name] for name in ("p_sell", "p_hold", "p_buy")] == pytest.approx(expected.tolist(), abs=0)
    code, printed, error = call(capsys, "backtest", "--models", out, "--data", bars, "--with", mood)
    assert (code, error) == (0, ""), error
    assert "the data trained on; Left out" in " ".join(printed.split())
    code, _, error = call(capsys, "scan", "--models", out, "--data", bars, "--family", "linear")
    assert code == 2 and "need the column from outside with_mood" in error and error.count("\n") == 1


def test_columns_from_outside_may_be_named_and_are_part_of_the_run(finished, tmp_path, capsys):
    place, out = finished
    base = (*QUICK, "--quiet", "--data", place / "btcusd_1h.parquet", "--multiples", "1")
    code, _, error = call(capsys, "sequence", *base, "--features", "core,with_mood", "--out", tmp_path / "none")
    assert code == 2 and "named need the column from outside with_mood" in error and not (tmp_path / "none").exists()
    two = tmp_path / "two.csv"
    two.write_text((place / "mood.csv").read_text().replace("Mood,words", "mood,noise").replace("xxx", "1"))
    named = ("--with", two, "--features", "core,with_mood")
    assert call(capsys, "sequence", *base, *named, "--out", tmp_path / "same") == (0, "", "")
    before, after = (json.loads((folder / "manifest.json").read_bytes()) for folder in (out, tmp_path / "same"))
    linear = "direction/btcusd_1h/1d/linear.npz"
    assert before["files"][linear] == after["files"][linear]  # the same columns, whatever else the files hold
    two.write_text(two.read_text().replace("Z,0.", "Z,0.9"))
    assert call(capsys, "sequence", *base, *named, "--out", tmp_path / "same") == (0, "", "")
    changed = json.loads((tmp_path / "same" / "manifest.json").read_bytes())
    assert changed["run_key"] != after["run_key"] and changed["files"][linear] != after["files"][linear]


def test_one_symbol_of_several_and_all_of_them(tmp_path, capsys):
    data = write_bars(tmp_path / "bars.parquet", 500, ("AAA", "B/B", "CCC"))
    base = (*QUICK, "--data", data, "--quiet")
    assert call(capsys, "sequence", *base, "--symbol", "AAA,B/B", "--folds", "2", "--set", "training.min_rows=20",
                "--out", tmp_path / "two") == (0, "", "")  # fmt: skip
    two = gpupipe.load(tmp_path / "two")
    assert set(two.by_group) == {"AAA", "B/B"} and (tmp_path / "two" / "direction" / "B%2FB" / "1d").is_dir()
    assert (tmp_path / "two" / "walk_forward" / "B%2FB.parquet").is_file()
    for source in ("sealed-test", "walk-forward"):
        code, printed, error = call(
            capsys, "backtest", "--models", tmp_path / "two", "--data", data, "--source", source
        )
        assert (code, error) == (0, "") and "the data trained on" in " ".join(printed.split()), error
    code, _, error = call(capsys, "sequence", *base, "--symbol", "AAB", "--out", tmp_path / "none")
    assert code == 2 and "no symbol 'AAB' in the data; did you mean 'AAA'?" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "fsat"), "unknown preset 'fsat'; did you mean 'fast'?"),
        (("--features", "atb8"), "features.names: no feature or family 'atb8'; the nearest is 'atb9'"),
        (("--timeframe", "4h"), "no bars of timeframe '4h'"), (("--folds", "60"), "more bars"),
        (("--sequence-length", "1"), "sequence.length = 1: expected 2 bars or more"),
        (("--batch-size", "0"), "sequence.batch"), (("--epochs", "0"), "sequence.epochs"),
        (("--with", "none.csv"), "none.csv"), (("--from", "nowhere"), "--from nowhere: no finished run is there"),
        (("--quantize", "int8", "--skip-onnx"), "leave one of them out"),
        (("--multiples", "1,x"), "--multiples 1,x: expected numbers"),
    ],
)  # fmt: skip
def test_what_the_user_must_mend_is_one_line_and_nothing_is_written(tmp_path, capsys, arguments, message):
    data = write_bars(tmp_path / "bars.parquet", 500)
    code, printed, error = call(capsys, "sequence", "--models", "linear", "--quiet", "--data", data, "--out",
                                tmp_path / "OUT", "--preset", "fast", *arguments)  # fmt: skip
    assert (code, printed, error.count("\n")) == (2, "", 1) and message in error, error
    assert not (tmp_path / "OUT").exists()


def test_a_missing_package_of_onnx_is_named_before_the_data_are_read(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch", reason="the family needs Torch")
    monkeypatch.setattr(export, "PACKAGES", ("no_such_package",))
    place = ("--quiet", "--data", tmp_path / "none.parquet", "--out", tmp_path / "OUT")
    code, printed, error = call(capsys, "sequence", *place)
    assert (code, printed, error.count("\n")) == (2, "", 1) and "an export needs no_such_package: pip install" in error
    code, _, error = call(capsys, "sequence", *place, "--skip-onnx")
    assert code == 2 and "none.parquet" in error and "no_such_package" not in error


def test_data_that_cannot_be_trained_on_are_refused_and_nothing_is_written(tmp_path, capsys):
    flat = np.full(500, 12.5, np.float32)
    for name, changes, message in (
        ("short", {"n_bars": 150}, "leave"),
        ("flat", dict.fromkeys(("open", "high", "low", "close"), flat), "every close is 12.5, and a constant series"),
        ("volume", {"volume": np.full(500, np.nan)}, "because no volume is"),
    ):
        data = write_bars(tmp_path / f"{name}.parquet", **{"n_bars": 500, **changes})
        code, printed, error = call(capsys, "sequence", *QUICK, "--quiet", "--data", data, "--out", tmp_path / "OUT")
        assert (code, printed, error.count("\n")) == (2, "", 1) and message in error, error
        assert not (tmp_path / "OUT").exists()


def test_networks_of_another_window_are_not_trained_on(finished, tmp_path, capsys):
    place, out = finished
    before = (out / "manifest.json").read_bytes()
    for arguments, message in (
        (("--sequence-length", "61"), "its networks have length 60, and this run has 61: add --sequence-length 60"),
        (("--model-type", "legacy"), "its networks have network fast, and this run has legacy: add --model-type fast"),
    ):
        base = ("--quiet", "--data", place / "btcusd_1h.parquet", "--from", out, "--out", tmp_path / "OUT")
        code, _, error = call(capsys, "sequence", *QUICK, *base, *arguments)
        assert code == 2 and message in error and not (tmp_path / "OUT").exists(), error
    assert (out / "manifest.json").read_bytes() == before
