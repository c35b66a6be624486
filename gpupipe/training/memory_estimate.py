"""Estimate: the bytes that a run will hold at most, for every plan of memory.py, from its rows and settings alone.

What is held is counted array by array; what libraries take beside it, and what the program takes with nothing loaded,
was measured (`python -m bench.memory` compares with runs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpupipe import config
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import WARM_BARS
from gpupipe.estimators.training_set import BLOCK_ROWS
from gpupipe.features.matrix import feature_names, warm_up_of
from gpupipe.runtime.memory import LADDER, Estimate, Plan

PROGRAM_BYTES = 400 << 20  # Python, the libraries, compiled kernels, and what they leave behind
PROGRAM_ON_DEVICE = 600 << 20  # CUDA's context, the libraries' kernels
BIN_BYTES = 2.3  # of XGBoost on the CPU for a value: a byte by row, one by column, and what says where rows begin
DEVICE_BIN_BYTES = 2.0  # of its packed bins on a GPU where values are missing: log2(n_features * max_bin) bits
BARS_BYTES = 28  # of a bar in a Panel
ROW_BYTES = 90  # of a row of a Dataset beside its features, and its numbers in splits
SAID_BYTES = 12  # of what a family says of a row and label
FREED = 0.06  # of what came and went, that the allocator cannot give back


@dataclass(frozen=True)
class Shape:
    """How large a run is, in rows.

    fit, validation, test: of the published fold.  out_of_fold: fitted in one round of stacking.
    largest: of all rows, the share of the sector that has most.  late_columns: columns that miss values on usable rows.
    """

    n_rows: int
    fit: float
    validation: float
    test: float
    out_of_fold: float
    largest: float
    n_features: int
    late_columns: int
    n_labels: int


def shape_of(panel: Panel, settings: config.Config) -> Shape:
    """The shape of a run over a panel, by the shares of its split."""
    names, cut = feature_names(settings.features.names), settings.split
    warm_ups = [warm_up_of(name) for name in names]
    lost = max([bars for bars in warm_ups if bars <= WARM_BARS], default=0) + max(settings.labels.horizons)
    usable = max(0, panel.n_rows - panel.n_symbols * lost)
    test = 1 - cut.train - cut.validation
    n_origins = max(1, cut.walk_forward)
    later = test * (n_origins - 1) / n_origins  # how far the last origin lies behind the first
    fit = cut.train + (later if cut.window == "expanding" else 0)
    lengths = np.diff(panel.device.to_host(panel.offsets))
    of_sector = np.bincount(panel.sector_of_symbol, weights=lengths)
    labels = len(settings.labels.horizons) * len(settings.labels.thresholds)
    return Shape(
        panel.n_rows, usable * fit, usable * cut.validation, usable * test / n_origins,
        usable * fit * (cut.parts - 1) / cut.parts, float(of_sector.max() / max(1, panel.n_rows)), len(names),
        sum(bars > WARM_BARS for bars in warm_ups), labels,
    )  # fmt: skip


def ladder(panel: Panel, settings: config.Config, jobs: int) -> list[Estimate]:
    """What every plan would hold, in their order. On a GPU files are of no use: that plan is left out."""
    shape, kind = shape_of(panel, settings), panel.device.kind
    return [of_plan(shape, settings, jobs, plan, kind) for plan in LADDER if kind == "cpu" or not plan.files]


def of_plan(shape: Shape, settings: config.Config, jobs: int, plan: Plan, kind: str) -> Estimate:
    """What one plan would hold on a device of this kind."""
    pooled = settings.training.pool == "all"
    data = shape.n_rows * (4.0 * shape.n_features * (not plan.files) + ROW_BYTES)
    bars = shape.n_rows * BARS_BYTES
    of_fold = shape if pooled else _of_a_sector(shape)
    jobs = min(jobs, plan.jobs or jobs)
    fold = _fold(of_fold, settings, jobs, plan, kind)
    meta, said = 0.0, SAID_BYTES * shape.n_labels * (shape.validation + shape.test) * len(settings.training.models)
    if "meta_learner" in settings.training.models:
        said += SAID_BYTES * shape.n_labels * of_fold.fit * (len(settings.training.models) - 1)
        meta = _meta(of_fold, settings)
    peak = max(fold + _ahead(of_fold, settings, plan, kind), meta)
    if kind == "cuda":
        return Estimate(plan, int(PROGRAM_BYTES + bars + said), int(PROGRAM_ON_DEVICE + bars + data + peak))
    return Estimate(plan, int(PROGRAM_BYTES + bars + data + said + peak * (1 + FREED)))


def _of_a_sector(shape: Shape) -> Shape:
    """Of the largest sector alone."""
    share = shape.largest
    return Shape(
        int(shape.n_rows * share), shape.fit * share, shape.validation * share, shape.test * share,
        shape.out_of_fold * share, 1.0, shape.n_features, shape.late_columns, shape.n_labels,
    )  # fmt: skip


def _fold(shape: Shape, settings: config.Config, jobs: int, plan: Plan, kind: str) -> float:
    """What fitting the published fold holds: rows, bins, and what the fits that run at once need."""
    n, rows = shape.n_features, shape.fit + shape.validation
    largest = shape.fit * shape.largest
    gathered = 4.0 * n * rows
    if plan.late:
        gathered = 4.0 * n * largest  # of one sector, while its bins are made
    if plan.files:
        gathered = 0.0
    own = rows * (shape.n_labels * 1.0 + 8 + 8)  # labels, times, row numbers
    bins = 0.0 if plan.files else _bins(shape, settings, plan, kind)
    return gathered + own + bins + _fits(shape, settings, jobs, plan)


def _ahead(shape: Shape, settings: config.Config, plan: Plan, kind: str) -> float:
    """What the next fold's rows and pooled bins hold, which is prepared beside the last units of this one.

    Where training.pool is "none" that is another sector's fold, else the published one's first out-of-fold round.
    """
    if plan.sparing:
        return 0.0
    if settings.training.pool == "none":
        share = 1.0
    elif "meta_learner" not in settings.training.models:
        return 0.0
    else:
        parts = settings.split.parts
        share = 1 / parts if settings.split.stacking == "forward" else (parts - 1) / parts
    rows = share * shape.fit
    return rows * (4.0 * shape.n_features + shape.n_labels + 16) + share * _bins(shape, settings, plan, kind)


def _bins(shape: Shape, settings: config.Config, plan: Plan, kind: str) -> float:
    """XGBoost's bins: one copy for each way to cut the rows into samples, of pooled fits and of sectors."""
    each = (BIN_BYTES if kind == "cpu" else DEVICE_BIN_BYTES) if settings.training.max_bin <= 256 else 2 * BIN_BYTES
    if not settings.ml.use_quantile_dmatrix:
        each += 4 + 4  # floats, as XGBoost keeps them: with the number of their column
    wanted = [name for name in config.BOOSTERS if _in_use(name, settings)]
    cuts = {name: config.cut(getattr(settings, name).subsample) for name in wanted}
    pooled = {cut for name, cut in cuts.items() if name == "joint"}
    sectors = {cut for name, cut in cuts.items() if name != "joint"}
    if "random_forest" in settings.training.models:
        pooled.add(config.cut(settings.forest.subsample))
        sectors.add(config.cut(settings.forest.subsample))
    if shape.largest == 1.0:  # one sector: what is pooled is the sector's
        sectors -= pooled
    copies = [float(parts - 1 if left_out else 1) for parts, left_out in (*pooled, *sectors)] or [0.0]
    return each * shape.fit * shape.n_features * (max(copies) if plan.sparing else sum(copies))


def _in_use(section: str, settings: config.Config) -> bool:
    family = {"joint": "xgb_joint", "joint_sector": "xgb_joint", "hist": "xgb_hist", "leafwise": "xgb_leafwise"}
    return family.get(section, section) in settings.training.models


def _fits(shape: Shape, settings: config.Config, jobs: int, plan: Plan) -> float:
    """Margins, derivatives, scaled columns, histograms and copies of other libraries, of the fits that run at once."""
    n_labels, fit, validation, forest = shape.n_labels, shape.fit, shape.validation, settings.forest
    outputs = 2 * n_labels
    # Margins of three classes, two derivatives of each output, XGBoost's copy of these for a sample.
    boosted = fit * (12 * n_labels + 8 * outputs) + fit * 8 * outputs * settings.joint.subsample
    boosted += validation * 20 * n_labels
    leaves = min(2.0 ** (forest.depth + 1), fit / max(1.0, 4 * forest.min_rows))
    grown = fit * 8 * outputs * 1.5 + 2 * leaves * shape.n_features * settings.training.max_bin * outputs * 16
    scaled = 4.0 * fit * (shape.n_features + shape.late_columns) + fit * 8 * n_labels
    if plan.sparing:
        scaled *= shape.largest
    scaled += fit * shape.largest * 12 * n_labels * 4 + BLOCK_ROWS * 16 * shape.n_features
    floats = 4.0 * (fit + validation) * shape.n_features * 2  # as the library bins them itself
    needs = {
        "xgb_joint": boosted, "xgb_hist": boosted / n_labels * shape.largest,
        "xgb_leafwise": boosted / n_labels * shape.largest, "random_forest": grown, "linear": scaled,
        "lightgbm": floats * shape.largest, "catboost": floats * shape.largest,
    }  # fmt: skip
    found = sorted((needs.get(name, 0.0) for name in settings.training.models), reverse=True)
    return sum(found[:jobs])


def _meta(shape: Shape, settings: config.Config) -> float:
    """The meta-learner's inputs of all sectors, and what a step over the largest sector makes."""
    n_families = len(settings.training.models) - 1
    inputs = 4.0 * shape.fit * shape.n_labels * 3 * n_families
    return inputs + shape.fit * shape.n_labels * 9 + shape.fit * shape.largest * shape.n_labels * (12 * n_families + 60)
