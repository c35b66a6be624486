"""What steps of training are made of on a device: optimiser, precision, modes of the layers, shards or a CUDA graph."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from gpupipe.estimators.torch.captured import CapturedSteps, can_capture
from gpupipe.estimators.torch.losses import HeadLosses, HeadTargets
from gpupipe.estimators.torch.network import Network
from gpupipe.estimators.torch.shards import ShardedSteps, Workers
from gpupipe.estimators.torch.windows import Windows

log = logging.getLogger("gpupipe")


@contextlib.contextmanager
def training_mode(network: Network, heads_only: bool) -> Iterator[list[torch.nn.Parameter]]:
    """Within it the network is in the mode that it is trained in; gives the parameters that are trained.

    heads_only: parameters of the other layers need no gradient, and their running statistics stay as they are.
    The network is in eval mode afterwards, and all its parameters need gradients again.
    """
    network.train()
    frozen = network.trunk_parameters() if heads_only else []
    for parameter in frozen:
        parameter.requires_grad_(False)
    for module in network.modules() if heads_only else ():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
    try:
        yield [parameter for parameter in network.parameters() if parameter.requires_grad]
    finally:
        network.eval()
        for parameter in frozen:
            parameter.requires_grad_(True)


def adam(parameters: Sequence[Any], rate: float, torch_device: str) -> torch.optim.Adam:
    """Adam with Torch's defaults; on CUDA one that a graph can hold, with its rate in a tensor."""
    if torch_device == "cpu":
        return torch.optim.Adam(parameters, lr=rate, foreach=False)
    return torch.optim.Adam(parameters, lr=torch.tensor(rate, device=torch_device), capturable=True)


def set_rate(optimizer: torch.optim.Adam, rate: float) -> None:
    """Give an optimiser of `adam` another rate, where a captured step reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def precision_of(precision: str, torch_device: str) -> str:
    """ "fp32" or "bf16"; "auto" is bf16 on a GPU that has it, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if torch_device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def autocast_of(precision: str, torch_device: str) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """What makes the context of a forward pass, for a precision of a `TrainingPlan`."""
    enabled = precision_of(precision, torch_device) == "bf16"
    # Without the cache of weights in bf16, which a replayed CUDA graph would not fill anew.
    return functools.partial(torch.autocast, torch_device, torch.bfloat16, enabled=enabled, cache_enabled=False)


def steps_of(
    network: Network,
    fit: Windows,
    targets: HeadTargets,
    losses: HeadLosses,
    optimizer: torch.optim.Adam,
    rows_of_step: int,
    workers: Workers,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]],
) -> ShardedSteps | CapturedSteps:
    """The steps of a training on its device: shards on a CPU, a CUDA graph on a GPU."""
    if fit.torch_device == "cpu":
        return ShardedSteps(network, fit, targets, losses, optimizer, workers, autocast)
    network.dropout_generator = torch.Generator(fit.torch_device)
    if not (captured := can_capture()):
        log.warning("steps are not captured as a CUDA graph: Torch allocates from another library's memory pool")
    return CapturedSteps(network, fit, targets, losses, optimizer, rows_of_step, autocast, captured)
