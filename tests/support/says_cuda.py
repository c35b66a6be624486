"""A device that says that it is a GPU, whose arrays are numpy's: what depends on the kind alone runs without a GPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gpupipe.runtime.device import Device


@dataclasses.dataclass(frozen=True)
class SaysCuda(Device):
    """Of kind "cuda"; XGBoost is asked for the CPU."""

    kind: str = "cuda"
    name: str = "numpy"
    reason: str = "for a test"

    @property
    def xp(self) -> Any:
        """The array module."""
        return np

    @property
    def xgboost(self) -> str:
        """What XGBoost is asked for."""
        return "cpu"

    def sync(self) -> None:
        """Nothing is asynchronous."""
