"""Steps of training on a CPU, cut into shards of fixed size: the threads that compute them change no byte."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch

from gpupipe.estimators.torch.losses import HeadLosses, HeadTargets
from gpupipe.estimators.torch.network import Network
from gpupipe.estimators.torch.windows import Windows

SHARD_ROWS = 512  # fixed: another number gives other sums, and so other bytes

Item = TypeVar("Item")
Result = TypeVar("Result")


class ShardedSteps:
    """Steps of a network's training whose rows are cut into shards; the shards of a step run on threads.

    Each shard's forward and backward pass runs on a replica of the network. Replicas share the storage of its
    parameters, and have gradients, running statistics and a dropout generator of their own. Gradients are added in the
    order of the shards, then the optimiser steps once. Running statistics become the shards' mean, weighted by their
    rows. So equal inputs give equal bytes on any number of threads; a step of one shard is an ordinary step of Torch.

    network: a `Network` on the CPU, in the mode that it is trained in.
    windows, targets: of the rows that are fitted.  losses: of the heads.
    optimizer: of the network's parameters.  workers: that compute shards.
    autocast: makes the context in which a forward pass runs.
    """

    def __init__(
        self,
        network: Network,
        windows: Windows,
        targets: HeadTargets,
        losses: HeadLosses,
        optimizer: Any,
        workers: Workers,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        self.network, self.windows, self.targets, self.losses = network, windows, targets, losses
        self.optimizer, self.autocast = optimizer, autocast
        self.workers = workers
        self._replicas: list[Network] = []

    def step(self, positions: torch.Tensor, seed: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimiser step on some rows; float64 (n_heads,) sums and counts of the losses before it.

        positions: int64, of rows of the windows.  seed: integers >= 0 from which, with the number of the shard, the
            dropout is drawn.
        """
        shards = [positions[first : first + SHARD_ROWS] for first in range(0, len(positions), SHARD_ROWS)]
        targets = self.targets.take(positions)
        counts = self.losses.counts(targets)
        while len(self._replicas) < len(shards):
            self._replicas.append(replica_of(self.network))

        def run(k: int) -> torch.Tensor:
            replica = self._replicas[k]
            copy_buffers(self.network, replica)
            replica.zero_grad(set_to_none=True)
            replica.dropout_generator.manual_seed(seed_of(*seed, k))
            of_shard = targets.slice(k * SHARD_ROWS, k * SHARD_ROWS + len(shards[k]))
            with self.autocast():
                margins = replica(self.windows.batch(shards[k]))
            sums = self.losses.sums(margins.float(), of_shard)
            self.losses.objective(sums, counts).backward()
            return sums.detach()

        sums = _added(self.workers.map(run, range(len(shards))))
        self._collect([len(shard) / len(positions) for shard in shards])
        self.optimizer.step()
        return sums, counts

    def _collect(self, shares: Sequence[float]) -> None:
        """Add the replicas' gradients to the network's, and average their running statistics."""
        replicas = self._replicas[: len(shares)]
        with torch.no_grad():
            for parameter, *others in zip(
                self.network.parameters(), *(replica.parameters() for replica in replicas), strict=True
            ):
                parameter.grad = others[0].grad
                for other in others[1:] if parameter.grad is not None else ():
                    parameter.grad += other.grad
            for buffer, *others in zip(
                self.network.buffers(), *(replica.buffers() for replica in replicas), strict=True
            ):
                buffer.copy_(others[0])
                if buffer.is_floating_point():  # a counter is the same in all of them
                    for other, share in zip(others[1:], shares[1:], strict=True):
                        buffer += (other - others[0]) * share


class Workers:
    """Threads that compute, each with Torch on one thread; with a single one, the calling thread computes.

    >>> workers = Workers(1)
    >>> workers.map(abs, [-1, 2])
    [1, 2]
    >>> workers.close()
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "shard", initializer=_use_one_thread) if threads > 1 else None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The results, in the order of the items."""
        return list((self._pool.map if self._pool else map)(function, items))

    def close(self) -> None:
        """End the threads."""
        if self._pool:
            self._pool.shutdown()


def _use_one_thread() -> None:
    """Let Torch's operators run on one thread, where this thread calls them."""
    torch.get_num_threads()  # Torch reads its setting for a thread once, and here: not after it is set
    torch.set_num_threads(1)


def replica_of(network: Network) -> Network:
    """A copy of a network that shares the storage of its parameters; gradients, buffers and dropout are its own."""
    replica = copy.deepcopy(network)
    for own, shared in zip(replica.parameters(), network.parameters(), strict=True):
        own.data = shared.data
    replica.dropout_generator = torch.Generator()
    return replica


def copy_buffers(network: Network, replica: Network) -> None:
    """Give a replica the network's running statistics."""
    for own, buffer in zip(replica.buffers(), network.buffers(), strict=True):
        own.copy_(buffer)


def seed_of(*numbers: int) -> int:
    """A seed of 63 bits from integers >= 0.

    >>> seed_of(1, 2, 3) == seed_of(1, 2, 3) != seed_of(1, 2, 4)
    True
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def evaluate(
    network: Network,
    windows: Windows,
    targets: HeadTargets,
    losses: HeadLosses,
    workers: Workers,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 (n_heads,) sums and counts of the losses of all rows, of the network in eval mode; see `HeadLosses`.

    Rows are cut into shards as in training, whose sums are added in their order.
    """

    def run(first: int) -> torch.Tensor:
        last = min(first + SHARD_ROWS, windows.n)
        positions = torch.arange(first, last, device=windows.torch_device)
        with torch.no_grad(), autocast():
            margins = network(windows.batch(positions))
        return losses.sums(margins.float(), targets.slice(first, last))

    with _eval_mode(network):
        sums = _added(workers.map(run, range(0, windows.n, SHARD_ROWS)))
    return sums, losses.counts(targets)


@contextlib.contextmanager
def _eval_mode(network: Network) -> Iterator[None]:
    """Within it all layers are in eval mode; afterwards each is in its own again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _added(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Their sum, from the first to the last."""
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total += tensor
    return total
