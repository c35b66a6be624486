"""The steps of the toy workload: rows, models, losses; and its panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.config import Catalogue, Section
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import Dataset
from gpupipe.dataset.row_view import RowView
from gpupipe.estimators import registry
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.leaderboard import Measured
from gpupipe.evaluation.losses import squared_error
from gpupipe.evaluation.scorers import scorer_of
from gpupipe.evaluation.skill import skill_measures
from gpupipe.pipeline.steps import Outcome, Step, StepsWorkload
from gpupipe.pipeline.workload import JobContext
from gpupipe.store.cache import load_array, save_array
from gpupipe.store.content_store import Store
from gpupipe.targets.target import Target
from tests.support.toy_workload.estimator import LineSettings

LINE_PLACE = "tests.support.toy_workload.estimator:Line"
COLUMNS = ("price", "spread")
TARGET = Target(
    ("next_price",), "value", (1,), loss="squared_error", reference="last_value",
    parameters=({"horizon": 1},), folders=("trained/{group}/next_price",),
)  # fmt: skip
SHARES = (0.6, 0.8)  # of the rows: the end of training, the end of validation
Splits = dict[str, dict[str, np.ndarray]]


def toy_panel(n_rows: int = 400, seed: int = 0) -> Panel:
    """Two instruments, each a group of its own; the price moves against the spread of the row before."""
    rng = np.random.default_rng(seed)
    spread = rng.normal(0, 1, (2, n_rows))
    step = np.concatenate([np.zeros((2, 1)), -0.8 * spread[:, :-1]], axis=1) + rng.normal(0, 0.3, (2, n_rows))
    price = 100 + np.cumsum(step, axis=1)
    time_ns = np.tile(np.arange(n_rows) * 86_400_000_000_000, 2)
    columns = {"price": price.ravel(), "spread": spread.ravel()}
    return Panel(columns, time_ns, np.array([0, n_rows, 2 * n_rows]), ("A", "B"), group_by="symbol")


def make_rows(context: JobContext, values: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """For each group the columns X float32 (n, 2), y float32 (n, 1) with NaN in the last row, and time_ns."""
    rows = {}
    for group in context.panel.groups:
        panel = context.panel.of_group(group)
        X = np.stack([panel.columns[name] for name in COLUMNS], axis=1).astype(np.float32)
        rows[group] = {"X": X, "y": np.append(X[1:, :1], [[np.float32(np.nan)]], axis=0), "time_ns": panel.time_ns}
    return rows


def dataset_of(group: str, rows: Mapping[str, np.ndarray]) -> Dataset:
    """The Dataset of a group's arrays."""
    n, time_ns = len(rows["y"]), rows["time_ns"]
    known = ~np.isnan(rows["y"][:, 0])
    return Dataset(
        group=group, X=rows["X"], names=COLUMNS, y=rows["y"], target=TARGET, time_ns=time_ns,
        end_time_ns=np.append(time_ns[1:], time_ns[-1]), warm=np.ones(n, bool), usable=known,
        offsets=np.array([0, n]), extra={"last_value": rows["X"][:, 0]},
    )  # fmt: skip


def parts_of(dataset: Dataset) -> dict[str, np.ndarray]:
    """Row numbers of training, validation and test; a row is left out before each, as its target lies in the next."""
    first, second = (int(share * dataset.n_rows) for share in SHARES)
    return {
        "train": np.arange(first - 1),
        "validation": np.arange(first, second - 1),
        "test": np.arange(second, dataset.n_rows - 1),
    }


def make_models(context: JobContext, values: Mapping[str, Any]) -> dict[str, Any]:
    """For each group its model."""
    datasets = {group: dataset_of(group, rows) for group, rows in values["rows"].items()}
    training_set = TrainingSet(
        name="final", fit={group: RowView(data, parts_of(data)["train"]) for group, data in datasets.items()},
        validation={}, target=TARGET, device=context.panel.device, max_bin=64, class_weight="none", threads=1,
        seed=context.settings.seed,
    )  # fmt: skip
    line, settings = registry.estimator("toy_line"), registry.readable(context.settings, "toy_line")
    return {group: line.fit_group(training_set, group, settings, [None], None)[0] for group in datasets}


def make_predictions(context: JobContext, values: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """For each group the predictions float32 (n, 1) of validation and test."""
    predictions: dict[str, dict[str, np.ndarray]] = {}
    for group, model in values["models"].items():
        data = dataset_of(group, values["rows"][group])
        views = {part: RowView(data, rows) for part, rows in parts_of(data).items() if part != "train"}
        line = registry.estimator("toy_line")
        predictions[group] = {part: line.predict([model], view.features)[:, 0] for part, view in views.items()}
    return predictions


def save_arrays(store: Store, value: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Arrays by group and name, as contents of the store."""
    flat = {f"{group}/{name}": array for group, arrays in value.items() for name, array in arrays.items()}
    return {"arrays": {name: save_array(store, array) for name, array in flat.items()}}


def load_arrays(store: Store, record: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The arrays again."""
    value: dict[str, dict[str, np.ndarray]] = {}
    for name, digest in record["arrays"].items():
        group, _, array = name.partition("/")
        value.setdefault(group, {})[array] = load_array(store, digest)
    return value


def save_models(store: Store, models: Mapping[str, Any]) -> dict[str, Any]:
    """Files and descriptions of the models, by group."""
    records = [
        {"files": {suffix: store.put(content) for suffix, content in model.files().items()}, **model.describe()}
        for model in models.values()
    ]
    return {"groups": list(models), "models": records}


def load_models(store: Store, record: Mapping[str, Any]) -> dict[str, Any]:
    """The models again."""
    return {
        group: registry.load_model({suffix: store.get(digest) for suffix, digest in one["files"].items()}, one, {})
        for group, one in zip(record["groups"], record["models"], strict=True)
    }


def conclude(context: JobContext, values: Mapping[str, Any]) -> Outcome:
    """Losses against the last value, their intervals, and the files of the models."""
    scorer, losses, rows = scorer_of(TARGET), {}, []
    for group, predictions in values["predictions"].items():
        data = dataset_of(group, values["rows"][group])
        parts = parts_of(data)
        known = {part: (data.y[rows, 0], data.extra["last_value"][rows, None]) for part, rows in parts.items()}
        row: dict[str, Any] = {"kind": "model", "sector": group, "label": "next_price", "model": "toy_line"}
        row["rows_train"] = len(parts["train"])
        for part in ("validation", "test"):
            y, reference = known[part]
            no_returns = np.full(len(y), np.nan, np.float32)
            measures = scorer.measures(predictions[part], y, reference, {}, no_returns)
            row |= {f"{part}_{name}": value for name, value in measures.items()}
        y, reference = known["test"]
        test_losses = {
            ("next_price", "toy_line"): squared_error(predictions["test"], y),
            ("next_price", block_bootstrap.PRIOR): squared_error(reference, y),
        }
        losses[group] = block_bootstrap.by_time(data.time_ns[parts["test"]], test_losses)
        rows.append(row)
    times = np.concatenate([of_group.times for of_group in losses.values()])
    resampled = block_bootstrap.resample(block_bootstrap.draw(times, 1, context.settings.seed), losses)
    for row in rows:
        gain = row["test_gain_over_prior"]
        skill = skill_measures(
            resampled, [row["sector"]], gain, resampled.gain([row["sector"]], "next_price", "toy_line")
        )
        row |= {f"test_{name}": value for name, value in skill.items()}
    files = {
        f"{TARGET.folder(0, group)}/toy_line{suffix}": content
        for group, model in values["models"].items()
        for suffix, content in model.files().items()
    }
    return Outcome(Measured(rows, resampled, "squared_error"), files)


TOY = StepsWorkload(
    name="toy",
    place="tests.support.toy_workload:TOY",
    catalogue=lambda: Catalogue(
        {"toy_line": Section(LineSettings)}, models=("toy_line",), default_models=("toy_line",)
    ),
    steps=lambda panel, settings: (
        Step("rows", make_rows, save_arrays, load_arrays, reads_panel=True),
        Step("models", make_models, save_models, load_models, needs=("rows",), sections=("toy_line",)),
        Step("predictions", make_predictions, save_arrays, load_arrays, needs=("rows", "models")),
    ),
    conclude=conclude,
)
