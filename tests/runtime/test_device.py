"""Device: several arrays in one copy over the bus, in both directions."""

from __future__ import annotations

import numpy as np


def crossed(device) -> tuple[int, int]:
    """Bytes to the device and to the host, so far."""
    copies = device.ledger.as_dict()
    return sum(copies["to_device"].values()), sum(copies["to_host"].values())


def test_arrays_that_are_copied_together_are_what_they_were(device):
    arrays = [
        np.arange(5, dtype=np.int8), np.arange(12, dtype=np.float32).reshape(4, 3), np.array([True, False, True]),
        np.zeros((0, 3), np.float64), np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        np.float32([np.nan, -0.0]),
    ]  # fmt: skip
    before = crossed(device)
    there = device.asarrays(arrays)
    strided = there[1][:, 1:]
    back = device.to_hosts([*there, strided])
    for array, again in zip([*arrays, arrays[1][:, 1:]], back, strict=True):
        assert isinstance(again, np.ndarray) and again.dtype == array.dtype
        np.testing.assert_array_equal(again, array)
    assert np.signbit(back[5][1])
    n_bytes = 16 + 48 + 16 + 0 + 48 + 16  # each begins at a multiple of 16 bytes
    expected = (n_bytes, n_bytes + 32) if device.kind == "cuda" else (0, 0)
    assert tuple(np.subtract(crossed(device), before)) == expected
