"""What is taken from an earlier run and what is made again; and that the bytes are those of a run from nothing."""

from __future__ import annotations

import dataclasses
import functools
import shutil

import numpy as np
import pytest

from gpupipe.estimators import registry
from gpupipe.estimators.contract import EstimatorSettings
from gpupipe.pipeline.job import code_roots
from gpupipe.store import fingerprint
from gpupipe.store.cache import changed
from gpupipe.workloads import equity
from gpupipe.workloads.equity import recipe
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, cut, tiny_market

META = "meta_learner"
# xgb_leafwise is xgb_hist of another section, which here must be no matter of anything.
FAMILIES = ("xgb_joint", "xgb_hist", "random_forest", "linear")
TRAINED = (*FAMILIES, META)
STAGES = (1 + 2) * (1 + 3)  # the final fold and two parts; all sectors and each of three
# A value for each setting that is another than in the runs here, where adding to a number is not one.
OTHERS = {
    "labels.horizons": "2,3", "labels.thresholds": "0.02,0.05", "labels.rule": "first_touch",
    "labels.window": "calendar", "features.names": "momentum,rsi_14", "split.train": 0.55, "split.validation": 0.15,
    "split.parts": 3, "split.stacking": "forward", "split.walk_forward": 2, "split.window": "rolling",
    "split.cpcv": "4,1", "split.shares_until": "2015-11-20",
    "training.pool": "none", "training.sample_weight": "uniqueness",
    "training.class_weight": "balanced", "ml.feature_selection_top_n": 20, "ml.subsample": 0.25,
    "meta.inputs": "probabilities",
}  # fmt: skip
# What a family is asked for or lies in files of the user's own, and sections of families that are not trained here.
# training.spread asks for workers: see test_spread.
LEFT_OUT = (
    "training.models",
    "training.spread",
    "training.place",
    "features.modules",
    "preset",
    "tuned",
    "lightgbm",
    "catboost",
    "sequence",
)


def settings_of(*more):
    return equity.make("fast", settings=[*QUICK, f"training.models={','.join(TRAINED)}", "split.parts=2", *more])


def job(out, *more, panel=None):
    return tiny.execute(panel or tiny_market(), None, settings_of(*more), out, 1)[0]


def models_in(out, family="*"):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.glob(f"trained_*/*/*/{family}.*") if path.suffix != ".json"
    }  # fmt: skip


def unlike(summary):
    """A summary's measures, without times and what was taken from earlier runs."""
    left_out = ("seconds", "elapsed_s", "rows_per_second", "peak_bytes", "units", "bus_bytes", "run_key", "memory")
    rows = [{name: value for name, value in row.items() if name != "seconds_sector"} for row in summary["models"]]
    return {**{name: value for name, value in summary.items() if name not in left_out}, "models": rows}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run and its summary; not to be written to."""
    out = tmp_path_factory.mktemp("units") / "OUT"
    return out, job(out)


@pytest.fixture
def out(base, tmp_path):
    """A copy of that run to go on from, with links as they were made."""
    shutil.copytree(base[0], tmp_path / "OUT")
    return tmp_path / "OUT"


def all_settings():
    """Every setting there is, as "section.field", with its value in the runs here."""
    settings = settings_of()
    fields = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    values, sections = {}, fields.pop("sections")
    for name, value in {**fields, **sections}.items():
        if dataclasses.is_dataclass(value):
            values |= {f"{name}.{field.name}": getattr(value, field.name) for field in dataclasses.fields(value)}
        else:
            values[name] = value
    return {name: value for name, value in values.items() if not {name, name.partition(".")[0]} & {*LEFT_OUT}}


def settings_read_by(family):
    """Sections of an estimator and the shared settings that it declares, as in `all_settings`."""
    estimator = registry.estimator(family)
    return {*estimator.sections, *(f"training.{name}" for name in estimator.shared_settings)}


def other(name, value):
    """NAME=VALUE with another value that can be used."""
    if name in OTHERS:
        return f"{name}={OTHERS[name]}"
    if isinstance(value, bool):
        return f"{name}={str(not value).lower()}"
    if isinstance(value, int):
        return f"{name}={value + 1}"
    return f"{name}={value * 0.8 if value else 1.0}"


def test_a_setting_changes_the_keys_of_all_that_depends_on_it(base, tmp_path, monkeypatch):
    """Each setting changed by itself; then all that leave a family's keys as they were, at once: so must its bytes be.

    A key that forgets a setting would let a stale model pass for a new one.
    """
    by_sector = {sector: tiny_market().of_group(sector) for sector in SECTORS}
    original = recipe.compute_features
    computed = functools.cache(lambda sector, names: original(by_sector[sector], names))
    monkeypatch.setattr(recipe, "compute_features", lambda panel, names, *_: computed(panel.sector[0], names))
    harmless = {family: [] for family in TRAINED}
    for name, value in all_settings().items():
        asked = tiny.survey(tiny_market(), settings_of(other(name, value)), base[0])
        for family in TRAINED:
            # The meta-learner depends on all others.
            states = {s for unit, s in asked.states.items() if family == META or unit.split("/")[2] == family}
            if states == {"done"}:
                harmless[family].append(name)
    monkeypatch.undo()
    sections = {family: settings_read_by(family) for family in TRAINED}
    for family, found in harmless.items():
        own = {name for name in all_settings() if {name, name.partition(".")[0]} & sections[family]}
        assert not own & {*found}, family  # each is part of the keys
        others = {name for of in FAMILIES if of != family for name in sections[of]} - sections[family]
        assert family == META or {n for n in all_settings() if n.partition(".")[0] in others} <= {*found}, family
        assert not {"seed", "training.max_bin", "labels.horizons", "split.train", "features.names"} & {*found}
        values = all_settings()
        changes = [other(name, values[name]) for name in found]
        models = ",".join(TRAINED if family == META else [family])
        job(tmp_path / family, f"training.models={models}", *changes)
        assert models_in(tmp_path / family, family) == models_in(base[0], family) != {}, family


def test_a_family_can_read_no_setting_that_its_keys_do_not_name():
    linear, hist = (EstimatorSettings(settings_of(), registry.estimator(name)) for name in ("linear", "xgb_hist"))
    assert linear.linear == settings_of().linear and hist.min_positives == 20
    for settings, name in ((linear, "hist"), (linear, "early_stopping"), (hist, "split"), (hist, "seed")):
        with pytest.raises(AttributeError, match=r"is no part of its cache keys: declare it in `sections`"):
            getattr(settings, name)
    with pytest.raises(AttributeError):
        _ = hist.max_bin
    with pytest.raises(AttributeError):
        _ = hist.training
    with pytest.raises(AttributeError, match="leafwise"):
        hist.for_label("leafwise", "energy", "label_1d_2pct")
    with pytest.raises(AttributeError):
        _ = linear.values(None, None) and linear.meta


def test_another_threshold_makes_its_labels_and_what_learns_from_them(out, tmp_path):
    found = job(out, "labels.thresholds=0.02,0.05")
    fresh = job(tmp_path / "fresh", "labels.thresholds=0.02,0.05")
    assert models_in(out) == models_in(tmp_path / "fresh") and unlike(found) == unlike(fresh)
    # Two of four labels are as they were, in the family that fits each by itself: in 3 folds, pooled and by sector.
    assert found["units"]["model"] == {"reused": 2 * STAGES, "made": (2 + 3) * STAGES}
    assert fresh["units"]["model"] == {"reused": 0, "made": (4 + 3) * STAGES} and found["units"]["stack"]["made"] == 1
    assert found["units"]["why"]["labels"] > 0


def test_one_familys_section_is_no_matter_of_the_others(base, out, tmp_path):
    found = job(out, "linear.l2=30.0")
    assert found["units"]["model"] == {"reused": (4 + 2) * STAGES, "made": STAGES}
    assert found["units"]["prediction"] == {"reused": 3 * 3 * (2 + 2), "made": 3 * (2 + 2)}
    assert set(found["units"]["why"]) == {"linear.l2", "an input is computed again"}
    fresh = job(tmp_path / "fresh", "linear.l2=30.0")
    assert models_in(out) == models_in(tmp_path / "fresh") and unlike(found) == unlike(fresh)
    back = job(out)  # units of both runs stand side by side
    assert back["units"]["why"] == {} and models_in(out) == models_in(base[0]) and unlike(back) == unlike(base[1])


def with_changed(monkeypatch, name):
    """From now on a file of gpupipe has one comment more."""
    read = fingerprint.source
    assert (fingerprint.ROOT / name).is_file()
    more = {fingerprint.ROOT / name: b"\n# another thought\n"}
    monkeypatch.setattr(fingerprint, "source", lambda file: read(file) + more.get(file, b""))
    fingerprint.forget()


@pytest.fixture
def sources_as_before():
    yield
    fingerprint.forget()


def test_code_that_only_shows_what_was_found_changes_nothing(base, monkeypatch, sources_as_before):
    for name in ("cli/console.py", "cli/main.py", "cli/run.py", "cli/doctor.py", "pipeline/tune_job.py"):
        with_changed(monkeypatch, name)
    assert tiny.execute(tiny_market(), None, settings_of(), base[0], 1)[1] is False


def test_code_of_the_summary_is_run_again_and_nothing_is_trained(base, out, monkeypatch, sources_as_before):
    with_changed(monkeypatch, "artifacts/summary.py")
    found, worked = tiny.execute(tiny_market(), None, settings_of(), out, 1)
    assert worked and found["units"]["why"] == {} and found["units"]["model"]["made"] == 0
    assert models_in(out) == models_in(base[0]) and unlike(found) == unlike(base[1])
    assert found["run_key"] != base[1]["run_key"]


@pytest.mark.parametrize(("name", "families"), [
    ("estimators/linear/softmax_linear.py", {"linear"}), ("estimators/boosting/xgb_by_label.py", {"xgb_hist"}),
    ("estimators/training_set.py", set(FAMILIES)), ("estimators/linear/softmax_regression.py", {"linear", META}),
    ("kernels/labels.py", set()),
])  # fmt: skip
def test_code_of_a_family_is_part_of_its_keys(base, monkeypatch, sources_as_before, name, families):
    with_changed(monkeypatch, name)
    asked = tiny.survey(tiny_market(), settings_of(), base[0])
    odd = {unit.split("/")[2] for unit, state in asked.states.items() if state != "done"}
    assert odd - {META} == families - {META} and (META in odd) == bool(families)
    assert families == set() or "code" in asked.why


def test_imports_are_followed_where_they_are_written():
    linear = fingerprint.closure(["gpupipe.estimators.linear.softmax_linear"])
    assert {"gpupipe.estimators.training_set", "gpupipe.kernels.compile", "gpupipe.config.sections"} <= {*linear}
    assert not {
        "gpupipe.cli.console",
        "gpupipe.artifacts.summary",
        "gpupipe.estimators.boosting.xgb_joint",
        "gpupipe.targets.triple_barrier",
    } & {*linear}
    modules = [registry.module_of(name) for name in equity.DEFAULT_MODELS]
    whole = {*fingerprint.closure([*code_roots(equity.EQUITY), *modules], ())}  # as the run's key covers it
    assert {
        "gpupipe.artifacts.summary",
        "gpupipe.estimators.boosting.xgb_joint",
        "gpupipe.targets.triple_barrier",
        "gpupipe.kernels.labels",
    } <= whole
    assert not {"gpupipe.cli.console", "gpupipe.run", "gpupipe.cli.main"} & whole
    found = fingerprint.libraries(["gpupipe.estimators.boosting.xgb_joint"])
    assert {"python", "numpy", "numba", "xgboost"} <= {*found} and not {"lightgbm", "pyarrow", "rich"} & {*found}


def with_last_close(panel, sector, factor):
    """The panel with another close of each of a sector's symbols."""
    close = panel.close.copy()
    mine = [k for k, name in enumerate(panel.sector) if name == sector]
    at = panel.offsets[1:][mine] - 155  # in the second of three training parts
    close[at] = np.clip(close[at] * factor, panel.low[at], None)
    return panel.replace(close=close)


@pytest.mark.parametrize("pool", ["all", "none"])
def test_data_of_one_sector(tmp_path, pool):
    few = ("training.models=linear,xgb_hist,meta_learner", f"training.pool={pool}", "labels.thresholds=0.02")
    job(tmp_path / "OUT", *few)
    other_data = with_last_close(tiny_market(), "energy", np.float32(0.999))
    found = job(tmp_path / "OUT", *few, panel=other_data)
    fresh = job(tmp_path / "fresh", *few, panel=other_data)
    assert models_in(tmp_path / "OUT") == models_in(tmp_path / "fresh") and unlike(found) == unlike(fresh)
    counts = found["units"]["model"]
    if pool == "all":  # every unit learns from bins or weights of all sectors
        assert counts["reused"] == 0
    else:
        assert counts["reused"] == 2 * counts["made"] > 0


@pytest.mark.parametrize("bar", [255, 258])
def test_a_date_of_shares_whose_labels_are_not_known_is_told(tmp_path, caplog, bar):
    date = np.unique(tiny_market().time_ns)[bar].astype("datetime64[ns]").astype("datetime64[D]")
    job(tmp_path / "OUT", "training.models=linear", "labels.thresholds=0.02", f"split.shares_until={date}")
    assert ("an earlier date keeps the boundaries" in caplog.text) == (bar == 258)  # labels reach three bars


@pytest.mark.parametrize("until", ["", "date"])
def test_one_more_day(tmp_path, until):
    """FoldTimes are shares of the days, so that some move with a day more; of the days until a date none does."""
    yesterday = cut(tiny_market(), lambda k, bars: bars < 259)
    date = np.unique(tiny_market().time_ns)[255].astype("datetime64[ns]").astype("datetime64[D]")
    few = ["training.models=linear,xgb_hist,meta_learner", "labels.thresholds=0.02"]
    few += [f"split.shares_until={date}"] if until else []
    job(tmp_path / "OUT", *few, panel=yesterday)
    found = job(tmp_path / "OUT", *few)
    fresh = job(tmp_path / "fresh", *few)
    assert models_in(tmp_path / "OUT") == models_in(tmp_path / "fresh") and unlike(found) == unlike(fresh)
    assert found["run_key"] == fresh["run_key"]
    if until:
        assert found["units"]["model"]["made"] == found["units"]["stack"]["made"] == 0
        assert found["units"]["prediction"] == {"reused": 2 * 3 * (1 + 2), "made": 2 * 3}  # of the test rows
    else:
        assert found["units"]["model"]["made"] >= 2 * (1 + 3)  # at least the final fold's: its validation part moved


def test_importance_of_models_that_are_read_again_is_the_same(tmp_path):
    """A pooled booster is one object where it was fitted, and one for each sector where it was read from the store."""
    few = ["training.models=xgb_joint", "labels.thresholds=0.02", "labels.horizons=1"]
    job(tmp_path, *few)
    before = (tmp_path / "importance.json").read_bytes()
    for name in ("manifest.json", "importance.json"):
        (tmp_path / name).unlink()
    assert job(tmp_path, *few)["units"]["model"]["made"] == 0
    assert (tmp_path / "importance.json").read_bytes() == before


def test_what_is_said_of_a_change():
    before = {"settings": {"a": 1, "b": 2}, "code": "x", "models": ["1"]}
    assert changed(before, {**before, "settings": {"a": 1, "b": 3}, "models": ["2"]}) == ["b"]
    assert changed(before, {**before, "models": ["2"]}) == ["an input is computed again"]
    assert changed(before, before) == ["altered"]


def test_nothing_is_kept_where_nothing_shall_be(tmp_path):
    tiny.execute(tiny_market(), None, settings_of("training.models=linear"), tmp_path, 1, keep=False)
    assert [path.name for path in (tmp_path / ".gpupipe").iterdir()] == ["lock"]


def test_the_version_of_xgboost_is_told_without_importing_it():
    import xgboost

    assert fingerprint.xgboost_version() == xgboost.__version__
