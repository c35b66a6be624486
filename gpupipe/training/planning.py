"""The plan of a run: its models, tasks, folds and memory, and which results are cached; nothing is trained."""

from __future__ import annotations

import os
from typing import Any

from gpupipe.config import Config
from gpupipe.cross_validation.fold_times import FoldTimes
from gpupipe.cross_validation.folds import Folds
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.estimators import registry
from gpupipe.features.formulas.registry import load_modules
from gpupipe.features.matrix import feature_names
from gpupipe.kernels.cores import available_cores
from gpupipe.runtime import memory
from gpupipe.runtime.errors import UserError
from gpupipe.store.cache import ResultCache
from gpupipe.store.content_store import Store
from gpupipe.training import cross_validate, memory_estimate, placement, rates
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import count_tasks, train
from gpupipe.training.prepare import outline, prepare
from gpupipe.training.recipe import Recipe


def plan(
    workload: Recipe,
    panel: Panel,
    settings: Config,
    jobs: int | None = None,
    limits: memory.Limits = memory.NO_LIMITS,
) -> dict[str, Any]:
    """The plan of a run: groups with rows and splits, models, tasks, and estimated peak memory.

    No features are computed. Raises UserError where no memory plan stays below the limits.
    """
    registry.require(settings.training.models)
    load_modules(settings.features.modules)
    chosen, _ = memory_plan(workload, panel, settings, jobs, limits)
    prepared = outline(workload, panel, settings)
    n_features = len(feature_names(settings.features.names))
    numbers = totals(workload, panel, settings, prepared.folds)
    steps = memory_estimate.ladder(workload, panel, settings, jobs or available_cores())
    estimate = next(step for step in steps if step.plan == chosen)
    device, shape = panel.device, (n_features, numbers["labels"])
    placed = placement.decide(settings, shape, prepared.splits, device, rates.known(device))
    sectors = []
    for group, dataset in prepared.datasets.items():
        split = prepared.splits[group]
        counts = {"rows": dataset.n_rows, "train": len(split.train), "validation": len(split.validation)}
        sectors.append({"sector": group, "symbols": panel.group.count(group), **counts, "test": len(split.test)})
    return {
        "sectors": sectors,
        "features": n_features,
        "labels": numbers["labels"],
        "families": list(settings.training.models),
        "models": numbers["models"],
        "units": numbers["units"],
        "split": split_dates(prepared.folds.published, panel),
        **cross_validate.plan(prepared.folds, prepared.datasets),
        **({"placement": placed.as_dict()["stages"]} if placed.stages else {}),
        "estimated_peak_bytes": estimate.host,
        "estimated_device_peak_bytes": estimate.device,
        "memory_plan": chosen.name,
        "memory_plans": [
            {
                "plan": step.plan.name,
                "about": memory.WORDS[step.plan.name],
                "bytes": step.host,
                "device_bytes": step.device,
                "memory": step.asked_of_host,
                "device_memory": step.asked_of_device,
            }
            for step in steps
        ],
    }


def survey(workload: Recipe, panel: Panel, settings: Config, out: str | os.PathLike[str]) -> ResultCache:
    """Look up the results of a run in OUT by their present inputs; nothing is trained or written.

    A result that depends on a missing result counts as missing, because its inputs are not known.
    """
    registry.require(settings.training.models)
    load_modules(settings.features.modules)
    prepared, store = prepare(workload, panel, settings), Store(out)
    results = ResultCache(store, "", lookup_only=True)
    placed = placement.of_last_run(store, settings, panel.device) or placement.decide(
        settings, placement.shape_of(prepared.datasets), prepared.splits, panel.device, rates.known(panel.device)
    )
    context = TrainingContext(
        prepared.datasets, prepared.splits, prepared.folds.published, settings, store, "", panel.device, 1,
        results=results, placement=placed,
    )  # fmt: skip
    cross_validate.survey(context, prepared.folds)
    train(context)
    return results


def memory_plan(
    workload: Recipe, panel: Panel, settings: Config, jobs: int | None, limits: memory.Limits
) -> tuple[memory.Plan, str]:
    """The memory plan of a run, and a sentence that explains it; "" where the default plan is chosen.

    Raises UserError where no plan stays below the limits.
    """
    if limits.device is not None and panel.device.kind == "cpu":
        raise UserError(
            "--device-memory limits a GPU's memory, and this run computes on the CPU: leave it out, or give --memory"
        )
    if limits == memory.NO_LIMITS:
        return memory.AS_IT_IS, ""
    steps = memory_estimate.ladder(workload, panel, settings, jobs or available_cores())
    plan = memory.choose(steps, limits)
    return plan, "" if plan == memory.AS_IT_IS else memory.plan_sentence(steps, plan, limits)


def totals(workload: Recipe, panel: Panel, settings: Config, folds: Folds) -> dict[str, int]:
    """Numbers of tasks, rows, groups, targets and models of a run."""
    groups, targets = len(panel.groups), len(workload.target(settings).names)
    models = groups * targets * len(settings.training.models)
    tasks = count_tasks(settings, groups) * (1 + len(folds.evaluation_folds))
    return {"units": tasks, "rows": panel.n_rows, "sectors": groups, "labels": targets, "models": models}


def split_dates(times: FoldTimes, panel: Panel) -> dict[str, str]:
    """The dates of a fold, in the form of the summary."""
    return {
        "train_from": time_text(times.parts[0][0].start),
        "validation_from": time_text(times.validation[0].start),
        "test_from": time_text(times.test[0].start),
        "test_to": time_text(int(panel.time_ns.max())),
    }
