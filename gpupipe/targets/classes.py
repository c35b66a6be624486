"""The classes of a barrier label, and how a threshold is written in names."""

from __future__ import annotations

CLASSES = ("SELL", "HOLD", "BUY")
SELL, HOLD, BUY, UNKNOWN = 0, 1, 2, -1
N_CLASSES = len(CLASSES)


def percent(threshold: float) -> str:
    """A threshold as it stands in names: 0.05 is "5", 0.025 is "2.5"."""
    return f"{threshold * 100:g}"


N_CLASSES = 3
