"""Which model a section shows in full; the others are in its tables."""

from __future__ import annotations

from collections.abc import Sequence

from gpupipe.estimators import registry


def shown_model(models: Sequence[str]) -> str:
    """The stacking model, which a user takes without looking further; else the first judged one, else the first.

    models: names, at least one; they may repeat.

    >>> shown_model(["linear", "xgb_joint", "meta_learner"]), shown_model(["mine", "linear"])
    ('meta_learner', 'mine')
    """
    known = [name for name in dict.fromkeys(models) if name in registry.ESTIMATORS]
    return registry.stacking(known) or next(iter(registry.judged(known)), models[0])
