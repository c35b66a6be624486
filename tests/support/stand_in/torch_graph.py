"""CUDA graphs of the stand-in: a replay calls the captured function again, and has to do what the capture saw.

A GPU replays a capture with the memory and the numbers that it saw. So a replay here is refused where it reads a tensor
that has moved, or a Python number, a shape or an operator that is another than at the capture. What the capture
computes is taken back, as a GPU only records it. Within both a wait, and a copy over the bus, is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.support.stand_in import counting
from tests.support.stand_in.counting import COUNTS
from tests.support.stand_in.recorded import RefusedError

_REFUSED = (counting.WAITS, counting.SIZES, counting.UNCOUNTED, counting.TO_DEVICE, counting.TO_HOST)
_NOT_PERMITTED = "CUDA error: operation not permitted when stream is capturing"
_thread = threading.local()  # recording: of the call that this thread captures or replays
_underway: list[tuple[threading.Thread, str]] = []  # captures of the process, with their error modes
allocator = ["native"]  # Torch's backend
started: list[str] = []  # what used the device first: after it Torch's allocator cannot be changed


class ReplayError(RuntimeError):
    """A GPU would go on with the memory or the number that the capture saw."""


class CUDAGraph:
    """`torch.cuda.CUDAGraph`, as far as gpupipe uses it."""

    def __init__(self) -> None:
        self.generators: list[Any] = []
        self.recording: Recording | None = None
        self.function: Callable[[], Any] | None = None
        self.results: Any = None

    def register_generator_state(self, generator: Any) -> None:
        """Let the graph draw from a generator of the device."""
        if generator.device.type != "cuda":
            raise RuntimeError("register_generator_state: the generator is on the CPU")
        self.generators.append(generator)

    def capture_begin(self, mode: str) -> None:
        """From now on this thread's operators are recorded."""
        if _underway:
            raise RuntimeError(f"{_NOT_PERMITTED}: another capture is underway, and there may be one in a process")
        if allocator[0] == "pluggable":
            raise RefusedError("a capture in another library's pool, which would give the graph's memory away again")
        _underway.append((threading.current_thread(), mode))
        self._states = [generator.get_state() for generator in self.generators]
        self.recording = _thread.recording = Recording(self.generators)

    def capture_end(self) -> None:
        """What the operators did since `capture_begin` is taken back."""
        assert self.recording is not None
        _thread.recording = None
        _underway.clear()
        self.recording.take_back()
        for generator, state in zip(self.generators, self._states, strict=True):
            generator.set_state(state)

    def bind(self, function: Callable[[], Any], results: Any) -> None:
        """What a replay calls, and the results of the capture, which hold nothing yet."""
        self.function, self.results = function, results
        assert self.recording is not None
        for tensor in _tensors(results):
            if self.recording.made_here(tensor) and tensor.is_floating_point():
                _host(tensor).fill_(float("nan"))

    def replay(self) -> None:
        """Call the function as it was captured, and write its results where the capture's lie."""
        if self.recording is None or self.function is None:
            raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
        COUNTS.add(counting.LAUNCHES, "a CUDA graph")
        recording = _thread.recording = Recording(self.generators, self.recording)
        try:
            results = self.function()
        finally:
            _thread.recording = None
        recording.check_whole()
        for tensor, new in zip(_tensors(self.results), _tensors(results), strict=True):
            if self.recording.made_here(tensor):
                _host(tensor).copy_(_host(new))


class graph:  # noqa: N801  Torch's name
    """`torch.cuda.graph`: what is done within it is captured."""

    def __init__(self, cuda_graph: CUDAGraph, *, capture_error_mode: str = "global") -> None:
        self.cuda_graph, self.mode = cuda_graph, capture_error_mode

    def __enter__(self) -> None:
        torch.cuda.synchronize()
        self.cuda_graph.capture_begin(self.mode)

    def __exit__(self, *error: object) -> None:
        self.cuda_graph.capture_end()


class Recording:
    """The operators of a call, in order, each with its numbers and the memory of its tensors.

    before: the recording that this call has to equal; None for a capture.
    """

    def __init__(self, generators: list[Any], before: Recording | None = None) -> None:
        self.steps: list[tuple[tuple[Any, ...], str]] = []
        self._generators, self._before = generators, before
        self._made: dict[int, Any] = {}  # storages of the call by address; kept, so that no address is used twice
        self._outside: dict[int, tuple[Any, torch.Tensor]] = {}  # others that it reads, and what was in them before
        self._backward = False

    def add(self, name: str, values: Iterator[Any]) -> None:
        """An operator, before it is called."""
        step = (name, tuple(map(self._described, values)))
        self._backward |= name in ("backward", "grad")
        where, k = counting.place(), len(self.steps)
        self.steps.append((step, where))
        if self._before is None:
            return
        expected, there = self._before.steps[k] if k < len(self._before.steps) else ((None, ()), "the end")
        if expected[0] != name:
            raise ReplayError(f"{where}: {name}, where the capture had {expected[0]} at {there}: a GPU replays that")
        for captured, now in zip(expected[1], step[1], strict=True):
            if captured != now:
                raise ReplayError(f"{where}: {name} of {_in_words(now)}, captured with {_in_words(captured)}")

    def keep(self, result: Any) -> None:
        """What an operator returned: memory of the call, unless it is known."""
        for tensor in _tensors(result):
            storage = _host(tensor).untyped_storage()
            if storage.data_ptr() not in self._outside:
                self._made.setdefault(storage.data_ptr(), storage)

    def read(self, result: Any) -> None:
        """A gradient that was read: of this call where there has been a backward pass."""
        if self._backward:
            self.keep(result)

    def made_here(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor lies in memory of the call."""
        return _host(tensor).untyped_storage().data_ptr() in self._made

    def take_back(self) -> None:
        """Memory from outside of the call holds again what it held before."""
        for storage, content in self._outside.values():
            storage.copy_(content)

    def check_whole(self) -> None:
        """ReplayError where the call did less than the one before."""
        if self._before is not None and len(self.steps) < len(self._before.steps):
            (name, _), where = self._before.steps[len(self.steps)]
            raise ReplayError(f"{where}: {name} was captured, and is not called now: a GPU replays it")

    def _described(self, value: Any) -> Any:
        """What has to be the same in each replay, as something that can be compared."""
        if isinstance(value, torch.Tensor):
            host = _host(value)
            if not value.is_cuda:
                return "number of the host", repr(host.tolist())
            storage, form = host.untyped_storage(), (tuple(host.shape), host.stride(), str(host.dtype))
            if storage.data_ptr() in self._made or not host.numel():
                return "tensor of the call", form
            if storage.data_ptr() not in self._outside:
                self._outside[storage.data_ptr()] = storage, storage.clone() if self._before is None else None
            return "tensor", host.data_ptr(), form
        if isinstance(value, torch.Generator):
            if not any(value is one for one in self._generators):
                raise RuntimeError("Attempt to increase offset for a CUDA generator not in capture mode.")
            return "generator", id(value)
        return "value", repr(value)


def begins(name: str, args: Any, kwargs: Any) -> None:
    """An operator of this thread is about to be called."""
    recording = getattr(_thread, "recording", None)
    if recording is not None:
        recording.add(name, leaves((args, kwargs)))


def ended(result: Any) -> bool:
    """An operator of this thread has returned; whether it is one of a CUDA graph."""
    recording = getattr(_thread, "recording", None)
    if recording is not None:
        recording.keep(result)
    return recording is not None


def read(name: str, value: Any) -> Any:
    """A property of a tensor was read."""
    recording = getattr(_thread, "recording", None)
    if recording is not None and name == "grad":
        recording.read(value)
    return value


def start(what: str) -> None:
    """The device is used."""
    if not started:
        started.append(what)


def allocated() -> None:
    """RuntimeError where another thread captures in the mode "global": memory of CUDA's may be asked for meanwhile."""
    start("a tensor")
    for thread, mode in _underway:
        if mode == "global" and thread is not threading.current_thread():
            raise RuntimeError(f"{_NOT_PERMITTED}: an allocation while {thread.name} captures")


def is_capturing() -> bool:
    """Whether this thread captures."""
    return any(thread is threading.current_thread() for thread, _ in _underway)


def check_permitted(kind: str, what: str) -> None:
    """RuntimeError for a wait or a copy within a capture or a replay, and for one of the whole device beside one."""
    if kind in _REFUSED and getattr(_thread, "recording", None) is not None:
        raise RuntimeError(f"{_NOT_PERMITTED}: {what} ({counting.place()})")
    if kind == counting.WAITS and what == "the device is synchronised" and _underway:
        raise RuntimeError(f"{_NOT_PERMITTED}: {what}")


def leaves(value: Any) -> Iterator[Any]:
    """What is in tuples, lists, dictionaries and slices, in order."""
    if isinstance(value, tuple | list):
        for one in value:
            yield from leaves(one)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from leaves(value[key])
    elif isinstance(value, slice):
        yield from leaves((value.start, value.stop, value.step))
    else:
        yield value


def _host(tensor: torch.Tensor) -> torch.Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.detach().as_subclass(torch.Tensor)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [one for one in leaves(value) if isinstance(one, torch.Tensor) and one.is_cuda]


def _in_words(described: Any) -> str:
    kind, *rest = described
    return f"a {kind} {' '.join(map(str, rest))}"
