"""gpupipe: from OHLCV files to trained, verified trading models, on the GPU where there is one.

    from gpupipe import read, tp_dd_labels, compute_features, train, load

Importing it touches no device and loads no heavy library: names are resolved when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "read": "gpupipe.data",
    "simulate": "gpupipe.data",
    "tp_dd_labels": "gpupipe.labels",
    "compute_features": "gpupipe.features",
    "compute_bins": "gpupipe.features",
    "begin_features": "gpupipe.incremental",
    "load_state": "gpupipe.incremental",
    "feature_table": "gpupipe.features",
    "feature": "gpupipe.formulas",
    "panel_feature": "gpupipe.formulas",
    "train": "gpupipe.api",
    "load": "gpupipe.artifacts",
    "pick": "gpupipe.device",
    "Panel": "gpupipe.panel",
    "Labels": "gpupipe.labels",
    "Features": "gpupipe.features",
}
__all__ = [*_WHERE, "__version__"]

if TYPE_CHECKING:
    from gpupipe.api import train as train
    from gpupipe.artifacts import load as load
    from gpupipe.data import read as read
    from gpupipe.data.simulate import simulate as simulate
    from gpupipe.device import pick as pick
    from gpupipe.features import Features as Features
    from gpupipe.features import compute_bins as compute_bins
    from gpupipe.features import compute_features as compute_features
    from gpupipe.features import feature_table as feature_table
    from gpupipe.formulas import feature as feature
    from gpupipe.formulas import panel_feature as panel_feature
    from gpupipe.incremental import begin_features as begin_features
    from gpupipe.incremental import load_state as load_state
    from gpupipe.labels import Labels as Labels
    from gpupipe.labels import tp_dd_labels as tp_dd_labels
    from gpupipe.panel import Panel as Panel


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gpupipe' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
