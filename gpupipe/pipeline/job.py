"""The job from a Panel to a finished OUT: resume what is there, lock, log, and run the workload's tasks."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from gpupipe.artifacts import summary
from gpupipe.artifacts.manifest import altered_files, read_manifest, write_manifest
from gpupipe.config import Config
from gpupipe.data import DataReport, data_hash
from gpupipe.data.panel import Panel
from gpupipe.estimators import registry
from gpupipe.features.formulas.registry import Module, load_modules
from gpupipe.pipeline.listener import Listener, logging_too
from gpupipe.pipeline.options import JobOptions
from gpupipe.pipeline.workload import JobContext, Keys, Workload
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import Device
from gpupipe.runtime.task_graph import available_cores
from gpupipe.store import fingerprint
from gpupipe.store.content_store import Store, dump_json, sha256
from gpupipe.training import warm_start

log = logging.getLogger("gpupipe")


def run_key(
    digest: str,
    settings: Config,
    device: Device,
    modules: Sequence[Module] = (),
    roots: Sequence[str] = ("gpupipe.pipeline.job", "gpupipe.workloads.equity"),
) -> str:
    """SHA-256 of all that decides what OUT holds: data, settings, code (the user's too), versions, the kind of device.

    roots: the modules whose code, with all that they import, makes it; what shows it on a console is no part of it.
    """
    own = [module.content.hex() for module in modules]
    unused = set(registry.optional()) - set(settings.training.models)
    computing = {name: version for name, version in fingerprint.versions().items() if name not in unused}
    code_roots = [*roots, *(registry.module_of(name) for name in settings.training.models)]
    parts = [digest, settings.digest(), fingerprint.code_hash(code_roots, ()), own, computing, device.kind]
    return sha256(dump_json(parts))


def code_roots(workload: Workload) -> tuple[str, ...]:
    """The modules that a job of this workload runs."""
    return ("gpupipe.pipeline.job", workload.place.partition(":")[0])


def execute(
    workload: Workload,
    panel: Panel,
    report: DataReport | None,
    settings: Config,
    out: str | os.PathLike[str],
    options: JobOptions | None = None,
    listener: Listener | None = None,
) -> tuple[dict[str, Any], bool]:
    """Run the job; return the summary and whether anything had to be done.

    A finished run of the same key is checked against its manifest and left as it is; of any other run, finished or
    killed, those results are reused whose inputs are the same, and only the others are made.
    Raises UserError where no memory plan stays below the limits, or there is no run to start from; StoreError, naming
    the holder, where another run holds OUT.
    """
    options, listener = options or JobOptions(), listener or Listener()
    workload.require(settings, options)
    store, workers = Store(out), options.workers
    modules = load_modules(settings.features.modules)
    digest = report.data_hash if report else data_hash(panel)
    cold_key = key = run_key(digest, settings, panel.device, modules, code_roots(workload))
    earlier = None
    if options.warm_start is not None:
        earlier = warm_start.read(options.warm_start, store)
        key = earlier.key(cold_key)
    here = earlier is not None and store.out.resolve() == pathlib.Path(str(options.warm_start)).resolve()
    keys, jobs = Keys(key, cold_key), workers.jobs if workers else options.jobs or available_cores()
    if _altered(store, keys, here) == []:
        return _with_tuning(store, options.tuning, options.wait_s), False
    # Limits are of each process.
    plan, reason = workload.memory_plan(panel, settings, workers.threads if workers else jobs, options.limits)
    with contextlib.ExitStack() as held:
        held.enter_context(store.lock("--out", options.wait_s, waiting(listener, store)))
        altered = _altered(store, keys, here)
        if altered == []:  # the run that this one waited for has made it
            return summary.read(store.out), False
        held.enter_context(run_log.opened(store.out, **first_event(panel, report, settings, key, jobs)))
        _warn_of_unused(panel, settings)
        if altered:
            log.warning(
                "%s was altered since it was written (%s): this run makes it again", store.out, ", ".join(altered[:3])
            )
        elif read_manifest(out) and not here:
            log.warning(
                "%s holds a finished run of other data, settings or code: this one takes its place",
                store.out,
                extra={"every_night": True},
            )
        watch = held.enter_context(memory.Watch())
        pool = None
        if workers:
            pool = held.enter_context(workers.running(workload, panel, settings, keys.run, plan, modules))
        if plan.jobs:
            jobs = plan.jobs * (pool.n_workers if pool else 1)
        if reason:
            log.warning("%s", reason)
        context = JobContext(
            panel, report, settings, modules, store, keys, jobs, logging_too(listener, watch), plan, reason, earlier,
            options.tuning, watch, pool,
        )  # fmt: skip
        finished = workload.run(context)
        if not options.keep:
            store.forget_units()
        return finished, True


def waiting(listener: Listener, store: Store) -> Callable[[str], None]:
    """Tell the listener whom a run waits for."""
    return lambda holder: listener.stage(f"waiting for {holder}, which uses {store.out}")


def first_event(panel: Panel, report: DataReport | None, settings: Config, key: str, jobs: int) -> dict[str, Any]:
    """The fields of the first line of a run's log."""
    return {
        "run_key": key, "settings": settings.digest(), "data": report.data_hash if report else None,
        "description": report.description if report else None, "code": fingerprint.code_hash([__name__], ()),
        "versions": fingerprint.versions(), "process": os.getpid(), "jobs": jobs, "device": panel.device.kind,
        "device_name": panel.device.name, "rows": panel.n_rows, "symbols": panel.n_symbols,
        "sectors": list(panel.groups),
    }  # fmt: skip


def _altered(store: Store, keys: Keys, here: bool) -> list[str] | None:
    """Files of OUT's finished run that differ from its manifest; None where it holds no finished run of this key.

    here: the run would start from OUT itself, where one of these data, settings and code has nothing to learn.
    """
    manifest = read_manifest(store.out)
    if not manifest or not (manifest["run_key"] == keys.run or (here and manifest.get("cold_key") == keys.cold)):
        return None
    return altered_files(store.out, manifest)


def _with_tuning(store: Store, tuning: dict[str, Any] | None, wait_s: float) -> dict[str, Any]:
    """The summary of a finished run, with the present record of its tuning: more trials may have found the same."""
    finished = summary.read(store.out)
    if tuning is not None and finished.get("tuning") != tuning:
        finished["tuning"] = tuning
        with store.lock("--out", wait_s):
            manifest = read_manifest(store.out) or {}
            others = {name: value for name, value in manifest.items() if name not in ("format", "run_key", "files")}
            entries = {**manifest["files"], **summary.write(store, finished)}
            write_manifest(store, manifest["run_key"], entries, {**others, "tuning": tuning})
    return finished


def _warn_of_unused(panel: Panel, settings: Config) -> None:
    """Warn of tuned values for a group that this run has not: a name misspelt would else pass in silence."""
    groups = {tuned.sector for tuned in settings.tuned} - set(panel.groups)
    if groups:
        log.warning("tuned values of %s are not used: this run has no such sector", ", ".join(sorted(groups)))
