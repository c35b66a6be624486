"""`DeviceTensor`: a tensor of the stand-in's device, in host memory, that refuses what a CUDA tensor refuses.

Torch's CPU build computes; what is checked and counted is what would cross the bus, wait, or fail on a GPU. Copies by
Torch are counted as "bytes that Device does not count", as gpupipe.runtime.device is not asked for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.support.stand_in import counting, torch_graph
from tests.support.stand_in.counting import COUNTS

CUDA = torch.device("cuda", 0)
_KDLCUDA = 2  # the number of CUDA in DLPack
# Methods and functions that copy a number to the host, and such whose result has a shape that the host waits for.
_SCALARS = ("item", "tolist", "is_nonzero", "__bool__", "__int__", "__float__", "__index__", "__complex__",
            "__format__")  # fmt: skip
_COMPARED = ("equal", "allclose")
_SIZED = (
    "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "_unique2", "bincount", "repeat_interleave",
)  # fmt: skip
_MARKS = ("requires_grad_", "detach_")  # write nothing to memory
_EMPTY = ("empty", "empty_like", "empty_strided", "new_empty")
_OF_BOTH = ("_has_compatible_shallow_copy_type",)  # reads no values
_MIXED = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
_original_to = torch.Tensor.to


class DeviceTensor(torch.Tensor):
    """A tensor on the device. Made by `on_device`; results of operators on one are of this class too."""

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func.__name__ == "__get__":
            with torch._C.DisableTorchFunctionSubclass():
                return torch_graph.read(func.__self__.__name__, _classed(func(*args, **kwargs)))  # type: ignore[attr-defined]
        wanted = kwargs.pop("device", None)
        return called(_name_of(func), func, args, kwargs, plain=wanted is not None and not is_cuda(wanted))

    def get_device(self) -> int:
        """Its number."""
        return 0

    def cpu(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """A copy on the host."""
        return self.to("cpu", *args, **kwargs)

    def numpy(self, *, force: bool = False) -> Any:
        """TypeError but where a copy is forced, as of a CUDA tensor."""
        return self.detach().cpu().numpy() if force else self.__array__()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:  # type: ignore[override]
        if self.requires_grad:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad.")
        host = host_of(self)
        strides = None if self.is_contiguous() else tuple(n * self.element_size() for n in self.stride())
        return {"shape": tuple(self.shape), "typestr": host.numpy().dtype.str, "strides": strides, "version": 2,
                "data": (host.data_ptr() if host.numel() else 0, False)}  # fmt: skip

    def __dlpack_device__(self) -> Any:
        return _KDLCUDA, 0

    def __dlpack__(self, **_: Any) -> Any:
        raise TypeError("the stand-in's device memory is exchanged with the stand-in's CuPy alone")


def is_cuda(device: Any) -> bool:
    """Whether a device, as Torch's functions take it, is the GPU; a number is one."""
    if isinstance(device, int):
        return True
    return torch.device(device).type == "cuda"


def on_device(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as one of the device, over the same memory."""
    if isinstance(tensor, DeviceTensor):
        return tensor
    torch_graph.allocated()
    return tensor.as_subclass(DeviceTensor)


def host_of(tensor: torch.Tensor) -> torch.Tensor:
    """A device tensor as what it is, a tensor in host memory; for the stand-in alone."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.detach().as_subclass(torch.Tensor)


def moved(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`Tensor.to`, and with no more than a device `cuda` and `cpu`: copies between host and device are counted."""
    values = list(args)
    device = kwargs.pop("device", None)
    if values and isinstance(values[0], torch.Tensor):
        other = values.pop(0)
        device, kwargs["dtype"] = other.device, other.dtype
    elif values and isinstance(values[0], str | int | torch.device) and not isinstance(values[0], bool):
        device = values.pop(0)
        if values and (values[0] is None or isinstance(values[0], torch.dtype)):
            kwargs["dtype"] = values.pop(0)
    elif values and values[0] is None:
        values.pop(0)
    elif values and isinstance(values[0], torch.dtype):
        kwargs["dtype"] = values.pop(0)
    kwargs.update(zip(("non_blocking", "copy"), values, strict=False))
    here = isinstance(self, DeviceTensor)
    if device is not None and torch.device(device).type not in ("cpu", "cuda"):
        return _original_to(self, device, **kwargs)
    there = here if device is None else is_cuda(device)
    if there == here:
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        return _original_to(self, **kwargs) if kwargs else self
    kwargs.pop("copy", None)
    with torch._C.DisableTorchFunctionSubclass():
        n_bytes = self.numel() * self.element_size()
        COUNTS.add(counting.UNCOUNTED, "to the device" if there else "to the host", n_bytes)
        if not there:
            COUNTS.add(counting.WAITS, "a copy to the host")
        copied = _original_to(self, **{**kwargs, "copy": True}) if kwargs.get("dtype") else self.clone()
        return on_device(copied) if there else copied.as_subclass(torch.Tensor)


def called(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], plain: bool = False
) -> Any:
    """Call a function of Torch's CPU build with what a CUDA build would refuse, wait for and count.

    plain: its result is to lie on the host.
    """
    tensors = [value for value in torch_graph.leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    _check_devices(name, tensors, args)
    check_generator(kwargs.get("generator"), cuda=not plain)
    _count_waits(name, tensors, args)
    torch_graph.begins(name, args, kwargs)
    with torch._C.DisableTorchFunctionSubclass():
        result = function(*args, **kwargs)
        if plain:
            return result
        if name in _EMPTY:
            _forget(result)
        result = _classed(result)
        if not torch_graph.ended(result) and _computes(name, result, tensors, kwargs):
            COUNTS.add(counting.OPERATORS, name)
        return result


def check_generator(generator: Any, cuda: bool) -> None:
    """RuntimeError for a generator of the other device."""
    if generator is not None and (generator.device.type == "cuda") != cuda:
        kinds = ("cuda", "cpu") if cuda else ("cpu", "cuda")
        raise RuntimeError("Expected a '{}' device type for generator but found '{}'".format(*kinds))


def _name_of(func: Callable[..., Any]) -> str:
    """`add_`, or `grad.__set__` of a property."""
    owner = getattr(func, "__self__", None)
    return f"{owner.__name__}.{func.__name__}" if func.__name__ in ("__set__", "__delete__") else func.__name__


def _classed(result: Any) -> Any:
    """Tensors of a result as tensors of the device."""
    if isinstance(result, torch.Tensor):
        return on_device(result)
    if isinstance(result, tuple | list) and any(isinstance(one, torch.Tensor | tuple | list) for one in result):
        return type(result)(map(_classed, result))  # type: ignore[call-arg]
    return result


def _computes(name: str, result: Any, tensors: list[torch.Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether something was computed or written: a view of a tensor is no work of the device."""
    if name.endswith("_") and not name.endswith("__"):
        return name not in _MARKS
    if name in ("__setitem__", "backward") or "out" in kwargs or (name[:3] == "__i" and name != "__invert__"):
        return True
    known = {host_of(given).untyped_storage().data_ptr() for given in tensors}
    made = [one for one in torch_graph.leaves(result) if isinstance(one, torch.Tensor)]
    return any(host_of(one).untyped_storage().data_ptr() not in known for one in made)


def _check_devices(name: str, tensors: list[torch.Tensor], args: tuple[Any, ...]) -> None:
    """RuntimeError where tensors of the host and the device meet; copies that Torch makes of itself are counted."""
    on_host = [one for one in tensors if not isinstance(one, DeviceTensor) and one.dim()]
    if not on_host or len(on_host) == len(tensors) or name in _OF_BOTH:
        return
    n_bytes = sum(one.numel() * one.element_size() for one in on_host)
    if name == "copy_":
        there = isinstance(args[0], DeviceTensor)
        COUNTS.add(counting.UNCOUNTED, "copy_ to the device" if there else "copy_ to the host", n_bytes)
        if not there:
            COUNTS.add(counting.WAITS, "a copy to the host")
    elif name in ("__getitem__", "__setitem__") and isinstance(args[0], DeviceTensor):
        indexed = any(isinstance(one, torch.Tensor) and one.dim() for one in torch_graph.leaves(args[1]))
        if name == "__setitem__" and indexed and any(one is args[2] for one in on_host):
            raise RuntimeError(_MIXED)
        COUNTS.add(counting.UNCOUNTED, "an index of the host" if indexed else "copy_ to the device", n_bytes)
    else:
        raise RuntimeError(f"{_MIXED} ({name})")


def _count_waits(name: str, tensors: list[torch.Tensor], args: tuple[Any, ...]) -> None:
    if name in _COMPARED:
        COUNTS.add(counting.WAITS, "a scalar")
    elif name in _SIZED or (name == "where" and len(args) == 1):
        COUNTS.add(counting.SIZES, name)
    elif name in ("__getitem__", "__setitem__"):
        index = [one for one in torch_graph.leaves(args[1]) if isinstance(one, torch.Tensor)]
        masked = any(one.dtype == torch.bool and one.dim() for one in index)
        filled = name == "__setitem__" and not (isinstance(args[2], torch.Tensor) and args[2].dim())
        if masked and not filled:  # a mask that one value is assigned through is a masked_fill_
            COUNTS.add(counting.SIZES, "a mask")


def _forget(result: torch.Tensor) -> None:
    """Memory that nobody has written holds no numbers."""
    with torch.no_grad():
        if result.dtype.is_floating_point or result.dtype.is_complex:
            result.detach().fill_(float("nan"))
        elif result.dtype != torch.bool:
            result.detach().fill_(torch.iinfo(result.dtype).min)


def _scalar(name: str) -> Any:
    original = getattr(torch.Tensor, name)

    def method(self: DeviceTensor, *args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            COUNTS.add(counting.WAITS, "a scalar" if self.numel() == 1 else "a copy to the host")
            COUNTS.add(counting.UNCOUNTED, "a scalar", self.numel() * self.element_size())
            return original(host_of(self), *args, **kwargs)

    return method


for _name in _SCALARS:
    setattr(DeviceTensor, _name, _scalar(_name))
