"""The steps of an agent's run: an iteration each, in the order of the walk-forward."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.features.matrix import feature_names
from gpupipe.pipeline.steps import Step
from gpupipe.pipeline.workload import JobContext
from gpupipe.runtime.errors import UserError
from gpupipe.store.cache import load_array, save_array
from gpupipe.store.content_store import Store, sha256, sha256_of
from gpupipe.workloads.agent import iteration as iteration_run
from gpupipe.workloads.agent.cache import CacheCounts, EnvironmentCache
from gpupipe.workloads.agent.iteration import IterationResult
from gpupipe.workloads.agent.market import fills_of, first_warm_row
from gpupipe.workloads.agent.settings import DAY_NS, SECTIONS, original, trained
from gpupipe.workloads.agent.windows import Iteration, iterations

ORIGINAL = "original_"  # before the names of steps that train the original way


def walk_forward(panel: Panel, settings: Config) -> tuple[Iteration, ...]:
    """The iterations of a run; UserError for a panel that an agent cannot trade, or that is too short."""
    require_tradable(panel, settings)
    names = feature_names(settings.features.names)
    agent, first = settings.agent, first_warm_row(names, panel.n_rows)
    return iterations(first, panel.n_rows, agent.initial_window, agent.step_size, agent.validation_size)


def require_tradable(panel: Panel, settings: Config) -> None:
    """UserError for several symbols, a gap of more than `market.most_gap_days`, and costs that are not known."""
    if panel.n_symbols != 1:
        raise UserError(
            f"the agent trades one instrument, and the data hold {panel.n_symbols}: name it, as --symbol "
            f"{panel.symbols[0]}"
        )
    time_ns = panel.device.to_host(panel.time_ns)
    gaps = np.diff(time_ns)
    if len(gaps) and (longest := int(gaps.max())) > settings.market.most_gap_days * DAY_NS:
        at = int(gaps.argmax())
        raise UserError(
            f"{panel.symbols[0]} has no bar for {longest / DAY_NS:.1f} days, from {time_text(int(time_ns[at]))} to "
            f"{time_text(int(time_ns[at + 1]))}: a position would be held through it. Give the bars of one side of the "
            f"gap, or allow it by --set market.most_gap_days={np.ceil(longest / DAY_NS):g}"
        )
    fills_of(panel, **settings.market.rules())


def kernels_of(settings: Config) -> tuple[str, ...]:
    """The kernels that a run calls."""
    return (
        "program.run_program", "windows.column_moments", "environment.observe", "environment.step_market",
        "episodes.policy_episode", "policy.policy_step", "positions.position_equity", "positions.position_trades",
    )  # fmt: skip


def require(settings: Config) -> None:
    """UserError where Torch or safetensors are not installed."""
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the agent needs {' and '.join(missing)}: pip install -e '.[torch]'")


def steps(panel: Panel, settings: Config) -> list[Step]:
    """A step for each iteration, and with agent.benchmark a second chain that trains the original way."""
    if not settings.agent.benchmark:
        return _chain(panel, trained(settings), "")
    # One after the other, so that each is measured while no other takes its cores.
    found = _chain(panel, settings, "", in_turn=True)
    return found + _chain(panel, original(settings), ORIGINAL, in_turn=True, after=found[-1].name)


def _chain(
    panel: Panel, settings: Config, prefix: str, in_turn: bool = False, after: str | None = None
) -> list[Step]:  # fmt: skip
    """The steps of one walk-forward. Each needs the one before, where policies are warm-started, or in turn.

    after: the step that the first one waits for.
    """
    found: list[Step] = []
    caches = _Caches()
    for iteration in walk_forward(panel, settings):
        last = found[-1].name if found else None
        work = _Work(iteration, settings, caches, last if settings.agent.warm_start else None)
        waits = (last or after) if in_turn else work.before
        found.append(
            Step(
                name=prefix + iteration.name,
                make=work.make,
                save=save,
                load=load,
                needs=() if waits is None else (waits,),
                sections=SECTIONS,
                reads=work.reads,
            )
        )
    return found


class _Caches:
    """The environment caches of a run, which its steps share."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, bool], EnvironmentCache] = {}
        self._lock = threading.Lock()

    def of(self, context: JobContext, settings: Config, on: bool) -> EnvironmentCache:
        """The cache of a run; its steps may ask from several threads."""
        key = context.keys.run, on
        with self._lock:
            if key not in self._made:
                self._made[key] = EnvironmentCache(context.panel, settings, context.store, key[0], on)
            return self._made[key]


@dataclass(frozen=True)
class _Work:
    """One iteration as a step.

    before: the name of the step whose policy it starts from; None: from nothing.
    counts: of its requests to the cache.
    """

    iteration: Iteration
    settings: Config
    caches: _Caches
    before: str | None
    counts: CacheCounts = field(default_factory=CacheCounts)

    def make(self, context: JobContext, values: Mapping[str, Any]) -> IterationResult:
        """Train, choose and test."""
        before = None if self.before is None else values[self.before].policy
        cache = self.caches.of(context, self.settings, self.settings.agent.cache_environments)
        return iteration_run.run(self.iteration, self.settings, cache, before, context.fit, context.jobs, self.counts)

    def reads(self, context: JobContext, values: Mapping[str, Any]) -> dict[str, Any]:
        """Digests of the bars and features of the window, and of the policy that training starts from.

        Bars that are added after the window change nothing of it.
        """
        it, device = self.iteration, context.panel.device
        counts = self.counts if self.settings.agent.cache_environments else CacheCounts()
        market = self.caches.of(context, self.settings, True).market(it.train, it.test.end, counts)
        rows = slice(it.train.begin, it.test.end)
        arrays = (market.open, market.close, market.slip, market.features.values)
        digests = [sha256(np.ascontiguousarray(device.to_host(array)[rows]).tobytes()) for array in arrays]
        before = None if self.before is None else _digest(values[self.before].policy)
        window = [it.number, it.train.n, it.validation.n, it.test.n]
        return {"bars": digests, "observed": list(market.observed), "window": window, "before": before}


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    return sha256_of({name: sha256(np.ascontiguousarray(array).tobytes()) for name, array in arrays.items()})


def save(store: Store, result: IterationResult) -> dict[str, Any]:
    """The record of an iteration."""
    arrays = {f"policy/{name}": save_array(store, array) for name, array in result.policy.items()}
    arrays["positions"] = save_array(store, result.positions)
    return {
        "arrays": arrays, "scaler": result.scaler, "candidates": list(result.candidates), "chosen": result.chosen,
        "counts": dict(result.counts), "seconds_by_part": dict(result.seconds), "clock": list(result.clock),
    }  # fmt: skip


def load(store: Store, record: Mapping[str, Any]) -> IterationResult:
    """The iteration again."""
    arrays = {name: load_array(store, digest) for name, digest in record["arrays"].items()}
    positions = arrays.pop("positions")
    policy = {name.removeprefix("policy/"): array for name, array in arrays.items()}
    return IterationResult(
        policy, record["scaler"], positions, record["candidates"], record["chosen"], record["counts"],
        record["seconds_by_part"], tuple(record["clock"]),
    )  # fmt: skip
