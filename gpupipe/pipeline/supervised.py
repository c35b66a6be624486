"""A supervised job: prepare datasets, split, cross-fit estimators, evaluate, publish, summarise."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.artifacts import publish, summary
from gpupipe.artifacts.manifest import entry_of, withdraw_manifest, write_manifest
from gpupipe.config import Config
from gpupipe.cross_validation import diagram
from gpupipe.data import DataReport
from gpupipe.data import save as save_data_report
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.evaluation import calibration
from gpupipe.features.formulas.registry import Module
from gpupipe.pipeline.listener import Listener
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import host_peak_bytes, pool_statistics
from gpupipe.runtime.task_graph import in_parallel
from gpupipe.store import fingerprint
from gpupipe.store.content_store import Store, dump_json, write_atomic
from gpupipe.training import cross_validate, importance, planning, warm_start
from gpupipe.training.context import TrainingContext, WorkerPool
from gpupipe.training.cross_validate import Published
from gpupipe.training.groups import GroupModels, train
from gpupipe.training.prepare import Prepared, prepare
from gpupipe.training.score import Baselines, GroupScores, add_intervals, score
from gpupipe.training.workload import Workload

log = logging.getLogger("gpupipe")


@dataclass(frozen=True)
class Keys:
    """run: of all that decides the models.  cold: without what the run started from; the same where that is nothing."""

    run: str
    cold: str


@dataclass(frozen=True)
class SupervisedJob:
    """One run of a supervised workload, with everything that it needs; see `job.execute`.

    reason: why the memory plan was chosen, in words.  earlier: the run that the final fold starts from.
    """

    workload: Workload
    panel: Panel
    report: DataReport | None
    settings: Config
    modules: Sequence[Module]
    store: Store
    keys: Keys
    jobs: int
    listener: Listener
    plan: memory.Plan
    reason: str
    earlier: warm_start.EarlierRun | None
    tuning: dict[str, Any] | None
    watch: memory.Watch
    workers: WorkerPool | None

    def run(self) -> dict[str, Any]:
        """Do all of it; the summary."""
        began = time.perf_counter()
        listener, store, settings, workload = self.listener, self.store, self.settings, self.workload
        cache = store.cache if self.plan.files else None
        listener.stage("features and labels")
        sharded = self.workers.sharded_rows if self.workers else None
        prepared = prepare(workload, self.panel, settings, cache, sharded)
        _warn_of_shares(prepared, settings)
        context = TrainingContext(
            prepared.datasets, prepared.splits, prepared.folds.published, settings, store, self.keys.run,
            self.panel.device, self.jobs, cache=cache, plan=self.plan, workers=self.workers, advance=listener.advanced,
        )  # fmt: skip
        folds = prepared.folds
        listener.started(planning.totals(workload, self.panel, settings, folds))
        evaluated = cross_validate.evaluate_folds(workload, context, folds, listener.stage)
        listener.stage(f"training, {cross_validate.title(folds.published)}" if evaluated else "training")
        if self.earlier:  # of the published fold alone: the others' validation and test hold rows it was fitted on
            start = warm_start.Starting(
                self.earlier, settings, prepared.datasets, prepared.splits, prepared.features_hash
            )
            context = dataclasses.replace(context, earlier=start)
        published = Published(*train(context))
        listener.stage("evaluation")
        started = time.perf_counter()
        if self.earlier:
            warm_start.keep_replaced(self.earlier, store)
        withdraw_manifest(store)
        scores = self._score(context, published.trained)
        resampled = add_intervals(scores, max(workload.target(settings).horizon_rows), settings.seed)
        publishing = [functools.partial(self._publish, context, prepared, group) for group in scores]
        results = in_parallel(publishing, self.jobs)
        validated = cross_validate.summarise(workload, context, folds, evaluated, published)
        seconds = {**prepared.seconds, **context.seconds, "evaluation": time.perf_counter() - started}
        entries = publish.publish_modules(store, self.modules)
        entries |= {path: entry for of_group, _ in results for path, entry in of_group.items()}
        rows = [row for _, of_group in results for row in of_group]
        facts = summary.RunFacts(
            settings=settings, report=self.report, panel=self.panel, seconds=seconds,
            elapsed_s=time.perf_counter() - began, versions=fingerprint.versions(), key=self.keys.run,
            split=planning.split_dates(folds.published, self.panel), peak_bytes=host_peak_bytes(), jobs=self.jobs,
        )  # fmt: skip
        judged = summary.Judged(rows, resampled, published.skipped, workload.reference_tables)
        whole = summary.build(judged, facts, n_targets=len(workload.target(settings).names))
        tuning = {} if self.tuning is None else {"tuning": self.tuning}
        whole |= {**validated, **tuning, "units": context.results.counts(), "memory": self._memory()}
        if self.earlier:
            whole["warm_start"] = warm_start.counts(self.earlier, rows)
        entries |= cross_validate.publish(context, self.panel, folds, evaluated, published.trained)
        entries |= summary.write(store, whole)
        entries |= diagram.write(store, prepared.datasets, folds)
        entries |= _for_pictures(context, scores, published.trained)
        if self.report is not None:
            entries |= {path.name: entry_of(path.read_bytes()) for path in save_data_report(self.report, store.out)}
        publish.remove_strangers(store, entries)
        store.forget_runs(but=self.keys.run)
        write_manifest(
            store, self.keys.run, entries, {"settings": settings.as_dict(), "cold_key": self.keys.cold, **tuning}
        )
        for name, spent in whole["seconds"].items():
            run_log.event("seconds", stage=name, seconds=spent)
        run_log.event(
            "published", rows=self.panel.n_rows, files=len(entries),
            bytes=sum(entry["bytes"] for entry in entries.values()), models=len(rows), peak_bytes=whole["peak_bytes"],
        )  # fmt: skip
        store.forget_leftovers()
        return summary.read(store.out)

    def _score(self, context: TrainingContext, trained: Sequence[GroupModels]) -> list[GroupScores]:
        baselines = Baselines.learn(self.workload, context, [models.group for models in trained])
        calls = [functools.partial(score, self.workload, context, models, baselines) for models in trained]
        return in_parallel(calls, self.jobs)

    def _memory(self) -> dict[str, Any]:
        """For the summary: the memory plan and why, the largest resident sets by stage, RMM's pool."""
        pool = pool_statistics() if self.panel.device.kind == "cuda" else {}
        return {
            "plan": self.plan.name, "reason": self.reason, "peak_bytes_by_stage": dict(self.watch.peaks),
            "device_pool": pool,
        }  # fmt: skip

    def _publish(
        self, context: TrainingContext, prepared: Prepared, scores: GroupScores
    ) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
        """Write the models of one group with their measures; return manifest entries and summary rows."""
        trained = scores.trained
        dataset, split = context.datasets[trained.group], context.splits[trained.group]
        target, y = dataset.target, context.device.to_host(dataset.y)
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        entries: dict[str, dict[str, Any]] = {}
        rows: list[dict[str, Any]] = []
        for position, label in enumerate(trained.labels):
            k = target.names.index(label)
            identity = {"sector": trained.group, "label": label, **target.parameters[k]}
            of_label = {name: found for (of, name), found in scores.scores.items() if of == label}
            for name, found in of_label.items():
                models = trained.models.get(name)
                rows.append(
                    summary.model_row(
                        identity,
                        name,
                        models[position] if models else None,
                        len(split.train),
                        trained.seconds.get(name),
                        found.cutoffs,
                        found.metrics,
                    )  # fmt: skip
                )
            measures = {name: {"cutoffs": found.cutoffs, "metrics": found.metrics} for name, found in of_label.items()}
            baselines = {baseline.name: measures.pop(baseline.name) for baseline in self.workload.baselines}
            metadata = {
                **self._metadata(context, prepared, trained.group), **identity,
                "class_shares": {part: _class_shares(y[at, k], target.class_names) for part, at in parts.items()},
                "baselines": baselines,
                "models": {
                    name: {**found, "seconds_sector": trained.seconds[name]} for name, found in measures.items()
                },
            }  # fmt: skip
            fitted = {name: models[position] for name, models in trained.models.items()}
            entries |= publish.publish(self.store, target.folder(k, trained.group), fitted, metadata)
        return entries, rows

    def _metadata(self, context: TrainingContext, prepared: Prepared, group: str) -> dict[str, Any]:
        """What all targets of a group share."""
        dataset, split = context.datasets[group], context.splits[group]
        time_ns = context.device.to_host(dataset.time_ns)
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        panel = self.panel
        return {
            "sector": group,
            "symbols": [name for name, of in zip(panel.symbols, panel.group, strict=True) if of == group],
            "rows": {part: len(at) for part, at in parts.items()},
            "dates": {
                part: [time_text(int(time_ns[at].min())), time_text(int(time_ns[at].max()))]
                for part, at in parts.items()
            },
            "features": {"names": list(dataset.names), "hash": prepared.features_hash},
            "settings": self.settings.as_dict(),
            "versions": fingerprint.versions(),
            "run_key": self.keys.run,
            "seconds": {**prepared.seconds, **context.seconds},
        }


def _class_shares(y: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Share of each class among the known values; empty for other kinds of targets."""
    if not names:
        return {}
    counts = np.bincount(y[y >= 0], minlength=len(names))
    return {name: float(counts[c] / max(1, counts.sum())) for c, name in enumerate(names)}


def _warn_of_shares(prepared: Prepared, settings: Config) -> None:
    """Warn where split.shares_until is so late that boundaries still move: its last days have no labels yet."""
    until = settings.split.shares_until
    if not until:
        return
    last = max(int(d.device.to_host(d.time_ns[d.usable]).max(initial=0)) for d in prepared.datasets.values())
    if time_text(last)[:10] < until:
        log.warning(
            "split.shares_until = %s: the last day whose labels are known is %s, so that a day more moves the "
            "boundaries, until they are known; an earlier date keeps them",
            until,
            time_text(last)[:10],
        )


def _for_pictures(
    context: TrainingContext, scores: Sequence[GroupScores], trained: list[GroupModels]
) -> dict[str, dict[str, Any]]:
    """Write what the report draws and the summary does not hold; return the manifest entries."""
    contents = {
        calibration.CURVES: calibration.parquet([line for group in scores for line in group.curves]),
        calibration.SHARES: calibration.parquet(calibration.label_shares(context.datasets)),
    }
    if (measured := importance.measure(context, trained)) is not None:
        contents[importance.JSON] = dump_json(measured)
    for name, content in contents.items():
        write_atomic(context.store.out / name, content)
    return {name: entry_of(content) for name, content in contents.items()}
