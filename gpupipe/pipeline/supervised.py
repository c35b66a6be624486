"""SupervisedWorkload: prepare datasets, split, cross-fit estimators, evaluate, publish, summarise."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpupipe.artifacts import publish, summary
from gpupipe.artifacts.manifest import entry_of, withdraw_manifest, write_manifest
from gpupipe.config import Config
from gpupipe.cross_validation import diagram
from gpupipe.data import save as save_data_report
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.dataset import window_summary
from gpupipe.estimators import registry
from gpupipe.evaluation import calibration
from gpupipe.evaluation.expected_return import ExpectedReturn
from gpupipe.evaluation.leaderboard import Measured
from gpupipe.pipeline.options import JobOptions
from gpupipe.pipeline.workload import JobContext
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import host_peak_bytes, pick, pool_statistics
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.task_graph import in_parallel
from gpupipe.store import fingerprint
from gpupipe.store.content_store import dump_json, write_atomic
from gpupipe.training import (
    calibration_measures,
    cross_validate,
    expected_return_measures,
    importance,
    placement,
    placement_summary,
    planning,
    rank_measures,
    volatility_value,
    warm_start,
)
from gpupipe.training.context import TrainingContext
from gpupipe.training.cross_validate import Published
from gpupipe.training.expected_return import GroupTrades
from gpupipe.training.groups import GroupModels
from gpupipe.training.prepare import Prepared, prepare
from gpupipe.training.recipe import Recipe
from gpupipe.training.score import Baselines, GroupScores, add_intervals, score

log = logging.getLogger("gpupipe")


class Measures(Protocol):
    """Measures that a workload has of its own, of the test rows of its published fold and of a walk-forward's origins.

    >>> class Counts:
    ...     def keep(self, job, context, trained):
    ...         return {models.group: len(context.splits[models.group].test) for models in trained}
    ...
    ...     def conclude(self, job, kept, trained):
    ...         return {"test_rows": sum(sum(counts.values()) for counts in kept)}, {}
    >>> Counts().conclude(None, [{"energy": 20}, {"energy": 22}], [])
    ({'test_rows': 42}, {})
    """

    def keep(self, job: JobContext, context: TrainingContext, trained: Sequence[GroupModels]) -> Any:
        """What the measures need of one fold, whose models are released then; several folds may call it at once."""
        ...

    def conclude(
        self, job: JobContext, kept: Sequence[Any], trained: Sequence[GroupModels]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Sections of the summary, in the types of JSON, and files to publish, by path below OUT.

        kept: of each origin, the published fold last.  trained: of the published fold.
        """
        ...


@dataclass(frozen=True)
class SupervisedWorkload(Recipe):
    """A recipe that `job.execute` runs: each group of a panel becomes a Dataset, on which estimators are cross-fitted.

    measures: the workload's own; None without any.

    >>> from gpupipe.workloads.equity import EQUITY
    >>> settings = EQUITY.settings("balanced")
    >>> isinstance(EQUITY, SupervisedWorkload), len(EQUITY.target(settings).names), len(settings.training.models)
    (True, 6, 6)
    """

    measures: Measures | None = None

    def require(self, settings: Config, options: JobOptions) -> None:
        """Raise UserError where an estimator's package is missing, or an option excludes training.spread."""
        registry.require(settings.training.models)
        n = settings.training.spread
        if settings.training.place and options.workers is not None:
            raise UserError(
                "--place cannot be combined with workers of a cluster, which fit every stage on their device: leave "
                "one of them out"
            )
        if not n:
            return
        if options.workers is None:
            raise UserError(
                f"training.spread = {n} distributes rows over worker processes, and there are none: add --workers {n} "
                "or --scheduler"
            )
        if options.limits != memory.NO_LIMITS:
            raise UserError(
                "--memory cannot be combined with --spread, whose workers keep all rows in memory: leave out --memory "
                "and add workers"
            )
        if options.warm_start is not None:
            raise UserError(
                "--warm-start cannot be combined with --spread, which always trains from nothing: leave one of them out"
            )

    def memory_plan(self, panel: Panel, settings: Config, jobs: int, limits: memory.Limits) -> tuple[memory.Plan, str]:
        """See `Workload`."""
        return planning.memory_plan(self, panel, settings, jobs, limits)

    def run(self, context: JobContext) -> dict[str, Any]:
        """See `Workload`."""
        return _SupervisedJob(self, context).run()


@dataclass(frozen=True)
class _SupervisedJob:
    """One run of a supervised workload."""

    workload: SupervisedWorkload
    job: JobContext

    def run(self) -> dict[str, Any]:
        """Prepare, train, evaluate and publish; returns the summary."""
        began, job = time.perf_counter(), self.job
        placement.check(job.settings, job.panel.device, job.workers)
        cache = job.store.cache if job.plan.files else None
        job.listener.stage("features and labels")
        sharded = job.workers.sharded_rows if job.workers else None
        prepared = prepare(self.workload, job.panel, job.settings, cache, sharded)
        _warn_of_shares(prepared, job.settings)
        if sentence := window_summary.sentence(window_summary.of(prepared.datasets)):
            log.info("%s: they are not used", sentence)
        training = TrainingContext(
            prepared.datasets, prepared.splits, prepared.folds.published, job.settings, job.store, job.keys.run,
            job.panel.device, job.jobs, cache=cache, plan=job.plan, workers=job.workers, advance=job.listener.advanced,
            detail=job.listener.detail, trades=self._trades(),
        )  # fmt: skip
        training.placement, folds = placement.of_run(training), prepared.folds
        job.listener.started(planning.totals(self.workload, job.panel, job.settings, folds))
        cold = training
        # Only for the published fold: the earlier run was fitted on rows that the other folds validate or test on.
        if job.earlier:
            start = warm_start.Starting(
                job.earlier, job.settings, prepared.datasets, prepared.splits, prepared.features_hash
            )
            training = dataclasses.replace(training, earlier=start)
        evaluated, published = cross_validate.train_folds(
            self.workload, cold, training, folds, job.listener.stage, self._keep
        )
        job.listener.stage("evaluation")
        if job.earlier:
            warm_start.keep_replaced(job.earlier, job.store)
        withdraw_manifest(job.store)
        whole, entries = self._evaluate(training.on_host, prepared, evaluated, published, began)
        self._finish(whole, entries)
        return summary.read(job.store.out)

    def _keep(self, training: TrainingContext, trained: Sequence[GroupModels]) -> Any:
        """What the workload's own measures keep of a fold."""
        measures = self.workload.measures
        return measures.keep(self.job, training, trained) if measures else None

    def _concluded(
        self, training: TrainingContext, evaluated: Sequence[cross_validate.FoldScores], published: Published
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Sections of the summary by the workload's own measures, and the manifest's entries of their files."""
        if not self.workload.measures:
            return {}, {}
        origins = [scores.kept for scores in evaluated if scores.kept is not None]
        kept = [*origins, self._keep(training, published.trained)]
        sections, files = self.workload.measures.conclude(self.job, kept, published.trained)
        return sections, {path: self.job.store.publish(path, content) for path, content in files.items()}

    def _trades(self) -> GroupTrades | None:
        """The trades that calls would open; None where the workload trades nothing."""
        workload, target = self.workload, self.workload.target(self.job.settings)
        if workload.trades is None:
            return None
        panel = self.job.panel.to(pick("cpu"))  # returns are read on the host, and are more bytes than bars
        return GroupTrades(panel, target, workload.trades, workload.volatility)

    def _evaluate(
        self,
        training: TrainingContext,
        prepared: Prepared,
        evaluated: Sequence[cross_validate.FoldScores],
        published: Published,
        began: float,
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Score and publish all files but the manifest; returns the summary and the manifest's entries."""
        job, workload, folds, started = self.job, self.workload, prepared.folds, time.perf_counter()
        target = workload.target(job.settings)
        scores = self._score(training, published.trained)
        resampled = add_intervals(scores, max(target.horizon_rows), job.settings.seed)
        ranked = rank_measures.measure(workload, training, published.trained, resampled.draws)
        calibrated = calibration_measures.publish(training, published.trained)
        publishing = [functools.partial(self._publish, training, prepared, group) for group in scores]
        results = in_parallel(publishing, job.jobs)
        validated = cross_validate.summarise(workload, training, folds, evaluated, published)
        seconds = {**prepared.seconds, **training.seconds, "evaluation": time.perf_counter() - started}
        entries = publish.publish_modules(job.store, job.modules)
        entries |= {path: entry for group_entries, _ in results for path, entry in group_entries.items()}
        rows = [row for _, group_rows in results for row in group_rows]
        facts = summary.RunFacts(
            settings=job.settings, report=job.report, panel=job.panel, seconds=seconds,
            elapsed_s=time.perf_counter() - began, versions=fingerprint.versions(), key=job.keys.run,
            split=planning.split_dates(folds.published, job.panel), peak_bytes=host_peak_bytes(), jobs=job.jobs,
        )  # fmt: skip
        models = job.settings.training.models
        measured = Measured(
            rows, resampled, target.loss, workload.reference_tables, registry.judged(models), training.stacking or ""
        )
        whole = summary.build(measured, published.skipped, facts, n_targets=len(target.names))
        tuning = {} if job.tuning is None else {"tuning": job.tuning}
        whole["expected_returns"] = expected_return_measures.measured(training, published.trained)
        whole["volatility_value"] = volatility_value.measured(workload, training, published.trained)
        whole |= {**validated, **tuning, "units": training.results.counts(), "memory": self._memory()}
        whole["windows"] = window_summary.of(prepared.datasets)
        own, own_entries = self._concluded(training, evaluated, published)
        whole |= ranked.for_summary | own | placement_summary.section(training, job.store, facts.elapsed_s)
        if job.earlier:
            whole["warm_start"] = warm_start.counts(job.earlier, rows)
        entries |= cross_validate.publish(training, job.panel, folds, evaluated, published.trained)
        entries |= diagram.write(job.store, training.datasets, folds)
        entries |= _for_pictures(training, scores, published.trained)
        entries |= ranked.publish(job.store) | calibrated | own_entries
        return whole, entries

    def _finish(self, whole: dict[str, Any], entries: dict[str, dict[str, Any]]) -> None:
        """Write the summary, remove files of earlier runs, and write the manifest last."""
        job, store = self.job, self.job.store
        entries |= summary.write(store, whole)
        if job.report is not None:
            entries |= {path.name: entry_of(path.read_bytes()) for path in save_data_report(job.report, store.out)}
        publish.remove_stale_files(store, entries)
        store.forget_runs(but=job.keys.run)
        tuning = {} if job.tuning is None else {"tuning": job.tuning}
        write_manifest(
            store, job.keys.run, entries,
            {
                "settings": job.settings.as_dict(), "cold_key": job.keys.cold,
                "group_by": job.panel.group_by, "groups": list(job.panel.groups),
                "target": self.workload.target(job.settings).as_dict(),
                "lookback": dataclasses.asdict(registry.lookback(job.settings)), **tuning,
                **placement_summary.for_manifest(whole),
            },
        )  # fmt: skip
        for name, spent in whole["seconds"].items():
            run_log.event("seconds", stage=name, seconds=spent)
        run_log.event(
            "published", rows=job.panel.n_rows, files=len(entries),
            bytes=sum(entry["bytes"] for entry in entries.values()), models=len(whole["models"]),
            peak_bytes=whole["peak_bytes"],
        )  # fmt: skip
        store.forget_leftovers()

    def _score(self, training: TrainingContext, trained: Sequence[GroupModels]) -> list[GroupScores]:
        baselines = Baselines.learn(self.workload, training, [models.group for models in trained])
        calls = [functools.partial(score, self.workload, training, models, baselines) for models in trained]
        return in_parallel(calls, self.job.jobs)

    def _memory(self) -> dict[str, Any]:
        """The memory section of the summary: plan, reason, largest resident set by stage, statistics of RMM's pool."""
        pool = pool_statistics() if self.job.panel.device.kind == "cuda" else {}
        return {
            "plan": self.job.plan.name, "reason": self.job.reason,
            "peak_bytes_by_stage": dict(self.job.watch.peaks), "device_pool": pool,
        }  # fmt: skip

    def _publish(
        self, training: TrainingContext, prepared: Prepared, scores: GroupScores
    ) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
        """Write the models of one group with their scores; returns manifest entries and summary rows."""
        trained = scores.trained
        dataset, split = training.datasets[trained.group], training.splits[trained.group]
        target, y = dataset.target, training.device.to_host(dataset.y)
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        entries: dict[str, dict[str, Any]] = {}
        rows: list[dict[str, Any]] = []
        for position, label in enumerate(trained.labels):
            k = target.names.index(label)
            identity = {"sector": trained.group, "label": label, **target.parameters[k]}
            label_scores = {name: item for (scored_label, name), item in scores.scores.items() if scored_label == label}
            for name, item in label_scores.items():
                models = trained.models.get(name)
                rows.append(
                    summary.model_row(
                        identity,
                        name,
                        models[position] if models else None,
                        len(split.train),
                        trained.seconds.get(name),
                        item.cutoffs,
                        item.metrics,
                    )
                )
            measures = {name: {"cutoffs": item.cutoffs, "metrics": item.metrics} for name, item in label_scores.items()}
            baselines = {baseline.name: measures.pop(baseline.name) for baseline in self.workload.baselines}
            metadata = {
                **self._metadata(training, prepared, trained.group), **identity,
                "class_shares": {part: _class_shares(y[at, k], target.class_names) for part, at in parts.items()},
                "baselines": baselines,
                "models": {
                    name: {
                        **model_measures,
                        "seconds_sector": trained.seconds[name],
                        "expected_return": _plain(trained.expected_returns.get((label, name))),
                    }
                    for name, model_measures in measures.items()
                },
            }  # fmt: skip
            fitted = {name: models[position] for name, models in trained.models.items()}
            folder = target.folder(k, trained.group)
            entries |= publish.publish(self.job.store, folder, fitted, metadata, target.class_names)
        return entries, rows

    def _metadata(self, training: TrainingContext, prepared: Prepared, group: str) -> dict[str, Any]:
        """The metadata that all targets of a group share."""
        dataset, split = training.datasets[group], training.splits[group]
        time_ns = training.device.to_host(dataset.time_ns)
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        panel = self.job.panel
        return {
            "sector": group,
            "symbols": [
                name for name, symbol_group in zip(panel.symbols, panel.group, strict=True) if symbol_group == group
            ],
            "rows": {part: len(at) for part, at in parts.items()},
            "dates": {
                part: [time_text(int(time_ns[at].min())), time_text(int(time_ns[at].max()))]
                for part, at in parts.items()
            },
            "features": {"names": list(dataset.names), "hash": prepared.features_hash},
            "settings": self.job.settings.as_dict(),
            "versions": fingerprint.versions(),
            "run_key": self.job.keys.run,
            "seconds": {**prepared.seconds, **training.seconds},
        }


def _plain(expected: ExpectedReturn | None) -> dict[str, Any] | None:
    return None if expected is None else expected.as_dict()


def _class_shares(y: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Share of each class among the known values; empty for other kinds of targets."""
    if not names:
        return {}
    counts = np.bincount(y[y >= 0], minlength=len(names))
    return {name: float(counts[c] / max(1, counts.sum())) for c, name in enumerate(names)}


def _warn_of_shares(prepared: Prepared, settings: Config) -> None:
    """Warn where split.shares_until is after the last known label, so that the boundaries still move with new data."""
    until = settings.split.shares_until
    if not until:
        return
    last = max(int(d.device.to_host(d.time_ns[d.usable]).max(initial=0)) for d in prepared.datasets.values())
    if time_text(last)[:10] < until:
        log.warning(
            "split.shares_until = %s: the last day with known labels is %s, so each new day moves the boundaries until "
            "the labels are known; an earlier date keeps the boundaries",
            until,
            time_text(last)[:10],
        )


def _for_pictures(
    context: TrainingContext, scores: Sequence[GroupScores], trained: list[GroupModels]
) -> dict[str, dict[str, Any]]:
    """Write the data of the report's charts that the summary does not hold; returns manifest entries."""
    contents: dict[str, bytes] = {}
    if all(dataset.target.kind == "classes" for dataset in context.datasets.values()):
        contents[calibration.CURVES] = calibration.parquet([line for group in scores for line in group.curves])
        contents[calibration.SHARES] = calibration.parquet(calibration.label_shares(context.datasets))
    if (measured := importance.measure(context, trained)) is not None:
        contents[importance.JSON] = dump_json(measured)
    for name, content in contents.items():
        write_atomic(context.store.out / name, content)
    return {name: entry_of(content) for name, content in contents.items()}
