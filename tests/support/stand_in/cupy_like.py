"""A module `cupy`: CuPy's names and signatures over numpy, with arrays that do not leave the device unasked."""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.stand_in import counting, cuda_like, device_array, recorded, rounding
from tests.support.stand_in.counting import COUNTS
from tests.support.stand_in.device_array import ndarray, shared, unwrap, wrap
from tests.support.stand_in.recorded import RefusedError

# CuPy copies numpy arrays to the device in these alone.
_TAKE_HOST_ARRAYS = ("array", "asarray", "asanyarray")


@functools.cache
def module() -> types.ModuleType:
    """The module; `install` puts it, and those inside it, into sys.modules."""
    cupy = types.ModuleType("cupy", __doc__)
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None, is_package=True)
    cupy.__path__ = []
    for name in recorded.names_in("cupy"):
        numpys = getattr(np, name, None)
        if isinstance(numpys, type | np.dtype | float | int) or (numpys is None and hasattr(np, name)):
            setattr(cupy, name, numpys)
        elif callable(numpys):
            setattr(cupy, name, _function(name))
    for name in _TAKE_HOST_ARRAYS:
        setattr(cupy, name, _copying(name))
    cupy.from_dlpack = from_dlpack  # type: ignore[attr-defined]
    cupy.ndarray, cupy.asnumpy = ndarray, asnumpy  # type: ignore[attr-defined]
    cupy.__version__ = recorded.version("cupy-cuda13x")  # type: ignore[attr-defined]
    cupy.cuda = cuda_like.module()  # type: ignore[attr-defined]
    return cupy


def install() -> None:
    """Make `import cupy` give the stand-in."""
    cupy = module()
    sys.modules["cupy"] = cupy
    for inner in (cupy.cuda, *(getattr(cupy.cuda, name) for name in cuda_like.INNER)):
        sys.modules[inner.__name__] = inner


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
    """An array as numpy, copied to the host if it is on the device."""
    return shared(a).get(stream, order, out, blocking) if _is_there(a) else np.asarray(a)


def from_dlpack(array: Any) -> ndarray:
    """An array over a tensor's memory on the device."""
    if not _is_there(array):
        raise RefusedError("cupy.from_dlpack: the tensor is on the host; move it with Device.asarray")
    return shared(array)


def _is_there(a: Any) -> bool:
    """Whether it is memory on the device, of CuPy or of another library."""
    return hasattr(a, "__cuda_array_interface__")


def _function(name: str) -> Callable[..., Any]:
    """CuPy's function of a name: its arguments, no numpy arrays, numpy's results rounded as a GPU may round them."""
    path, numpys = f"cupy.{name}", rounding.function(name)

    def call(*args: Any, **kwargs: Any) -> Any:
        recorded.check(path, args, kwargs)
        _check_values(name, args, kwargs)
        out = kwargs.get("out")
        kwargs.pop("blocking", None)
        result = numpys(*unwrap(args, path), **{k: unwrap(v, path) for k, v in kwargs.items()})
        if name in device_array.SIZED or (name == "where" and len(args) == 1):
            COUNTS.add(counting.SIZES, name)
        return wrap(result) if out is None else out

    call.__name__ = name
    return call


def _check_values(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """RefusedError where CuPy takes an argument of another kind than numpy, whatever its signature is."""
    if name == "lexsort" and not isinstance(args[0], ndarray):
        raise RefusedError("cupy.lexsort: keys have to be one array; numpy takes several")
    if name == "repeat" and isinstance(kwargs.get("repeats", args[1] if len(args) > 1 else 0), ndarray):
        raise RefusedError("cupy.repeat: the numbers of repeats have to be on the host")


def _copying(name: str) -> Callable[..., Any]:
    """CuPy's function that copies numpy arrays to the device."""
    path, numpys = f"cupy.{name}", getattr(np, name)

    def call(a: Any, dtype: Any = None, **kwargs: Any) -> ndarray:
        recorded.check(path, (a, dtype), kwargs)
        if isinstance(a, np.ndarray):
            host = np.array(a, dtype=dtype)
            COUNTS.add(counting.TO_DEVICE, name, host.nbytes)
            return ndarray(host)
        if isinstance(a, list | tuple) and any(isinstance(one, np.ndarray) for one in a):
            raise RefusedError(f"{path}: a list of numpy arrays")
        kwargs.pop("blocking", None)
        a = shared(a) if _is_there(a) else a
        converted = numpys(unwrap(a, path), dtype, **kwargs)
        if not _on_device(a):
            COUNTS.add(counting.TO_DEVICE, name, converted.nbytes)
        return a if isinstance(a, ndarray) and converted is a.host else ndarray(converted)

    call.__name__ = name
    return call


def _on_device(a: Any) -> bool:
    return isinstance(a, ndarray) or (isinstance(a, list | tuple) and any(map(_on_device, a)))
