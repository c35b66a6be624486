"""Memory: plans that hold less and less, the choice among them by a limit, a watch on it, matrices in files."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pathlib
import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.runtime import device, run_log
from gpupipe.runtime.errors import UserError

log = logging.getLogger("gpupipe")

PERIOD_S = 0.2  # between looks at the memory that is held
CHANGE = 0.05  # of the memory that was logged last, after which it is logged again
ROOM = 0.1  # of the estimate: runs held up to 7 % more, and a limit has to be obeyed
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Plan:
    """How a run uses memory. No plan changes a result; each holds less than the plan before it, and is slower.

    jobs: fits at the same time; None for as many as were asked for.
    sparing: one set of XGBoost's bins at a time, of all sectors or of one, and the scaled columns of one sector.
    late: rows that are fitted and validated are held as XGBoost's bins alone (a byte for each value and way of reading
        it), and copied out of the features when their floats are read.
    files: features and bins lie in files in OUT (bins in XGBoost's external memory), where the device is the CPU.

        >>> plan = Plan("fewer at once", jobs=1, sparing=True)
        >>> LADDER.index(plan), plan.late
        (1, False)
    """

    name: str
    jobs: int | None = None
    sparing: bool = False
    late: bool = False
    files: bool = False


AS_IT_IS = Plan("as it is")
LADDER = (
    AS_IT_IS,
    Plan("fewer at once", jobs=1, sparing=True),
    Plan("uint8 bins", jobs=1, sparing=True, late=True),
    Plan("external memory", jobs=1, sparing=True, files=True),
)
ONE_STEP = Plan("one step at a time", jobs=1)  # of workloads whose steps run side by side
FEWER_SECTORS = "train on fewer --sectors or features.names"  # what takes less memory, of workloads that have these
WORDS = {
    "one step at a time": "no two steps side by side",
    "as it is": "everything in memory, as many fits at once as jobs",
    "fewer at once": "one fit at a time, and bins and scaled columns of one sector",
    "uint8 bins": "the same, and fitted rows held as bins alone",
    "external memory": "one fit at a time; columns and bins are kept in files",
}


@dataclass(frozen=True)
class Limits:
    """Bytes that a run may hold on the host and on the device; None is no limit.

    >>> Limits(host=8 << 30).device is None, Limits() == NO_LIMITS
    (True, True)
    """

    host: int | None = None
    device: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Estimate:
    """Bytes that a plan will hold at most, about, on the host and on the device (0 where this is the CPU).

    >>> estimate = Estimate(AS_IT_IS, host=10 << 30)
    >>> estimate.asked_of_host / (1 << 30), estimate.fits(Limits(host=10 << 30))  # 10 GiB, and a tenth
    (11.0, False)
    """

    plan: Plan
    host: int
    device: int = 0

    @property
    def asked_of_host(self) -> int:
        """The lowest limit under which it is taken: what it holds, and ROOM for what an estimate is off."""
        return int(self.host * (1 + ROOM))

    @property
    def asked_of_device(self) -> int:
        """The same on the device."""
        return int(self.device * (1 + ROOM))

    def fits(self, limits: Limits) -> bool:
        """Whether it stays below both limits."""
        pairs = ((limits.host, self.asked_of_host), (limits.device, self.asked_of_device))
        return all(limit is None or asked <= limit for limit, asked in pairs)


def choose(ladder: Sequence[Estimate], limits: Limits, instead: str = FEWER_SECTORS) -> Plan:
    """The first plan that stays below the limits. UserError where none does.  instead: what takes less memory."""
    for estimate in ladder:
        if estimate.fits(limits):
            return estimate.plan
    on_device = not any(estimate.fits(Limits(None, limits.device)) for estimate in ladder)
    option, given = ("--device-memory", limits.device) if on_device else ("--memory", limits.host)
    asked = [estimate.asked_of_device if on_device else estimate.asked_of_host for estimate in ladder]
    last = ladder[asked.index(min(asked))]
    raise UserError(
        f"{option} {gib(given or 0)} is too little: about {gib(asked[0])} are needed, and {gib(min(asked))} with "
        f"{WORDS[last.plan.name]}; allow that much, or {instead}"
    )


def gib(n_bytes: int) -> str:
    """As a person reads it: 1.25 GiB."""
    return f"{n_bytes / 2**30:.2f} GiB"


def plan_sentence(ladder: Sequence[Estimate], plan: Plan, limits: Limits) -> str:
    """A sentence on the plan that was chosen, and why."""
    chosen, first = next(estimate for estimate in ladder if estimate.plan.name == plan.name), ladder[0]
    asked = (("--memory", limits.host), ("--device-memory", limits.device))
    allowed = [f"{option} {gib(given)}" for option, given in asked if given is not None]
    why = f"{' and '.join(allowed)}: as it is, the run would hold about {_both(first)}"
    return f"memory plan '{plan.name}', {WORDS[plan.name]} ({why}; so, {_both(chosen)})"


def _both(estimate: Estimate) -> str:
    return gib(estimate.host) + (f" and {gib(estimate.device)} on the device" if estimate.device else "")


def give_back() -> None:
    """Give memory that was freed back to the system, which the allocator of C keeps to itself (on glibc)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def size(text: str, option: str = "--memory") -> int:
    """Bytes of "8GiB", "900M", "2.5 GB" or "1000000"; K, M, G and T are powers of 1024. UserError for other text."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(i?B)?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise UserError(f"{option} {text}: expected a size such as 8GiB or 900M")
    return int(float(match[1]) * UNITS[match[2].upper()])


def matrix(shape: tuple[int, int], cache: pathlib.Path) -> Any:
    """A float32 matrix in a file below `cache` that has no name any more: its space is free once it is let go of.

    OSError where the disk has not the space for it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    if min(shape) == 0:  # no file of no bytes can be mapped
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=cache) as file:
        _take(file, 4 * shape[0] * shape[1])  # a disk that is full when a page is written would kill the process
        return np.asarray(np.memmap(file, np.float32, "w+", shape=shape))


def require_space(n_bytes: int, cache: pathlib.Path) -> None:
    """OSError where the disk of `cache` has not so much space: for libraries that end the process where it fails."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache) as file:
        _take(file, n_bytes)


def _take(file: Any, n_bytes: int) -> None:
    """Give the file this size, and reserve its space where the system can do that."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)
    else:
        file.truncate(n_bytes)


class Turns:
    """Tasks that share memory. A task that ran out of memory is done once more: after all others, and alone.

    >>> attempts, freed = [], []
    >>> def fit():
    ...     attempts.append("fit")
    ...     if not freed:
    ...         raise MemoryError("17 GiB")
    ...     return 0.5
    >>> Turns().run(fit, let_go=lambda: freed.append("bins"), name="final/linear"), len(attempts)
    (0.5, 2)
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running, self._alone = 0, False
        self._retrying = threading.Lock()

    def run(self, task: Callable[[], Any], let_go: Callable[[], object], name: str) -> Any:
        """What the task returns; let_go() is called before it is done again. The second error is raised."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._running += 1
        reason = ""
        try:
            return task()
        except Exception as error:
            if not device.out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        finally:  # and no frame of what failed is held any more
            with self._changed:
                self._running -= 1
                self._changed.notify_all()
        return self._once_more(task, let_go, name, reason)

    def _once_more(self, task: Callable[[], Any], let_go: Callable[[], object], name: str, reason: str) -> Any:
        with self._retrying:
            with self._changed:
                self._alone = True
                self._changed.wait_for(lambda: not self._running)
            try:
                log.warning(
                    "%s ran out of memory (%s): it is done once more, alone, with the memory plan '%s'", name, reason,
                    LADDER[1].name,
                )  # fmt: skip
                run_log.event("out_of_memory", unit=name, text=reason, plan=LADDER[1].name)
                let_go()
                give_back()
                return task()
            finally:
                with self._changed:
                    self._alone = False
                    self._changed.notify_all()


class Watch:
    """The memory that the process holds, looked at every `PERIOD_S`: peaks by stage, and lines in the run's log.

    Used as a context; `stage(name)` begins a stage. peaks: bytes by stage.

        >>> with Watch() as watch:
        ...     watch.stage("features")
        >>> list(watch.peaks), watch.peaks["features"] > 0
        (['start', 'features'], True)
    """

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self._stage, self._logged, self._peak = "start", 0, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="memory", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._look()
        self._stage = name

    def _look(self) -> None:
        held = device.host_bytes()
        self.peaks[self._stage] = max(held, self.peaks.get(self._stage, 0))
        self._peak = max(held, self._peak)
        if abs(held - self._logged) > max(16 << 20, CHANGE * self._logged):
            run_log.event("memory", stage=self._stage)  # every event says what is held
            self._logged = held

    def _look_on(self) -> None:
        while not self._ended.wait(PERIOD_S):
            self._look()
