"""Libraries that are imported in one thread before several threads may import them at once."""

from __future__ import annotations

import importlib

# Their packages import each other in circles. Two threads that enter a circle at different places can each find a
# module of the other half made: Python breaks the deadlock so, and one of them fails with an ImportError.
OF_TRAINING = ("scipy.linalg", "scipy.optimize", "scipy.special", "sklearn.metrics")


def load(names: tuple[str, ...] = OF_TRAINING) -> None:
    """Import these modules now, in the calling thread.

    >>> import sys
    >>> load(("scipy.special",))
    >>> "scipy.special" in sys.modules
    True
    """
    for name in names:
        importlib.import_module(name)
