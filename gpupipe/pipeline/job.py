"""The job from a Panel to a finished OUT: prepare sectors, split, train, evaluate, publish, summarise."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpupipe import config
from gpupipe.artifacts import publish, summary
from gpupipe.artifacts.manifest import altered_files, entry_of, read_manifest, withdraw_manifest, write_manifest
from gpupipe.cross_validation import diagram
from gpupipe.data import DataReport, data_hash
from gpupipe.data import save as save_data_report
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.estimators import registry
from gpupipe.evaluation import calibration
from gpupipe.features.formulas.registry import Module, load_modules
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import Device, host_peak_bytes, pool_statistics
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.task_graph import available_cores, in_parallel
from gpupipe.store import fingerprint
from gpupipe.store.content_store import Store, dump_json, sha256, write_atomic
from gpupipe.targets.classes import CLASSES, N_CLASSES
from gpupipe.training import cross_validate, importance, planning
from gpupipe.training import warm_start as warm
from gpupipe.training.fold_tasks import Elsewhere
from gpupipe.training.groups import Trained, Work, train
from gpupipe.training.prepare import Prepared, prepare
from gpupipe.training.score import BASELINES, Baselines, Measured, add_intervals, measure

log = logging.getLogger("gpupipe")


@dataclass(frozen=True)
class Listener:
    """Who is told how a run goes; each function may be left as it is.

    started(totals): before training, with the counts "units", "rows", "sectors", "labels" and "models".
    advanced(text): after each unit, with its name.  stage(text): a new stage begins.
    """

    started: Callable[[dict[str, int]], None] = lambda totals: None
    advanced: Callable[[str], None] = lambda text: None
    stage: Callable[[str], None] = lambda text: None


class Workers(Protocol):
    """Workers of a cluster, for one run after another."""

    @property
    def jobs(self) -> int:
        """How many units they work on at the same time."""
        ...

    @property
    def threads(self) -> int:
        """How many units each of them works on at the same time."""
        ...

    def running(
        self, panel: Panel, settings: config.Config, key: str, plan: memory.Plan, modules: Sequence[Module]
    ) -> contextlib.AbstractContextManager[Elsewhere]:
        """Give them a run. key: of the run.  plan: how each of them goes about its memory."""
        ...


def run_key(
    digest: str,
    settings: config.Config,
    device: Device,
    modules: Sequence[Module] = (),
    root: str = "gpupipe.pipeline.job",
) -> str:
    """SHA-256 of all that decides what OUT holds: data, settings, code (the user's too), versions, the kind of device.

    root: the module whose code, with all that it imports, makes it; what shows it on a console is none of it.
    """
    own = [module.content.hex() for module in modules]
    unused = set(config.OPTIONAL_FAMILIES) - set(settings.training.models)
    computing = {name: version for name, version in fingerprint.versions().items() if name not in unused}
    parts = [digest, settings.digest(), fingerprint.code_hash([root], ()), own, computing, device.kind]
    return sha256(dump_json(parts))


def execute(
    panel: Panel,
    report: DataReport | None,
    settings: config.Config,
    out: str | os.PathLike[str],
    jobs: int | None = None,
    listener: Listener | None = None,
    limits: memory.Limits = memory.NO_LIMITS,
    tuning: dict[str, Any] | None = None,
    warm_start: str | os.PathLike[str] | None = None,
    wait_s: float = 0.0,
    keep: bool = True,
    workers: Workers | None = None,
) -> tuple[dict[str, Any], bool]:
    """Run the job; return the summary and whether anything had to be done.

    tuning: where tuned settings come from (`tune.section`), for the summary and the manifest.

    limits: memory that the run may take, by its estimate: the first plan of memory.LADDER that stays below is taken,
        which changes no result, and UserError is raised where none does.
    warm_start: the folder of a finished run whose models the final fold goes on from, where features, labels and
        settings are the same (see warm.py); it may be `out`. UserError when there is none.
    wait_s: how long to wait where another run holds OUT; then, or at once, StoreError names it.
    keep: let OUT hold the finished units, so that a later run can take those that nothing changed for.
    workers: of a cluster, which fit and predict in the place of this process; the models are the same.

    A finished run of the same key is checked against its manifest and left as it is; of any other run, finished or
    killed, those units are taken whose inputs are the same (`units`), and only the others are made.
    """
    registry.require(settings.training.models)
    if settings.training.spread:
        _require_spread(settings, workers, limits, warm_start)
    listener = listener or Listener()
    store = Store(out)
    modules = load_modules(settings.features.modules)
    cold_key = key = run_key(report.data_hash if report else data_hash(panel), settings, panel.device, modules)
    earlier = None
    if warm_start is not None:
        earlier = warm.read(warm_start, store)
        key = earlier.key(cold_key)
    here = earlier is not None and store.out.resolve() == pathlib.Path(str(warm_start)).resolve()
    keys, jobs = Keys(key, cold_key), workers.jobs if workers else jobs or available_cores()
    if _state(store, keys, here) == []:
        return _told_of_tuning(store, tuning, wait_s), False
    # Limits are of each process.
    plan, reason = planning.memory_plan(panel, settings, workers.threads if workers else jobs, limits)
    with contextlib.ExitStack() as held:
        held.enter_context(store.lock("--out", wait_s, waiting(listener, store)))
        altered = _state(store, keys, here)
        if altered == []:  # the run that this one waited for has made it
            return summary.read(store.out), False
        held.enter_context(run_log.opened(store.out, **about(panel, report, settings, key, jobs)))
        _warn_of_unused(panel, settings)
        if altered:
            log.warning(
                "%s was altered since it was written (%s): this run makes it again", store.out, ", ".join(altered[:3])
            )
        elif read_manifest(out) and not here:
            log.warning(
                "%s holds a finished run of other data, settings or code: this one takes its place", store.out,
                extra={"every_night": True},
            )  # fmt: skip
        watch = held.enter_context(memory.Watch())
        told = logging_too(listener, watch)
        elsewhere = None
        if workers:
            elsewhere = held.enter_context(workers.running(panel, settings, keys.run, plan, modules))
        if plan.jobs:
            jobs = plan.jobs * (elsewhere.homes if elsewhere else 1)
        whole = _execute(
            panel, report, settings, modules, store, keys, jobs, told, plan, reason, earlier, tuning, watch, elsewhere
        )
        if not keep:
            store.forget_units()
        return whole, True


def _require_spread(
    settings: config.Config, workers: Workers | None, limits: memory.Limits, warm_start: Any
) -> None:  # fmt: skip
    """UserError for what does not go with training.spread."""
    n = settings.training.spread
    if workers is None:
        raise UserError(f"training.spread = {n}: workers are to hold the rows: add --workers {n} or --scheduler")
    if limits != memory.NO_LIMITS:
        raise UserError("--memory and --spread: each worker keeps its own rows in memory; give more workers instead")
    if warm_start is not None:
        raise UserError("--warm-start and --spread: models of spread rows begin from nothing; leave one of them out")


def waiting(listener: Listener, store: Store) -> Callable[[str], None]:
    """Tell the listener whom a run waits for."""
    return lambda holder: listener.stage(f"waiting for {holder}, which uses {store.out}")


def about(panel: Panel, report: DataReport | None, settings: config.Config, key: str, jobs: int) -> dict[str, Any]:
    """What the first line of a run's log says."""
    return {
        "run_key": key, "settings": settings.digest(), "data": report.data_hash if report else None,
        "description": report.description if report else None, "code": fingerprint.code_hash([__name__], ()),
        "versions": fingerprint.versions(), "process": os.getpid(), "jobs": jobs, "device": panel.device.kind,
        "device_name": panel.device.name, "rows": panel.n_rows, "symbols": panel.n_symbols,
        "sectors": list(panel.sectors),
    }  # fmt: skip


def logging_too(listener: Listener, watch: memory.Watch | None = None) -> Listener:
    """The listener, and stages and totals go to the log of the run too."""

    def started(totals: dict[str, int]) -> None:
        run_log.event("totals", **totals)
        listener.started(totals)

    def stage(text: str) -> None:
        if watch:
            watch.stage(text)
        run_log.event("stage", stage=text)
        listener.stage(text)

    return Listener(started, listener.advanced, stage)


def _state(store: Store, keys: Keys, here: bool) -> list[str] | None:
    """Files of OUT's finished run that are not as its manifest says; None where it holds no finished run of this key.

    here: the run would go on from OUT itself, where one of these data, settings and code has nothing to learn.
    """
    manifest = read_manifest(store.out)
    if not manifest or not (manifest["run_key"] == keys.run or (here and manifest.get("cold_key") == keys.cold)):
        return None
    return altered_files(store.out, manifest)


def _told_of_tuning(store: Store, tuning: dict[str, Any] | None, wait_s: float) -> dict[str, Any]:
    """The summary of a finished run, with what is known of its tuning now: more trials may have found the same."""
    whole = summary.read(store.out)
    if tuning is not None and whole.get("tuning") != tuning:
        whole["tuning"] = tuning
        with store.lock("--out", wait_s):
            manifest = read_manifest(store.out) or {}
            about = {name: value for name, value in manifest.items() if name not in ("format", "run_key", "files")}
            entries = {**manifest["files"], **summary.write(store, whole)}
            write_manifest(store, manifest["run_key"], entries, {**about, "tuning": tuning})
    return whole


def _warn_of_unused(panel: Panel, settings: config.Config) -> None:
    """Say which tuned values are of a sector that this run has not: a name misspelt would else pass in silence."""
    sectors = {own.sector for own in settings.tuned} - set(panel.sectors)
    if sectors:
        log.warning("tuned values of %s are not used: this run has no such sector", ", ".join(sorted(sectors)))


def _warn_of_shares(prepared: Prepared, settings: config.Config) -> None:
    """Say where split.shares_until is so late that boundaries still move: labels of its last days are not known yet."""
    until = settings.split.shares_until
    if not until:
        return
    last = max(
        int(one.device.to_host(one.time_ns[one.usable]).max(initial=0)) for one in prepared.datasets.values()
    )  # fmt: skip
    if time_text(last)[:10] < until:
        log.warning(
            "split.shares_until = %s: the last day whose labels are known is %s, so that a day more moves the "
            "boundaries, until they are known; an earlier date keeps them", until, time_text(last)[:10],
        )  # fmt: skip


@dataclass(frozen=True)
class Keys:
    """run: of all that decides the models.  cold: without what the run went on from; the same where that is nothing."""

    run: str
    cold: str


def _execute(
    panel: Panel, report: DataReport | None, settings: config.Config, modules: Sequence[Module], store: Store,
    keys: Keys, jobs: int, listener: Listener, plan: memory.Plan, reason: str, earlier: warm.Warm | None,
    tuning: dict[str, Any] | None, watch: memory.Watch, elsewhere: Elsewhere | None,
) -> dict[str, Any]:  # fmt: skip
    began = time.perf_counter()
    if reason:
        log.warning("%s", reason)
    cache = store.cache if plan.files else None
    listener.stage("features and labels")
    prepared = prepare(panel, settings, cache, elsewhere.holders if elsewhere else None)
    _warn_of_shares(prepared, settings)
    work = Work(
        prepared.datasets, prepared.splits, prepared.folds.published, settings, store, keys.run, panel.device, jobs,
        cache=cache, plan=plan, elsewhere=elsewhere, advance=listener.advanced,
    )  # fmt: skip
    listener.started(planning.totals(panel, settings, prepared.folds))
    rehearsed = cross_validate.rehearse(work, prepared.folds, _baselines_say, listener.stage)
    listener.stage(f"training, {cross_validate.title(prepared.folds.published)}" if rehearsed else "training")
    if earlier:  # of the published fold alone: the others' validation and test parts hold rows it was fitted on
        going_on = warm.GoingOn(earlier, settings, prepared.datasets, prepared.splits, prepared.features_hash)
        work = dataclasses.replace(work, earlier=going_on)
    trained, skipped = train(work)
    listener.stage("evaluation")
    started = time.perf_counter()
    if earlier:
        warm.keep_replaced(earlier, store)
    withdraw_manifest(store)
    baselines = Baselines.learn(work, [one.sector for one in trained])
    measured = in_parallel([functools.partial(measure, work, one, baselines) for one in trained], jobs)
    resampled = add_intervals(measured, max(settings.labels.horizons), settings.seed)
    publishing = [functools.partial(_publish, work, panel, prepared, one, keys.run) for one in measured]
    results = in_parallel(publishing, jobs)
    validated = cross_validate.summarise(work, prepared.folds, rehearsed, trained, skipped, _baselines_say)
    seconds = {**prepared.seconds, **work.seconds, "evaluation": time.perf_counter() - started}
    entries = publish.publish_modules(store, modules)
    entries |= {path: entry for found, _ in results for path, entry in found.items()}
    rows = [row for _, found in results for row in found]
    whole = summary.build(
        rows=rows, resampled=resampled, skipped=skipped, settings=settings, report=report, panel=panel, seconds=seconds,
        elapsed_s=time.perf_counter() - began, versions=fingerprint.versions(), key=keys.run,
        split=planning.split_dates(prepared.folds.published, panel), peak_bytes=host_peak_bytes(), jobs=jobs,
    )  # fmt: skip
    told = {} if tuning is None else {"tuning": tuning}
    whole |= {**validated, **told, "units": work.ledger.about(), "memory": _memory(panel, plan, reason, watch)}
    if earlier:
        whole["warm_start"] = warm.about(earlier, rows)
    entries |= cross_validate.publish(work, panel, prepared.folds, rehearsed, trained)
    entries |= summary.write(store, whole)
    entries |= diagram.write(store, prepared.datasets, prepared.folds)
    entries |= _for_pictures(work, measured, trained)
    if report is not None:
        entries |= {path.name: entry_of(path.read_bytes()) for path in save_data_report(report, store.out)}
    publish.remove_strangers(store, entries)
    store.forget_runs(but=keys.run)
    write_manifest(
        store, keys.run, entries, {"settings": settings.as_dict(), "cold_key": keys.cold, **told}
    )  # fmt: skip
    for name, spent in whole["seconds"].items():
        run_log.event("seconds", stage=name, seconds=spent)
    run_log.event(
        "published", rows=panel.n_rows, files=len(entries), bytes=sum(entry["bytes"] for entry in entries.values()),
        models=len(rows), peak_bytes=whole["peak_bytes"],
    )  # fmt: skip
    store.forget_leftovers()
    return summary.read(store.out)


def _memory(panel: Panel, plan: memory.Plan, reason: str, watch: memory.Watch) -> dict[str, Any]:
    """What the summary says of memory: the plan and why, largest resident sets by stage, RMM's pool."""
    pool = pool_statistics() if panel.device.kind == "cuda" else {}
    return {"plan": plan.name, "reason": reason, "peak_bytes_by_stage": dict(watch.peaks), "device_pool": pool}


def _baselines_say(work: Work, trained: list[Trained]) -> Callable[[str, np.ndarray], dict[str, np.ndarray]]:
    """What the baselines say of some rows of a sector, learned as the models were."""
    baselines = Baselines.learn(work, [one.sector for one in trained])
    return lambda sector, rows: baselines.predict(work, sector, rows)


def _for_pictures(work: Work, measured: Sequence[Measured], trained: list[Trained]) -> dict[str, dict[str, Any]]:
    """Write what the report draws and the summary has not; return the manifest entries."""
    contents = {
        calibration.CURVES: calibration.parquet([line for one in measured for line in one.curves]),
        calibration.SHARES: calibration.parquet(calibration.label_shares(work.datasets)),
    }
    if (found := importance.measure(work, trained)) is not None:
        contents[importance.JSON] = dump_json(found)
    for name, content in contents.items():
        write_atomic(work.store.out / name, content)
    return {name: entry_of(content) for name, content in contents.items()}


def _publish(
    work: Work, panel: Panel, prepared: Prepared, measured: Measured, key: str
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Write the models of one sector with what was measured; return manifest entries and summary rows."""
    one = measured.trained
    dataset, cut = work.datasets[one.sector], work.splits[one.sector]
    y = work.device.to_host(dataset.y)
    parts = {"train": cut.train, "validation": cut.validation, "test": cut.test}
    entries: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for position, label in enumerate(one.labels):
        k = dataset.label_names.index(label)
        horizon, threshold = dataset.horizon_of_label[k], dataset.threshold_of_label[k]
        about = {name: found for (of, name), found in measured.found.items() if of == label}
        for name, found in about.items():
            model = one.models.get(name)
            rows.append(summary.model_row(
                one.sector, label, horizon, threshold, name, model[position] if model else None, len(cut.train),
                one.seconds.get(name), found.cutoffs, found.metrics,
            ))  # fmt: skip
        measures = {name: {"cutoffs": found.cutoffs, "metrics": found.metrics} for name, found in about.items()}
        metadata = {
            **_metadata(work, panel, prepared, one.sector, key),
            "label": label, "horizon": horizon, "threshold": threshold,
            "class_shares": {part: _shares(y[at, k]) for part, at in parts.items()},
            "baselines": {name: measures.pop(name) for name in BASELINES},
            "models": {name: {**own, "seconds_sector": one.seconds[name]} for name, own in measures.items()},
        }  # fmt: skip
        fitted = {family: found[position] for family, found in one.models.items()}
        entries |= publish.publish(work.store, one.sector, horizon, threshold, fitted, metadata)
    return entries, rows


def _metadata(work: Work, panel: Panel, prepared: Prepared, sector: str, key: str) -> dict[str, Any]:
    """What the six labels of a sector share."""
    dataset, cut = work.datasets[sector], work.splits[sector]
    time_ns = work.device.to_host(dataset.time_ns)
    parts = {"train": cut.train, "validation": cut.validation, "test": cut.test}
    return {
        "sector": sector,
        "symbols": [name for name, own in zip(panel.symbols, panel.sector, strict=True) if own == sector],
        "rows": {part: len(at) for part, at in parts.items()},
        "dates": {
            part: [time_text(int(time_ns[at].min())), time_text(int(time_ns[at].max()))] for part, at in parts.items()
        },
        "features": {"names": list(dataset.names), "hash": prepared.features_hash},
        "settings": work.settings.as_dict(),
        "versions": fingerprint.versions(),
        "run_key": key,
        "seconds": {**prepared.seconds, **work.seconds},
    }


def _shares(y: np.ndarray) -> dict[str, float]:
    counts = np.bincount(y[y >= 0], minlength=N_CLASSES)
    return {name: float(counts[c] / max(1, counts.sum())) for c, name in enumerate(CLASSES)}
