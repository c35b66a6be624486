"""The recipe of equity: labels by barriers and features of bars, as a Dataset for each sector."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import NEVER, WARM_BARS, Dataset, warm_by_bars, warm_rows
from gpupipe.dataset.lookback import NO_LOOKBACK, Lookback
from gpupipe.dataset.window_marks import mark_windows
from gpupipe.estimators import registry
from gpupipe.estimators.baselines.class_shares import PooledPrior, TableOfColumn
from gpupipe.evaluation.expected_return import VOLATILITY
from gpupipe.features.expressions import Across
from gpupipe.features.formulas import FEATURES
from gpupipe.features.matrix import Features, compute_features, feature_names, warm_up_of
from gpupipe.runtime import memory
from gpupipe.targets.classes import CLASSES, has_fixed_barriers, horizon_and_threshold, percent
from gpupipe.targets.target import Target
from gpupipe.targets.trade_return import SIDES, TradeReturns, trade_returns
from gpupipe.targets.triple_barrier import Labels, label_names, tp_dd_labels

# Extra columns, which the baselines read, and the features that they are: volatility, the returns of 60 and of 5 bars.
NATR, MOMENTUM, REVERSAL = "natr", "momentum", "reversal"
BASELINE_COLUMNS = {NATR: VOLATILITY, MOMENTUM: "roc_60", REVERSAL: "roc_5"}
BASELINES = (
    PooledPrior(),
    TableOfColumn("volatility_table_sector", NATR, pooled=False, reference_table=True, short_name="volat. sector"),
    TableOfColumn("volatility_table_all", NATR, pooled=True, reference_table=True, short_name="volat. pooled"),
    TableOfColumn("momentum_table", MOMENTUM, pooled=True, short_name="momentum"),
    TableOfColumn("reversal_table", REVERSAL, pooled=True, short_name="reversal"),
)


def target_of(horizons: tuple[int, ...], thresholds: tuple[float, ...], multiples: tuple[float, ...] = ()) -> Target:
    """The target of barrier labels: a column for each horizon and threshold, multiples of volatility after thresholds.

    >>> target = target_of((1, 5), (0.05,))
    >>> target.names, target.folder(1, "energy")
    (('label_1d_5pct', 'label_5d_5pct'), 'trained_5pct/energy/5d')
    """
    sizes: list[tuple[dict[str, float], str]] = [({"threshold": t}, f"{percent(t)}pct") for t in thresholds]
    sizes += [({"multiple": x}, f"{x:g}vol") for x in multiples]
    columns = [(h, size, folder) for h in horizons for size, folder in sizes]
    return Target(
        names=label_names(horizons, thresholds, multiples),
        kind="classes",
        horizon_rows=tuple(h for h, _, _ in columns),
        class_names=CLASSES,
        parameters=tuple({"horizon": h, **size} for h, size, _ in columns),
        folders=tuple(f"trained_{folder}/{{group}}/{h}d" for h, _, folder in columns),
    )


def target(settings: Config) -> Target:
    """The target of these settings."""
    return target_of(settings.labels.horizons, settings.labels.thresholds)


def features_of(panel: Panel, settings: Config, cache: pathlib.Path | None) -> Features:
    """The features of a panel; in a file below `cache`, where one is given and the device is the CPU.

    Beside them are the features of BASELINE_COLUMNS that the settings do not name.
    """
    names, out = feature_names(settings.features.names), None
    if cache is not None and panel.device.kind == "cpu":
        out = memory.matrix((panel.n_rows, len(names)), cache)
    features = compute_features(panel, names, out)
    others = tuple(name for name in BASELINE_COLUMNS.values() if name not in names)
    return replace(features, beside=compute_features(panel, others)) if others else features


def labels_of(panel: Panel, settings: Config) -> Labels:
    """The labels of a panel."""
    wanted = settings.labels
    return tp_dd_labels(panel, wanted.horizons, wanted.thresholds, wanted.rule, wanted.window)


def trades_of(panel: Panel, target: Target) -> TradeReturns:
    """The returns of the trades of each label, whose barriers are target and stop; NaN for labels without such."""
    xp = panel.device.xp
    traded = [k for k, name in enumerate(target.names) if has_fixed_barriers(target, name)]
    pairs = [horizon_and_threshold(target, target.names[k]) for k in traded]
    gross = xp.full((panel.n_rows, len(target.names), len(SIDES)), np.float32(np.nan))
    end_time_ns = xp.repeat(panel.time_ns[:, None], len(target.names), axis=1)
    if pairs:
        returns = trade_returns(panel, [h for h, _ in pairs], [t for _, t in pairs])
        gross[:, traded], end_time_ns[:, traded] = returns.gross, returns.end_time_ns
    return TradeReturns(gross, end_time_ns)


def kernels_of(settings: Config) -> tuple[str, ...]:
    """Names of the kernels that labels, features and datasets of these settings call."""
    names = ["labels.label_cube", "program.run_program", "backtest.trade_outcomes"]
    if settings.labels.window == "calendar":
        names.append("labels.calendar_ends")
    if settings.training.sample_weight == "uniqueness":
        names.append("labels.average_uniqueness")
    if any(isinstance(FEATURES[name].series, Across) for name in feature_names(settings.features.names)):
        names += ["cross_section.cross_section", "cross_section.group_means"]
    return tuple(names)


def dataset(panel: Panel, features: Features, labels: Labels, group: str, settings: Config) -> Dataset:
    """The Dataset of a group by these settings; see `join`."""
    weighted = settings.training.sample_weight == "uniqueness"
    return join(panel, features, labels, group, weighted, lookback=registry.lookback(settings))


def join(
    panel: Panel,
    features: Features,
    labels: Labels,
    group: str,
    weighted: bool = False,
    columns: Mapping[str, Any] | None = None,
    lookback: Lookback = NO_LOOKBACK,
) -> Dataset:
    """The Dataset of one group's panel, its features and its labels; nothing is copied but the marks.

    columns: those of BASELINE_COLUMNS, float32 (n_rows,); those of the features, or computed, if None.
    weighted: rows weigh the average uniqueness of the window that decides their label (Lopez de Prado 2018, section
        4.4), 0 where it is not known.
    lookback: the rows before a row that estimators read; rows without them are not warm.
    """
    xp, windows = panel.device.xp, mark_windows(panel, lookback)
    warm = warm_rows(features) & windows.complete
    known = (labels.y >= 0).all(axis=1)
    last = labels.exit_row.max(axis=1)
    end_time_ns = xp.where(known, panel.time_ns[xp.where(known, last, 0)], NEVER)
    columns = columns or {name: _column(panel, features, feature) for name, feature in BASELINE_COLUMNS.items()}
    forward = {forward_return(h): labels.forward_return[:, j] for j, h in enumerate(labels.horizons)}
    return Dataset(
        group=group,
        X=features.values,
        names=features.names,
        y=labels.y,
        target=target_of(labels.horizons, labels.thresholds, labels.multiples),
        time_ns=panel.time_ns,
        end_time_ns=end_time_ns,
        warm=warm,
        usable=warm & known,
        offsets=panel.offsets,
        weight=_uniqueness(labels) if weighted else None,
        extra={**columns, **forward},
        windows=windows if lookback.rows else None,
        lookback_rows=lookback.rows,
    )


def forward_return(horizon: int) -> str:
    """The name of the extra column with the return of the next `horizon` bars, close to close; NaN where not known."""
    return f"forward_return_{horizon}"


def outline(panel: Panel, group: str, settings: Config) -> Dataset:
    """See `outline_of`."""
    return outline_of(panel, labels_of(panel, settings), group, settings)


def outline_of(panel: Panel, labels: Labels, group: str, settings: Config) -> Dataset:
    """The Dataset that folds can be cut from, without features: X is (n_rows, 0), and rows have no weights.

    A row is warm once as many bars of its symbol as the longest of the short columns needs are known.
    """
    xp, n_rows = panel.device.xp, panel.n_rows
    needed = [warm_up_of(name) for name in feature_names(settings.features.names)]
    warm = warm_by_bars(panel, max([bars for bars in needed if bars <= WARM_BARS], default=0))
    nothing = xp.zeros(n_rows, xp.float32)
    features = Features(xp.empty((n_rows, 0), xp.float32), (), (), panel)
    # The extra columns are never read: computing them is what this saves.
    columns, lookback = dict.fromkeys(BASELINE_COLUMNS, nothing), registry.lookback(settings)
    plain = join(panel, features, labels, group, columns=columns, lookback=lookback)
    return replace(plain, warm=plain.warm & warm, usable=plain.usable & warm)


def _uniqueness(labels: Labels) -> Any:
    xp = labels.panel.device.xp
    return xp.ascontiguousarray(xp.where(xp.isnan(labels.weight), np.float32(0), labels.weight))


def _column(panel: Panel, features: Features, name: str) -> Any:
    """A built-in column, also when the chosen features do not include it."""
    sources = [source for source in (features, features.beside) if source is not None and name in source.names]
    source = sources[0] if sources else compute_features(panel, name)
    return panel.device.xp.ascontiguousarray(source.column(name))
