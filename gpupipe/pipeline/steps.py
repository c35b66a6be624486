"""StepsWorkload: a workload that is a graph of cached steps, in the place of a cross-fit on every group."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpupipe.artifacts import publish, summary
from gpupipe.artifacts.manifest import entry_of, withdraw_manifest, write_manifest
from gpupipe.config import Catalogue, Config, part_of, values_of
from gpupipe.data import data_hash
from gpupipe.data import save as save_data_report
from gpupipe.data.panel import Panel
from gpupipe.estimators.fit_context import FitContext
from gpupipe.evaluation.leaderboard import Measured
from gpupipe.pipeline.listener import Listener
from gpupipe.pipeline.options import JobOptions
from gpupipe.pipeline.workload import JobContext, Keys, load
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import host_peak_bytes
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.task_graph import Costs, Task, run_graph
from gpupipe.store import fingerprint
from gpupipe.store.cache import Cached, Request, ResultCache
from gpupipe.store.content_store import Store, sha256_of


@dataclass(frozen=True)
class Step:
    """A cached step of a workload.

    name: without "/".
    make(context, values): computes the value from the values of `needs`, by name. A long step keeps its progress in the
        folder that `context.fit` names, and finds it there again after a kill.
    save(store, value): the fields of its record, in the types of JSON; contents of the store are named under "arrays".
    load(store, record): the value.
    needs: names of the steps whose values it reads.
    sections: the settings on which it depends: names of sections, and of single fields ("agent.window"). The context
        that `make` gets has these settings and the seed, and raises AttributeError for others.
    reads_panel: whether it depends directly on the panel's rows, not only through the steps that it needs.
    reads(context, values): what it reads of the panel and of `needs`, in the types of JSON, where that is less than all
        of them: the step is not computed again while this stays equal. None: it depends on all of them.

        >>> double = Step("double", lambda context, values: 2 * values["price"], lambda store, value: {"value": value},
        ...               lambda store, record: record["value"], needs=("price",))
        >>> double.make(None, {"price": 21})
        42
    """

    name: str
    make: Callable[[JobContext, Mapping[str, Any]], Any]
    save: Callable[[Store, Any], dict[str, Any]]
    load: Callable[[Store, dict[str, Any]], Any]
    needs: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    reads_panel: bool = False
    reads: Callable[[JobContext, Mapping[str, Any]], Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """The results of a workload, concluded from the values of its steps.

    measured: rows of the summary with the bootstrap draws of their intervals; None where no losses are measured.
    files: contents to publish, by path below OUT.
    n_targets: number of targets of each group, trained or not.
    extra: further sections of the summary, by name.

        >>> outcome = Outcome(Measured([], None), {"curve.parquet": b"content"})
        >>> list(outcome.files), outcome.n_targets  # publishes OUT/curve.parquet
        (['curve.parquet'], 1)
    """

    measured: Measured | None
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    n_targets: int = 1
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class StepsWorkload:
    """A workload of cached steps, which `job.execute` runs. See `pipeline.workload.Workload` for its attributes.

    steps(panel, settings): the steps of a run, each after the steps that it needs.
    conclude(context, values): the outcome, from the values of all steps.
    kernels(settings): names of the kernels that a run calls, which are compiled before it begins.
    check(settings): raises UserError for missing packages and settings that exclude each other.
    peak_bytes(panel, settings, jobs): bytes that a process holds at most, about, with so many steps at a time; None
        where that is not known.  less_memory: what a user can do that takes less, in words.
    on_workers: whether the workers of a cluster can make the steps: these read nothing but the panel, the settings, the
        values that they need and `fit`, and their values can be pickled.

        >>> step = Step("rows", lambda context, values: context.panel.n_rows, lambda store, value: {"value": value},
        ...             lambda store, record: record["value"], reads_panel=True)
        >>> rows = StepsWorkload(
        ...     "rows", "rows:ROWS", None, lambda panel, settings: [step],
        ...     lambda context, values: Outcome(values["rows"]))
        >>> plan, reason = rows.memory_plan(None, None, 2, memory.NO_LIMITS)
        >>> plan.name, [step.name for step in rows.steps(None, None)]
        ('as it is', ['rows'])
    """

    name: str
    place: str
    catalogue: Callable[[], Catalogue]
    steps: Callable[[Panel, Config], Sequence[Step]]
    conclude: Callable[[JobContext, Mapping[str, Any]], Outcome]
    kernels: Callable[[Config], tuple[str, ...]] = lambda settings: ()
    check: Callable[[Config], None] = lambda settings: None
    peak_bytes: Callable[[Panel, Config, int], int] | None = None
    less_memory: str = "give less data"
    on_workers: bool = False

    def require(self, settings: Config, options: JobOptions) -> None:
        """Raise UserError for options that steps do not support, and for what `check` refuses."""
        self.check(settings)
        workers = None if self.on_workers else options.workers
        for option, given in (("--workers", workers), ("--warm-start", options.warm_start)):
            if given is not None:
                raise UserError(f"{option}: the workload {self.name} does not support this option; leave it out")

    def memory_plan(self, panel: Panel, settings: Config, jobs: int, limits: memory.Limits) -> tuple[memory.Plan, str]:
        """As many steps at once as jobs, or one. UserError for too low limits, and where the memory is not known."""
        if limits == memory.NO_LIMITS:
            return memory.AS_IT_IS, ""
        if self.peak_bytes is None or limits.device is not None:
            option = "--memory" if self.peak_bytes is None else "--device-memory"
            raise UserError(
                f"{option}: the memory of the workload {self.name} is not known before it runs; leave it out"
            )
        ladder = (
            memory.Estimate(memory.AS_IT_IS, self.peak_bytes(panel, settings, jobs)),
            memory.Estimate(memory.ONE_STEP, self.peak_bytes(panel, settings, 1)),
        )
        plan = memory.choose(ladder, limits, self.less_memory)
        return plan, "" if plan == memory.AS_IT_IS else memory.plan_sentence(ladder, plan, limits)

    def kernels_of(self, settings: Config) -> tuple[str, ...]:
        """The kernels that steps call, as far as they are known."""
        return self.kernels(settings)

    def run(self, context: JobContext) -> dict[str, Any]:
        """Run the missing steps and publish; returns the summary."""
        return _StepsJob(self, context).run()


class _StepsJob:
    """One run of a StepsWorkload."""

    def __init__(self, workload: StepsWorkload, context: JobContext) -> None:
        self.workload, self.context = workload, context
        self.results = ResultCache(context.store, context.keys.run)
        self.done: dict[str, Cached] = {}
        self.steps = tuple(workload.steps(context.panel, context.settings))

    def run(self) -> dict[str, Any]:
        """Run the missing steps and publish; returns the summary."""
        began, context, store = time.perf_counter(), self.context, self.context.store
        n_rows, groups = context.panel.n_rows, context.panel.groups
        counts = {"units": len(self.steps), "rows": n_rows, "sectors": len(groups), "labels": 1, "models": 1}
        context.listener.started(counts)
        context.listener.stage("steps")
        tasks: dict[str, Task] = {}
        for step in self.steps:
            needs = tuple(tasks[name] for name in step.needs)
            tasks[step.name] = Task(step.name, n_rows, functools.partial(self._run_step, step), needs)
        n_workers = context.workers.n_workers if context.workers else 1
        run_graph(list(tasks.values()), Costs(), context.jobs, n_workers=n_workers)
        context.listener.stage("evaluation")
        withdraw_manifest(store)
        outcome = self.workload.conclude(context, {name: result.value for name, result in self.done.items()})
        facts = summary.RunFacts(
            settings=context.settings, report=context.report, panel=context.panel,
            seconds={name: result.seconds for name, result in self.done.items()},
            elapsed_s=time.perf_counter() - began, versions=fingerprint.versions(), key=context.keys.run, split={},
            peak_bytes=host_peak_bytes(), jobs=context.jobs,
        )  # fmt: skip
        whole = summary.build(outcome.measured, (), facts, outcome.n_targets)
        plan = {"plan": context.plan.name, "reason": "", "peak_bytes_by_stage": dict(context.watch.peaks)}
        whole |= {**outcome.extra, "units": self.results.counts(), "memory": {**plan, "device_pool": {}}}
        entries = publish.publish_modules(store, context.modules)
        entries |= {path: store.publish(path, content) for path, content in outcome.files.items()}
        entries |= summary.write(store, whole)
        if context.report is not None:
            files = save_data_report(context.report, store.out)
            entries |= {path.name: entry_of(path.read_bytes()) for path in files}
        publish.remove_stale_files(store, entries)
        store.forget_runs(but=context.keys.run)
        settings = context.settings.as_dict()
        write_manifest(store, context.keys.run, entries, {"settings": settings, "cold_key": context.keys.cold})
        run_log.event("published", rows=n_rows, files=len(entries), peak_bytes=whole["peak_bytes"])
        store.forget_leftovers()
        return summary.read(store.out)

    def _run_step(self, step: Step, worker: int) -> None:
        began, context, store = time.perf_counter(), self.context, self.context.store
        values = {name: self.done[name].value for name in step.needs}
        name = f"{self.workload.name}//{step.name}"
        request = Request(name, self._parts(step, values))
        checkpoints = store.checkpoints(request.key)
        fit = FitContext(checkpoints, request.key, lambda text: context.listener.detail(f"{step.name}: {text}"))
        with context.panel.device.stage(step.name):
            result = self.results.cached(
                "step",
                request,
                lambda: self._made(step, values, fit, worker),
                lambda value: step.save(store, value),
                lambda record: step.load(store, record),
            )
        assert result is not None, "a run computes missing results"
        self.done[step.name] = result
        shutil.rmtree(checkpoints, ignore_errors=True)  # the result is in the store
        run_log.event(
            "unit", stage=step.name, unit=name, seconds=time.perf_counter() - began, rows=context.panel.n_rows,
            reused=result.reused, device=context.panel.device.kind, **({"worker": worker} if context.workers else {}),
        )  # fmt: skip
        context.listener.advanced(name)

    def _made(self, step: Step, values: Mapping[str, Any], fit: FitContext, worker: int) -> Any:
        """The value of a step, made by a worker where there are any, and else here."""
        context = self.context
        if context.workers is None:
            own = part_of(context.settings, step.sections)
            return step.make(dataclasses.replace(context, fit=fit, settings=own), values)
        arguments = (self.workload.place, step.name, context.keys, values)
        return context.workers.call(f"{self.workload.name}/{step.name}", made_on_worker, arguments, worker)

    def _parts(self, step: Step, values: Mapping[str, Any]) -> dict[str, Any]:
        """The parts of a step's cache key.  values: of the steps that it needs."""
        context, root = self.context, self.workload.place.partition(":")[0]
        if step.reads is None:
            data = self._data_hash() if step.reads_panel else ""
            read = {"data": data, "models": [self._content(self.done[name]) for name in step.needs]}
        else:
            read = {"data": step.reads(context, values), "models": []}
        return {
            "code": fingerprint.code_hash([root], ()),
            "libraries": fingerprint.libraries([root], ()),
            "device": context.panel.device.kind,
            "step": step.name,
            "settings": {"seed": context.settings.seed, **values_of(context.settings, step.sections)},
            **read,
        }

    def _data_hash(self) -> str:
        report = self.context.report
        return report.data_hash if report else data_hash(self.context.panel)

    @staticmethod
    def _content(result: Cached) -> str:
        """SHA-256 of a record without its duration."""
        return sha256_of({name: value for name, value in result.record.items() if name != "seconds"})


def made_on_worker(panel: Panel, settings: Config, place: str, name: str, keys: Keys, values: Mapping[str, Any]) -> Any:
    """The value of a step, on a worker, which keeps no progress: it may not reach the client's OUT.

    place: of the workload.  name: of the step.  values: of the steps that it needs.
    """
    workload = load(place)
    assert isinstance(workload, StepsWorkload), place
    step = next(step for step in workload.steps(panel, settings) if step.name == name)
    with tempfile.TemporaryDirectory(prefix="gpupipe-") as folder:
        context = JobContext(
            panel, None, part_of(settings, step.sections), (), Store(folder), keys, 1, Listener(), memory.AS_IT_IS, "",
            None, None, memory.Watch(), None,
        )  # fmt: skip
        return step.make(context, values)
