"""FitContext: where a long fit may keep its progress, and whom it tells of it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class FitContext:
    """Where a long fit keeps its progress. None of it may decide what the fit results in.

    checkpoints: a folder that is the fit's own, which need not exist yet; None where nothing can be kept. A killed run
        finds it again, and it is removed once the fit's models are in the store.
    key: of all that decides the fit's result, to be kept with a checkpoint and compared.
    detail(text): shows a person how far the fit is, in a few words.

        >>> FitContext().checkpoints is None, FitContext(pathlib.Path("OUT/.gpupipe/checkpoints/ab12"), "ab12").key
        (True, 'ab12')
    """

    checkpoints: pathlib.Path | None = None
    key: str = ""
    detail: Callable[[str], None] = lambda text: None


NO_CONTEXT = FitContext()
