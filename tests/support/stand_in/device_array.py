"""`ndarray`: an array of the stand-in's device, in host memory, which does not leave the device uncounted."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.support.stand_in import counting, recorded, rounding
from tests.support.stand_in.counting import COUNTS
from tests.support.stand_in.memory import ALLOCATIONS
from tests.support.stand_in.recorded import RefusedError


def wrap(value: Any) -> Any:
    """What a numpy function returned as what CuPy's returns: arrays for scalars too."""
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple | list):
        return tuple(map(wrap, value)) if isinstance(value, tuple) else [wrap(one) for one in value]
    return value


def unwrap(value: Any, what: str) -> Any:
    """The numpy array of a device array; RefusedError for a numpy array, which CuPy does not take."""
    if isinstance(value, ndarray):
        return value.host
    if isinstance(value, np.ndarray):
        raise RefusedError(f"{what}: Unsupported type {type(value)}; move it with Device.asarray")
    if isinstance(value, tuple | list):
        return type(value)(unwrap(one, what) for one in value)
    return value


class _Shared:
    """Device memory of another library, as numpy takes it; keeps it alive."""

    def __init__(self, owner: Any) -> None:
        self.owner, self.__array_interface__ = owner, {**owner.__cuda_array_interface__, "version": 3}


def shared(value: Any) -> ndarray:
    """An array over the device memory of another library, without a copy, by __cuda_array_interface__."""
    return value if isinstance(value, ndarray) else ndarray(np.asarray(_Shared(value)))


class Flags:
    """How an array lies in memory, as CuPy tells it."""

    def __init__(self, array: np.ndarray) -> None:
        flags = array.flags
        self.c_contiguous, self.f_contiguous, self.owndata = flags.c_contiguous, flags.f_contiguous, flags.owndata
        self.fnc, self.forc = flags.fnc, flags.forc

    def __getitem__(self, name: str) -> bool:
        return {"C_CONTIGUOUS": self.c_contiguous, "F_CONTIGUOUS": self.f_contiguous, "OWNDATA": self.owndata}[name]


class ndarray:  # noqa: N801  CuPy's name
    """An array on the device. host: its values, for the stand-in alone.

    It has CuPy's attributes and methods, with CuPy's arguments, and refuses what CuPy's array refuses: conversion to
    numpy other than by `get`, and numpy arrays as operands.
    """

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray) -> None:
        self.host = host
        owner = host
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if not isinstance(owner.base, _Shared):
            ALLOCATIONS.add(owner)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RefusedError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return NotImplemented if method != "__call__" else self._forwarded(ufunc.__name__, inputs, kwargs)

    def __array_function__(self, func: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        return self._forwarded(func.__name__, args, kwargs)

    def _forwarded(self, name: str, args: Any, kwargs: Any) -> Any:
        """A numpy function that was called with device arrays: CuPy's one of that name."""
        if not recorded.exists(f"cupy.{name}"):
            return NotImplemented
        COUNTS.add(counting.NOTES, f"numpy.{name} of a device array")
        from tests.support.stand_in import cupy_like

        return getattr(cupy_like.module(), name)(*args, **kwargs)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        a = self.host
        return {"shape": a.shape, "typestr": a.dtype.str, "data": (self.data.ptr, False), "version": 3,
                "strides": None if a.flags.c_contiguous else a.strides, "stream": 1}  # fmt: skip

    flags = property(lambda self: Flags(self.host))
    T = property(lambda self: ndarray(self.host.T))
    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    strides = property(lambda self: self.host.strides)
    base = property(lambda self: self.host.base)
    device = property(lambda self: sys.modules["cupy"].cuda.Device(0))
    data = property(lambda self: types.SimpleNamespace(ptr=self.host.ctypes.data if self.host.size else 0))

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        return f"device array {self.host!r}"

    def _scalar(self) -> np.ndarray:
        COUNTS.add(counting.WAITS, "a scalar")
        COUNTS.add(counting.UNCOUNTED, "a scalar", self.nbytes)
        return self.host

    def __bool__(self) -> bool:
        return bool(self._scalar())

    def __int__(self) -> int:
        return int(self._scalar())

    def __index__(self) -> int:
        return self._scalar().__index__()

    def __float__(self) -> float:
        return float(self._scalar())

    def __format__(self, form: str) -> str:
        return format(self._scalar().item() if self.ndim == 0 else str(self.host), form)

    def item(self) -> Any:
        """A scalar, copied to the host."""
        return self._scalar().item()

    def tolist(self) -> Any:
        """A list, copied to the host."""
        return self._scalar().tolist()

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        """The array as numpy, copied to the host."""
        COUNTS.add(counting.WAITS, "a copy to the host")
        COUNTS.add(counting.TO_HOST, "get", self.nbytes)
        copied = np.array(self.host, order=order if order in "CF" else "C")
        if out is None:
            return copied
        out[...] = copied
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Copy a numpy array of the same shape and dtype to the device."""
        if (arr.shape, arr.dtype) != (self.shape, self.dtype):
            raise RefusedError(f"ndarray.set: {arr.dtype} {arr.shape} into {self.dtype} {self.shape}")
        COUNTS.add(counting.TO_DEVICE, "set", arr.nbytes)
        self.host[...] = arr

    def __getitem__(self, key: Any) -> ndarray:
        return ndarray(np.asarray(self.host[_index(key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise RefusedError("ndarray.__setitem__: a numpy array; move it with Device.asarray")
        self.host[_index(key)] = value.host if isinstance(value, ndarray) else value

    def __getattr__(self, name: str) -> Any:
        path = f"cupy.ndarray.{name}"
        if name.startswith("_") or not recorded.exists(path):
            raise AttributeError(f"cupy.ndarray has no {name!r}")
        if name in rounding.NAMES:
            function = rounding.function(name)
            method = lambda *args, **named: function(self.host, *args, **named)  # noqa: E731
        else:
            method = getattr(self.host, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            recorded.check(path, args, kwargs)
            out = kwargs.get("out")
            result = method(*unwrap(args, path), **{k: unwrap(v, path) for k, v in kwargs.items()})
            if name in SIZED:
                COUNTS.add(counting.SIZES, name)
            return wrap(result) if out is None else out

        return call


# CuPy waits for a number that the shape of the result depends on, or for a check of all values.
SIZED = ("nonzero", "flatnonzero", "argwhere", "unique", "compress", "extract", "bincount", "choose", "put")


def _index(key: Any) -> Any:
    """An index of numpy. CuPy takes numpy arrays, and copies them without saying so; a mask waits for its count, also
    where it is assigned through."""
    if isinstance(key, tuple):
        return tuple(_index(one) for one in key)
    if isinstance(key, ndarray):
        if key.dtype == bool:
            COUNTS.add(counting.SIZES, "a mask")
        return key.host
    if isinstance(key, np.ndarray) and key.ndim:
        COUNTS.add(counting.UNCOUNTED, "an index of numpy", key.nbytes)
    return key


def _operator(name: str) -> Any:
    """A special method of two operands or one."""
    in_place = name.startswith("__i") and name != "__invert__"

    def call(self: ndarray, *others: Any) -> Any:
        for other in others:
            if isinstance(other, np.ndarray) and other.ndim:
                raise RefusedError(f"{name}: Unsupported type {type(other)}; move it with Device.asarray")
        operands = [other.host if isinstance(other, ndarray) else other for other in others]
        if rounded := ROUNDED.get(name):
            return wrap(rounded(self.host, *operands))
        result = getattr(self.host, name)(*operands)
        if result is NotImplemented:
            return result
        return self if in_place else wrap(result)

    return call


def _define_operators() -> None:
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift",
                 "matmul"):  # fmt: skip
        for form in ("__{}__", "__r{}__", "__i{}__"):
            setattr(ndarray, form.format(name), _operator(form.format(name)))
    for name in ("lt", "le", "eq", "ne", "gt", "ge", "neg", "pos", "abs", "invert"):
        setattr(ndarray, f"__{name}__", _operator(f"__{name}__"))


_power, _matmul = rounding.function("power"), rounding.function("matmul")
ROUNDED = {
    "__pow__": _power, "__rpow__": lambda a, b: _power(b, a), "__matmul__": _matmul,
    "__rmatmul__": lambda a, b: _matmul(b, a),
}  # fmt: skip
_define_operators()
