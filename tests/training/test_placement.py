"""The stages of a run by its settings and rows, the rates of a machine, and copies of the data for the other device."""

from __future__ import annotations

import dataclasses
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from gpupipe.dataset.dataset import MIRROR
from gpupipe.dataset.row_view import RowView
from gpupipe.dataset.window_marks import WindowMarks
from gpupipe.estimators import registry
from gpupipe.runtime import memory
from gpupipe.runtime.device import Device, pick
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.packing import ALIGNMENT
from gpupipe.runtime.placement import CPU, CUDA, Placement, Rate, Rates, Size
from gpupipe.runtime.task_graph import FoldSlot
from gpupipe.store.content_store import Store
from gpupipe.training import fold_data, groups, placement, placement_summary, rate_measurement, rates
from gpupipe.training.cache_keys import base_parts
from gpupipe.training.context import TrainingContext
from gpupipe.training.distributed.spread import _Features
from gpupipe.training.fold_data import FoldId
from gpupipe.training.fold_tasks import FoldTasks
from gpupipe.workloads import equity
from gpupipe.workloads.equity import EQUITY
from tests.support import tiny
from tests.support.matrices import dataset_of
from tests.support.says_cuda import SaysCuda
from tests.support.tiny import QUICK, SECTORS, tiny_market

GPU = Device("cuda", "a GPU", "as an example")
SETTINGS = equity.make("fast", settings=QUICK)


@pytest.fixture(scope="module")
def prepared():
    return tiny.prepare(tiny_market(), SETTINGS)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def decided(prepared, settings=SETTINGS, device=GPU):
    shape = placement.shape_of(prepared.datasets)
    return placement.decide(settings, shape, prepared.splits, device, rates.Known(Rates()))


def context_of(prepared, out, settings=SETTINGS, run_key="ab12", device=GPU, **more):
    store, times = None if out is None else Store(out), prepared.folds.published
    return TrainingContext(
        prepared.datasets, prepared.splits, times, settings, store, run_key, device, jobs=4, **more
    )  # fmt: skip


def test_every_stage_of_a_run_is_placed_and_bins_follow_the_trees(prepared):
    placed = decided(prepared)
    assert list(placed.stages) == [*placement.stage_names(SETTINGS), placement.BINS]
    on_host = [name for name in placed.stages if name.startswith(("linear", "meta"))]
    assert {placed.device(name) for name in on_host} == {CPU} and len(on_host) == 3
    trees = [f"{name}.{part}" for name in ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest")
             for part in ("pool", "group")]  # fmt: skip
    assert all(set(placed.stages[name].expected_s) == {CPU, CUDA} for name in trees)
    place = tuple(f"{name}=cpu" for name in trees)
    settings = SETTINGS.replace(training=dataclasses.replace(SETTINGS.training, place=place))
    nowhere = decided(prepared, settings)
    assert set(map(nowhere.device, [*trees, placement.BINS])) == {CPU}
    one = dataclasses.replace(settings.training, place=(*place, "xgb_joint.pool=cuda"))
    assert decided(prepared, settings.replace(training=one)).device(placement.BINS) == CUDA


def test_on_a_cpu_nothing_is_placed_and_nothing_is_kept(prepared, tmp_path):
    assert decided(prepared, device=pick("cpu")).stages == {}
    context = context_of(prepared, tmp_path / "OUT", device=pick("cpu"))
    assert placement.of_run(context).stages == {} and not (tmp_path / "OUT").exists()
    assert "place" not in SETTINGS.as_dict()["training"]


def test_a_resumed_run_keeps_its_placement_whatever_was_measured_since(prepared, tmp_path, cache):
    def placed(key):
        return placement.of_run(context_of(prepared, tmp_path / "OUT", run_key=key))

    first = placed("ab")
    fast = {kind: Rate(1e-9, 1e-18) for kind in rate_measurement.MEASURED_BY}
    slow = {kind: Rate(1.0, 1.0) for kind in rate_measurement.MEASURED_BY}
    rates.remember(GPU, {CPU: slow, CUDA: fast}, {}, "2026-01-02")
    assert placed("ab") == first
    other, store = placed("cd"), Store(tmp_path / "OUT")
    assert other.device("xgb_hist.group") == CUDA != first.device("xgb_hist.group")
    for number in range(20):  # the file does not grow without end
        placed(f"{number}")
    assert store.kept(placement.FILE).read_text().count('"home"') == placement.KEPT_RUNS + 1
    store.kept(placement.FILE).write_text("{half")
    assert placed("ab") == other


def test_the_placement_of_the_last_run_is_found_whether_it_was_resumed_or_had_workers(prepared, tmp_path, cache):
    store = Store(tmp_path)
    first = placement.of_run(context_of(prepared, tmp_path, run_key="ab"))
    fast = {kind: Rate(1e-9, 1e-18) for kind in rate_measurement.MEASURED_BY}
    rates.remember(GPU, {CPU: {kind: Rate(1.0, 1.0) for kind in fast}, CUDA: fast}, {}, "2026-01-02")
    second = placement.of_run(context_of(prepared, tmp_path, run_key="cd"))
    assert placement.of_last_run(store, SETTINGS, GPU) == second != first
    assert placement.of_run(context_of(prepared, tmp_path, run_key="ab")) == first
    assert placement.of_last_run(store, SETTINGS, GPU) == first
    with_workers = dataclasses.replace(context_of(prepared, tmp_path, run_key="ab"), workers=object())
    of_workers = placement.of_run(with_workers)
    assert placement.of_last_run(store, SETTINGS, GPU) == of_workers != first
    trees = ("xgb_joint.pool", "xgb_hist.group", "random_forest.group")
    assert {of_workers.device(name) for name in trees} == {CUDA}
    assert {of_workers.device(name) for name in ("linear.pool", "linear.group", "meta_learner")} == {CPU}
    assert placement.of_run(context_of(prepared, tmp_path, run_key="ab")) == of_workers
    assert placement.of_last_run(store, SETTINGS, pick("cpu")) == Placement(CPU)


def test_workers_fit_on_the_cpu_what_belongs_there(prepared):
    linear, trees = registry.estimators(["linear", "xgb_hist"])
    assert fold_data.where(linear, GPU).kind == CPU and fold_data.where(trees, GPU) is GPU
    placed = SETTINGS.replace(training=dataclasses.replace(SETTINGS.training, place=("xgb_joint=cuda",)))
    placement.check(placed, GPU)
    with pytest.raises(UserError, match="leave out --place or --workers"):
        placement.check(placed, GPU, workers=object())


def test_a_placement_without_the_stages_of_a_run_is_not_taken(prepared, tmp_path, cache):
    """A tuning has one key for all choices of families."""
    one = SETTINGS.replace(training=dataclasses.replace(SETTINGS.training, models=("xgb_hist",)))
    placement.of_run(context_of(prepared, tmp_path, one))
    assert placement.of_last_run(Store(tmp_path), SETTINGS, GPU) is None
    placed = placement.of_run(context_of(prepared, tmp_path))
    assert placed == decided(prepared) and placed.device("linear.pool") == CPU
    assert placement.of_last_run(Store(tmp_path), SETTINGS, GPU) == placed
    assert placement.of_last_run(Store(tmp_path), SETTINGS, pick("cpu")) == Placement(CPU)


def test_a_plan_that_fits_one_at_a_time_has_no_fits_beside_it(prepared):
    wanted = SETTINGS.replace(training=dataclasses.replace(SETTINGS.training, place=("xgb_hist=cuda",)))
    for plan, beside in ((memory.AS_IT_IS, True), (memory.LADDER[1], False)):
        context = context_of(prepared, None, wanted, plan=plan, placement=decided(prepared, wanted))
        fold = FoldId(context.times, SECTORS, None, (0, 1))
        tasks = FoldTasks(context, fold, ["xgb_hist", "linear"]).tasks(FoldSlot(0), [])
        assert any(task.on_device for task in tasks) == beside


def test_stages_and_devices_that_a_run_lacks_are_refused(prepared):
    def placed(*place):
        return SETTINGS.replace(training=dataclasses.replace(SETTINGS.training, place=place))

    placement.check(placed("xgb_joint=cpu"), pick("cpu"))
    for place, words in (("catboost=cpu", "expected one of xgb_joint"), ("linear=cuda", "the run is on the CPU")):
        with pytest.raises(UserError, match=words):
            decided(prepared, placed(place), pick("cpu"))
    assert placed("linear=cpu").as_dict()["training"]["place"] == ["linear=cpu"]
    assert placed("linear=cpu").digest() != SETTINGS.digest()


def test_rates_are_kept_for_a_machine_its_gpu_and_versions(cache, monkeypatch):
    assert rates.known(GPU) == rates.Known(Rates())
    measured = {CPU: {"forest": Rate(0.00123456, 1.26e-9)}, CUDA: {"forest": Rate(0.5, 0.0)}}
    path = rates.remember(GPU, measured, {"to_device": 2.345e10, "to_host": 1e10}, "2026-01-02")
    known = rates.known(GPU)
    assert path.is_relative_to(cache) and known.when == "2026-01-02" and known.rates.are_measured
    assert known.rates.of(CPU, "forest") == Rate(0.0012, 1.3e-9)
    assert known.rates.of(CPU, "boosting") == Rates().of(CPU, "boosting")  # not measured
    assert known.rates.copy_bytes_s["to_device"] == 2.3e10
    assert rates.known(Device("cuda", "another GPU", "")) == rates.Known(Rates())
    assert rates.known(pick("cpu")) == rates.Known(Rates())
    rates.remember(pick("cpu"), {CPU: {}}, {}, "2026-01-03")
    rates.remember(GPU, measured, {}, "2026-01-04")
    assert rates.known(GPU).when == "2026-01-04" and path.read_text().count("about") == 2
    monkeypatch.setattr(rates, "LIBRARIES", ("numpy",))
    assert rates.known(GPU) == rates.Known(Rates())
    path.write_text("no JSON")
    assert rates.known(pick("cpu")) == rates.Known(Rates())


def test_a_user_without_a_home_has_estimates_and_is_told_where_rates_would_be_kept(monkeypatch):
    monkeypatch.setattr(rates, "users_cache", lambda: None)
    assert rates.known(GPU) == rates.Known(Rates())
    with pytest.raises(UserError, match="set XDG_CACHE_HOME"):
        rates.remember(GPU, {}, {}, "2026-01-02")


def test_every_kind_of_work_is_measured_and_takes_time(monkeypatch):
    monkeypatch.setattr(rate_measurement, "SMALL", Size(300, 4, 1))
    monkeypatch.setattr(rate_measurement, "LARGE", Size(1200, 4, 2))
    monkeypatch.setattr(rate_measurement, "REPEATS", 1)
    told = []
    measured = rate_measurement.measure([pick("cpu")], told.append)
    kinds = {item.work(Size(100, 5, 2), SETTINGS, True).kind for item in registry.estimators(SETTINGS.training.models)
             if item.work(Size(100, 5, 2), SETTINGS, True)}  # fmt: skip
    assert kinds == set(measured.rates[CPU]) and measured.copy_bytes_s == {}
    assert told == [f"{kind} on cpu" for kind in rate_measurement.MEASURED_BY]
    assert all(rate.step_s + rate.value_s > 0 for rate in measured.rates[CPU].values())


def test_a_dataset_is_copied_once_and_its_bytes_are_counted_once():
    dataset = dataset_of(np.arange(40, dtype=np.float32).reshape(20, 2))
    other = SaysCuda()
    copies = []
    threads = [threading.Thread(target=lambda: copies.append(dataset.on(other))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(copy) for copy in copies}) == 1 and copies[0] is not dataset
    assert dataset.on(dataset.device) is dataset
    arrays = [getattr(dataset, name) for name in ("y", "time_ns", "end_time_ns", "warm", "usable", "offsets")]
    packed = sum(-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in (*arrays, *dataset.extra.values()))
    n_bytes = dataset.X.nbytes + packed
    assert other.ledger.as_dict() == {"to_device": {MIRROR: n_bytes}, "to_host": {}}


def test_rows_elsewhere_are_the_same_rows_with_their_own_weights():
    dataset = dataset_of(np.arange(40, dtype=np.float32).reshape(20, 2))
    other, rows = SaysCuda(), np.array([5, 3, 11])
    weight = np.full((3, dataset.n_targets), 2, np.float32)
    view = RowView(dataset, rows).with_weight(weight).of_columns(np.array([1]))
    there = view.on(other)
    assert view.on(dataset.device) is view
    assert there.dataset is dataset.on(other) and there.rows.tolist() == rows.tolist()
    assert np.array_equal(there.X, view.X) and np.array_equal(there.y, view.y)
    assert np.array_equal(there.weight, weight) and np.array_equal(there.time_ns, view.time_ns)


def test_trees_and_regressions_say_what_they_compute():
    size = Size(rows=1000, columns=50, targets=6)
    for item in registry.estimators(EQUITY.settings("fast").training.models):
        pooled, own = (item.work(size, EQUITY.settings("fast"), pooled) for pooled in (True, False))
        assert (pooled is None) == (own is None) == item.stacks
        if pooled is not None:
            assert min(pooled.steps, pooled.values, own.steps, own.values) > 0


def test_tasks_of_stages_on_the_gpu_occupy_it_and_have_keys_of_their_own(prepared):
    place = ("random_forest=cuda", "xgb_joint=cpu", "xgb_hist=cpu", "xgb_leafwise=cpu")
    settings = SETTINGS.replace(training=dataclasses.replace(SETTINGS.training, place=place))
    placed, times = decided(prepared, settings), prepared.folds.published
    context = context_of(prepared, None, settings, placement=placed)
    fold = FoldTasks(context, FoldId(times, SECTORS, None, (0, 1)), context.base_models)
    tasks = fold.tasks(FoldSlot(0), [])
    assert {task.kind for task in tasks if task.on_device} == {"random_forest pool", "random_forest"}
    devices = [context.device_of(f"{name}.pool").kind for name in ("random_forest", "linear", "xgb_joint")]
    assert devices == [CUDA, CPU, CPU] and context.device_of("meta_learner").kind == CPU
    forest = [base_parts("random_forest", device)["device"] for device in (GPU, pick("cpu"))]
    assert forest == [CUDA, CPU]
    on_host = context.on_host
    assert on_host.device.kind == CPU and on_host.device_of("random_forest.pool") is GPU
    with_workers = dataclasses.replace(context, workers=object())
    with_workers.placement = placement._of_workers(settings, CUDA)
    fold = FoldTasks(with_workers, FoldId(times, SECTORS, None, (0, 1)), context.base_models)
    assert not any(task.on_device for task in fold.tasks(FoldSlot(0), []))


def test_the_meta_learner_reads_no_features_that_workers_hold():
    def refused(rows):
        raise AssertionError("rows of X are fetched")

    dataset = dataset_of(np.arange(40, dtype=np.float32).reshape(20, 2))
    y, rows = np.arange(20, dtype=np.int8)[:, None] % 3, np.array([5, 3, 11])
    spread = dataclasses.replace(dataset, X=_Features((20, 2), refused), y=y)
    spread.__dict__["device"] = SaysCuda()
    context = SimpleNamespace(datasets={"energy": spread})
    context.on_host = context  # as with workers
    for device in (pick("cpu"), SaysCuda()):
        assert groups.targets_on(device, context, "energy", rows, (0,)).ravel().tolist() == [2, 0, 2]


def test_the_summary_says_where_stages_ran_and_how_long_they_took(prepared, tmp_path, cache):
    placed = decided(prepared)
    context = context_of(prepared, None, placement=placed)
    context.costs.observe("xgb_joint pool", 100, 2.5)
    GPU.ledger.add("to_host", 10**9)
    rates.remember(GPU, {CPU: {}, CUDA: {}}, {"to_device": 1e10, "to_host": 1e10}, "2026-01-02")
    section = placement_summary.section(context, Store(tmp_path), elapsed_s=10.0)["placement"]
    assert section["stages"]["xgb_joint.pool"]["took_s"] == 2.5
    assert section["rates"] == {"measured": [CPU, CUDA], "when": "2026-01-02"}
    assert section["bus"]["share"] == pytest.approx(0.01) and section["idle"] == {}
    devices = placement_summary.for_manifest({"placement": section})["placement"]
    assert devices == {name: placed.device(name) for name in placed.stages}
    of_cpu = dataclasses.replace(context, device=pick("cpu"), home=None, placement=None)
    assert placement_summary.section(of_cpu, Store(tmp_path), 10.0) == {} == placement_summary.for_manifest({})


def test_what_the_copy_came_from_is_found_again():
    dataset = dataset_of(np.arange(40, dtype=np.float32).reshape(20, 2))
    copy = dataset.on(SaysCuda())
    copy.__dict__["device"] = SaysCuda()
    assert copy.on(pick("cpu")) is dataset


def test_a_copy_has_the_arrays_and_the_digests_of_what_it_came_from():
    dataset = dataset_of(np.arange(40, dtype=np.float32).reshape(20, 2))
    complete = np.arange(20) % 3 == 0
    weight = np.arange(20 * dataset.n_targets, dtype=np.float32).reshape(20, -1)
    extra = {"a": np.arange(20, dtype=np.float32), "b": np.arange(20) > 7}
    dataset = dataclasses.replace(dataset, weight=weight, extra=extra, windows=WindowMarks(complete, 1, 2, 3))
    digests = dataset.row_digests
    copy = dataset.on(SaysCuda())
    for name in ("X", "y", "time_ns", "end_time_ns", "warm", "usable", "offsets", "weight"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(dataset, name), err_msg=name)
        assert getattr(copy, name).dtype == getattr(dataset, name).dtype
    assert list(copy.extra) == list(extra) and all(np.array_equal(copy.extra[name], extra[name]) for name in extra)
    assert copy.windows is not dataset.windows and copy.windows.n_gaps == 2
    np.testing.assert_array_equal(copy.windows.complete, complete)
    assert copy.row_digests is digests
