"""Windows: windows of rows of several feature matrices as one list; batches are gathered when they are read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.estimators.torch.scaler import WindowScaler
from gpupipe.kernels.windows import scaled_windows


class Windows:
    """Windows of rows of several feature matrices, in their order: position 0 is the first row of the first part.

    parts: rows, of one or of several feature matrices, on one device, with the same columns.
    length: bars of a window, the row itself included.
    scaler: of the columns that the rows have.

    Nothing of the size rows x length x columns is ever made: a batch is gathered from the matrices by row number,
    scaled, and free of NaN (`kernels.windows`). Any number of threads may gather at once. Raises ValueError where
    lengths, columns or devices do not fit together.

        >>> view = FeatureRows(np.float32([[0], [1], [2], [3]]), np.array([1, 2, 3]), np.array([0, 2, 4]))
        >>> scaler = WindowScaler(*np.float32([[1], [0.5], [-4], [4]]))
        >>> windows = Windows([view], 2, scaler)
        >>> windows.n, windows.n_columns
        (3, 1)
        >>> windows.batch(np.array([2, 1]))[:, :, 0].tolist()
        [[2.0, 4.0], [0.0, 2.0]]
    """

    def __init__(self, parts: Sequence[FeatureRows], length: int, scaler: WindowScaler) -> None:
        if not parts or length < 1:
            raise ValueError(f"expected rows and a length of 1 or more, got {len(parts)} parts and length {length}")
        kinds = {rows.device.kind for rows in parts}
        if len(kinds) > 1:
            raise ValueError("rows are on the CPU and on CUDA; move their matrices to one device")
        self.parts, self.length, self.scaler = tuple(parts), length, scaler
        self.device = parts[0].device
        xp = self.device.xp
        self._parts: list[tuple[Any, ...]] = []
        begin = 0
        for view in parts:
            n_features = view.values.shape[1]
            n_columns = n_features if view.columns is None else len(view.columns)
            if n_columns != scaler.n_columns:
                raise ValueError(f"rows have {n_columns} columns, the scaler {scaler.n_columns}")
            rows = xp.ascontiguousarray(view.rows, dtype=xp.int64)
            columns = xp.empty(0, xp.int64) if view.columns is None else xp.asarray(view.columns, xp.int64)
            self._parts.append((view.values, rows, view.first_of_symbol, np.int64(begin), columns))
            begin += view.n
        self._scaling = [self.device.asarray(c) for c in (scaler.offset, scaler.scale, scaler.low, scaler.high)]
        self.n = begin
        self._buffers = threading.local()

    @property
    def n_columns(self) -> int:
        """Columns of a bar."""
        return self.scaler.n_columns

    @property
    def torch_device(self) -> str:
        """What Torch calls the device: "cpu" or "cuda"."""
        return self.device.kind

    def batch(self, positions: Any) -> torch.Tensor:
        """Windows at these positions, float32 (n, length, n_columns), oldest bar first, on the device.

        positions: int64 (n,), numpy or on the device (CuPy or Torch).
        The tensor is a buffer of the calling thread, which the thread's next call overwrites.
        """
        n = len(positions)
        held = getattr(self._buffers, "held", None)
        if held is None or len(held) < n:
            held = torch.empty((n, self.length, self.n_columns), dtype=torch.float32, device=self.torch_device)
            self._buffers.held = held
        self.gather(positions, held[:n])
        return held[:n]

    def part(self, positions: slice) -> torch.Tensor:
        """Windows at consecutive positions, as `network.margins` asks for them; see `batch`."""
        return self.batch(self.device.xp.arange(positions.start, positions.stop))

    def gather(self, positions: Any, out: torch.Tensor) -> None:
        """Write the windows at these positions to `out`, float32 (n, length, n_columns), contiguous, on the device."""
        expected = (len(positions), self.length, self.n_columns)
        if tuple(out.shape) != expected:
            raise ValueError(f"out has shape {tuple(out.shape)}, expected {expected}")
        with self._torch_stream():
            where = self.array(positions)
            windows = self.array(out)
            for part in self._parts:
                scaled_windows(len(where) * self.length, *part[:4], where, part[4], *self._scaling, windows)

    def array(self, values: Any) -> Any:
        """A tensor's memory as an array of numpy or CuPy, without a copy; an array as it is, on the device."""
        if not hasattr(values, "detach"):
            return self.device.asarray(values, np.int64)
        return values.numpy() if self.device.kind == "cpu" else self.device.xp.from_dlpack(values)

    def _torch_stream(self) -> contextlib.AbstractContextManager[Any]:
        """CuPy's work in it goes to Torch's current stream, and so needs no waiting between the two."""
        if self.device.kind == "cpu":
            return contextlib.nullcontext()
        import cupy

        return cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
