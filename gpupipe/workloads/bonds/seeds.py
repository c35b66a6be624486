"""Seeds of draws: each step and trial has its own, derived from the seed of the settings."""

from __future__ import annotations

import numpy as np


def seed_of(seed: int, *numbers: int) -> int:
    """A seed below 2**32, as scikit-learn and Optuna need, that depends on `seed` and on what it is drawn for.

    seed: 0 or more, of any size.  numbers: of the step, of the trial; 0 or more.

    >>> seed_of(42, 4, 0) != seed_of(42, 4, 1), seed_of(2**40, 4) < 2**32
    (True, True)
    """
    return int(np.random.SeedSequence([seed, *numbers]).generate_state(1)[0])
