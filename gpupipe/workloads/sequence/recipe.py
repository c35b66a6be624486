"""The recipe of sequence: barrier labels and the direction of the next bar, as a Dataset for each symbol."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.features.matrix import Features, compute_features
from gpupipe.kernels.elementary import log_growth
from gpupipe.targets.classes import BUY, HOLD, SELL, UNKNOWN
from gpupipe.targets.target import Target
from gpupipe.targets.triple_barrier import Labels, tp_dd_labels
from gpupipe.workloads.equity import recipe as of_equity
from gpupipe.workloads.sequence.settings import SECTION

DIRECTION = "direction_1d"  # the label; its folder is layout.DIRECTIONS
LOG_RETURN = "log_return_1"  # the extra column with the log-return of the next bar, which the value head learns
VOLATILITY = "volatility_20"  # the feature whose multiples labels.multiples are


def target(settings: Config) -> Target:
    """The target of these settings: barrier labels, then the direction of the next bar.

    >>> from gpupipe.workloads.sequence import SEQUENCE
    >>> chosen = target(SEQUENCE.settings("fast", None, ["labels.horizons=1", "training.models=linear"]))
    >>> chosen.names, chosen.folder(2, "BTC/USD")
    (('label_1d_1pct', 'label_1d_2pct', 'direction_1d'), 'direction/BTC%2FUSD/1d')
    """
    wanted = settings.labels
    return with_direction(of_equity.target_of(wanted.horizons, wanted.thresholds, wanted.multiples))


def with_direction(barriers: Target) -> Target:
    """The target with one more column, the direction of the next bar."""
    return dataclasses.replace(
        barriers,
        names=(*barriers.names, DIRECTION),
        horizon_rows=(*barriers.horizon_rows, 1),
        parameters=(*barriers.parameters, {"horizon": 1}),
        folders=(*barriers.folders, "direction/{group}/1d"),
    )


def labels_of(panel: Panel, settings: Config) -> Labels:
    """The barrier labels of a panel."""
    wanted = settings.labels
    volatility = None
    if wanted.multiples:
        volatility = panel.device.xp.ascontiguousarray(compute_features(panel, VOLATILITY).column(VOLATILITY))
    return tp_dd_labels(
        panel, wanted.horizons, wanted.thresholds, wanted.rule, wanted.window, multiples=wanted.multiples,
        volatility=volatility,
    )  # fmt: skip


def dataset(panel: Panel, features: Features, labels: Labels, group: str, settings: Config) -> Dataset:
    """The Dataset of a symbol: see `equity.recipe.join`, with the direction of the next bar and its returns."""
    return _with_next_bar(of_equity.dataset(panel, features, labels, group, settings), panel)


def outline(panel: Panel, group: str, settings: Config) -> Dataset:
    """The Dataset that folds can be cut from, without features; see `equity.recipe.outline_of`."""
    return _with_next_bar(of_equity.outline_of(panel, labels_of(panel, settings), group, settings), panel)


def _with_next_bar(barriers: Dataset, panel: Panel) -> Dataset:
    """The Dataset with the direction of the next bar as its last target, and the next bar's returns beside it.

    A barrier label of any horizon is known only where the next close is, so that rows and their ends stay the same.
    The direction of a row weighs as much as the row's shortest label.
    """
    xp = panel.device.xp
    change = next_return(panel)
    known = ~xp.isnan(change)
    direction = xp.where(change > 0, BUY, xp.where(change < 0, SELL, HOLD))
    direction = xp.where(known, direction, UNKNOWN).astype(np.int8)
    y = xp.asfortranarray(xp.concatenate([barriers.y, direction[:, None]], axis=1))
    weight = barriers.weight
    if weight is not None:
        weight = xp.asfortranarray(xp.concatenate([weight, weight[:, :1]], axis=1))
    log_return = xp.empty_like(change)
    log_growth(len(change), change, log_return)
    extra = {of_equity.forward_return(1): change, **barriers.extra, LOG_RETURN: log_return}
    return dataclasses.replace(
        barriers, y=y, weight=weight, target=with_direction(barriers.target), extra=extra,
        usable=barriers.usable & known,
    )  # fmt: skip


def next_return(panel: Panel) -> Any:
    """float32 (n_rows,): the next close / close - 1 of the same symbol; NaN where either is not known.

    Reads the future of a row: a target, never a feature.

    >>> from gpupipe.data import simulate
    >>> panel = simulate(n_symbols=2, n_bars=3)
    >>> change = next_return(panel)
    >>> bool(change[0] == panel.close[1] / panel.close[0] - 1), np.isnan(change).tolist()
    (True, [False, False, True, False, False, True])
    """
    xp, close = panel.device.xp, panel.close
    change = xp.full(panel.n_rows, np.float32(np.nan))
    if panel.n_rows > 1:
        same = panel.symbol_of_row[1:] == panel.symbol_of_row[:-1]
        positive = (close[1:] > 0) & (close[:-1] > 0) & xp.isfinite(close[1:]) & xp.isfinite(close[:-1])
        usable = same & positive
        before = xp.where(usable, close[:-1], np.float32(1))
        change[:-1] = xp.where(usable, close[1:] / before - np.float32(1), np.float32(np.nan))
    return change


def kernels_of(settings: Config) -> tuple[str, ...]:
    """Names of the kernels that labels, features, datasets and positions by the predicted return call."""
    of_positions = ("positions.position_equity",) if SECTION in settings.training.models else ()
    return (*of_equity.kernels_of(settings), "elementary.log_growth", *of_positions)
