"""Placement: the device of each stage of a run, by what the stage would take on each; pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpupipe.runtime.errors import UserError

CPU, CUDA = "cpu", "cuda"
DEVICES = (CPU, CUDA)
# Reasons of stages that belong on the host.
SAME_BITS = "sums by BLAS on the host have the bits of a run without a GPU"
HOST_LIBRARY = "its library reads host memory"


@dataclass(frozen=True)
class Work:
    """What one fit computes: a number of steps, each over a number of values.

    kind: of the steps: "boosting" (rounds with new derivatives), "forest" (trees on the same derivatives) or
        "regression" (iterations over scaled columns).
    steps: rounds of all its boosters, trees, or iterations.
    values: of a step over all rows: rows x columns x outputs, of trees x levels.
    share: of the rows that a step takes on a CPU; on a GPU the others take part with derivatives of 0.

        >>> work = Work("boosting", steps=60, values=20_000 * 60 * 2 * 3, share=0.25)
        >>> round(work.seconds("cpu", Rate(step_s=1e-3, value_s=1e-9)), 3), work.seconds("cuda", Rate(4e-3, 0.0))
        (0.168, 0.24)
    """

    kind: str
    steps: float
    values: float
    share: float = 1.0

    def values_on(self, device: str) -> float:
        """The values of a step on a device."""
        return self.values * (self.share if device == CPU else 1.0)

    def seconds(self, device: str, rate: Rate) -> float:
        """How long it takes on a device, at its rate."""
        return self.steps * (rate.step_s + rate.value_s * self.values_on(device))


@dataclass(frozen=True)
class Size:
    """The size of one fit.

    >>> Size(rows=15_000, columns=89, targets=6).rows
    15000
    """

    rows: int
    columns: int
    targets: int


@dataclass(frozen=True)
class Rate:
    """What a step takes on a device: `step_s` seconds, and `value_s` for each of its values; of one thread on a CPU.

    >>> Rate(step_s=0.00123456, value_s=1.23456e-9).rounded
    Rate(step_s=0.0012, value_s=1.2e-09)
    """

    step_s: float
    value_s: float

    @property
    def rounded(self) -> Rate:
        """To two digits: what is measured twice on a machine then seldom differs."""
        return Rate(float(f"{self.step_s:.1e}"), float(f"{self.value_s:.1e}"))


WORTH = 0.9  # of the time without it: what a stage that moves to the GPU has to save, as estimates are rough

# Used until `gpupipe doctor --measure` has measured the machine's own. Of the CPU: one thread of an AMD EPYC, measured
# on 2026-11-30. Of the GPU: estimates for one such as an H200, from launches that were counted and benchmarks that
# others published; no GPU was measured.
ESTIMATED = {
    CPU: {"boosting": Rate(1.1e-3, 3.5e-10), "forest": Rate(5e-4, 2.7e-10), "regression": Rate(2.5e-4, 3.7e-10)},
    CUDA: {"boosting": Rate(4e-3, 1.5e-11), "forest": Rate(2e-3, 1.5e-11), "regression": Rate(2e-3, 1e-11)},
}


@dataclass(frozen=True)
class Rates:
    """The rates of a machine, by device kind and kind of work.

    measured: whether `gpupipe doctor --measure` measured them, by device kind; else they are estimates.
    copy_bytes_s: measured bytes a second over the bus, "to_device" and "to_host"; empty where they were not measured.

        >>> Rates().of("cpu", "forest").value_s, Rates().are_measured
        (2.7e-10, False)
    """

    by_device: Mapping[str, Mapping[str, Rate]] = field(default_factory=lambda: ESTIMATED)
    measured: tuple[str, ...] = ()
    copy_bytes_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def are_measured(self) -> bool:
        """Whether those of both devices are."""
        return set(self.measured) >= set(DEVICES)

    def of(self, device: str, kind: str) -> Rate:
        """The rate of a kind of work on a device; the estimate where there is no measured one."""
        return self.by_device.get(device, {}).get(kind) or ESTIMATED[device][kind]


@dataclass(frozen=True)
class Stage:
    """A stage that has to be placed. Its fits are independent of each other.

    name: "xgb_hist.pool", "xgb_hist.group", "bins" or "meta_learner".
    fits: what its fits compute; empty where that is not known.
    on_host: why it belongs on the CPU whatever it takes; "" where the estimate decides.

        >>> Stage("linear.pool", on_host="BLAS on the host gives the bits of a run without a GPU").fits
        ()
    """

    name: str
    fits: tuple[Work, ...] = ()
    on_host: str = ""

    def seconds(self, device: str, rates: Rates) -> float:
        """How long all its fits take on a device, one after the other; of one thread on a CPU."""
        return sum(work.seconds(device, rates.of(device, work.kind)) for work in self.fits)


@dataclass(frozen=True)
class Placed:
    """The device of a stage, and why.

    expected_s: seconds that all its fits of one fold in time were expected to take, by device kind: on the GPU one
        after the other, on the CPU shared by all threads; empty where nothing was expected.

        >>> Placed("bins", "cuda", "trees are fitted there").device
        'cuda'
    """

    stage: str
    device: str
    reason: str
    expected_s: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """In the types of JSON."""
        return {"device": self.device, "reason": self.reason, "expected_s": dict(self.expected_s)}


@dataclass(frozen=True)
class Placement:
    """The device of every stage of a run.

    home: kind of the run's device, which holds features and labels, and every stage that is not named.
    stages: by name; empty where the run's device is the CPU.

        >>> placement = Placement("cuda", {"linear.pool": Placed("linear.pool", "cpu", "as an example")})
        >>> placement.device("linear.pool"), placement.device("sequence.pool")
        ('cpu', 'cuda')
    """

    home: str = CPU
    stages: Mapping[str, Placed] = field(default_factory=dict)

    def device(self, stage: str) -> str:
        """Kind of the device of a stage."""
        return self.stages[stage].device if stage in self.stages else self.home

    def as_dict(self) -> dict[str, Any]:
        """In the types of JSON; `of_dict` reads it."""
        return {"home": self.home, "stages": {name: placed.as_dict() for name, placed in self.stages.items()}}

    @classmethod
    def of_dict(cls, plain: Mapping[str, Any]) -> Placement:
        """The inverse of `as_dict`."""
        return cls(plain["home"], {name: Placed(name, **values) for name, values in plain["stages"].items()})


def place(
    stages: Sequence[Stage], home: str, cores: int, rates: Rates, wishes: Mapping[str, str] | None = None
) -> Placement:
    """Place every stage.

    Where the run's device is the CPU, all stages are there. Else stages that belong on the host are there; the others
    move to the GPU, first those that it speeds up most, as long as the end comes clearly earlier for it (WORTH): GPU
    and CPU threads work at the same time, so the end comes when the later of the two is done. Stages of equal input are
    always placed alike.

    cores: number of CPU threads.  wishes: by stage, the device that the user named; they decide first.
    """
    if home == CPU:
        return Placement(CPU)
    placed, seconds = {}, {CPU: 0.0, CUDA: 0.0}
    chosen = dict(wishes or {})
    expected = {stage.name: _expected(stage, cores, rates) for stage in stages}
    movable = []
    for stage in stages:
        if stage.name in chosen:
            placed[stage.name] = Placed(stage.name, chosen[stage.name], "--place", expected[stage.name])
        elif stage.on_host:
            placed[stage.name] = Placed(stage.name, CPU, stage.on_host, expected[stage.name])
        elif not stage.fits:
            placed[stage.name] = Placed(stage.name, home, "it is fitted where the features are")
        else:
            movable.append(stage)
            continue
        if expected[stage.name]:
            seconds[placed[stage.name].device] += expected[stage.name][placed[stage.name].device]
    seconds[CPU] += sum(expected[stage.name][CPU] for stage in movable)
    for stage in sorted(movable, key=lambda item: (_ratio(expected[item.name]), item.name)):
        on = expected[stage.name]
        on_gpu = {CPU: seconds[CPU] - on[CPU], CUDA: seconds[CUDA] + on[CUDA]}
        device = CUDA if max(on_gpu.values()) < WORTH * max(seconds.values()) else CPU
        seconds = on_gpu if device == CUDA else seconds
        placed[stage.name] = Placed(stage.name, device, _reason(on, device, cores, rates), on)
    return Placement(home, {stage.name: placed[stage.name] for stage in stages})


def _expected(stage: Stage, cores: int, rates: Rates) -> dict[str, float]:
    """Seconds of a stage on each device, to two digits; empty where its fits are not known."""
    if not stage.fits:
        return {}
    seconds = {CPU: stage.seconds(CPU, rates) / max(1, cores), CUDA: stage.seconds(CUDA, rates)}
    return {device: float(f"{value:.1e}") for device, value in seconds.items()}


def _ratio(expected: Mapping[str, float]) -> float:
    return expected[CUDA] / expected[CPU] if expected[CPU] else float("inf")


def _reason(expected: Mapping[str, float], device: str, cores: int, rates: Rates) -> str:
    faster = expected[CUDA] < expected[CPU]
    threads = "1 CPU thread" if cores == 1 else f"{cores} CPU threads"
    took = f"{expected[CUDA]:.2g} s on the GPU, {expected[CPU]:.2g} s on {threads}"
    known = "measured" if rates.are_measured else "estimated"
    if device == CUDA and not faster:
        return f"{took}, which have enough to do; {known}"
    if device == CPU and faster:
        return f"{took}; the GPU has enough to do; {known}"
    return f"{took}; {known}"


def wishes_of(texts: Iterable[str], stages: Sequence[str], home: str, why: str = "") -> dict[str, str]:
    """The device of each named stage, from texts such as "random_forest=cpu" and "xgb_joint.pool=cuda".

    A name without a part stands for all stages that begin with it; later texts override earlier ones.
    stages: all names that are possible.  home, why: kind of the run's device, and why it was chosen.
    UserError for an unknown stage or device, and for cuda where the run's device is the CPU.

        >>> wishes_of(["xgb_joint=cpu", "xgb_joint.pool=cuda"], ["xgb_joint.pool", "xgb_joint.group"], "cuda")
        {'xgb_joint.pool': 'cuda', 'xgb_joint.group': 'cpu'}
    """
    wishes: dict[str, str] = {}
    for text in texts:
        name, _, device = text.partition("=")
        named = [stage for stage in stages if stage == name or stage.startswith(f"{name}.")]
        if not named:
            whole = dict.fromkeys(stage.partition(".")[0] for stage in stages)
            possible = ", ".join(whole)
            raise UserError(f"--place {text}: expected one of {possible}, or a part of one, as {stages[0]}=cpu")
        if device not in DEVICES:
            raise UserError(f"--place {text}: expected {name}=cpu or {name}=cuda")
        if device == CUDA and home != CUDA:
            raise UserError(f"--place {text}: the run is on the CPU ({why}), where {name}=cpu alone is possible")
        wishes |= dict.fromkeys(named, device)
    return wishes
