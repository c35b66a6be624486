"""The job from a Panel to a finished OUT: resume, lock, log, and run the tasks of a workload."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpupipe.artifacts import summary
from gpupipe.artifacts.manifest import altered_files, read_manifest, write_manifest
from gpupipe.config import Config
from gpupipe.data import DataReport, data_hash
from gpupipe.data.panel import Panel
from gpupipe.estimators import registry
from gpupipe.features.formulas.registry import Module, load_modules
from gpupipe.kernels.cores import available_cores
from gpupipe.pipeline.kernels_ready import ready
from gpupipe.pipeline.listener import Listener, logging_too
from gpupipe.pipeline.options import JobOptions
from gpupipe.pipeline.workload import JobContext, Keys, Workload
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import Device
from gpupipe.store import fingerprint
from gpupipe.store.content_store import Store, sha256_of
from gpupipe.training import warm_start

log = logging.getLogger("gpupipe")


def run_key(
    digest: str,
    settings: Config,
    device: Device,
    modules: Sequence[Module] = (),
    roots: Sequence[str] = ("gpupipe.pipeline.job", "gpupipe.workloads.equity"),
) -> str:
    """SHA-256 of all inputs that decide the content of OUT: data, settings, code, user modules, versions, device kind.

    roots: the modules whose code, with the code of their imports, is part of the key; the console's code is not.
    """
    user_code = [module.content.hex() for module in modules]
    optional = registry.estimators(registry.optional())
    unused = {item.package for item in optional if item.name not in settings.training.models}
    code_roots = [*roots, *(registry.module_of(name) for name in settings.training.models)]
    versions = {**fingerprint.versions(), **fingerprint.libraries(code_roots, ())}
    computing = {name: version for name, version in versions.items() if name not in unused}
    parts = [digest, settings.digest(), fingerprint.code_hash(code_roots, ()), user_code, computing, device.kind]
    return sha256_of(parts)


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
    """Run a workload; returns the summary, and whether there was anything to do.

    A finished run with the same key is checked against its manifest and kept. Of any other run, finished or killed,
    results with equal inputs are reused, and only the others are computed.
    Raises UserError where no memory plan stays below the limits, or the warm start has no finished run; StoreError,
    naming the holder, where another run holds OUT.
    """
    options, listener = options or JobOptions(), listener or Listener()
    workload.require(settings, options)
    store, modules = Store(out), load_modules(settings.features.modules)
    digest = report.data_hash if report else data_hash(panel)
    start = _Start.of(run_key(digest, settings, panel.device, modules, code_roots(workload)), options, store)
    if start.altered(store) == []:
        return _with_tuning(store, options.tuning, options.wait_s), False
    workers, key = options.workers, start.keys.run
    jobs = workers.jobs if workers else options.jobs or available_cores()
    # Limits are for each process.
    plan, reason = workload.memory_plan(panel, settings, workers.threads if workers else jobs, options.limits)
    with contextlib.ExitStack() as stack:
        stack.enter_context(store.lock("--out", options.wait_s, waiting(listener, store)))
        altered = start.altered(store)
        if altered == []:  # the run that held the lock has finished this run
            return summary.read(store.out), False
        stack.enter_context(run_log.opened(store.out, **first_event(panel, report, settings, key, jobs)))
        _warn_of_unused(panel, settings)
        _warn_of_replaced(store, altered, start.from_out)
        watch = stack.enter_context(memory.Watch())
        pool = None
        if workers:
            pool = stack.enter_context(workers.running(workload, panel, settings, key, plan, modules))
        if plan.jobs:
            jobs = plan.jobs * (pool.n_workers if pool else 1)
        if reason:
            log.warning("%s", reason)
        logged = logging_too(listener, watch)
        context = JobContext(
            panel, report, settings, modules, store, start.keys, jobs, logged, plan, reason, start.earlier,
            options.tuning, watch, pool,
        )  # fmt: skip
        stack.enter_context(ready(workload.kernels_of(settings), panel.device, logged))
        finished = workload.run(context)
        if not options.keep:
            store.forget_units()
        return finished, True


@dataclass(frozen=True)
class _Start:
    """The start of a run: its keys, and the earlier run of a warm start.

    from_out: whether the earlier run is in the folder of this run.
    """

    keys: Keys
    earlier: warm_start.EarlierRun | None
    from_out: bool

    @classmethod
    def of(cls, cold_key: str, options: JobOptions, store: Store) -> _Start:
        """Read the earlier run, if there is a warm start. cold_key: the key of the run without it."""
        if options.warm_start is None:
            return cls(Keys(cold_key, cold_key), None, False)
        earlier = warm_start.read(options.warm_start, store)
        from_out = store.out.resolve() == pathlib.Path(str(options.warm_start)).resolve()
        return cls(Keys(earlier.key(cold_key), cold_key), earlier, from_out)

    def altered(self, store: Store) -> list[str] | None:
        """Files of OUT's finished run that differ from its manifest; None without a finished run of this key.

        A run that starts from OUT itself is finished where OUT has its data, settings and code.
        """
        manifest = read_manifest(store.out)
        if not manifest:
            return None
        same_inputs = self.from_out and manifest.get("cold_key") == self.keys.cold
        return altered_files(store.out, manifest) if manifest["run_key"] == self.keys.run or same_inputs else None


def waiting(listener: Listener, store: Store) -> Callable[[str], None]:
    """A callback that reports the holder of the lock to the listener."""
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


def _warn_of_replaced(store: Store, altered: list[str] | None, from_out: bool) -> None:
    """Warn where this run replaces altered files, or a finished run with another key."""
    if altered:
        log.warning(
            "%s was altered since it was written (%s): this run makes it again", store.out, ", ".join(altered[:3])
        )
    elif read_manifest(store.out) and not from_out:
        log.warning(
            "%s holds a finished run of other data, settings or code: this run replaces it",
            store.out,
            extra={"every_night": True},
        )


def _with_tuning(store: Store, tuning: dict[str, Any] | None, wait_s: float) -> dict[str, Any]:
    """The summary of a finished run with the present record of its tuning, which may count more trials than before."""
    finished = summary.read(store.out)
    if tuning is not None and finished.get("tuning") != tuning:
        finished["tuning"] = tuning
        with store.lock("--out", wait_s):
            manifest = read_manifest(store.out) or {}
            rest = {name: value for name, value in manifest.items() if name not in ("format", "run_key", "files")}
            entries = {**manifest["files"], **summary.write(store, finished)}
            write_manifest(store, manifest["run_key"], entries, {**rest, "tuning": tuning})
    return finished


def _warn_of_unused(panel: Panel, settings: Config) -> None:
    """Warn of tuned values for groups that this run does not have, such as a misspelt name."""
    groups = {tuned.sector for tuned in settings.tuned} - set(panel.groups)
    if groups:
        log.warning("tuned values of %s are not used: this run has no such sector", ", ".join(sorted(groups)))
