"""What the summary says of a run's placement: what ran where and why, bytes over the bus, and who was idle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpupipe.estimators import registry
from gpupipe.runtime import run_log, timeline
from gpupipe.runtime.device import Ledger
from gpupipe.store.content_store import Store
from gpupipe.training import rates
from gpupipe.training.context import TrainingContext
from gpupipe.training.fold_tasks import cost_kind
from gpupipe.training.placement import stage_name

SECTION = "placement"


def section(context: TrainingContext, store: Store, elapsed_s: float) -> dict[str, Any]:
    """The section of the summary, {SECTION: ...}; empty where the run's device is the CPU.

    stages: for each stage its device, the reason, what it was expected to take (`Placed`) and `took_s`, seconds of its
        tasks one after the other.
    rates: which were measured, and when.
    bus: see `bus`.
    idle: share of the time in which GPU and CPU threads had nothing to do, see `timeline.idle_by_device`.
    """
    if not context.placement.stages:
        return {}
    known = rates.known(context.home)
    took = _took(context)
    stages = {name: {**placed.as_dict(), "took_s": took.get(name)} for name, placed in context.placement.stages.items()}
    path = store.out / run_log.FILE
    log = timeline.find(run_log.read(path), context.run_key) if path.exists() else None
    return {
        SECTION: {
            "stages": stages,
            "rates": {"measured": list(known.rates.measured), "when": known.when},
            "bus": bus(context.home.ledger, known.rates.copy_bytes_s, elapsed_s),
            "idle": timeline.idle_by_device(log, context.jobs) if log else {},
        }
    }


def for_manifest(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The placement as the manifest holds it, the device of each stage; empty where the summary has none."""
    if SECTION not in whole:
        return {}
    return {SECTION: {name: placed["device"] for name, placed in whole[SECTION]["stages"].items()}}


def bus(ledger: Ledger, copy_bytes_s: Mapping[str, float], elapsed_s: float) -> dict[str, Any]:
    """How much of the bus a run used.

    copy_s: by direction, seconds that its bytes take at the measured rate; empty where no rate was measured.
    share: of the run's time; None without a measured rate.

        >>> ledger = Ledger()
        >>> ledger.add("to_host", 2 * 10**9)
        >>> bus(ledger, {"to_device": 2e10, "to_host": 2e10}, elapsed_s=10.0)
        {'copy_s': {'to_device': 0.0, 'to_host': 0.1}, 'share': 0.01}
        >>> bus(ledger, {}, elapsed_s=10.0)
        {'copy_s': {}, 'share': None}
    """
    if not copy_bytes_s:
        return {"copy_s": {}, "share": None}
    crossed = ledger.as_dict()
    copy_s = {way: sum(crossed[way].values()) / rate for way, rate in copy_bytes_s.items()}
    return {"copy_s": copy_s, "share": sum(copy_s.values()) / elapsed_s}


def _took(context: TrainingContext) -> dict[str, float]:
    """Seconds of the finished tasks of each stage, by its name."""
    took = {}
    for estimator in registry.estimators(context.settings.training.models):
        if estimator.stacks:
            took[estimator.name] = context.seconds.get(estimator.name, 0.0)
            continue
        for group in (None, "group"):
            took[stage_name(estimator, group)] = context.costs.observed(cost_kind(estimator, group))[0]
    return took | {"bins": context.costs.observed("bins")[0]}
