"""Steps of training on a GPU: one CUDA graph, captured once and replayed; the same steps uncaptured on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gpupipe.estimators.torch.losses import HeadLosses, HeadTargets
from gpupipe.estimators.torch.network import Network
from gpupipe.estimators.torch.shards import seed_of
from gpupipe.estimators.torch.windows import Windows

WARM_UP_STEPS = 3  # ordinary steps on a stream of their own before the capture, in which libraries choose algorithms


class CapturedSteps:
    """Steps of a network's training on a GPU. Steps of `rows` rows are one CUDA graph, others are ordinary.

    A step gathers windows and targets into buffers that stay where they are. Then come the forward and backward pass,
    and the optimiser: after WARM_UP_STEPS steps they are captured, and from then on replayed in one launch. Nothing in
    a step waits for the device. On a CPU, and where `captured` is false, the same steps run one operator at a time.

    network: a `Network`, in the mode that it is trained in; its dropout generator is on its device.
    rows: of a step.  optimizer: of the network's parameters, capturable, with its rate in a tensor, where the device is
        CUDA.
    The other arguments are those of `shards.ShardedSteps`.

    Never run on a GPU yet. Source: PyTorch's documentation, "CUDA semantics", "Whole-network capture".
    """

    def __init__(
        self,
        network: Network,
        windows: Windows,
        targets: HeadTargets,
        losses: HeadLosses,
        optimizer: Any,
        rows: int,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        captured: bool = True,
    ) -> None:
        self.network, self.windows, self.targets, self.losses = network, windows, targets, losses
        self.optimizer, self.autocast, self.rows = optimizer, autocast, rows
        self.captured = captured and windows.torch_device == "cuda"
        shape = (rows, windows.length, windows.n_columns)
        self._windows = torch.zeros(shape, dtype=torch.float32, device=windows.torch_device)
        nothing = torch.zeros(rows, dtype=torch.int64, device=windows.torch_device)
        self._targets = targets.take(nothing) if len(targets) else targets
        self._steps = 0  # of `rows` rows
        self._graph: Any = None
        self._results: Any = None

    def step(self, positions: torch.Tensor, seed: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """As `ShardedSteps.step`: one shard, whatever its size. The next step overwrites what is returned."""
        self.network.dropout_generator.manual_seed(seed_of(*seed, 0))
        if len(positions) != self.rows:
            return self._step(self.windows.batch(positions), self.targets.take(positions))
        self.windows.gather(positions, self._windows)
        self.targets.take_into(positions, self._targets)
        self._steps += 1
        if not self.captured:
            return self._step(self._windows, self._targets)
        if self._steps <= WARM_UP_STEPS:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                results = self._step(self._windows, self._targets)
            torch.cuda.current_stream().wait_stream(stream)
            return results
        if self._graph is None:
            self._capture()
        self._graph.replay()
        return self._results

    def _capture(self) -> None:
        """Record a step without running it; gradients then lie in the graph's own memory."""
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(self.network.dropout_generator)
        with torch.cuda.graph(self._graph):
            self._results = self._step(self._windows, self._targets)

    def _step(self, windows: torch.Tensor, targets: HeadTargets) -> tuple[torch.Tensor, torch.Tensor]:
        counts = self.losses.counts(targets)
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            margins = self.network(windows)
        sums = self.losses.sums(margins.float(), targets)
        self.losses.objective(sums, counts).backward()
        self.optimizer.step()
        return sums.detach(), counts


def can_capture() -> bool:
    """Whether a CUDA graph can keep Torch's memory to itself: not where Torch allocates from another library's pool."""
    return bool(torch.cuda.get_allocator_backend() != "pluggable")
