"""Planning: what a run would do and hold, and which of its units are there, without training anything."""

from __future__ import annotations

import os
from typing import Any

from gpupipe import config
from gpupipe.cross_validation.splits import Boundaries, Folds
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.estimators import registry
from gpupipe.features.formulas.registry import load_modules
from gpupipe.features.matrix import feature_names
from gpupipe.runtime import memory
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.task_graph import available_cores
from gpupipe.store.content_store import Store
from gpupipe.training import cross_validate, memory_estimate
from gpupipe.training.cache_keys import Ledger
from gpupipe.training.groups import Work, count_units, train
from gpupipe.training.prepare import outline, prepare


def plan(
    panel: Panel, settings: config.Config, jobs: int | None = None, limits: memory.Limits = memory.NO_LIMITS
) -> dict[str, Any]:
    """What a run would do: sectors with rows and splits, models, units, and the memory that it would hold.

    No features are computed. UserError where no plan stays below the limits.
    """
    registry.require(settings.training.models)
    load_modules(settings.features.modules)
    chosen, _ = memory_plan(panel, settings, jobs, limits)
    prepared = outline(panel, settings)
    n_features = len(feature_names(settings.features.names))
    numbers = totals(panel, settings, prepared.folds)
    n_labels, steps = numbers["labels"], memory_estimate.ladder(panel, settings, jobs or available_cores())
    of_chosen = next(one for one in steps if one.plan == chosen)
    sectors = []
    for s, dataset in prepared.datasets.items():
        cut = prepared.splits[s]
        counts = {"rows": dataset.n_rows, "train": len(cut.train), "validation": len(cut.validation)}
        sectors.append({"sector": s, "symbols": panel.sector.count(s), **counts, "test": len(cut.test)})
    return {
        "sectors": sectors,
        "features": n_features,
        "labels": n_labels,
        "families": list(settings.training.models),
        "models": numbers["models"],
        "units": numbers["units"],
        "split": split_dates(prepared.folds.published, panel),
        **cross_validate.plan(prepared.folds, prepared.datasets),
        "estimated_peak_bytes": of_chosen.host,
        "estimated_device_peak_bytes": of_chosen.device,
        "memory_plan": chosen.name,
        "memory_plans": [
            {
                "plan": one.plan.name,
                "about": memory.WORDS[one.plan.name],
                "bytes": one.host,
                "device_bytes": one.device,
                "memory": one.asked_of_host,
                "device_memory": one.asked_of_device,
            }
            for one in steps
        ],
    }


def survey(panel: Panel, settings: config.Config, out: str | os.PathLike[str]) -> Ledger:
    """Which units of a run are in OUT, by the inputs that they would have now; nothing is trained or written.

    A unit that waits for one that is not there is not there either: what it would learn from is not known.
    """
    registry.require(settings.training.models)
    load_modules(settings.features.modules)
    prepared, store = prepare(panel, settings), Store(out)
    ledger = Ledger(store, "", asking=True)
    work = Work(
        prepared.datasets, prepared.splits, prepared.folds.published, settings, store, "", panel.device, 1,
        ledger=ledger,
    )  # fmt: skip
    cross_validate.survey(work, prepared.folds)
    train(work)
    return ledger


def memory_plan(
    panel: Panel, settings: config.Config, jobs: int | None, limits: memory.Limits
) -> tuple[memory.Plan, str]:
    """How a run goes about its memory, and a sentence on it; empty where nothing limits it, or it need not change.

    UserError where no plan stays below the limits.
    """
    if limits.device is not None and panel.device.kind == "cpu":
        raise UserError("--device-memory is of a GPU's memory, and the CPU computes: leave it out, or give --memory")
    if limits == memory.NO_LIMITS:
        return memory.AS_IT_IS, ""
    steps = memory_estimate.ladder(panel, settings, jobs or available_cores())
    plan = memory.choose(steps, limits)
    return plan, "" if plan == memory.AS_IT_IS else memory.said_of(steps, plan, limits)


def totals(panel: Panel, settings: config.Config, cut: Folds) -> dict[str, int]:
    """How many units, rows, sectors, labels and models a run has; `cut` as of `Prepared.folds`."""
    sectors, labels = len(panel.sectors), len(settings.labels.horizons) * len(settings.labels.thresholds)
    models = sectors * labels * len(settings.training.models)
    units = count_units(settings, sectors) * (1 + len(cut.rehearsals))
    return {"units": units, "rows": panel.n_rows, "sectors": sectors, "labels": labels, "models": models}


def split_dates(at: Boundaries, panel: Panel) -> dict[str, str]:
    """The dates of a fold, as the summary has them."""
    return {
        "train_from": time_text(at.parts[0][0].start),
        "validation_from": time_text(at.validation[0].start),
        "test_from": time_text(at.test[0].start),
        "test_to": time_text(int(panel.time_ns.max())),
    }
