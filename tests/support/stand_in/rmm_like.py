"""Modules `rmm`: memory resources whose numbers are those of the stand-in's device."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any

from tests.support.stand_in import recorded
from tests.support.stand_in.memory import ALLOCATIONS


class _Resource:
    """A memory resource, with the recorded signature of the class of its name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        recorded.check(f"rmm.mr.{type(self).__name__}", args, kwargs)
        self.upstream_mr = args[0] if args else kwargs.get("upstream_mr")


class CudaMemoryResource(_Resource):
    """Memory of CUDA's own allocator."""


class CudaAsyncMemoryResource(_Resource):
    """A pool of CUDA's."""


class PoolMemoryResource(_Resource):
    """A pool of RMM's."""


class LimitingResourceAdaptor(_Resource):
    """A pool that refuses to grow above a limit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        ALLOCATIONS.limit_bytes = int(kwargs["allocation_limit"] if "allocation_limit" in kwargs else args[1])


class StatisticsResourceAdaptor(_Resource):
    """A pool that counts."""

    @property
    def allocation_counts(self) -> Any:
        """Bytes and numbers of allocations: now, at most, in all."""
        return ALLOCATIONS


class RMMNumbaManager:
    """What numba allocates by; nothing here does."""

    interface_version = 1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass


_MODULES: dict[str, dict[str, Any]] = {
    "rmm": {},
    "rmm.mr": {kind.__name__: kind for kind in (
        CudaMemoryResource, CudaAsyncMemoryResource, PoolMemoryResource, LimitingResourceAdaptor,
        StatisticsResourceAdaptor)},
    "rmm.allocators": {},
    "rmm.allocators.cupy": {"rmm_cupy_allocator": lambda n_bytes: None},
    "rmm.allocators.numba": {"RMMNumbaManager": RMMNumbaManager},
    "rmm.allocators.torch": {"rmm_torch_allocator": object()},
}  # fmt: skip


def install() -> None:
    """Make `import rmm` give the stand-in."""
    in_force: list[Any] = [CudaMemoryResource()]
    for name, content in _MODULES.items():
        made = types.ModuleType(name)
        made.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        made.__path__ = []
        vars(made).update(content)
        sys.modules[name] = made
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, made)
    resources = sys.modules["rmm.mr"]
    resources.set_current_device_resource = lambda resource: in_force.__setitem__(0, resource)  # type: ignore[attr-defined]
    resources.get_current_device_resource = lambda: in_force[0]  # type: ignore[attr-defined]
    sys.modules["rmm"].__version__ = recorded.version("rmm-cu13")  # type: ignore[attr-defined]
