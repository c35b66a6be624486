"""Listener: callbacks for the progress of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpupipe.runtime import memory, run_log


@dataclass(frozen=True)
class Listener:
    """Callbacks for the progress of a run; each has a default that does nothing.

    started(totals): called before training, with the counts "units", "rows", "sectors", "labels" and "models".
    advanced(text): called after each task, with its name.  stage(text): called when a stage begins.
    detail(text): called now and then while a long task runs, with its name and how far it is.

        >>> stages = []
        >>> Listener(stage=stages.append).stage("training")
        >>> stages
        ['training']
    """

    started: Callable[[dict[str, int]], None] = lambda totals: None
    advanced: Callable[[str], None] = lambda text: None
    stage: Callable[[str], None] = lambda text: None
    detail: Callable[[str], None] = lambda text: None


def logging_too(listener: Listener, watch: memory.Watch | None = None) -> Listener:
    """A listener that also writes stages and totals to the run's log. watch: records memory by stage."""

    def started(totals: dict[str, int]) -> None:
        run_log.event("totals", **totals)
        listener.started(totals)

    def stage(text: str) -> None:
        if watch:
            watch.stage(text)
        run_log.event("stage", stage=text)
        listener.stage(text)

    return Listener(started, listener.advanced, stage, listener.detail)
