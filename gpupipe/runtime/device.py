"""Where arrays live: choose a device, allocate on it, and count every byte that crosses the bus."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import importlib.util
import logging
import resource
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpupipe.kernels import gpu_code, gpu_launch
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.packing import packed, unpacked

# Share of the free device memory that RMM may take. XGBoost's PyPI wheels are built without RMM and
# allocate beside the pool, so the pool must leave room for them.
POOL_SHARE = 0.65

_stage: contextvars.ContextVar[str] = contextvars.ContextVar("stage", default="other")


class DeviceError(UserError):
    """A device was asked for that cannot be had; the message says what is missing."""


@dataclass
class Ledger:
    """Bytes that crossed the host-device bus, by stage and direction; zeros on a CPU, where there is no bus.

    >>> ledger = Ledger()
    >>> ledger.add("to_device", 4096)
    >>> ledger.as_dict()
    {'to_device': {'other': 4096}, 'to_host': {}}
    """

    to_device: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    to_host: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, direction: str, n_bytes: int) -> None:
        """Count `n_bytes` in direction "to_device" or "to_host" for the stage in force."""
        with self._lock:
            getattr(self, direction)[_stage.get()] += int(n_bytes)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """`{"to_device": {stage: bytes}, "to_host": {stage: bytes}}`."""
        with self._lock:
            return {"to_device": dict(self.to_device), "to_host": dict(self.to_host)}


@dataclass(frozen=True)
class Device:
    """A place for arrays: `kind` is "cpu" or "cuda"; `reason` says why it was chosen.

    >>> cpu = Device("cpu", "host", "as an example")
    >>> cpu.asarray([1, 2], "float32").nbytes, cpu.xp.__name__
    (8, 'numpy')
    """

    kind: str
    name: str
    reason: str
    ledger: Ledger = field(default_factory=Ledger, compare=False, repr=False)

    @property
    def xp(self) -> Any:
        """The array module: numpy or cupy."""
        if self.kind == "cpu":
            return np
        import cupy

        return cupy

    @property
    def xgboost(self) -> str:
        """What XGBoost calls this device."""
        return self.kind

    @property
    def architecture(self) -> tuple[int, int] | None:
        """The GPU architecture whose code this device runs; None on a CPU."""
        if self.kind == "cpu":
            return None
        return gpu_code.architecture_of(gpu_launch.capability())

    @contextlib.contextmanager
    def stage(self, name: str, unit: str = "") -> Iterator[None]:
        """Count transfers inside it under `name`; on CUDA a range of that name, and of the unit, in a profile."""
        token = _stage.set(name)
        try:
            with self._range(f"{name} {unit}" if unit else name):
                yield
        finally:
            _stage.reset(token)

    def _range(self, text: str) -> contextlib.AbstractContextManager[Any]:
        """An NVTX range, which Nsight Systems shows, where there is a GPU and the package (cuDF brings it)."""
        if self.kind != "cuda" or importlib.util.find_spec("nvtx") is None:
            return contextlib.nullcontext()
        import nvtx

        return nvtx.annotate(text, domain="gpupipe")

    def asarray(self, array: Any, dtype: Any = None) -> Any:
        """`array` on this device, copied if it is elsewhere or has another dtype; a copy over the bus is counted."""
        if self.kind == "cpu":
            return np.asarray(self.to_host(array), dtype=dtype)
        if not hasattr(array, "__cuda_array_interface__"):
            host = np.asarray(array, dtype=dtype)
            self.ledger.add("to_device", host.nbytes)
            return self.xp.asarray(host)
        return self.xp.asarray(array, dtype=dtype)

    def asarrays(self, arrays: Sequence[np.ndarray]) -> tuple[Any, ...]:
        """Several small numpy arrays on this device, in one copy over the bus.

        >>> [array.tolist() for array in pick("cpu").asarrays([np.int8([1]), np.float32([[2, 3]])])]
        [[1], [[2.0, 3.0]]]
        """
        if self.kind == "cpu":
            return tuple(arrays)
        return unpacked(self.asarray(packed(arrays, np)), arrays)

    def to_host(self, array: Any) -> np.ndarray:
        """`array` as numpy; a copy over the bus is counted."""
        if hasattr(array, "__cuda_array_interface__"):
            import cupy

            host = cupy.asnumpy(array)
            self.ledger.add("to_host", host.nbytes)
            return host
        return np.asarray(array)

    def to_hosts(self, arrays: Sequence[Any]) -> tuple[np.ndarray, ...]:
        """Several arrays of this device as numpy, in one copy over the bus; they are held twice on it meanwhile."""
        if self.kind == "cpu":
            return tuple(map(np.asarray, arrays))
        return unpacked(self.to_host(packed(arrays, self.xp)), arrays)

    def sync(self) -> None:
        """Wait until all work given to the device is done."""
        if self.kind == "cuda":
            self.xp.cuda.get_current_stream().synchronize()

    def peak_bytes(self) -> int | None:
        """Largest memory held so far: the process's resident set on a CPU, RMM's high-water mark on CUDA.

        None on CUDA without RMM, where nothing counts it.
        """
        if self.kind == "cuda":
            return pool_statistics().get("peak_bytes")
        return host_peak_bytes()


def host_bytes() -> int:
    """Resident set of this process now, in bytes; its largest where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="utf-8") as line:
            return int(line.read().split()[1]) * resource.getpagesize()
    except OSError:
        return host_peak_bytes()


def host_peak_bytes() -> int:
    """Largest resident set of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux, bytes on macOS


def held() -> dict[str, int]:
    """Bytes that this process holds now, and its marks.

    memory_bytes: resident set.  memory_peak_bytes: its largest so far.  device_bytes, device_peak_bytes and
    device_allocations: of RMM's pool, now, at most, and how many allocations are alive.
    """
    held_bytes = {"memory_peak_bytes": host_peak_bytes(), "memory_bytes": host_bytes()}
    if counts := pool_statistics():
        held_bytes |= {
            "device_bytes": counts["current_bytes"],
            "device_peak_bytes": counts["peak_bytes"],
            "device_allocations": counts["current_count"],
        }
    return held_bytes


def device_of(array: Any) -> Device:
    """The device that an array lives on: the device follows the data.

    An array that CuPy made before a device was picked is on a device whose memory pool stays as it is.
    """
    if hasattr(type(array), "__cuda_array_interface__"):
        return _devices.get("cuda") or _cuda(_ARRAY_IS_THERE, use_rmm=False, limit_bytes=None)
    return pick("cpu")


def pick(wanted: str = "auto", use_rmm: bool = True, limit_bytes: int | None = None) -> Device:
    """Choose a device.

    "auto" takes a GPU if one can be used and says in `reason` what it chose and why; "cpu" is always
    there; "cuda" that cannot be had raises DeviceError, which names what is missing and the line that
    installs it. On CUDA the shared memory pool is set up here, once, before anything allocates, unless use_rmm is
    false: then each library keeps its own.
    limit_bytes: what a run may take of the GPU's memory, of which the pool is POOL_SHARE; no limit if None.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device {wanted!r} is unknown; expected auto, cpu or cuda")
    if wanted == "cpu":
        return _cpu("asked for")
    problem = why_no_cuda(use_rmm) if "cuda" not in _devices else None
    if problem is None:
        why = "asked for" if wanted == "cuda" else "a CUDA device answers and cupy is installed"
        return _cuda(why, use_rmm, limit_bytes)
    if wanted == "cuda":
        raise DeviceError(f"device 'cuda' cannot be had: {problem}")
    return _cpu(f"no CUDA device to use: {problem}")


_ARRAY_IS_THERE = "an array of CuPy is there"
_devices: dict[str, Device] = {}
_pool: str | None = None  # what set_up_memory_pool said; None before
_limit: int | None = None  # bytes that it was given
_devices_lock = threading.Lock()


def _cpu(reason: str) -> Device:
    with _devices_lock:
        return _devices.setdefault(f"cpu {reason}", Device("cpu", _cpu_name(), reason))


def _cuda(reason: str, use_rmm: bool, limit_bytes: int | None) -> Device:
    global _pool, _limit
    with _devices_lock:
        if use_rmm and _pool is None:
            _pool, _limit = set_up_memory_pool(limit_bytes), limit_bytes
        if "cuda" not in _devices:
            import cupy

            properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
            _devices["cuda"] = Device("cuda", properties["name"].decode(), reason)
        if _devices["cuda"].reason == _ARRAY_IS_THERE:
            _devices["cuda"] = replace(_devices["cuda"], reason=reason)  # with the same ledger
        return _devices["cuda"]


def why_no_cuda(use_rmm: bool = True) -> str | None:
    """None if CUDA can be used, else one sentence with what is missing and the line that installs it.

    use_rmm: whether an RMM that is installed will be used.
    """
    extras = "pip install -e '.[cuda13]', or '.[cuda12]' for a CUDA 12 driver"
    if importlib.util.find_spec("cupy") is None:
        return f"cupy is not installed ({extras})"
    if problem := _why_no_import("cupy"):
        return f"{problem}; install it again ({extras})"
    if use_rmm and importlib.util.find_spec("rmm") and (problem := _why_no_import("rmm")):
        return f"{problem}; install it again ({extras}), or do without: --set ml.use_rmm=false"
    import cupy

    try:
        n_devices = cupy.cuda.runtime.getDeviceCount()
    except (cupy.cuda.runtime.CUDARuntimeError, ImportError) as error:
        return f"the CUDA driver does not answer ({error}); install NVIDIA's driver, then look at nvidia-smi"
    if n_devices == 0:
        return "the CUDA driver sees no GPU (look at nvidia-smi and CUDA_VISIBLE_DEVICES)"
    try:
        architecture = gpu_code.architecture_of(gpu_launch.capability())
    except gpu_code.MissingCodeError as error:
        return str(error)
    if gpu_code.can_compile():
        return None
    from gpupipe.kernels.compile import all_kernels

    return gpu_code.why_not(all_kernels(), architecture) or None


def _why_no_import(package: str) -> str:
    """Why a package that is installed cannot be imported; empty where it can."""
    try:
        importlib.import_module(package)
    except Exception as error:  # a broken installation fails in many ways
        first_line = next(iter(str(error).split("\n")), "").strip()
        return f"{package} is installed but cannot be imported ({type(error).__name__}: {first_line})"
    return ""


def set_up_memory_pool(limit_bytes: int | None = None) -> str:
    """Put cupy on an RMM pool, once, before anything allocates; return what was set up.

    The order matters: resource, then cupy. Torch joins where it is used (`torch_on`), and cuDF uses the current
    resource by itself.
    limit_bytes: the pool refuses to grow above POOL_SHARE of it, and an allocation then ends in a MemoryError: the
        rest is left to XGBoost, which allocates by itself.
    Without rmm each library keeps its own pool, and the returned sentence says so.
    """
    if importlib.util.find_spec("rmm") is None:
        return "rmm is not installed: cupy and torch keep a pool each"
    import cupy
    import rmm
    from rmm.allocators.cupy import rmm_cupy_allocator

    free_bytes, _ = cupy.cuda.runtime.memGetInfo()
    release_threshold = int(free_bytes * POOL_SHARE) // 256 * 256
    pool: Any = rmm.mr.CudaAsyncMemoryResource(release_threshold=release_threshold)
    limited = ""
    if limit_bytes is not None:
        allowed = int(limit_bytes * POOL_SHARE) // 256 * 256
        pool = rmm.mr.LimitingResourceAdaptor(pool, allocation_limit=allowed)
        limited = f" and may not grow above {allowed / 2**30:.1f} GiB"
    resource_ = rmm.mr.StatisticsResourceAdaptor(pool)
    rmm.mr.set_current_device_resource(resource_)
    cupy.cuda.set_allocator(rmm_cupy_allocator)
    return f"one stream-ordered RMM pool that keeps at most {release_threshold / 2**30:.1f} GiB{limited}"


def memory_limit() -> int | None:
    """What this process may take of its GPU's memory, as `pick` was given it when it set up the pool."""
    return _limit


def torch_on(kind: str) -> str:
    """The name that Torch has for a device kind, once Torch can use the device: call it before Torch allocates there.

    On CUDA Torch allocates from the RMM pool from then on, where there is one and Torch was not there before. Raises
    DeviceError for a Torch without CUDA.
    """
    if kind == "cuda":
        _torch_joins()
    return kind


@functools.cache  # Torch's allocator can be set once
def _torch_joins() -> None:
    import torch

    if not torch.cuda.is_available():
        raise DeviceError(
            f"Torch {torch.__version__} cannot use the GPU (a build for the CPU, or for another CUDA than the "
            "driver's): install a CUDA build (https://pytorch.org/get-started), or run with --device cpu"
        )
    if pool_statistics() and torch.cuda.is_initialized():
        logging.getLogger("gpupipe").warning("Torch was on the GPU before, and keeps the memory pool that it has there")
    elif pool_statistics():
        from rmm.allocators.torch import rmm_torch_allocator

        torch.cuda.memory.change_current_allocator(rmm_torch_allocator)


def pool_statistics() -> dict[str, int]:
    """Of the memory pool: current_bytes, peak_bytes, total_bytes and counts of allocations; empty without a pool."""
    if "rmm" not in sys.modules:
        return {}
    import rmm

    current = rmm.mr.get_current_device_resource()
    if not isinstance(current, rmm.mr.StatisticsResourceAdaptor):
        return {}
    counts = current.allocation_counts
    names = ("current_bytes", "peak_bytes", "total_bytes", "current_count", "peak_count", "total_count")
    return {name: int(getattr(counts, name)) for name in names}


# What libraries say where no memory is left: XGBoost and CUDA's runtime have no exception type of their own for it.
_NO_MEMORY = ("bad_alloc", "out of memory", "out_of_memory", "memory allocation error", "cudaerrormemoryallocation")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that no memory is left, on a device or on the host.

    MemoryError is RMM's, and CuPy's and numpy's derive from it; Torch's OutOfMemoryError is a RuntimeError; XGBoost,
    Numba and CUDA's runtime say it in the text of theirs.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"MemoryError", "OutOfMemoryError"}:
        return True
    text = str(error).lower()
    named = kinds & {"XGBoostError", "CUDARuntimeError", "CUDADriverError", "CudaAPIError", "RuntimeError"}
    return bool(named) and any(words in text for words in _NO_MEMORY)


@functools.cache  # every lookup of a device asks
def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    import platform

    return platform.processor() or platform.machine()
