"""Recipe: the target, features, dataset and baselines of a supervised workload, as a value."""

from __future__ import annotations

import importlib
import itertools
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpupipe.config import Catalogue, Config
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.estimators import registry
from gpupipe.estimators.baselines.contract import Baseline
from gpupipe.features.matrix import Features
from gpupipe.targets.target import Target
from gpupipe.targets.trade_return import TradeReturns
from gpupipe.targets.triple_barrier import Labels

OF_KEYS = "digests.row_digest"  # the kernel that cache keys call


@dataclass(frozen=True)
class Recipe:
    """The recipe of a supervised workload: each group of a panel becomes a Dataset, estimators are cross-fitted on it.

    name: the name in the manifest.
    place: the module and name of this value, "gpupipe.workloads.equity:EQUITY"; workers load it from there.
    catalogue(): the catalogue of its settings.
    target(settings): the target.
    features(panel, settings, cache): the features of a panel of one group or of several (`Panel.by_group`); in a file
        below `cache`, if that is not None. The values of a row are the same whichever other groups there are.
    labels(panel, settings): the labels of such a panel, whose `part(rows, panel)` is that of a group; the same holds.
        None where datasets need none.
    dataset(panel, features, labels, group, settings): the Dataset of a group.
    outline(panel, group, settings): the Dataset without features, from which folds can be cut.
    baselines: the baselines of every comparison, in the order of display.
    kernels(settings): names of the kernels that its target, features and datasets call.
    returns(target, column): name of the extra column with the return of a call on a target's column; "" for none.
    trades(panel, target): the returns of the trades that calls open; None where nothing is traded.
    volatility: name of the extra column by whose bins payoffs of trades are learned.

        >>> from gpupipe.workloads.equity import EQUITY
        >>> EQUITY.target(EQUITY.settings("fast")).names[:2]
        ('label_1d_5pct', 'label_1d_10pct')
    """

    name: str
    place: str
    catalogue: Callable[[], Catalogue]
    target: Callable[[Config], Target]
    features: Callable[[Panel, Config, pathlib.Path | None], Features]
    dataset: Callable[[Panel, Features, Any, str, Config], Dataset]
    outline: Callable[[Panel, str, Config], Dataset]
    labels: Callable[[Panel, Config], Labels | None] = lambda panel, settings: None
    baselines: tuple[Baseline, ...] = ()
    returns: Callable[[Target, int], str] = lambda target, column: ""
    kernels: Callable[[Config], tuple[str, ...]] = lambda settings: ()
    trades: Callable[[Panel, Target], TradeReturns] | None = None
    volatility: str = ""

    @property
    def reference_tables(self) -> tuple[str, ...]:
        """Names of the baselines that models must beat in the verdict."""
        return tuple(baseline.name for baseline in self.baselines if baseline.reference_table)

    def kernels_of(self, settings: Config) -> tuple[str, ...]:
        """Names of the kernels that a run of these settings calls."""
        of_estimators = (item.kernels for item in registry.estimators(settings.training.models))
        return tuple(sorted({*self.kernels(settings), *itertools.chain.from_iterable(of_estimators), OF_KEYS}))

    def settings(self, preset: str | None = None, *arguments: object, **overrides: object) -> Config:
        """The settings of a run; see `config.make`."""
        from gpupipe.config import make

        return make(self.catalogue(), preset, *arguments, **overrides)  # type: ignore[arg-type]


def load(place: str) -> Recipe:
    """The recipe at a place, "module:NAME"."""
    module, _, name = place.partition(":")
    recipe = getattr(importlib.import_module(module), name)
    assert isinstance(recipe, Recipe), place
    return recipe
