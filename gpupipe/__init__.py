"""gpupipe: from OHLCV files to trained, verified trading models, on the GPU where there is one.

    from gpupipe import read, tp_dd_labels, compute_features, train, load

Importing it touches no device and loads no heavy library: names are resolved when they are first used. It sets
GOMP_SPINCOUNT, unless the environment says how OpenMP threads wait: libgomp reads it when the first library loads it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpupipe.runtime import openmp

__version__ = "0.1.0"

_WHERE = {
    "read": "gpupipe.data",
    "simulate": "gpupipe.data",
    "tp_dd_labels": "gpupipe.targets.triple_barrier",
    "compute_features": "gpupipe.features.matrix",
    "compute_bins": "gpupipe.features.matrix",
    "begin_features": "gpupipe.features.incremental",
    "load_state": "gpupipe.features.incremental",
    "feature_table": "gpupipe.features.matrix",
    "feature": "gpupipe.features.formulas",
    "panel_feature": "gpupipe.features.formulas",
    "train": "gpupipe.api",
    "load": "gpupipe.artifacts.load",
    "pick": "gpupipe.runtime.device",
    "Panel": "gpupipe.data.panel",
    "Labels": "gpupipe.targets.triple_barrier",
    "Features": "gpupipe.features.matrix",
}
__all__ = [*_WHERE, "__version__"]

openmp.wait_briefly()

if TYPE_CHECKING:
    from gpupipe.api import train as train
    from gpupipe.artifacts.load import load as load
    from gpupipe.data import read as read
    from gpupipe.data.panel import Panel as Panel
    from gpupipe.data.simulate import simulate as simulate
    from gpupipe.features.formulas import feature as feature
    from gpupipe.features.formulas import panel_feature as panel_feature
    from gpupipe.features.incremental import begin_features as begin_features
    from gpupipe.features.incremental import load_state as load_state
    from gpupipe.features.matrix import Features as Features
    from gpupipe.features.matrix import compute_bins as compute_bins
    from gpupipe.features.matrix import compute_features as compute_features
    from gpupipe.features.matrix import feature_table as feature_table
    from gpupipe.runtime.device import pick as pick
    from gpupipe.targets.triple_barrier import Labels as Labels
    from gpupipe.targets.triple_barrier import tp_dd_labels as tp_dd_labels


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gpupipe' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
