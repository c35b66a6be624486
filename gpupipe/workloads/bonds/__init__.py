"""Bonds: quotes by date, a valuation kernel, and fair-value models in eleven steps.

Importing it loads nothing of the steps: the valuation is used without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpupipe.workloads.bonds.settings import catalogue as catalogue
    from gpupipe.workloads.bonds.workload import BONDS as BONDS

__all__ = ["BONDS", "catalogue"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gpupipe.workloads.bonds import workload

        return getattr(workload, name)
    raise AttributeError(f"module 'gpupipe.workloads.bonds' has no attribute {name!r}")
