"""Small worlds for the tests of the job: a market that trains in seconds, datasets and folds straight from arrays."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np

from gpupipe.data import simulate
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.pipeline import job, tune_job
from gpupipe.runtime import run_log
from gpupipe.runtime.device import pick
from gpupipe.targets.classes import CLASSES
from gpupipe.targets.target import Target
from gpupipe.training import cross_validate, planning
from gpupipe.training.prepare import prepare as prepare_workload
from gpupipe.workloads import equity
from gpupipe.workloads.equity import recipe

SECTORS = ("energy", "technology", "utilities")
# Settings that train the tiny market in two seconds; its volatility is that of stocks, so its labels are near.
QUICK = (
    "labels.horizons=1,3", "labels.thresholds=0.02,0.04", "training.max_bin=16", "training.early_stopping=4",
    "joint.rounds=12", "joint_sector.rounds=4", "hist.rounds=8", "leafwise.rounds=8", "forest.trees=6",
    "forest.sector_trees=4", "forest.depth=4", "linear.max_iterations=15", "meta.max_iterations=20",
)  # fmt: skip
SOURCE = "simulated:symbols=110,bars=260,seed=3,signal=0.5"
# Options of the command line for a run of some seconds.
JOB = (
    "--data", SOURCE, "--sectors", ",".join(SECTORS), "--preset", "fast", "--jobs", "2", "--horizons", "1",
    "--models", "xgb_joint,random_forest,linear,meta_learner", *(f"--set={setting}" for setting in QUICK),
)  # fmt: skip


@functools.cache
def tiny_market() -> Panel:
    """30 symbols in 3 sectors, 260 bars, with a signal planted: what SOURCE and SECTORS name on the command line."""
    return in_sectors(simulate(n_symbols=110, n_bars=260, seed=3, signal=0.5), SECTORS)


def in_sectors(panel: Panel, sectors) -> Panel:
    return panel.where([name in sectors for name in panel.sector])


def contents_of_models(out) -> dict[str, bytes]:
    """Every published file of a model in OUT; what tells of the run itself is left out."""
    manifest = json.loads((out / "manifest.json").read_bytes())
    names = [name for name in manifest["files"] if name.startswith("trained_") and not name.endswith("metadata.json")]
    assert len(names) > 35
    return {name: (out / name).read_bytes() for name in names}


def units_of(out) -> list[dict]:
    """The units that OUT's log tells of."""
    return [line for line in run_log.read(out / run_log.FILE) if line["event"] == "unit"]


def cut(panel: Panel, keep) -> Panel:
    """The panel of the rows for which keep(symbol number, bar numbers) is true."""
    parts = []
    for k in range(panel.n_symbols):
        bars = np.arange(panel.offsets[k + 1] - panel.offsets[k])
        parts.append(panel.offsets[k] + bars[keep(k, bars)])
    rows = np.zeros(panel.n_rows, bool)
    rows[np.concatenate(parts)] = True
    return panel.take(rows, keep_empty=True)


TARGET = Target(("label",), "classes", (2,), CLASSES, parameters=({"horizon": 2, "threshold": 0.05},))


def dataset_of(time, end, usable, horizon=2) -> Dataset:
    """A Dataset of which only times and marks matter."""
    n_rows = len(time)
    return Dataset(
        group="energy", X=np.zeros((n_rows, 1), np.float32), names=("x",), y=np.ones((n_rows, 1), np.int8),
        target=dataclasses.replace(TARGET, horizon_rows=(horizon,)), time_ns=np.asarray(time, np.int64),
        end_time_ns=np.asarray(end, np.int64), warm=np.ones(n_rows, bool), usable=np.asarray(usable, bool),
        offsets=np.array([0, n_rows]),
    )  # fmt: skip


def view_of(X, y, time_ns, weight=None) -> RowView:
    """All rows of a Dataset that holds these arrays."""
    n_rows, n_labels = y.shape
    time_ns = np.asarray(time_ns, np.int64)
    dataset = Dataset(
        group="a", X=X, names=tuple(f"x{k}" for k in range(X.shape[1])), y=y, target=target_of(n_labels),
        time_ns=time_ns, end_time_ns=time_ns, warm=np.ones(n_rows, bool), usable=np.ones(n_rows, bool),
        offsets=np.array([0, n_rows]), weight=weight,
    )  # fmt: skip
    return RowView(dataset, np.arange(n_rows))


def target_of(n_labels) -> Target:
    """A target of so many barrier labels."""
    return Target(tuple(f"label_{k}" for k in range(n_labels)), "classes", (1,) * n_labels, CLASSES)


def planted(n_rows, seed, shift=0.0, n_features=6, n_labels=2, missing=0.05, base=(-1.2, 0.0, -1.2)):
    """(RowView, true probabilities float64 (n_rows, n_labels, 3)): the first two columns tell, the others are noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features)).astype(np.float32)
    truth = np.empty((n_rows, n_labels, 3))
    y = np.empty((n_rows, n_labels), np.int8)
    for k in range(n_labels):
        up = (1.2 + shift) * X[:, 0] + 0.4 * k
        risk = 0.8 * X[:, 1]
        odds = np.exp(np.stack([risk - up, np.zeros(n_rows), risk + up], axis=1) + np.array(base))
        truth[:, k] = odds / odds.sum(axis=1, keepdims=True)
        y[:, k] = (rng.random(n_rows)[:, None] > truth[:, k].cumsum(axis=1)).sum(axis=1)
    X[rng.random(X.shape) < missing] = np.nan
    time_ns = np.sort(rng.integers(0, 60, n_rows)).astype(np.int64)
    return view_of(X, y, time_ns), truth


def fold_of(fit, validation, class_weight="none", threads=1, max_bin=32, seed=0) -> TrainingSet:
    first = next(iter(fit.values()))
    return TrainingSet(
        name="final", fit=fit, validation=validation, target=target_of(first.y.shape[1]),
        device=pick("cpu"), max_bin=max_bin, class_weight=class_weight, threads=threads, seed=seed,
    )  # fmt: skip


def execute(panel, report, settings, out, jobs=None, listener=None, **options):
    """The equity job; options: as JobOptions."""
    return job.execute(equity.EQUITY, panel, report, settings, out, job.JobOptions(jobs=jobs, **options), listener)


def listen_to_training(patched):
    """A dict that jobs fill from now on: for each group the published fold's GroupModels, and its split."""
    trained_by_group, real = {}, cross_validate.train_folds

    def listening(workload, context, published, *more):
        scored, last = real(workload, context, published, *more)
        trained_by_group.update({models.group: (models, published.splits[models.group]) for models in last.trained})
        return scored, last

    patched.setattr(cross_validate, "train_folds", listening)
    return trained_by_group


def prepare(panel, settings, cache=None):
    """Datasets, folds and splits of equity."""
    return prepare_workload(equity.EQUITY, panel, settings, cache)


def survey(panel, settings, out):
    """Which results of an equity job are in `out`."""
    return planning.survey(equity.EQUITY, panel, settings, out)


def plan(panel, settings, *more):
    """The plan of an equity job."""
    return planning.plan(equity.EQUITY, panel, settings, *more)


def tune(panel, report, settings, wanted, out, jobs=None, listener=None, **options):
    """The tuning job of equity; options: as JobOptions."""
    chosen = job.JobOptions(jobs=jobs, **options)
    return tune_job.tune(equity.EQUITY, panel, report, settings, wanted, out, chosen, listener)


def join(panel, *more, **named) -> Dataset:
    """See equity's recipe."""
    return recipe.join(panel, *more, **named)
