"""Memory of the stand-in's device: every array that holds data is an allocation until nothing refers to it."""

from __future__ import annotations

import threading
import weakref

import numpy as np

_BLOCK = 256  # bytes: RMM rounds allocations up to it


class Allocations:
    """Bytes and numbers of allocations: now, at most, in all. limit_bytes: what may be held at once."""

    def __init__(self) -> None:
        self.current_bytes = self.current_count = 0
        self.peak_bytes = self.peak_count = 0
        self.total_bytes = self.total_count = 0
        self.limit_bytes: int | None = None
        self._lock = threading.RLock()  # a finalizer may run inside `add`
        self._alive: dict[int, tuple[weakref.ref[np.ndarray], int]] = {}

    def add(self, array: np.ndarray) -> None:
        """Count an array that owns its memory, until it is freed. MemoryError above the limit, as RMM's."""
        n_bytes = -(-array.nbytes // _BLOCK) * _BLOCK
        key = id(array)
        with self._lock:
            if key in self._alive:
                return
            if self.limit_bytes is not None and self.current_bytes + n_bytes > self.limit_bytes:
                raise MemoryError("std::bad_alloc: out_of_memory: the stand-in's pool has reached its limit")
            self._alive[key] = (weakref.ref(array, lambda _: self._free(key)), n_bytes)
            self.current_bytes += n_bytes
            self.current_count += 1
            self.total_bytes += n_bytes
            self.total_count += 1
            self.peak_bytes = max(self.peak_bytes, self.current_bytes)
            self.peak_count = max(self.peak_count, self.current_count)

    def alive(self) -> list[np.ndarray]:
        """The arrays that own memory now."""
        with self._lock:
            return [array for reference, _ in self._alive.values() if (array := reference()) is not None]

    def _free(self, key: int) -> None:
        with self._lock:
            _, n_bytes = self._alive.pop(key)
            self.current_bytes -= n_bytes
            self.current_count -= 1


ALLOCATIONS = Allocations()  # of this process
