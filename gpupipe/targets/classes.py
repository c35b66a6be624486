"""The classes of a barrier label, and how a threshold is written in names."""

from __future__ import annotations

from gpupipe.runtime.errors import UserError
from gpupipe.targets.target import Target

CLASSES = ("SELL", "HOLD", "BUY")
SELL, HOLD, BUY, UNKNOWN = 0, 1, 2, -1
N_CLASSES = len(CLASSES)


def horizon_and_threshold(target: Target, label: str) -> tuple[int, float]:
    """The horizon in bars and the threshold of a barrier label; UserError for a label that has none."""
    parameters = dict(target.parameters[target.names.index(label)]) if target.parameters else {}
    if "horizon" not in parameters or "threshold" not in parameters:
        raise UserError(f"{label} is no label by barriers of a fixed threshold: only these are traded and scanned")
    return parameters["horizon"], parameters["threshold"]


def percent(threshold: float) -> str:
    """A threshold as it stands in names: 0.05 is "5", 0.025 is "2.5"."""
    return f"{threshold * 100:g}"
