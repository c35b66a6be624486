"""The classes of a barrier label, and how a threshold is written in names."""

from __future__ import annotations

from collections.abc import Iterable

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


def has_fixed_barriers(target: Target, label: str) -> bool:
    """Whether a label has a horizon and a fixed threshold, so that its calls are trades with a target and a stop.

    >>> target = Target(("label_1d_5pct", "direction_1d"), "classes", (1, 1), CLASSES,
    ...                 parameters=({"horizon": 1, "threshold": 0.05}, {"horizon": 1}))
    >>> [has_fixed_barriers(target, name) for name in target.names]
    [True, False]
    """
    return bool(target.parameters) and {"horizon", "threshold"} <= set(target.parameters[target.names.index(label)])


def untraded_sentence(labels: Iterable[str]) -> str:
    """Which labels are left out of scans and backtests, and why; empty without any.

    >>> untraded_sentence(["label_1d_2vol"])
    'Left out, without barriers of a fixed size that would say where a trade ends: 1d_2vol.'
    """
    names = ", ".join(dict.fromkeys(label.removeprefix("label_") for label in labels))
    return f"Left out, without barriers of a fixed size that would say where a trade ends: {names}." if names else ""


def percent(threshold: float) -> str:
    """A threshold as it stands in names: 0.05 is "5", 0.025 is "2.5"."""
    return f"{threshold * 100:g}"
