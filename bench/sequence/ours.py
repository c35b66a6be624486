"""Our way to train a sequence network, stage by stage, through public names of gpupipe.

Features are computed by kernels into one float32 matrix. Windows are gathered from it by row number, batch by batch:
the dataset stage fits the scaler and makes no copy.
"""

from __future__ import annotations

import pathlib
import time
from typing import Any

import numpy as np

from bench.sequence.curve import Curve, Epoch
from bench.sequence.problem import Problem
from gpupipe.estimators.torch.architecture import ARCHITECTURES
from gpupipe.estimators.torch.losses import HeadLoss, HeadLosses, HeadTargets
from gpupipe.estimators.torch.plan import EpochResult, TrainingPlan
from gpupipe.estimators.torch.scaler import WindowScaler, fit_scaler
from gpupipe.estimators.torch.settings import SequenceSettings
from gpupipe.estimators.torch.windows import Windows
from gpupipe.store.content_store import dump_json, sha256, write_atomic


def network_of(problem: Problem, settings: SequenceSettings, seed: int) -> Any:
    """The network of a preset for a problem, its weights drawn for the seed; both ways train it."""
    import torch

    from gpupipe.estimators.torch.network import Network

    return Network(
        ARCHITECTURES[settings.network], settings.length, problem.dataset.X.shape[1], problem.heads,
        torch.Generator().manual_seed(seed),
    )  # fmt: skip


def dataset(problem: Problem, settings: SequenceSettings, scaling: str) -> tuple[Windows, Windows, WindowScaler]:
    """Windows of the training and of the validation rows, of which none is gathered yet, and their scaler."""
    scaler = fit_scaler([problem.training], scaling, settings.clip)
    return *windows_of(problem, settings, scaler), scaler


def windows_of(problem: Problem, settings: SequenceSettings, scaler: WindowScaler) -> tuple[Windows, Windows]:
    """Windows of the training and of the validation rows, of which none is gathered yet."""
    training, validation = (Windows([view], settings.length, scaler) for view in (problem.training, problem.validation))
    return training, validation


def windows(problem: Problem, rows: np.ndarray, length: int, scaling: str) -> np.ndarray:
    """float32 (n, length, n_columns): the scaled windows of some rows, copied; what a training step would see."""
    scaler = fit_scaler([problem.training], scaling)
    gathered = Windows([problem.features(rows)], length, scaler).batch(np.arange(len(rows)))
    return np.array(gathered.numpy())


def train(
    network: Any,
    problem: Problem,
    fit: Windows,
    validation: Windows | None,
    settings: SequenceSettings,
    seed: int,
    threads: int,
    epochs: int | None = None,
) -> Curve:
    """Train to the end of patience; the network has the best epoch's weights then.

    fit, validation: of `windows_of`; without validation exactly `epochs` epochs, whose validation loss is NaN.
    epochs: at most; None: the settings'.  threads: that compute a step's shards.
    """
    from gpupipe.estimators.torch.training import train as train_network

    plan = TrainingPlan.of(settings, seed, **({} if epochs is None else {"epochs": epochs}))
    done: list[Epoch] = []
    began = time.perf_counter()

    def epoch_done(result: EpochResult) -> None:
        validation_loss = float("nan") if result.validation_loss is None else result.validation_loss
        done.append(Epoch(time.perf_counter() - began, result.loss, validation_loss, result.rate))

    validation_targets = None if validation is None else targets_of(problem, problem.parts.validation)
    train_network(
        network, fit, targets_of(problem, problem.parts.training), validation, validation_targets, losses_of(problem),
        plan, epoch_done=epoch_done, threads=threads,
    )  # fmt: skip
    return Curve(tuple(done))


def targets_of(problem: Problem, rows: np.ndarray) -> HeadTargets:
    """The labels of some rows, for the heads."""
    device = problem.dataset.device
    return HeadTargets.of(list(problem.dataset.y[device.asarray(rows)].T), torch_device=device.kind)


def losses_of(problem: Problem) -> list[HeadLoss]:
    """The log-loss of each head; all heads count alike."""
    return [HeadLoss(head) for head in problem.heads]


def loss_of(network: Any, problem: Problem, settings: SequenceSettings) -> float:
    """The mean log-loss of the validation rows."""
    from gpupipe.estimators.torch.shards import Workers, evaluate

    _, validation, _ = dataset(problem, settings, settings.scaling)
    losses, workers = HeadLosses(losses_of(problem)), Workers(1)
    sums, counts = evaluate(network, validation, targets_of(problem, problem.parts.validation), losses, workers)
    workers.close()
    return losses.means(sums.numpy(), counts.numpy())[0]


def gather_all(some: Windows, size: int) -> None:
    """Gather every window once, `size` at a time: the part of an epoch that stands for the other way's copies."""
    for first in range(0, some.n, size):
        some.batch(np.arange(first, min(first + size, some.n)))


def save(network: Any, scaler: WindowScaler, facts: dict[str, Any], folder: pathlib.Path) -> None:
    """Weights, scaler and what is known about the model in three files, each replaced atomically and on the disk.

    The metadata, written last, hold the checksums of the other two.
    """
    from safetensors.numpy import save as tensors_of

    from gpupipe.estimators.torch.network import arrays_of

    contents = {"model.safetensors": tensors_of(arrays_of(network)), "scaler.json": dump_json(scaler.as_dict())}
    for name, content in contents.items():
        write_atomic(folder / name, content)
    checksums = {name: sha256(content) for name, content in contents.items()}
    write_atomic(folder / "metadata.json", dump_json({**facts, "sha256": checksums}))
