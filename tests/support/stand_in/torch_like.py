"""Torch's CPU build answers as a CUDA build does: factories, generators, modules and `torch.cuda`, for gpupipe's calls.

Tensors of the device are those of torch_tensor, CUDA graphs those of torch_graph. What gpupipe does not use of
`torch.cuda` is refused where it is called from outside of Torch, so that a new use is noticed and taught here.
`is_bf16_supported` is false, so that "auto" computes in float32 as the CPU does; where bf16 is asked for, the CPU's
autocast gives it. Equal seeds give the numbers that they give on the CPU, which they do not on a GPU.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.support.stand_in import counting, device_array, torch_graph, torch_tensor
from tests.support.stand_in.counting import COUNTS
from tests.support.stand_in.recorded import RefusedError
from tests.support.stand_in.torch_tensor import CUDA, DeviceTensor, called, check_generator, is_cuda, on_device

FACTORIES = (
    "zeros", "ones", "empty", "full", "arange", "linspace", "eye", "rand", "randn", "randint", "randperm",
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "empty_strided",
)  # fmt: skip
COPYING = ("tensor", "as_tensor", "asarray")
_TORCH = str(pathlib.Path(torch.__file__).parent)
_current = threading.local()  # stream: of this thread


class Stream:
    """`torch.cuda.Stream`: work is done when it is given."""

    def __init__(self, pointer: int | None = None) -> None:
        self.cuda_stream = id(self) if pointer is None else pointer

    def wait_stream(self, stream: Stream) -> None:
        """Work that follows waits for that of another stream, on the device."""

    def is_capturing(self) -> bool:
        """Whether a CUDA graph is captured on it."""
        return torch_graph.is_capturing()


class Generator(torch._C.Generator):
    """`torch.Generator`, of either device."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        generator = super().__new__(cls, "cpu")
        generator.on_device = is_cuda(device)
        return generator

    def __init__(self, device: Any = "cpu") -> None:
        pass

    on_device: bool

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it draws."""
        return CUDA if self.on_device else torch.device("cpu")


class autocast(torch.amp.autocast_mode.autocast):  # noqa: N801  Torch's name
    """`torch.autocast`: on the device the CPU's, as the memory is there."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def current_stream() -> Stream:
    """The stream of this thread."""
    torch_graph.start("current_stream")
    return getattr(_current, "stream", _DEFAULT)


@contextlib.contextmanager
def stream(stream: Stream) -> Iterator[None]:
    """Work within goes to a stream."""
    before, _current.stream = current_stream(), stream
    try:
        yield
    finally:
        _current.stream = before


def synchronize() -> None:
    """Wait for the device."""
    torch_graph.start("synchronize")
    COUNTS.add(counting.WAITS, "the device is synchronised")


def change_current_allocator(allocator: Any) -> None:
    """Let Torch allocate from another library's pool; RuntimeError once it has allocated."""
    if torch_graph.started:
        raise RuntimeError(f"Can't swap an already initialized allocator: {torch_graph.started[0]} came before")
    torch_graph.allocator[0] = "pluggable"


_DEFAULT = Stream(0)
# What gpupipe uses of torch.cuda, and what Torch asks of it on its behalf.
CUDA_NAMES: dict[str, Any] = {
    "is_available": lambda: True, "is_bf16_supported": lambda including_emulation=True: False,
    "device_count": lambda: 1, "current_device": lambda: 0, "is_initialized": lambda: bool(torch_graph.started),
    "get_allocator_backend": lambda: torch_graph.allocator[0], "is_current_stream_capturing": torch_graph.is_capturing,
    "current_stream": current_stream, "stream": stream, "synchronize": synchronize, "Stream": Stream,
    "CUDAGraph": torch_graph.CUDAGraph, "graph": torch_graph.graph,
}  # fmt: skip


def install() -> None:
    """Change Torch, for the whole process."""
    for name in FACTORIES:
        setattr(torch, name, _factory(name))
    for name in COPYING:
        setattr(torch, name, _copying(name))
    torch.from_dlpack = _from_dlpack
    torch.Tensor.to = torch_tensor.moved
    torch.Tensor.cuda = lambda self, *args, **kwargs: torch_tensor.moved(self, "cuda")
    torch.Generator = Generator
    torch.autocast = autocast
    torch.nn.Module._apply = _apply
    _install_cuda()
    _install_optimizers()
    _install_captures()
    COUNTS.guards.append(torch_graph.check_permitted)


def _install_cuda() -> None:
    for name in torch.cuda.__all__:
        if inspect.isfunction(getattr(torch.cuda, name)) and name not in CUDA_NAMES:
            setattr(torch.cuda, name, _for_torch_alone(name))
    for name, value in CUDA_NAMES.items():
        assert hasattr(torch.cuda, name)
        setattr(torch.cuda, name, value)
    torch.cuda.memory.change_current_allocator = change_current_allocator
    torch.backends.cuda.is_built = lambda: True
    torch.backends.cudnn.is_acceptable = lambda tensor: False  # weights of recurrent layers stay where they are
    torch.accelerator.current_accelerator = lambda check_available=False: CUDA
    torch.accelerator.current_stream = current_stream


def _install_optimizers() -> None:
    """Optimisers choose what they do by the device and the class of their parameters."""
    from torch.optim import optimizer

    grouped = torch.utils._foreach_utils._group_tensors_by_device_and_dtype
    optimizer._foreach_supported_types.append(DeviceTensor)

    def by_device(lists: Any, with_indices: bool = False) -> Any:
        groups = {}
        for (device, dtype), group in grouped(lists, with_indices).items():
            there = any(isinstance(one, DeviceTensor) for one in torch_graph.leaves(group[0]))
            groups[CUDA if there else device, dtype] = group
        return groups

    optimizer._group_tensors_by_device_and_dtype = by_device


def _install_captures() -> None:
    """A graph learns what `CapturedCall` captured, as a replay calls it again."""
    from gpupipe.estimators.torch.captured import CapturedCall

    capture = CapturedCall._capture

    def bound(self: CapturedCall) -> None:
        capture(self)
        self._graph.bind(self.function, self._results)

    CapturedCall._capture = bound  # type: ignore[method-assign]


def _factory(name: str) -> Callable[..., Any]:
    """A function of Torch that makes a tensor."""
    original = getattr(torch, name)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        device = kwargs.get("device")
        like = any(isinstance(one, DeviceTensor) for one in args)
        if device is None or not is_cuda(device):
            check_generator(kwargs.get("generator"), cuda=like and device is None)
            return original(*args, **kwargs)
        kwargs.pop("device")
        args = tuple(torch_tensor.host_of(one) if isinstance(one, DeviceTensor) else one for one in args)
        return called(name, original, args, kwargs)

    return call


def _copying(name: str) -> Callable[..., Any]:
    """A function of Torch that makes a tensor of what is on the host, or on the device."""
    original = getattr(torch, name)

    @functools.wraps(original)
    def call(data: Any, *args: Any, **kwargs: Any) -> Any:
        device = kwargs.pop("device", None)
        if isinstance(data, device_array.ndarray):
            there = _from_cupy(data)
            there = there.clone() if name == "tensor" else there
            return torch_tensor.moved(there, device or CUDA, *args, **kwargs)
        if isinstance(data, DeviceTensor):
            return torch_tensor.moved(data, device or CUDA, *args, **kwargs)
        if device is None or not is_cuda(device):
            return original(data, *args, **kwargs, **({} if device is None else {"device": device}))
        made = original(data, *args, **kwargs)
        COUNTS.add(counting.UNCOUNTED, name, made.numel() * made.element_size())
        return on_device(made.clone())

    return call


def _from_cupy(array: device_array.ndarray) -> torch.Tensor:
    """A tensor over the memory of an array of the stand-in's CuPy."""
    if not array.host.flags.writeable:
        raise RefusedError("the stand-in's Torch takes arrays that can be written to alone")
    return on_device(torch.from_numpy(array.host))


def _from_dlpack(ext_tensor: Any) -> torch.Tensor:
    """`torch.from_dlpack` of an array of the stand-in's CuPy."""
    if isinstance(ext_tensor, device_array.ndarray):
        return _from_cupy(ext_tensor)
    return torch.utils.dlpack.from_dlpack(ext_tensor)


_original_apply = torch.nn.Module._apply


def _apply(self: torch.nn.Module, fn: Callable[..., Any], recurse: bool = True) -> torch.nn.Module:
    """`Module.to` moves a parameter in place: the same object lies on the device afterwards."""
    there: set[int] = set()

    def moving(tensor: torch.Tensor) -> torch.Tensor:
        result = fn(tensor)
        if isinstance(result, DeviceTensor):
            there.add(id(tensor))
        return result

    _original_apply(self, moving, recurse)
    for parameter in self._parameters.values():
        if parameter is not None and id(parameter) in there:
            parameter.__class__ = DeviceTensor
            parameter._is_param = True
    return self


def _for_torch_alone(name: str) -> Callable[..., Any]:
    """A function of torch.cuda that the stand-in has not been taught."""
    original = getattr(torch.cuda, name)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not sys._getframe(1).f_code.co_filename.startswith(_TORCH):
            raise RefusedError(f"torch.cuda.{name}: not known to the stand-in; torch_like.CUDA_NAMES has what is")
        return original(*args, **kwargs)

    return call
