"""Steps of training on a GPU: one CUDA graph, captured once and replayed; the same steps uncaptured on a CPU."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gpupipe.estimators.torch.losses import HeadLosses, HeadTargets
from gpupipe.estimators.torch.network import Network
from gpupipe.estimators.torch.shards import seed_of
from gpupipe.estimators.torch.windows import Windows

WARM_UP_STEPS = 3  # ordinary steps on a stream of their own before the capture, in which libraries choose algorithms
_ONE_CAPTURE = threading.Lock()  # CUDA captures one graph at a time in a process


class CapturedCall:
    """A function without arguments that works in place, on a GPU as one CUDA graph.

    The first WARM_UP_STEPS calls run it one operator at a time, on a stream of their own. Then it is captured, and from
    then on replayed in one launch; what it returned is overwritten by each call. It may read and write tensors that
    stay where they are, and must not wait for the device. Several threads may make calls of their own at once.

    function: what is called.  captured: on a CPU false: the function is called each time.
    generator: gives the generator on the device that the function draws from; None where it draws nothing.

    Never run on a GPU yet. Source: PyTorch's documentation, "CUDA semantics", "Whole-network capture".

        >>> counter = torch.zeros(())
        >>> call = CapturedCall(lambda: counter.add_(1), captured=False)
        >>> call().item(), call().item()
        (1.0, 2.0)
    """

    def __init__(
        self, function: Callable[[], Any], captured: bool, generator: Callable[[], torch.Generator] | None = None
    ) -> None:
        self.function, self.captured, self.generator = function, captured, generator
        self._calls = 0
        self._graph: Any = None
        self._results: Any = None

    def __call__(self) -> Any:
        """The function's results."""
        if not self.captured:
            return self.function()
        self._calls += 1
        if self._calls <= WARM_UP_STEPS:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                results = self.function()
            torch.cuda.current_stream().wait_stream(stream)
            return results
        if self._graph is None:
            self._capture()
        self._graph.replay()
        return self._results

    def _capture(self) -> None:
        """Record a call without running it; what it allocates then lies in the graph's own memory."""
        self._graph = torch.cuda.CUDAGraph()
        if self.generator is not None:
            self._graph.register_generator_state(self.generator())
        # Other threads go on allocating memory meanwhile, which CUDA refuses them in the mode "global".
        with _ONE_CAPTURE, torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._results = self.function()


class CapturedSteps:
    """Steps of a network's training on a GPU. Steps of `rows` rows are one CUDA graph, others are ordinary.

    A step gathers windows and targets into buffers that stay where they are. Then come the forward and backward pass,
    and the optimiser, as a `CapturedCall`. Nothing in a step waits for the device. On a CPU, and where `captured` is
    false, the same steps run one operator at a time.

    network: a `Network`, in the mode that it is trained in; its dropout generator is on its device.
    rows: of a step.  optimizer: of the network's parameters, capturable, with its rate in a tensor, where the device is
        CUDA.
    The other arguments are those of `shards.ShardedSteps`.

    Never run on a GPU yet.
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
        self._step_in_place = CapturedCall(
            lambda: self._step(self._windows, self._targets), self.captured, lambda: self.network.dropout_generator
        )

    def step(self, positions: torch.Tensor, seed: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """As `ShardedSteps.step`: one shard, whatever its size. The next step overwrites what is returned."""
        self.network.dropout_generator.manual_seed(seed_of(*seed, 0))
        if len(positions) != self.rows:
            return self._step(self.windows.batch(positions), self.targets.take(positions))
        self.windows.gather(positions, self._windows)
        self.targets.take_into(positions, self._targets)
        return self._step_in_place()

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
