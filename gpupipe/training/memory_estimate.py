"""Estimate of the peak memory of a run in bytes, for every memory plan, from its rows and settings.

Arrays are counted one by one. The memory of libraries, and of the program before it loads data, was measured
(`python -m bench.job.memory` compares estimates with runs).
"""

from __future__ import annotations

import numpy as np

from gpupipe.config import Config
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import WARM_BARS
from gpupipe.estimators import registry
from gpupipe.estimators.boosting.sampling import cut
from gpupipe.estimators.contract import Shape
from gpupipe.features.matrix import feature_names, warm_up_of
from gpupipe.runtime.memory import LADDER, Estimate, Plan
from gpupipe.training.recipe import Recipe

PROGRAM_BYTES = 400 << 20  # Python, the libraries, compiled kernels, and what they leave behind
PROGRAM_ON_DEVICE = 600 << 20  # CUDA's context, the libraries' kernels
BIN_BYTES = 2.3  # of XGBoost on the CPU for a value: a byte by row, a byte by column, and row pointers
DEVICE_BIN_BYTES = 2.0  # of XGBoost's packed bins on a GPU with missing values: log2(n_features * max_bin) bits
ONE_MATRIX_BYTES = 32  # of derivatives of a row and target on a GPU: those with 0 outside of a sample, XGBoost's copy
BARS_BYTES = 28  # of a bar in a Panel
ROW_BYTES = 90  # of a row of a Dataset beside its features, and its numbers in splits
PREDICTION_BYTES = 12  # of an estimator's prediction of a row and target
FREED = 0.06  # share of freed memory that the allocator cannot give back


def shape_of(workload: Recipe, panel: Panel, settings: Config) -> Shape:
    """The shape of a run over a panel, by the shares of its split."""
    names, shares = feature_names(settings.features.names), settings.split
    target = workload.target(settings)
    warm_ups = [warm_up_of(name) for name in names]
    lost = max([bars for bars in warm_ups if bars <= WARM_BARS], default=0) + max(target.horizon_rows)
    usable = max(0, panel.n_rows - panel.n_symbols * lost)
    test = 1 - shares.train - shares.validation
    n_origins = max(1, shares.walk_forward)
    later = test * (n_origins - 1) / n_origins  # how far the last origin is after the first
    fit = shares.train + (later if shares.window == "expanding" else 0)
    lengths = np.diff(panel.device.to_host(panel.offsets))
    by_group = np.bincount(panel.group_of_symbol, weights=lengths)
    return Shape(
        panel.n_rows, usable * fit, usable * shares.validation, usable * test / n_origins,
        usable * fit * (shares.parts - 1) / shares.parts, float(by_group.max() / max(1, panel.n_rows)), len(names),
        sum(bars > WARM_BARS for bars in warm_ups), len(target.names),
    )  # fmt: skip


def ladder(workload: Recipe, panel: Panel, settings: Config, jobs: int) -> list[Estimate]:
    """The estimate of every plan, in order; the plan with files is left out on a GPU, where files do not help."""
    shape, kind = shape_of(workload, panel, settings), panel.device.kind
    return [estimate_plan(shape, settings, jobs, plan, kind) for plan in LADDER if kind == "cpu" or not plan.files]


def estimate_plan(shape: Shape, settings: Config, jobs: int, plan: Plan, kind: str) -> Estimate:
    """The estimate of one plan on a device of this kind."""
    pooled = settings.training.pool == "all"
    data = shape.n_rows * (4.0 * shape.n_features * (not plan.files) + ROW_BYTES)
    bars = shape.n_rows * BARS_BYTES
    fold_shape = shape if pooled else _largest_group(shape)
    jobs = min(jobs, plan.jobs or jobs)
    fold = _fold(fold_shape, settings, jobs, plan, kind)
    n_models, stacking = len(settings.training.models), registry.stacking(settings.training.models)
    stack, predictions = 0.0, PREDICTION_BYTES * shape.n_targets * (shape.validation + shape.test) * n_models
    if stacking:
        predictions += PREDICTION_BYTES * shape.n_targets * fold_shape.fit * (n_models - 1)
        stack = registry.estimator(stacking).fit_bytes(fold_shape, settings, plan.sparing)
    peak = max(fold + _ahead(fold_shape, settings, plan, kind), stack)
    on_device = int(PROGRAM_ON_DEVICE + bars + data + peak) if kind == "cuda" else 0
    if kind == "cuda":  # the host has a copy of the data, and the rows and bins of the stages that are placed there
        peak = max(_fold(fold_shape, settings, jobs, plan, "cpu") + _ahead(fold_shape, settings, plan, "cpu"), stack)
    return Estimate(plan, int(PROGRAM_BYTES + bars + data + predictions + peak * (1 + FREED)), on_device)


def _largest_group(shape: Shape) -> Shape:
    """The shape of the largest group."""
    share = shape.largest
    return Shape(
        int(shape.n_rows * share), shape.fit * share, shape.validation * share, shape.test * share,
        shape.out_of_fold * share, 1.0, shape.n_features, shape.late_columns, shape.n_targets,
    )  # fmt: skip


def _fold(shape: Shape, settings: Config, jobs: int, plan: Plan, kind: str) -> float:
    """Bytes of fitting the published fold: rows, bins, and the fits that run at once."""
    n, rows = shape.n_features, shape.fit + shape.validation
    largest = shape.fit * shape.largest
    gathered = 4.0 * n * rows
    if plan.late:
        gathered = 4.0 * n * largest  # of one group, while its bins are made
    if plan.files or not registry.reads_rows(settings):  # windows are gathered batch by batch, straight from the data
        gathered = 0.0
    columns = rows * (shape.n_targets * 1.0 + 8 + 8)  # labels, times, row numbers
    bins = 0.0 if plan.files else _bins(shape, settings, plan, kind)
    fits = _fits(shape, settings, jobs, plan)
    if kind == "cuda" and any(item.uses_bins for item in registry.estimators(settings.training.models)):
        fits += shape.fit * ONE_MATRIX_BYTES * shape.n_targets
    return gathered + columns + bins + fits


def _ahead(shape: Shape, settings: Config, plan: Plan, kind: str) -> float:
    """Bytes of the next fold's rows and pooled bins, which are prepared beside the last tasks of the current fold.

    With training.pool "none" the next fold is another sector's, else the first out-of-fold fold of the published fold.
    """
    if plan.sparing:
        return 0.0
    if settings.training.pool == "none":
        share = 1.0
    elif not registry.stacking(settings.training.models):
        return 0.0
    else:
        parts = settings.split.parts
        share = 1 / parts if settings.split.stacking == "forward" else (parts - 1) / parts
    rows, n_gathered = share * shape.fit, shape.n_features * registry.reads_rows(settings)
    return rows * (4.0 * n_gathered + shape.n_targets + 16) + share * _bins(shape, settings, plan, kind)


def _bins(shape: Shape, settings: Config, plan: Plan, kind: str) -> float:
    """Bytes of XGBoost's bins: a copy for each way to cut the rows into samples, in pooled fits and in groups.

    On a GPU all samples are rows of one matrix: a copy for pooled fits, and one for groups.
    """
    each = (BIN_BYTES if kind == "cpu" else DEVICE_BIN_BYTES) if settings.training.max_bin <= 256 else 2 * BIN_BYTES
    if not settings.ml.use_quantile_dmatrix:
        each += 4 + 4  # floats, as XGBoost keeps them: with the number of their column
    pooled: set[tuple[int, bool]] = set()
    groups: set[tuple[int, bool]] = set()
    for estimator in registry.estimators(settings.training.models):
        pool_shares, group_shares = estimator.sampled_shares(settings)
        pooled |= {cut(share) for share in pool_shares}
        groups |= {cut(share) for share in group_shares}
    if shape.largest == 1.0:  # with a single group the pooled bins are the group's bins
        groups -= pooled
    ways = [*pooled, *groups] if kind == "cpu" else [(1, False)] * (bool(pooled) + bool(groups))
    copies = [float(parts - 1 if left_out else 1) for parts, left_out in ways] or [0.0]
    return each * shape.fit * shape.n_features * (max(copies) if plan.sparing else sum(copies))


def _fits(shape: Shape, settings: Config, jobs: int, plan: Plan) -> float:
    """Bytes of the largest fits that run at once, in addition to rows and bins."""
    estimators = [item for item in registry.estimators(settings.training.models) if not item.stacks]
    needs = sorted((item.fit_bytes(shape, settings, plan.sparing) for item in estimators), reverse=True)
    return sum(needs[:jobs])
