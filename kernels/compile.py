"""One scalar body, two compilers: `Kernel` runs a body where its arrays are, as an njit loop on the CPU or on a GPU."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import itertools
import os
import pkgutil
import threading
import time
import types
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numba import njit

from . import gpu_launch, notice
from .cores import available_cores
from .lanes import barrier as barrier
from .lanes import inline as inline
from .lanes import lane as lane
from .lanes import n_lanes as n_lanes
from .lanes import recursions_at_once as recursions_at_once
from .lanes import rows_at_once as rows_at_once
from .source import definition_of, inlined_functions, written_parameters

_TYPES = {
    "f4": numba.float32, "f8": numba.float64, "b1": numba.boolean,
    "i1": numba.int8, "u1": numba.uint8, "i2": numba.int16, "i4": numba.int32, "i8": numba.int64,
}  # fmt: skip
# Not parallel=True: numba's workqueue layer, the default without OpenMP, aborts the process when two threads enter it
# at once, and Dask calls kernels from many threads.
# No body allocates, so numba need not count references to arrays: where a body branches, it does so for each item, by
# atomic instructions that cost several times the step of a market.
_CPU: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}
# A call that LLVM leaves in a loop, for its size, keeps the loop from becoming vector instructions, and passes the
# fields of every array on the stack.
_INLINED: dict[str, Any] = {"forceinline": True}
_TURNS_OF_WORKER = 32
_CHUNKS_PER_THREAD = 4  # symbols differ in length: a few chunks for each thread balance the load
_BRIEF_ITEMS = 1 << 13  # items of a brief kernel: dispatching fewer to a thread costs as much as computing them
awaited: dict[str, threading.Event] = {}  # set once another process has compiled the kernel of that name; see `ahead`


class Kernel:
    """A kernel that runs `body(i, inputs..., outputs...)` for i in [0, n).

    Call it as `kernel(n, *arrays_and_scalars)`. If all arrays are numpy the loop runs on the CPU, on a thread for each
    core that the process may use (fewer by NUMBA_NUM_THREADS). If all are CuPy it runs on the current CUDA device, in
    the current CuPy stream, and returns without waiting. Scalars must be typed (`np.float32(...)`, `np.int64(...)`), or
    the two compilers would choose different types. The plain body stays available as `kernel.body`: it is the
    definition, and the oracle of the tests. A body may call functions marked with `@inline`.

    types: the types of the arguments after i, such as "f4", "i8[:]", "f4[:,:]"; arrays are C-contiguous.
    signature: the numba types of the CUDA kernel's arguments: n, then `types`.
    cooperative: the threads of a block, or one CPU thread, work on item i together; see `cooperative`.
    brief: an item takes nanoseconds, so the calling thread runs calls of a few thousand items itself; a number says
        how many items a thread should be given at least.
    double_precision: the body needs float64 arithmetic (accumulators). A test asserts that the PTX of every other
        kernel holds no .f64 instruction.

    Arrays that the body does not write to may be read-only. Raises ValueError when an array has another dtype, number
    of dimensions or order than its type, when a written array is read-only, and when numpy and CuPy arrays are mixed
    (a silent copy would hide a transfer).

        @kernel(types=("f4[:]", "f4[:]"))
        def double(i, x, y):
            y[i] = x[i] + x[i]

        x, y = np.ones(3, np.float32), np.empty(3, np.float32)
        double(3, x, y)  # y is now [2, 2, 2]
    """

    __name__: str  # that of the body, like __module__ and __doc__

    def __init__(
        self,
        body: Callable[..., None],
        *,
        types: tuple[str, ...],
        double_precision: bool = False,
        cooperative: bool = False,
        brief: bool | int = False,
    ) -> None:
        names = list(inspect.signature(body).parameters)[1:]
        if len(types) != len(names):
            raise ValueError(f"kernel {body.__name__} has {len(types)} types for its arguments {', '.join(names)}")
        self.body = body
        self.names = tuple(names)
        self.types = types
        self.signature = (numba.int64, *(_numba_type(name) for name in types))
        self.double_precision = double_precision
        self.cooperative = cooperative
        self.least_items = _BRIEF_ITEMS if brief is True else max(1, brief)
        functools.update_wrapper(self, body)

    @functools.cached_property
    def definition(self) -> str:
        """The code of the kernel as text: body and inlined functions without comments and docstrings, and constants."""
        return definition_of(self.body)

    @functools.cached_property
    def written(self) -> tuple[bool, ...]:
        """Whether the body writes to each of its arguments after i."""
        stored = written_parameters(self.body)
        return tuple(name in stored for name in self.names)

    @property
    def full_name(self) -> str:
        """Module and name: labels.label_cube."""
        return f"{self.__module__.rpartition('.')[2]}.{self.__name__}"

    @property
    def kept(self) -> bool | None:
        """Whether the loop is on disk, compiled for this machine by this numba; None where no folder can hold it."""
        loop, signature = self._loop
        if loop.stats.cache_path is None:
            return None
        cache = loop._cache  # numba has no public look into it
        return cache._index_key(signature, loop.targetctx.codegen()) in cache._cache_file._load_index()

    @functools.cached_property
    def cpu(self) -> Callable[..., None]:
        """The compiled CPU loop `(begin, end, *arguments)`, which releases the GIL.

        It is cached on disk, next to the sources or else in numba's cache folder, and loaded by the next process. If
        neither can be written, every process compiles it.
        """
        if (in_process := awaited.get(self.full_name)) is not None:
            in_process.wait()
        if not self.kept:
            notice.compiling(self.full_name)
        (loop, signature), began = self._loop, time.perf_counter()
        try:
            loop.compile(signature)
        except OSError:  # the disk is full, or the folder was removed
            loop = njit(**_CPU)(loop.py_func)
            loop.compile(signature)
        notice.made.append(notice.Made(self.full_name, time.perf_counter() - began, bool(loop.stats.cache_hits)))
        return loop

    @functools.cached_property
    def _loop(self) -> tuple[Any, tuple[Any, ...]]:
        """The CPU loop, not compiled yet, and the types of its arguments."""
        scalar = _compiled_for_loops(self.body)
        # Numba looks up its cache by the loop's name, so the name contains a hash of everything the code depends on.
        stamp = hashlib.sha256(f"{self.definition}{_CPU}{_INLINED}".encode()).hexdigest()[:12]
        loop = loop_over_items(
            self.body, f"{self.__name__}_{stamp}", "begin, end", "for i in range(begin, end):", scalar
        )
        # Inputs are typed as read-only, so that numba refuses a body that writes to an array not in `written`.
        arrays = (
            kind if written or isinstance(kind, numba.types.Number | numba.types.Boolean) else kind.copy(readonly=True)
            for kind, written in zip(self.signature[1:], self.written, strict=True)
        )
        signature = (numba.int64, numba.int64, *arrays)
        if self.cooperative:  # the scratch memory of one worker
            scratch = signature[2]
            signature = (*signature[:2], numba.types.Array(scratch.dtype, scratch.ndim - 1, "C"), *signature[3:])
        try:
            return njit(cache=True, no_cfunc_wrapper=True, **_CPU)(loop), signature
        except RuntimeError:  # "cannot cache function": no writable folder
            return njit(**_CPU)(loop), signature

    def __call__(self, n: int, *arguments: Any) -> None:
        """Run the body for i in [0, n); outputs are among `arguments` and are written in place."""
        on_device = self._check(arguments)
        if n == 0:
            return
        if on_device:
            gpu_launch.launch(self, n, arguments)
            return
        arguments, loop = self._of_loop(arguments), self.cpu
        if self.cooperative:
            scratch, *others = arguments
            workers = min(n, len(scratch), n_threads())
            few = max(1, n // (workers * _TURNS_OF_WORKER))
            _share_out(n, few, workers, lambda worker, begin, end: loop(begin, end, scratch[worker], *others))
        else:
            workers = max(1, min(n // self.least_items, n_threads()))
            few = n if workers == 1 else max(self.least_items // 2, -(-n // (workers * _CHUNKS_PER_THREAD)))
            _share_out(n, few, workers, lambda worker, begin, end: loop(begin, end, *arguments))

    def together(self, calls: Sequence[tuple[Any, ...]]) -> None:
        """Run several independent calls (n, *arguments), on the CPU one thread for each.

        No call may read what another one writes. Use it for calls that are too brief to be split among threads.
        """
        if len(calls) < 2 or n_threads() == 1 or any(self._check(tuple(rest)) for _, *rest in calls):
            for n, *rest in calls:
                self(n, *rest)
            return
        loop = self.cpu  # compiled here, once
        waiting = [_pool().submit(loop, np.int64(0), np.int64(n), *self._of_loop(rest)) for n, *rest in calls]
        for one in waiting:
            one.result()

    def _of_loop(self, arguments: Iterable[Any]) -> tuple[Any, ...]:
        """The arguments as typed by the compiled loop: arrays that it only reads become read-only views."""
        return tuple(
            a if written or not isinstance(a, np.ndarray) else _read_only(a)
            for a, written in zip(arguments, self.written, strict=True)
        )

    @functools.cached_property
    def _arrays(self) -> tuple[tuple[np.dtype[Any], int] | None, ...]:
        """For each argument its dtype and number of dimensions; None for a scalar."""
        return tuple(
            (np.dtype(str(wanted.dtype)), wanted.ndim) if isinstance(wanted, numba.types.Array) else None
            for wanted in self.signature[1:]
        )

    def _check(self, arguments: tuple[Any, ...]) -> bool:
        """Whether the arrays are on the device; ValueError if an argument does not match its type."""
        if len(arguments) != len(self.names):
            raise ValueError(f"kernel {self.__name__} takes {', '.join(self.names)} after n; got {len(arguments)}")
        on_device = set()
        for name, wanted, written, array in zip(self.names, self._arrays, self.written, arguments, strict=True):
            if wanted is None:
                continue
            dtype, n_dimensions = wanted
            host = isinstance(array, np.ndarray)
            # Of the type: CuPy builds the attribute of an array anew each time, which would cost as much as the launch.
            on_device.add(not host and hasattr(type(array), "__cuda_array_interface__"))
            if array.dtype != dtype or array.ndim != n_dimensions or not array.flags["C_CONTIGUOUS"]:
                expected = f"{dtype} of {n_dimensions} dimensions in C order"
                raise ValueError(f"kernel {self.__name__}: {name} is {array.dtype} {array.shape}, expected {expected}")
            if written and host and not array.flags.writeable:
                raise ValueError(f"kernel {self.__name__} writes to {name}, which is read-only; pass a copy")
        if len(on_device) > 1:
            raise ValueError(f"kernel {self.__name__}: numpy and CuPy arrays are mixed; move them with Device.asarray")
        return on_device == {True}


def kernel(
    *, types: tuple[str, ...], double_precision: bool = False, brief: bool | int = False
) -> Callable[[Callable[..., None]], Kernel]:
    """Decorator: turn a body into a `Kernel`; types: of the arguments after i, such as "i8", "f4[:]", "f4[:,:]"."""
    return lambda body: Kernel(body, types=types, double_precision=double_precision, brief=brief)


def cooperative(*, types: tuple[str, ...], double_precision: bool = False) -> Callable[[Callable[..., None]], Kernel]:
    """Decorator: a kernel `body(i, scratch, ...)` whose threads work on item i together.

    Call it as `kernel(n, scratch, ...)`, where scratch has one more leading dimension: memory for each item computed at
    once. A body distributes rows over threads by `range(lane(), n_rows, n_lanes())`, and calls `barrier()` before it
    reads rows that another thread has written. On the CPU there is one lane.
    """
    return lambda body: Kernel(body, types=types, double_precision=double_precision, cooperative=True)


def all_kernels() -> list[Kernel]:
    """Every Kernel of this package, sorted by full name."""
    package = __name__.rpartition(".")[0]
    folder = importlib.import_module(package).__path__
    kernels = {}
    for module in pkgutil.iter_modules(folder):
        for value in vars(importlib.import_module(f"{package}.{module.name}")).values():
            if isinstance(value, Kernel):
                kernels[value.full_name] = value
    return [kernels[name] for name in sorted(kernels)]


def _numba_type(name: str) -> Any:
    scalar, bracket, rest = name.partition("[")
    if scalar not in _TYPES or (bracket and rest not in (":]", ":,:]", ":,:,:]")):
        raise ValueError(
            f"type {name!r} is unknown; expected one of {', '.join(_TYPES)}, alone or with [:], [:,:] or [:,:,:]"
        )
    return numba.types.Array(_TYPES[scalar], rest.count(":"), "C") if bracket else _TYPES[scalar]


def _read_only(array: np.ndarray) -> np.ndarray:
    """A read-only view: numba compiles a loop for writable and for read-only arrays, so pass only one of the two."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.setflags(write=False)
    return view


def linked(function: Callable[..., Any], compiled: Callable[[Any], Any]) -> Callable[..., Any]:
    """A copy of `function` whose globals hold its inlined functions as `compiled` makes them."""
    inlined = {name: compiled(callee) for name, callee in inlined_functions(function).items()}
    copy = types.FunctionType(function.__code__, {**function.__globals__, **inlined}, function.__name__)
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return copy


def _cpu_function(function: Callable[..., Any]) -> Any:
    """A function that compiled bodies call: compiled once for all of them, and not to be called from Python."""
    return _shared_cpu_function(function, definition_of(function))


@functools.cache
def _shared_cpu_function(function: Callable[..., Any], definition: str) -> Any:
    return _compiled_for_loops(function)


def _compiled_for_loops(function: Callable[..., Any]) -> Any:
    return njit(**_CPU, **_INLINED, no_cpython_wrapper=True, no_cfunc_wrapper=True)(linked(function, _cpu_function))


def loop_over_items(
    body: Callable[..., None], name: str, leading: str, head: str, scalar: Any, part: str = "", **names: Any
) -> Callable[..., None]:
    """Generate `def name(leading, a0, a1, ...)`, which calls the compiled body for each i.

    It is generated because neither compiler takes `*arguments`. It claims the body's file as its source, so that numba
    caches the compiled code next to that file.
    part: an index into the first argument after i.  names: what else the head refers to.
    """
    arguments = ", ".join(list(inspect.signature(body).parameters)[1:])
    passed = arguments.replace(",", f"{part},", 1)
    source = f"def {name}({leading}, {arguments}):\n    {head}\n        scalar(i, {passed})\n"
    namespace = {**names, "scalar": scalar, "__name__": body.__module__}
    exec(compile(source, inspect.getfile(body), "exec"), namespace)
    return namespace[name]


_cores = functools.cache(available_cores)  # kernels are called often, and a quota is read from files


def n_threads() -> int:
    """Threads that the loop of one kernel is divided among."""
    return min(_cores(), numba.config.NUMBA_NUM_THREADS)


def _share_out(n: int, few: int, workers: int, run: Callable[[int, int, int], None]) -> None:
    """Run items [begin, end) on so many threads, by run(worker, begin, end); a free thread takes the next few items."""
    turns = itertools.count()

    def work(worker: int) -> None:
        while (i := next(turns) * few) < n:
            run(worker, i, min(i + few, n))

    waiting = [_pool().submit(work, worker) for worker in range(1, workers)]
    work(0)  # in the calling thread, which would otherwise wait for another one to start
    for other in waiting:
        if not other.cancel():  # it has begun: else there is nothing left for it to do
            other.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads(), thread_name_prefix="kernel")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
