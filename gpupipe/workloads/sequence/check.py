"""Checks of a run of sequence before anything is written, and what a run says of its steps."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from gpupipe.artifacts.manifest import read_manifest
from gpupipe.artifacts.published_files import group_by_of
from gpupipe.config import Config
from gpupipe.cross_validation.split import split
from gpupipe.data.outside import PREFIX
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import WARM_BARS
from gpupipe.estimators import registry
from gpupipe.features import outside
from gpupipe.features.matrix import compute_features, warm_up_of
from gpupipe.runtime.errors import UserError
from gpupipe.training.prepare import outline
from gpupipe.training.recipe import Recipe
from gpupipe.workloads.sequence.settings import SECTION

TAIL = 400  # bars of a symbol, of which each feature must be known somewhere
NAMED = 3  # symbols or columns in a message


def with_outside(settings: Config, panel: Panel) -> Config:
    """The settings with the panel's columns from outside among the features: all of them, or those that are named.

    FeatureError where the settings name a column that the panel lacks.

    >>> from gpupipe.data import simulate
    >>> from gpupipe.workloads.sequence import SEQUENCE
    >>> panel = simulate(n_symbols=1, n_bars=3)
    >>> panel = panel.replace(columns={**panel.columns, "with_funding": panel.close})
    >>> with_outside(SEQUENCE.settings("fast", None, ["training.models=linear"]), panel).features.names
    ('core', 'with_funding')
    """
    joined = outside.register_of(panel)
    if any(name.startswith(PREFIX) for name in settings.features.names):
        outside.require(panel, settings.features.names, "the features that are named")
        return settings
    if not joined:
        return settings
    names = (*settings.features.names, *joined)
    return settings.replace(features=dataclasses.replace(settings.features, names=names))


def step_sentence(settings: Config) -> str:
    """Which batch and learning rate the networks are trained with; empty where none is trained.

    >>> from gpupipe.workloads.sequence import SEQUENCE
    >>> step_sentence(SEQUENCE.settings("fast", None, ["training.models=linear"]))
    ''
    """
    if SECTION not in settings.training.models:
        return ""
    network = settings.sections[SECTION]
    rate = f"a learning rate of {network.step_rate:.3g}"
    if network.rows_of_step == network.batch:
        return f"{network.batch:,} rows at {rate}"
    return (
        f"{network.rows_of_step:,} rows at {rate}, in the place of {network.batch:,} rows at {network.rate:g}: the "
        f"rate grows by the square root of the rows (--batch-size {network.batch} takes steps of {network.batch})"
    )


def require_same_windows(start_from: str | os.PathLike[str], settings: Config) -> None:
    """UserError where a folder holds no finished run of symbols, or one of networks with windows of another length."""
    manifest = read_manifest(start_from)
    if manifest is None:
        raise UserError(f"--from {start_from}: no finished run is there; give the --out of one")
    earlier = manifest["settings"].get(SECTION)
    if group_by_of(manifest) != "symbol" or not isinstance(earlier, dict):
        raise UserError(f"--from {start_from}: its models are not for single symbols: give the --out of a run of this")
    for name, option in (("length", "--sequence-length"), ("network", "--model-type")):
        before, now = earlier.get(name), getattr(settings.sections[SECTION], name)
        if before != now:
            raise UserError(
                f"--from {start_from}: its networks have {name} {before}, and this run has {now}: add {option} "
                f"{before}, or leave --from out"
            )


def require_trainable(workload: Recipe, panel: Panel, settings: Config) -> None:
    """UserError where no symbol can be trained: constant series, columns that are never known, too few rows.

    Where some symbols can be trained, the others are skipped by the run, which says so.
    """
    problems = _constant(panel)
    _refuse_if_all(problems)
    problems |= {symbol: problem for symbol, problem in _unknown(panel, settings).items() if not problems[symbol]}
    _refuse_if_all(problems)
    short = _too_short(workload, panel, settings)
    _refuse_if_all({symbol: problem or short[symbol] for symbol, problem in problems.items()})


def _refuse_if_all(problems: dict[str, str]) -> None:
    """UserError that names the first problems where every symbol has one."""
    if all(problems.values()):
        listed = "; ".join(f"{symbol}: {problem}" for symbol, problem in list(problems.items())[:NAMED])
        more = f"; and {len(problems) - NAMED} more symbols" if len(problems) > NAMED else ""
        raise UserError(f"nothing can be trained: {listed}{more}")


def _constant(panel: Panel) -> dict[str, str]:
    """By symbol, why its closes cannot be learned from; "" where they move."""
    close, offsets = panel.device.to_host(panel.close), panel.device.to_host(panel.offsets)
    problems = {}
    for k, symbol in enumerate(panel.symbols):
        known = close[offsets[k] : offsets[k + 1]]
        known = known[np.isfinite(known)]
        if not len(known):
            problems[symbol] = "no close is known"
        elif np.ptp(known) == 0:
            problems[symbol] = f"every close is {known[0]:g}, and a constant series has no direction"
        else:
            problems[symbol] = ""
    return problems


def _unknown(panel: Panel, settings: Config) -> dict[str, str]:
    """By symbol, the features that no row can do without and that no late row knows; "" where all are known."""
    xp, to_host = panel.device.xp, panel.device.to_host
    tail = panel.take(xp.arange(panel.n_rows) >= panel.offsets[1:][panel.symbol_of_row] - TAIL, keep_empty=True)
    features, offsets = compute_features(tail, settings.features.names), to_host(tail.offsets)
    needed = np.array([warm_up_of(name) <= WARM_BARS for name in features.names])
    problems = {}
    for k, symbol in enumerate(tail.symbols):
        rows = slice(offsets[k], offsets[k + 1])
        n_rows = int(offsets[k + 1] - offsets[k])
        never = needed & to_host(xp.isnan(features.values[rows]).all(axis=0))
        problems[symbol] = ""
        if n_rows > WARM_BARS and never.any():  # a shorter symbol has too few rows, which is said with their numbers
            names = [features.names[j] for j in np.flatnonzero(never)]
            empty = [name for name, column in tail.columns.items() if bool(xp.isnan(column[rows]).all())]
            reason = f", because no {' and no '.join(empty)} is" if empty else ""
            shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
            problems[symbol] = (
                f"{shown} not known in any of the last {n_rows:,} bars{reason}; choose others by --features"
            )
    return problems


def _too_short(workload: Recipe, panel: Panel, settings: Config) -> dict[str, str]:
    """By symbol, the first fold that has too few rows of it; "" where all have enough."""
    before, minimum = registry.lookback(settings).rows, settings.training.min_rows
    horizon = max(workload.target(settings).horizon_rows)
    prepared = outline(workload, panel, settings)
    problems = dict.fromkeys(prepared.datasets, "")
    for times in (*prepared.folds.evaluation_folds, prepared.folds.published):
        for symbol, dataset in prepared.datasets.items():
            rows = split(dataset, times)
            train = len(rows.train)
            if not problems[symbol] and min(train // 4, len(rows.validation), len(rows.test)) < minimum:
                gaps = dataset.windows.n_gaps if dataset.windows is not None else 0
                crossed = f" ({gaps:,} windows cross a gap in time)" if gaps else ""
                problems[symbol] = (
                    f"of {dataset.n_rows:,} bars, windows of {before + 1} and labels of {horizon} bars leave {train:,} "
                    f"training, {len(rows.validation):,} validation and {len(rows.test):,} test rows{crossed}, and "
                    f"training.min_rows = {minimum} requires {4 * minimum:,}, {minimum:,} and {minimum:,}; give more "
                    "bars, shorter windows (--sequence-length) or fewer folds"
                )
    return problems
