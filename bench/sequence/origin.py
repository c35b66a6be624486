"""The usual way to train a sequence network, stage by stage: load, features, dataset, training, saving.

It is written as scripts of this kind are: float64 columns in pandas, a relative strength index in a Python loop, a
scaler for each column, every window a copy, and a step of the optimiser for each small batch, whose loss is read at
once. Two faults of such scripts are left out, so that qualities compare: scalers see training rows alone, and what is
predicted are our labels. The network is ours too (`gpupipe.estimators.torch.network`), and so is the rule that ends
training; only the way differs.
"""

from __future__ import annotations

import copy
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.sequence.curve import Curve, Epoch
from gpupipe.estimators.torch.plan import LEAST_RATE, TrainingPlan

COLUMNS = ("open", "high", "low", "close", "volume")
AVERAGES, STRENGTH = (7, 14, 30), 14
LIMITS = {"minmax": (-1.0, 2.0), "standard": (-4.0, 4.0)}  # ours, so that both ways have the same inputs


def load(path: pathlib.Path, n_rows: int | None = None) -> Any:
    """A pandas frame of a Parquet file: `timestamp` and the five columns of bars, float64, in order of time."""
    import pandas as pd

    frame = pd.read_parquet(path).sort_values("timestamp").reset_index(drop=True)
    return frame.astype(dict.fromkeys(COLUMNS, "float64")).iloc[:n_rows]


def nanoseconds(frame: Any) -> np.ndarray:
    """int64 (n_rows,): the timestamps of a pandas frame, UTC."""
    return frame["timestamp"].astype("datetime64[ns, UTC]").astype("int64").to_numpy()


def features(frame: Any) -> np.ndarray:
    """float64 (n_rows, 9): the bar, its simple moving averages of 7, 14 and 30 closes, and Wilder's RSI of 14.

    NaN in the first n - 1 rows of an average of n, and in the first 14 of the RSI.
    """
    table = frame[list(COLUMNS)].copy()
    for n in AVERAGES:
        table[f"sma_{n}"] = table["close"].rolling(n).mean()
    table[f"rsi_{STRENGTH}"] = relative_strength(table["close"].to_numpy(), STRENGTH)
    return table.to_numpy(dtype=np.float64)


def relative_strength(close: np.ndarray, n: int) -> np.ndarray:
    """Wilder's relative strength index of float64 closes, 0 to 100, bar by bar; 50 where the close has not moved.

    NaN in the first n bars. The loop reads the array a number at a time, as the snippet that scripts share does; over a
    list of floats it would be some times faster.
    """
    strength = np.full(len(close), np.nan)
    if len(close) <= n:
        return strength
    gain = loss = 0.0
    for i in range(1, len(close)):
        change = close[i] - close[i - 1]
        up, down = (change, 0.0) if change > 0 else (0.0, -change)
        if i <= n:
            gain, loss = gain + up / n, loss + down / n
        else:
            gain, loss = (gain * (n - 1) + up) / n, (loss * (n - 1) + down) / n
        if i >= n:
            strength[i] = 100.0 * gain / (gain + loss) if gain + loss > 0 else 50.0
    return strength


def scaled(values: np.ndarray, training: np.ndarray, scaling: str) -> tuple[np.ndarray, list[Any]]:
    """float64 (n_rows, n_columns): each column scaled by a scaler of its own, then clipped; and the scalers.

    values: (n_rows, n_columns).  training: int64, the rows that scalers are fitted on.
    scaling: "minmax" or "standard".  NaN becomes 0, and so does a column that is constant, or nowhere known, in the
        training rows.
    """
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    low, high = LIMITS[scaling]
    columns, scalers = [], []
    for k in range(values.shape[1]):
        column = values[:, k].astype(np.float64)
        scaler = (MinMaxScaler if scaling == "minmax" else StandardScaler)()
        known = column[training][~np.isnan(column[training])]
        if not len(known) or known.min() == known.max():
            columns.append(np.zeros(len(column)))
            scalers.append(None)
            continue
        scaler.fit(column[training].reshape(-1, 1))
        columns.append(np.clip(scaler.transform(column.reshape(-1, 1)).ravel(), low, high))
        scalers.append(scaler)
    return np.nan_to_num(np.column_stack(columns), nan=0.0), scalers


def windows(table: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """float32 (n, length, n_columns): a copy of each row and the rows before it, collected in a list.

    table: float64 (n_rows, n_columns), of one symbol.  rows: int64 (n,), each `length` - 1 or more.
    """
    collected = []
    for i in rows:
        collected.append(table[i - length + 1 : i + 1])
    return np.array(collected).astype(np.float32)


def train(
    network: Any,
    X: np.ndarray,
    y: np.ndarray,
    X_validation: np.ndarray,
    y_validation: np.ndarray,
    settings: Any,
    seed: int,
    epochs: int | None = None,
) -> Curve:
    """Train to the end of patience, a step for each small batch; the network has the best epoch's weights then.

    network: of `gpupipe.estimators.torch.network`.  X, X_validation: float32 windows.  y, y_validation: int8 labels.
    settings: `SequenceSettings`, whose `batch` and `rate` are used as they are.  epochs: at most; None: the settings'.
    """
    import torch

    plan = TrainingPlan.of(settings, seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.rate)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.5, patience=plan.plateau - 1, threshold=0.0, min_lr=LEAST_RATE
    )
    batches, began = batches_of(X, y, settings.batch), time.perf_counter()
    curve: list[Epoch] = []
    best, best_weights, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
    for epoch in range(settings.epochs if epochs is None else epochs):
        loss = train_epoch(network, optimiser, batches(shuffling(seed, epoch)))
        validation_loss = loss_of(network, X_validation, y_validation, settings.batch)
        rate = optimiser.param_groups[0]["lr"]
        curve.append(Epoch(time.perf_counter() - began, loss, validation_loss, rate))
        plateau.step(validation_loss)
        waited += 1
        if validation_loss < best:
            best, best_weights, waited = validation_loss, copy.deepcopy(network.state_dict()), 0
        if waited >= plan.patience:
            break
    network.load_state_dict(best_weights)
    return Curve(tuple(curve))


def shuffling(seed: int, epoch: int) -> np.random.Generator:
    """What the order of an epoch's rows is drawn from."""
    return np.random.default_rng([seed, epoch])


Batches = Iterator[tuple[Any, Any]]


def batches_of(X: np.ndarray, y: np.ndarray, size: int) -> Callable[[np.random.Generator], Batches]:
    """A function that yields tensors of windows and labels of each batch, in an order that its generator draws."""
    import torch

    inputs, labels = torch.from_numpy(X), torch.from_numpy(y.astype(np.int64))

    def batches(rng: np.random.Generator) -> Batches:
        order = torch.from_numpy(rng.permutation(len(X)))
        for rows in order.split(size):
            yield inputs[rows], labels[rows]

    return batches


def train_epoch(network: Any, optimiser: Any, batches: Batches) -> float:
    """Mean training loss of one epoch: a step for each batch, whose loss is read at once."""
    network.train()
    total, n = 0.0, 0
    for inputs, labels in batches:
        optimiser.zero_grad()
        loss = mean_loss(network(inputs), labels)
        loss.backward()
        optimiser.step()
        total, n = total + loss.item() * len(inputs), n + len(inputs)
    return total / n


def mean_loss(margins: Any, labels: Any) -> Any:
    """The mean log-loss of all labels; margins: (n, 3 * n_labels), those of a label side by side."""
    import torch

    n, n_labels = labels.shape
    return torch.nn.functional.cross_entropy(margins.view(n * n_labels, -1), labels.reshape(-1))


def loss_of(network: Any, X: np.ndarray, y: np.ndarray, size: int) -> float:
    """The mean log-loss of rows, batch by batch."""
    import torch

    network.eval()
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(X), size):
            part = slice(first, first + size)
            labels = torch.from_numpy(y[part].astype(np.int64))
            total += mean_loss(network(torch.from_numpy(X[part])), labels).item() * len(labels)
    return total / len(X)


def save(network: Any, scalers: list[Any], facts: dict[str, Any], folder: pathlib.Path) -> None:
    """Weights in one file, the scalers and what is known about the model in two others.

    Scripts of this kind pickle them; nothing of ours does, so here they are NPZ and JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "weights.npz", **{name: value.numpy() for name, value in network.state_dict().items()})
    numbers = [None if scaler is None else scaler_numbers(scaler) for scaler in scalers]
    (folder / "scalers.json").write_text(json.dumps(numbers))
    (folder / "metadata.json").write_text(json.dumps(facts, indent=1))


def scaler_numbers(scaler: Any) -> dict[str, list[float]]:
    """The fitted numbers of a scaler of scikit-learn."""
    names = ("data_min_", "data_max_", "mean_", "scale_")
    return {name: getattr(scaler, name).tolist() for name in names if hasattr(scaler, name)}
