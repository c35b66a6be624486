"""A candidate: one policy of an iteration, trained by PPO until its schedule says stop; it outlives a kill."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.estimators.torch.checkpoint import Checkpoint
from gpupipe.workloads.agent.schedule import Values, converged, evaluation_interval, values_at
from gpupipe.workloads.agent.settings import AgentSettings

if TYPE_CHECKING:
    from gpupipe.estimators.torch.recurrent_ppo import Trainer

Arrays = Mapping[str, np.ndarray]
BEST = "best/"  # before the names of the best policy's arrays in a checkpoint
CONVERGED, TIMESTEPS = "converged", "timesteps"
VALUES = ("learning_rate", "epochs", "entropy", "clip")


@dataclass
class Progress:
    """How far a candidate is; all but `seconds` and `clock` is the same in every run of equal input.

    scores, at: of its evaluations, and after how many steps.  best: number of the best evaluation.
    updates: what each update did.  next_evaluation: after how many steps.
    seconds: of training and of evaluating so far, in all processes that have worked on it.  clock: their sum at each
        evaluation.
    """

    scores: list[float] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    best: int = -1
    updates: list[dict[str, Any]] = field(default_factory=list)
    next_evaluation: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "evaluation": 0.0})
    clock: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A trained candidate.

    policy: the arrays of its best policy, by their names.  progress: how it came there.
    stopped: "converged", or "timesteps" where it used all of them.
    """

    number: int
    policy: Arrays
    progress: Progress
    steps: int
    stopped: str

    @property
    def score(self) -> float:
        """The best validation score."""
        return self.progress.scores[self.progress.best]


def train(
    number: int,
    trainer: Trainer,
    settings: AgentSettings,
    budget: int,
    base: Values,
    evaluate: Callable[[Arrays], float],
    checkpoint: Checkpoint | None,
    detail: Callable[[str], None],
    warm: bool,
) -> Candidate:
    """Train a candidate, and keep the policy of its best evaluation.

    trainer: fresh.  budget: steps at most.  base: the values that the schedule changes.
    evaluate(arrays): the validation score of a policy.  warm: whether the policy comes from an earlier iteration: then
        it is evaluated before training, and kept where training makes nothing better of it.
    """
    progress = Progress(next_evaluation=settings.eval_freq)
    best: Arrays = {}
    if checkpoint is not None and (stored := checkpoint.load()) is not None:
        _, arrays, record = stored
        best = {name.removeprefix(BEST): array for name, array in arrays.items() if name.startswith(BEST)}
        trainer.restore(
            {name: array for name, array in arrays.items() if not name.startswith(BEST)} | record["trainer"]
        )
        progress = Progress(**record["progress"])
    elif warm:
        best = _judge(trainer, settings, progress, best, evaluate)
    stopped = TIMESTEPS
    while trainer.steps < budget:
        patience = settings.early_stopping_patience * settings.eval_freq
        may_stop = settings.convergence_stop and trainer.steps >= settings.min_timesteps
        if may_stop and converged(progress.scores, progress.at, patience, settings.convergence_threshold):
            stopped = CONVERGED
            break
        values = values_at(trainer.steps / budget, base, settings.progressive)
        trainer.set(**{name: getattr(values, name) for name in VALUES})
        began = time.perf_counter()
        update = trainer.update()
        progress.seconds["training"] += time.perf_counter() - began
        set_values = {"entropy_weight": trainer.entropy, "clip": trainer.clip}
        progress.updates.append(_plain(dataclasses.asdict(update) | set_values))
        if trainer.steps >= min(progress.next_evaluation, budget):
            best = _judge(trainer, settings, progress, best, evaluate)
        detail(_state(trainer, budget, progress))
        if checkpoint is not None:
            _keep(checkpoint, trainer, progress, best)
    return Candidate(number, best, progress, trainer.steps, stopped)


def _judge(
    trainer: Trainer,
    settings: AgentSettings,
    progress: Progress,
    best: Arrays,
    evaluate: Callable[[Arrays], float],
) -> Arrays:
    """Evaluate the policy; the arrays of the best one so far."""
    from gpupipe.estimators.torch.network import arrays_of

    began = time.perf_counter()
    policy = arrays_of(trainer.policy)
    score = evaluate(policy)
    progress.seconds["evaluation"] += time.perf_counter() - began
    progress.scores.append(score)
    progress.at.append(trainer.steps)
    progress.clock.append(sum(progress.seconds.values()))
    if progress.best < 0 or score > progress.scores[progress.best]:
        progress.best = len(progress.scores) - 1
        best = policy
    interval = evaluation_interval(
        progress.scores, settings.eval_freq, settings.convergence_threshold, settings.adaptive_evaluation
    )
    progress.next_evaluation = trainer.steps + interval
    return best


def _keep(checkpoint: Checkpoint, trainer: Trainer, progress: Progress, best: Arrays) -> None:
    state = trainer.state()
    arrays = {name: array for name, array in state.items() if isinstance(array, np.ndarray)}
    numbers = {name: value for name, value in state.items() if name not in arrays}
    record = {"trainer": numbers, "progress": dataclasses.asdict(progress)}
    checkpoint.save(trainer.updates, arrays | {f"{BEST}{name}": array for name, array in best.items()}, record)


def _plain(update: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {name: None if value != value else value for name, value in update.items()}


def _state(trainer: Trainer, budget: int, progress: Progress) -> str:
    """How far it is, for people."""
    rate = trainer.steps / max(1e-9, sum(progress.seconds.values()))
    left = max(0, budget - trainer.steps) / max(1e-9, rate)
    score = f", validation {100 * progress.scores[-1]:+.2f} %" if progress.scores else ""
    return f"{trainer.steps:,} of {budget:,} steps, {rate:,.0f} steps/s{score}, at most {left:,.0f} s more"
