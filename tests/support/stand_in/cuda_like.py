"""A module `cupy.cuda`: one device of host memory, whose kernels are PTX that `kernels` runs."""

from __future__ import annotations

import time
import types
from typing import Any

from tests.support.stand_in import counting, kernels
from tests.support.stand_in.counting import COUNTS

INNER = ("runtime", "function", "device", "driver")  # modules
NAME = "PTX on a CPU"
COMPUTE_CAPABILITY = (9, 0)
MEMORY_BYTES = 8 << 30
# What a program may ask of a device, with numbers of no real one.
_PROPERTIES = {
    "name": NAME.encode(), "major": COMPUTE_CAPABILITY[0], "minor": COMPUTE_CAPABILITY[1], "multiProcessorCount": 4,
    "totalGlobalMem": MEMORY_BYTES, "clockRate": 10**6, "memoryClockRate": 10**6, "memoryBusWidth": 256,
    "l2CacheSize": 4 << 20, "warpSize": 32, "maxThreadsPerBlock": 1024,
}  # fmt: skip


class CUDARuntimeError(RuntimeError):
    """An error of CUDA's runtime."""


class Stream:
    """A stream whose work is done when it is given."""

    ptr = 0

    def __init__(self, ptr: int = 0, *args: Any, **kwargs: Any) -> None:
        self.ptr = ptr if isinstance(ptr, int) else 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def synchronize(self) -> None:
        """Wait for the device."""
        COUNTS.add(counting.WAITS, "a stream is synchronised")

    def use(self) -> Stream:
        """Make it the current stream."""
        return self

    def record(self, event: Event | None = None) -> Event:
        """Record an event."""
        recorded = Event() if event is None else event
        recorded.record(self)
        return recorded

    def wait_event(self, event: Event) -> None:
        """Work that follows waits for an event, on the device."""


class Event:
    """A moment of a stream."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.time_s = 0.0

    def record(self, stream: Stream | None = None) -> None:
        """Take the time."""
        self.time_s = time.perf_counter()

    def synchronize(self) -> None:
        """Wait for the device."""
        COUNTS.add(counting.WAITS, "an event is synchronised")


class Device:
    """The device, by its number."""

    def __init__(self, device: int | None = None) -> None:
        self.id = device or 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def compute_capability(self) -> str:
        """As CuPy tells it: "90"."""
        return "{}{}".format(*COMPUTE_CAPABILITY)

    @property
    def mem_info(self) -> tuple[int, int]:
        """Bytes free and in all."""
        return MEMORY_BYTES, MEMORY_BYTES

    def synchronize(self) -> None:
        """Wait for the device."""
        COUNTS.add(counting.WAITS, "the device is synchronised")

    def use(self) -> Device:
        """Make it the current device."""
        return self


def module() -> types.ModuleType:
    """The module, with `INNER` in it."""
    cuda, runtime, function, device, driver = (
        types.ModuleType(name) for name in ("cupy.cuda", *(f"cupy.cuda.{inner}" for inner in INNER))
    )
    cuda.__path__ = []
    vars(runtime).update(
        CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: 1, getDevice=lambda: 0, setDevice=lambda device: None,
        getDeviceProperties=lambda device: dict(_PROPERTIES), memGetInfo=lambda: (MEMORY_BYTES, MEMORY_BYTES),
        runtimeGetVersion=lambda: 13000, driverGetVersion=lambda: 13000,
        deviceSynchronize=lambda: Device().synchronize(),
    )  # fmt: skip
    vars(device).update(Device=Device, get_device_id=lambda: 0)
    vars(driver).update(CUDADriverError=kernels.CUDADriverError)
    vars(function).update(Module=kernels.Module, Function=kernels.Function)
    current = Stream()
    vars(cuda).update(
        runtime=runtime, function=function, device=device, driver=driver, Device=Device, Stream=Stream,
        ExternalStream=Stream, Event=Event, Module=kernels.Module, Function=kernels.Function,
        get_current_stream=lambda: current, set_allocator=lambda allocator=None: None, is_available=lambda: True,
        get_elapsed_time=lambda begin, end: 1000 * (end.time_s - begin.time_s),
    )  # fmt: skip
    return cuda
