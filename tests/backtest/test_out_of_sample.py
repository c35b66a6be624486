"""`gpupipe backtest --source walk-forward`: the stored predictions, the models behind them, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from gpupipe import load, train
from gpupipe.artifacts import out_of_sample_store
from gpupipe.artifacts.manifest import read_manifest
from gpupipe.backtest import Rules, backtest, sealed_test, walked
from gpupipe.backtest.sources import InSampleError
from gpupipe.cli.main import main
from gpupipe.data.panel import PRICES
from gpupipe.evaluation.metrics import calls
from gpupipe.serving import signal_table
from gpupipe.serving.scan import scan
from gpupipe.store.content_store import StoreError
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, SOURCE, cut, tiny_market

FAMILIES = ("linear", "xgb_hist", "meta_learner")
DAY_NS = 86_400_000_000_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("walked") / "OUT"
    settings = (*QUICK, "split.walk_forward=3", "training.min_rows=20", "labels.thresholds=0.02", "hist.rounds=4")
    train(tiny_market(), "fast", out, settings=settings, jobs=1, training__models=FAMILIES)
    return out


@pytest.fixture(scope="module")
def kept(trained):
    return out_of_sample_store.read(trained, read_manifest(trained))


def command(out, *more):
    source = ("--models", str(out), "--data", SOURCE, "--sectors", ",".join(SECTORS), "--source", "walk-forward")
    return main(["backtest", *source, *more])


def test_every_warm_row_of_a_fold_s_test_is_kept_also_where_its_label_is_not_known(trained, kept):
    panel, origins = tiny_market(), json.loads((trained / "summary.json").read_bytes())["walk_forward"]["origins"]
    assert [window.name for window in kept.windows] == ["origin1", "origin2", "origin3"]
    source = walked(kept, panel)
    predicted = ~np.isnan(source.values).all(axis=(1, 2))
    assert predicted.sum() == sum(table.num_rows for table in kept.tables.values())
    # All rows from the first test on: the tiny market has no gaps, and is warm long before.
    np.testing.assert_array_equal(predicted, panel.time_ns >= kept.windows[0].from_ns)
    n_labelled = sum(origin["rows"]["test"] for origin in origins)
    assert predicted.sum() == n_labelled + 3 * panel.n_symbols  # the longest label: 3 bars
    for window, origin in zip(kept.windows, origins, strict=True):
        ends = np.datetime64(origin["validation"][1], "ns").astype(np.int64)
        assert ends < window.learned_until_ns < window.from_ns
    assert json.loads((trained / "manifest.json").read_bytes())["files"].keys() >= {
        "walk_forward/folds.json", *(f"walk_forward/{sector}.parquet" for sector in SECTORS)
    }  # fmt: skip


def test_the_last_fold_is_the_sealed_test_of_the_models_that_are_kept(trained, kept):
    panel = tiny_market()
    sealed, every = sealed_test(load(trained), panel), walked(kept, panel)
    last = panel.time_ns >= kept.windows[-1].from_ns
    assert every.names == sealed.names and len(every.names) == 6
    np.testing.assert_array_equal(every.values[last][..., [0, 2]], sealed.values[last][..., [0, 2]])
    np.testing.assert_allclose(every.values[last].sum(axis=2), 1, rtol=1e-6)
    np.testing.assert_array_equal(every.cutoffs[-1], sealed.cutoffs)
    assert (every.cutoffs[0] != every.cutoffs[-1]).any()  # each fold has chosen others
    assert np.isnan(sealed.values[~last]).all() and not np.isnan(every.values[panel.time_ns >= every.since_ns[0]]).any()


def test_rows_are_called_by_the_cutoffs_of_their_own_fold(kept):
    panel = tiny_market()
    result = backtest(source := walked(kept, panel), Rules(side="both"))
    at = np.flatnonzero(source.unseen())
    window = np.searchsorted(source.windows_ns, panel.time_ns[at], side="right") - 1
    sector = panel.group_of_symbol[panel.symbol_of_row[at]]
    assert set(window) == {0, 1, 2}
    for m, s, w in np.ndindex(len(source.families), len(panel.groups), 3):
        rows_of_fold = (sector == s) & (window == w)
        buy, sell = source.cutoffs[w, m, s]
        called = calls(source.values[at[rows_of_fold], m], {"buy": buy, "sell": sell})
        np.testing.assert_array_equal(result.calls[m][rows_of_fold], np.array([2, 0, 1])[called])


def test_no_probability_depends_on_what_came_after_its_fold_s_window(trained, kept, tmp_path):
    """Other prices after the first window's labels: predictions of the first fold stay, to the last bit."""
    panel = tiny_market()
    times = np.unique(panel.time_ns)
    after = panel.time_ns > times[np.searchsorted(times, kept.windows[1].from_ns) + 3]
    factor = np.exp(np.random.default_rng(0).normal(0, 0.05, panel.n_rows)).astype(np.float32)
    columns = {name: np.where(after, getattr(panel, name) * factor, getattr(panel, name)) for name in PRICES}
    changed = panel.replace(**columns)
    settings = (*QUICK, "split.walk_forward=3", "training.min_rows=20", "labels.thresholds=0.02", "hist.rounds=4")
    train(changed, "fast", tmp_path, settings=settings, jobs=1, training__models=FAMILIES)
    other = out_of_sample_store.read(tmp_path, read_manifest(tmp_path))
    first = panel.time_ns < kept.windows[1].from_ns
    before, again = walked(kept, panel), walked(other, changed)
    np.testing.assert_array_equal(before.values[first], again.values[first])
    np.testing.assert_array_equal(before.cutoffs[0], again.cutoffs[0])
    assert (before.values[after] != again.values[after]).any()


def test_the_command(trained, tmp_path, capsys):
    out = shutil.copytree(trained, tmp_path / "OUT")
    assert command(out, "--json") == 0
    statistics = json.loads(capsys.readouterr().out)
    assert statistics["source"] == "walk-forward of 3 folds" and len(statistics["statistics"]) == 4 * (6 + 1)
    first = json.loads((trained / "walk_forward/folds.json").read_bytes())["windows"][0]["from_ns"]
    assert statistics["from"] == str(np.datetime64(first, "ns").astype("datetime64[D]"))
    assert {row["trials"] for row in statistics["statistics"] if "trials" in row} == {6, 18}
    trades = pq.read_table(out / "backtest/trades.parquet")
    assert trades.num_rows == sum(row["trades"] for row in statistics["statistics"] if row.get("trades")) / 2
    assert command(out) == 0
    output = capsys.readouterr().out
    assert "walk-forward of 3 folds" in output and "Nothing to do" in output
    assert main(["backtest", "--models", str(out), "--data", SOURCE, "--sectors", ",".join(SECTORS), "--quiet"]) == 0
    sealed = json.loads((out / "backtest/statistics.json").read_bytes())
    assert sealed["source"] == "sealed test" and sealed["from"] > statistics["from"]
    assert {row["trials"] for row in sealed["statistics"] if "trials" in row} == {12, 36}  # both have been looked at
    assert command(out, "--families", "linear", "--sectors", "energy", "--json") == 0  # fewer models, as many trials
    fewer = json.loads(capsys.readouterr().out)["statistics"]
    assert {row["trials"] for row in fewer if "trials" in row} == {36} and len(fewer) == 2 + 1


def test_later_bars_change_nothing_and_other_bars_are_refused(trained, kept):
    panel = tiny_market()
    shorter = cut(panel, lambda k, bars: bars < 258)
    for wrong in (shorter, panel.replace(close=panel.close * np.float32(1.001))):
        with pytest.raises(ValueError, match="are not those that"):
            walked(kept, wrong)
    with pytest.raises(ValueError, match="not those"):  # not all symbols of a sector
        walked(kept, panel.where([name != panel.symbols[0] for name in panel.symbols]))
    energy = panel.of_group("energy")
    some = walked(kept, energy)
    in_energy = np.array(panel.sector)[panel.symbol_of_row] == "energy"
    np.testing.assert_array_equal(some.values, walked(kept, panel).values[in_energy])

    def tomorrow(name):
        values = getattr(panel, name).reshape(panel.n_symbols, -1)
        last = values[:, -1:] + (DAY_NS if name == "time_ns" else 0)
        return np.concatenate([values, last], axis=1).ravel()

    longer = panel.replace(
        **{name: tomorrow(name) for name in (*PRICES, "volume", "time_ns")},
        offsets=np.arange(panel.n_symbols + 1, dtype=np.int64) * 261,
    )
    before, after = backtest(walked(kept, panel)), backtest(walked(kept, longer))
    np.testing.assert_array_equal(before.trades.net, after.trades.net)
    assert before.times[-1] == after.times[-1]


def test_rows_that_a_fold_has_seen_are_refused(trained, kept, tmp_path, capsys):
    panel = tiny_market()
    window = kept.windows[1]
    for moved in ({"from_ns": window.from_ns + DAY_NS}, {"until_ns": window.until_ns - DAY_NS},
                  {"learned_until_ns": window.from_ns}):  # fmt: skip
        windows = (kept.windows[0], dataclasses.replace(window, **moved), kept.windows[2])
        with pytest.raises(InSampleError, match="only out-of-sample rows"):
            walked(dataclasses.replace(kept, windows=windows), panel)
    day_before = str(np.datetime64(kept.windows[0].from_ns - DAY_NS, "ns").astype("datetime64[D]"))
    assert command(trained, "--since", day_before) == 2
    assert "before the first fold's test" in capsys.readouterr().err
    out = shutil.copytree(trained, tmp_path / "OUT")
    (out / "walk_forward/energy.parquet").write_bytes(b"altered")
    with pytest.raises(StoreError, match=r"energy.parquet is gone or was altered"):
        out_of_sample_store.read(out, read_manifest(out))


def test_runs_without_a_walk_forward_and_cross_validations_are_refused(trained, tmp_path, capsys):
    out = tmp_path / "OUT"
    settings = (*QUICK, "labels.thresholds=0.02")
    shutil.copytree(trained, out)
    train(tiny_market(), "fast", out, settings=settings, jobs=1, training__models=("linear",))
    assert not (out / "walk_forward").exists()  # it belonged to the run that this run replaces
    for more, words in (((), "--walk-forward N"), (("--source", "cpcv"), "nobody could have traded")):
        assert command(out, *more) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert command(trained, "--families", "xgb_joint") == 2
    assert "no model 'xgb_joint'" in capsys.readouterr().err


def test_without_the_peers_of_the_training_a_backtest_and_a_scan_say_so(trained, kept, tmp_path, capsys):
    """An expected return is beyond the mean symbol of all sectors; --sectors leaves some of them out."""
    out = shutil.copytree(trained, tmp_path / "OUT")
    models, whole = load(out), tiny_market()
    part = tiny.in_sectors(whole, SECTORS[:2])
    for source in (sealed_test(models, whole), walked(kept, whole)):
        assert source.absent == ()
    for source in (sealed_test(models, part), walked(kept, part)):
        assert source.absent == SECTORS[2:]
    expected = f"compared without those of {SECTORS[2]}, with which the models were trained"
    for more in ((), ("--portfolio", "long")):
        assert command(out, "--sectors", ",".join(SECTORS[:2]), *more) == 0
        assert expected in " ".join(capsys.readouterr().out.split())
    assert expected in signal_table.left_out_sentences(scan(models, part, "linear"))[0]
    apart = dataclasses.replace(models, expected_returns={
        key: dataclasses.replace(learned) for key, learned in models.expected_returns.items()
    })  # fmt: skip
    assert sealed_test(apart, part).absent == ()
