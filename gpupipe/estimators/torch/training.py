"""The training loop of a sequence network: Adam, plateaus, early stopping, and going on after a kill."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from gpupipe.estimators.torch.checkpoint import Checkpoint
from gpupipe.estimators.torch.losses import HeadLoss, HeadLosses, HeadTargets
from gpupipe.estimators.torch.network import Network, arrays_of, load_arrays, on_host, one_thread
from gpupipe.estimators.torch.plan import LEAST_RATE, EpochResult, Trained, TrainingError, TrainingPlan
from gpupipe.estimators.torch.shards import Workers, evaluate
from gpupipe.estimators.torch.steps import adam, autocast_of, set_rate, steps_of, training_mode
from gpupipe.estimators.torch.windows import Windows

MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # what Adam keeps for a parameter


def train(
    network: Network,
    fit: Windows,
    targets: HeadTargets,
    validation: Windows | None,
    validation_targets: HeadTargets | None,
    losses: Sequence[HeadLoss],
    plan: TrainingPlan,
    checkpoint: Checkpoint | None = None,
    epoch_done: Callable[[EpochResult], None] = lambda result: None,
    threads: int = 1,
) -> Trained:
    """Train a network in place.

    fit, targets: rows that are fitted, at least one.  validation, validation_targets: rows that stop the training;
        None, where `plan.rates` say all.
    losses: of the heads, in the network's order.
    checkpoint: where the training is kept after each epoch; one that is there already is gone on with.
    epoch_done: called after each epoch, also with those of a checkpoint; what it raises ends the training.
    threads: on a CPU, that compute the shards of a step; their number changes no byte.

    On a CPU equal inputs give equal bytes, whether or not the training was interrupted. Raises TrainingError where a
    loss is not finite, ValueError where nothing is known to fit or to validate.
    """
    if fit.n == 0 or len(targets) != fit.n:
        raise ValueError(f"expected rows and their targets, got {fit.n} rows and {len(targets)} targets")
    if (plan.rates is not None and validation is not None) or (plan.from_start and validation is None):
        raise ValueError("rates given in advance leave nothing to validation, and without it nothing can compete")
    if validation is not None and not 0 < validation.n == len(validation_targets or ()):
        raise ValueError(f"expected validation rows and their targets, got {validation.n} rows")
    if (kind := network.output.weight.device.type) != fit.torch_device:
        raise ValueError(f"the network is on {kind}, the rows are on {fit.torch_device}")
    with one_thread(), contextlib.ExitStack() as closed:
        loop = _Loop(network, fit, targets, validation, validation_targets, losses, plan, threads, closed)
        progress = loop.resumed(checkpoint)
        for result in progress.history:
            epoch_done(result)
        if progress.epoch == 0 and not progress.history and plan.from_start and validation is not None:
            epoch_done(loop.judged(progress, EpochResult(0, plan.rate, math.nan, *loop.validated())))
        while loop.goes_on(progress):
            result = loop.run_epoch(progress)
            if checkpoint is not None:
                checkpoint.save(progress.epoch, loop.arrays(progress), progress.record())
            epoch_done(result)
        if progress.best is not None:
            load_arrays(network, progress.best)
    best_epoch = progress.epoch if progress.best is None else progress.best_epoch
    return Trained(tuple(progress.history), best_epoch)


@dataclass
class _Progress:
    """How far a training is: what a checkpoint keeps besides weights and Adam's moments.

    since_best, since_change: epochs since the best loss, and since then or since the rate was halved last.
    best: arrays of the network by name; None without validation, and before the first epoch.
    """

    rate: float
    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    since_best: int = 0
    since_change: int = 0
    history: list[EpochResult] = field(default_factory=list)
    best: dict[str, np.ndarray] | None = None

    def record(self) -> dict[str, Any]:
        """In the types of JSON, without the arrays."""
        return {**vars(self), "best": None, "history": [asdict(result) for result in self.history]}

    @classmethod
    def of(cls, record: Mapping[str, Any], best: dict[str, np.ndarray] | None) -> _Progress:
        """What `record` described."""
        history = [EpochResult(**result) for result in record["history"]]
        return cls(**{**record, "history": history, "best": best})


class _Loop:
    """The parts of a training: steps on its device, losses, optimiser, and what an epoch does."""

    def __init__(
        self,
        network: Network,
        fit: Windows,
        targets: HeadTargets,
        validation: Windows | None,
        validation_targets: HeadTargets | None,
        losses: Sequence[HeadLoss],
        plan: TrainingPlan,
        threads: int,
        closed: contextlib.ExitStack,
    ) -> None:
        self.network, self.fit, self.plan = network, fit, plan
        self.validation, self.validation_targets = validation, validation_targets
        self.losses = HeadLosses(losses, fit.torch_device)
        self.validation_losses = self.losses.corrected()
        self.parameters = closed.enter_context(training_mode(network, plan.heads_only))
        self.optimizer = adam(self.parameters, plan.rate, fit.torch_device)
        self.autocast = autocast_of(plan.precision, fit.torch_device)
        self.workers = Workers(threads if fit.torch_device == "cpu" else 1)
        closed.callback(self.workers.close)
        parts = (network, fit, targets, self.losses, self.optimizer)
        self.steps = steps_of(*parts, plan.rows_of_step, self.workers, self.autocast)

    def resumed(self, checkpoint: Checkpoint | None) -> _Progress:
        """The progress that a checkpoint holds, with its weights in the network; else that of the start."""
        start = _Progress(self.plan.rate)
        if checkpoint is None:
            return start
        if (stored := checkpoint.load()) is None:
            checkpoint.remove()  # nothing of another training is left beside this one's
            return start
        _, arrays, record = stored
        parts: dict[str, dict[str, np.ndarray]] = {"network": {}, "best": {}, "adam": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = array
        for k, parameter in enumerate(self.parameters):
            moments = {name: torch.from_numpy(parts["adam"][f"{k}/{name}"].copy()) for name in MOMENTS}
            self.optimizer.state[parameter] = {name: moment.to(parameter.device) for name, moment in moments.items()}
        load_arrays(self.network, parts["network"])
        return _Progress.of(record, parts["best"] or None)

    def arrays(self, progress: _Progress) -> dict[str, np.ndarray]:
        """What a checkpoint keeps: weights now and at their best, and Adam's moments."""
        arrays = {f"network/{name}": array for name, array in arrays_of(self.network).items()}
        arrays |= {f"best/{name}": array for name, array in (progress.best or {}).items()}
        moments = {
            f"adam/{k}/{name}": self.optimizer.state[parameter][name]
            for k, parameter in enumerate(self.parameters)
            for name in MOMENTS
        }
        return arrays | dict(zip(moments, on_host(list(moments.values())), strict=True))

    def goes_on(self, progress: _Progress) -> bool:
        """Whether there is another epoch."""
        stops = self.validation is not None and progress.since_best >= self.plan.patience
        return progress.epoch < self.plan.epochs and not stops

    def run_epoch(self, progress: _Progress) -> EpochResult:
        """Fit all rows of an epoch, validate, and change the rate for the next."""
        epoch = progress.epoch + 1
        rate = progress.rate if self.plan.rates is None else self.plan.rates[progress.epoch]
        set_rate(self.optimizer, rate)
        total: tuple[torch.Tensor, torch.Tensor] | None = None
        for k, positions in enumerate(self.positions(epoch)):
            results = self.steps.step(positions, (self.plan.seed, epoch, k))
            if total is None:
                total = results[0].clone(), results[1].clone()
            else:
                total[0].add_(results[0])
                total[1].add_(results[1])
        assert total is not None
        sums, counts = (tensor.cpu().numpy() for tensor in total)  # the one time in an epoch that the host waits
        loss, heads = self.losses.means(sums, counts)
        if not counts.any():
            raise ValueError("no target of the fitted rows is known")
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} in epoch {epoch}, at a rate of {rate:g}: choose a lower rate")
        progress.epoch = epoch
        validated = (
            self.validated()
            if self.validation is not None
            else (None, dict(zip(self.losses.names, heads, strict=True)))
        )
        return self.judged(progress, EpochResult(epoch, rate, loss, *validated))

    def positions(self, epoch: int) -> Iterator[torch.Tensor]:
        """The rows of each step of an epoch, int64: a permutation, or a draw without replacement, of (seed, epoch)."""
        order = np.random.default_rng([self.plan.seed, epoch]).permutation(self.fit.n)
        order = order[: self.plan.epoch_rows or self.fit.n]
        return iter(torch.from_numpy(order).to(self.fit.torch_device).split(self.plan.rows_of_step))

    def validated(self) -> tuple[float, dict[str, float]]:
        """Validation loss, and that of each head."""
        assert self.validation is not None and self.validation_targets is not None
        losses = self.validation_losses
        parts = (self.network, self.validation, self.validation_targets, losses, self.workers, self.autocast)
        sums, counts = (tensor.cpu().numpy() for tensor in evaluate(*parts))
        loss, heads = losses.means(sums, counts)
        if not counts.any():
            raise ValueError("no target of the validation rows is known")
        return loss, dict(zip(self.losses.names, heads, strict=True))

    def judged(self, progress: _Progress, result: EpochResult) -> EpochResult:
        """Add a result to the progress: the best weights, and the rate of the next epoch."""
        loss = result.validation_loss
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss is {loss} after epoch {result.epoch}, at a rate of {result.rate:g}: "
                "choose a lower rate"
            )
        progress.history.append(result)
        if loss is None:
            return result
        progress.since_best += 1
        progress.since_change += 1
        if loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = loss, result.epoch
            progress.since_best = progress.since_change = 0
            progress.best = arrays_of(self.network)
        elif progress.since_change >= self.plan.plateau:
            progress.rate = max(progress.rate / 2, LEAST_RATE)
            progress.since_change = 0
        return result
