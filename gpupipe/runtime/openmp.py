"""How OpenMP's threads wait for each other: briefly, so that they leave the cores to others."""

from __future__ import annotations

import os

SPINS = "1000"  # some tens of microseconds


def wait_briefly() -> None:
    """Let the threads of libgomp look for new work SPINS times and then sleep, unless the user has chosen otherwise.

    Threads that wait at the end of a loop look for work without a pause, by libgomp's own choice for milliseconds.
    Where the cores are also used by others, the thread that they wait for has lost its core, and they take from it
    the time that it needs. libgomp reads its environment when it is loaded, with XGBoost, LightGBM or scikit-learn.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
