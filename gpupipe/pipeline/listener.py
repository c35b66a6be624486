"""Listener: whoever is told how a run proceeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpupipe.runtime import memory, run_log


@dataclass(frozen=True)
class Listener:
    """Callbacks for the progress of a run; each may be left out.

    started(totals): before training, with the counts "units", "rows", "sectors", "labels" and "models".
    advanced(text): after each task, with its name.  stage(text): a new stage begins.
    """

    started: Callable[[dict[str, int]], None] = lambda totals: None
    advanced: Callable[[str], None] = lambda text: None
    stage: Callable[[str], None] = lambda text: None


def logging_too(listener: Listener, watch: memory.Watch | None = None) -> Listener:
    """The listener, and stages and totals are written to the run's log too."""

    def started(totals: dict[str, int]) -> None:
        run_log.event("totals", **totals)
        listener.started(totals)

    def stage(text: str) -> None:
        if watch:
            watch.stage(text)
        run_log.event("stage", stage=text)
        listener.stage(text)

    return Listener(started, listener.advanced, stage)
