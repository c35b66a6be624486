"""The family sequence in the main job: stacked, scanned, walked forward, exported, and predicted on other panels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpupipe.artifacts import out_of_sample_store
from gpupipe.artifacts.layout import model_files
from gpupipe.artifacts.load import load
from gpupipe.backtest import Rules, backtest, sealed_test, walked
from gpupipe.dataset.lookback import Lookback
from gpupipe.pipeline import job
from gpupipe.serving.scan import scan
from gpupipe.store import fingerprint
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, cut, listen_to_training, tiny_market

pytest.importorskip("torch", reason="the family sequence trains with Torch")

LENGTH = 12
# Trains in seconds: a short window, few epochs, one convolution and two recurrent layers.
SMALL = (
    "sequence.network=fast", f"sequence.length={LENGTH}", "sequence.epochs=3", "sequence.step_rows=256",
    "labels.horizons=1", "labels.thresholds=0.02,0.04", "split.parts=2",
)  # fmt: skip
FAMILIES = ("xgb_joint", "linear", "sequence", "meta_learner")


def settings_of(*more, models=FAMILIES):
    return equity.make("fast", settings=[*QUICK, *SMALL, f"training.models={','.join(models)}", *more])


def day_of(time_ns) -> str:
    return str(np.datetime64(int(time_ns), "ns").astype("datetime64[D]"))


def odd_market():
    """The tiny market, with a symbol whose latest bars follow a gap, one with too few bars, and missing volumes."""
    market = tiny_market()
    market = cut(market, lambda k, bars: (k != 0) | (bars < 210) | (bars >= 252))
    market = cut(market, lambda k, bars: (k != 5) | (bars >= 205))
    volume = market.volume.copy()
    rows = slice(int(market.offsets[7]), int(market.offsets[8]))
    volume[rows][::9] = np.nan
    return market.replace(volume=volume)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(models, market, by sector the models of training and its split) of a run with all kinds of families."""
    out, market = tmp_path_factory.mktemp("family") / "OUT", odd_market()
    with pytest.MonkeyPatch.context() as patched:
        by_sector = listen_to_training(patched)
        chosen = settings_of("features.names=core,sector_rank_*", "split.walk_forward=2")
        tiny.execute(market, None, chosen, out, 2)
    return load(out), market, by_sector


@pytest.fixture(scope="module")
def models(trained):
    return trained[0]


def test_the_manifest_says_how_far_it_looks_back_and_files_are_shared(models):
    assert models.lookback == Lookback(LENGTH - 1) and models.manifest["lookback"]["rows"] == LENGTH - 1
    files = [models.out / name for name in model_files(models.manifest["files"]) if name.endswith(".safetensors")]
    assert len(files) == 3 * 2
    assert len({path.stat().st_ino for path in files}) == 1, "labels and sectors share one file"
    networks = {
        id(by_family["sequence"].network) for labels in models.by_group.values() for by_family in labels.values()
    }
    assert len(networks) == 1, "and one network in memory"
    for about in models.metadata.values():
        assert about["models"]["sequence"]["length"] == LENGTH


def test_all_families_are_fitted_and_judged_on_rows_with_whole_windows(trained):
    _, market, by_sector = trained
    for sector, (fitted, split) in by_sector.items():
        part = market.of_group(sector)
        first = part.offsets[:-1][part.symbol_of_row]
        for rows in (split.train, split.validation, split.test):
            assert (rows - first[rows] >= LENGTH - 1).all()
            assert (part.time_ns[rows] - part.time_ns[rows - LENGTH + 1] < 30 * 86_400 * 10**9).all()
        assert {len(fitted.test[family]) for family in FAMILIES} == {len(split.test)}
        for family in FAMILIES:
            assert np.isfinite(fitted.test[family]).all()
        assert len(np.unique(fitted.test["sequence"][:, 0, 2])) > 0.9 * len(split.test), "it tells rows apart"


def test_predictions_of_the_panel_are_those_of_training_to_the_last_bit(trained):
    models, market, by_sector = trained
    predictions = models.predict(market)
    compared = 0
    for sector, (fitted, split) in by_sector.items():
        rows = np.flatnonzero(np.array(market.sector)[market.symbol_of_row] == sector)
        for family in FAMILIES:
            for k, label in enumerate(fitted.labels):
                name = f"{family}_{label.removeprefix('label_')}"
                for part in ("test", "validation"):
                    there = getattr(fitted, part)[family][:, k]
                    assert np.array_equal(predictions.of(name)[rows[getattr(split, part)]], there), (sector, name)
                    compared += len(there)
    assert compared > 5_000


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_scanned_has_the_probability_of_the_whole_panel_to_the_last_bit(trained, family):
    models, market, _ = trained
    whole, compared = models.predict(market), 0
    for day in np.unique(market.time_ns)[[-1, -2, -30, -90]]:
        scanned = scan(models, market, family, day_of(day))
        of_symbol = {(signal.symbol, signal.label): signal for signal in scanned.signals}
        for k, symbol in enumerate(market.symbols):
            rows = slice(int(market.offsets[k]), int(market.offsets[k + 1]))
            at = rows.start + int(np.searchsorted(market.time_ns[rows], day, side="right")) - 1
            for label in ("1d_2pct", "1d_4pct"):
                expected = whole.of(f"{family}_{label}")[at] if at >= rows.start else [np.nan]
                if (symbol, label) not in of_symbol:
                    assert np.isnan(expected).all() or symbol in scanned.stale
                    continue
                signal = of_symbol[symbol, label]
                assert [signal.p_sell, signal.p_hold, signal.p_buy] == expected.tolist()
                compared += 1
    assert compared > 4 * 2 * 25


def test_a_symbol_after_a_gap_and_one_with_too_few_bars_are_not_predicted(trained):
    models, market, _ = trained
    predictions, compared = models.predict(market), scan(models, market, "sequence")
    for k in (0, 5):
        last = int(market.offsets[k + 1]) - 1
        assert np.isnan(predictions.values[last]).all()
    assert market.symbols[0] in compared.unpredicted
    at = int(market.offsets[0]) + 209
    assert np.isfinite(predictions.values[at]).all() and np.isnan(predictions.values[at + 1]).all()


def test_later_bars_change_no_earlier_prediction(trained):
    """The bits of all rows before a bar are the same without the later bars, and with others in their place."""
    models, market, _ = trained
    until = np.unique(market.time_ns)[-40]
    kept = market.time_ns <= until
    before = models.predict(market.take(kept, keep_empty=True)).values
    changed = {
        name: np.where(kept, market.columns[name], market.columns[name] * np.float32(3)).astype(np.float32)
        for name in ("open", "high", "low", "close", "volume")
    }
    expected = models.predict(market).values[kept]
    assert np.isfinite(expected).any(axis=(1, 2)).sum() > 1_000
    assert np.array_equal(before, expected, equal_nan=True)
    assert np.array_equal(models.predict(market.replace(**changed)).values[kept], expected, equal_nan=True)


def test_it_is_walked_forward_and_traded(trained):
    models, market, _ = trained
    summary = json.loads((models.out / "summary.json").read_text())
    measured = [row for row in summary["walk_forward"]["results"] if row["model"] == "sequence"]
    assert {row["label"] for row in measured} == {"label_1d_2pct", "label_1d_4pct"}
    assert all(row["n_origins"] == 2 and np.isfinite(row["gain_over_prior"]) for row in measured)
    assert {row["model"] for row in summary["models"] if row["kind"] == "model"} == set(FAMILIES)
    stored = out_of_sample_store.read(models.out, models.manifest)
    for source in (walked(stored, market), sealed_test(models, market)):
        result = backtest(source, Rules(side="both"))
        assert sum(name.startswith("sequence_") for name in source.names) >= 2 and len(result.trades.row) > 100


def test_the_report_shows_it(trained):
    pytest.importorskip("altair", reason="the report's charts need altair")
    from gpupipe import report

    page = report.write(trained[0].out).read_text()
    assert "sequence" in page


def test_its_models_are_exported_with_windows_as_input(trained, tmp_path):
    pytest.importorskip("onnx", reason="an export writes with onnx")
    from gpupipe.artifacts.onnx import export

    models, market, _ = trained
    real = {group: models.inputs(models.warm_rows(market.of_group(group)))[-50:] for group in models.by_group}
    exported = export.export(models, tmp_path, export.Wanted(), real)
    assert exported.failed == {} and len(exported.files) == 3 * 2 * len(FAMILIES)
    assert exported.largest_difference <= export.TOLERANCE


def test_bytes_do_not_depend_on_the_number_of_jobs(tmp_path):
    outs = []
    for jobs in (1, 2, 3):
        outs.append(tmp_path / f"OUT{jobs}")
        tiny.execute(tiny_market(), None, settings_of(models=("linear", "sequence", "meta_learner")), outs[-1], jobs)
    contents = [tiny_contents(out) for out in outs]
    assert contents[0] == contents[1] == contents[2] and len(contents[0]) >= 3 * 2 * 3


def tiny_contents(out):
    """Bytes of every published model."""
    names = model_files(json.loads((out / "manifest.json").read_text())["files"])
    return {name: (out / name).read_bytes() for name in names if not name.endswith("metadata.json")}


def test_the_key_of_a_run_names_the_version_of_torch_where_it_trains_with_it(monkeypatch):
    market, versions = tiny_market(), dict(fingerprint.versions())
    assert "torch" in versions

    def keys():
        chosen = (settings_of(), settings_of(models=("linear",)))
        return [job.run_key("ab12", settings, market.device) for settings in chosen]

    before = keys()
    monkeypatch.setattr(fingerprint, "versions", lambda: {**versions, "torch": "0.1"})
    of_library = fingerprint._version
    monkeypatch.setattr(fingerprint, "_version", lambda name: "0.1" if name == "torch" else of_library(name))
    after = keys()
    assert before[0] != after[0] and before[1] == after[1]
