"""The kernels of a run: said and waited for where they have to be compiled, and counted in its log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

from gpupipe.kernels import ahead, notice
from gpupipe.pipeline.listener import Listener
from gpupipe.runtime import run_log
from gpupipe.runtime.device import Device

log = logging.getLogger("gpupipe")


@contextlib.contextmanager
def ready(names: Iterable[str], device: Device, listener: Listener) -> Iterator[None]:
    """Wait until the named kernels are compiled, a stage of its own where some are not; log at the end.

    A command begins to compile them before its data are there (`ahead.begin`); here it waits for what is left. The
    event "kernels" has `compiled` and `loaded`, numbers of kernels that were compiled and found on disk; `seconds`, as
    long as the run waited for them; `compile_seconds`, added up over `processes`; and the names of those compiled. On
    CUDA a kernel counts twice, as CPU loop and as code of the GPU.
    """
    building = ahead.begin(names, architecture=device.architecture)
    if building.missing:
        listener.stage(f"compiling kernels, once ({len(building.missing)})")
    waited_s = building.wait()
    if not building.kept:
        log.warning(
            "no folder can be written to keep compiled kernels in: every process compiles them again; set "
            "NUMBA_CACHE_DIR to one"
        )
    try:
        yield
    finally:
        in_processes, building.compiled, building.missing = building.compiled, [], ()
        made, notice.made[:] = list(notice.made), []
        here = [item for item in made if not item.loaded]
        compiled = {item.name for item in [*in_processes, *here] if not item.loaded}
        run_log.event(
            "kernels", seconds=waited_s + sum(item.seconds for item in here), compiled=len(compiled),
            loaded=len({item.name for item in made} - compiled), names=sorted(compiled) or None,
            compile_seconds=sum(item.seconds for item in [*in_processes, *here]) if compiled else None,
            processes=building.processes or None, kept=building.kept,
        )  # fmt: skip
