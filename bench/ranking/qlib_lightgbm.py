"""Qlib's LightGBM on Alpha158, with its published parameters, in an environment of its own.

    python bench/ranking/qlib_lightgbm.py FOLDER      pip install pyqlib==0.9.7 lightgbm

It imports nothing of gpupipe; bench.ranking calls it with the interpreter of --qlib. FOLDER holds X.npy (n_rows, 158),
label.npy, time_ns.npy, symbol.npy, and for each fold NAME a NAME.npz with row numbers `train`, `validation`, `test`.
It writes NAME.score.npy, float64, predictions of the test rows. The last line is JSON.

The dataset is Qlib's DatasetH over a DataHandlerLP with the learn processors of its Alpha158 handler (DropnaLabel,
CSZScoreNorm of the label), the model its LGBModel. Source: microsoft/qlib, examples/benchmarks/LightGBM/
workflow_config_lightgbm_Alpha158.yaml.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import sys
import tempfile

import numpy as np
import pandas as pd

PARAMETERS = {
    "loss": "mse", "colsample_bytree": 0.8879, "learning_rate": 0.2, "subsample": 0.8789, "lambda_l1": 205.6999,
    "lambda_l2": 580.9768, "max_depth": 8, "num_leaves": 210,
}  # fmt: skip
LEARN_PROCESSORS = [{"class": "DropnaLabel"}, {"class": "CSZScoreNorm", "kwargs": {"fields_group": "label"}}]
SEGMENTS = {"train": "train", "valid": "validation", "test": "test"}


def main(folder: pathlib.Path) -> int:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # LGBModel.fit logs its curve to MLflow
    import qlib
    from qlib.contrib.model.gbdt import LGBModel
    from qlib.data.dataset import DatasetH
    from qlib.data.dataset.handler import DataHandlerLP
    from qlib.data.dataset.loader import StaticDataLoader

    X, label, time_ns, symbol = (np.load(folder / f"{name}.npy") for name in ("X", "label", "time_ns", "symbol"))
    columns = pd.MultiIndex.from_tuples([*(("feature", f"f{k}") for k in range(X.shape[1])), ("label", "LABEL0")])
    rounds = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        qlib.init(provider_uri=scratch, logging_level=30)
        for place in sorted(folder.glob("*.npz")):
            parts = {name: np.load(place)[name] for name in SEGMENTS.values()}
            rows = np.concatenate(list(parts.values()))
            index = pd.MultiIndex.from_arrays(
                [pd.to_datetime(time_ns[rows]), [f"S{k:05d}" for k in symbol[rows]]], names=["datetime", "instrument"]
            )
            frame = pd.DataFrame(np.column_stack([X[rows], label[rows]]), index, columns)
            frame["row", ""] = rows
            frame = frame.sort_index()
            numbers = frame.pop(("row", "")).to_numpy()
            handler = DataHandlerLP(data_loader=StaticDataLoader(frame), learn_processors=LEARN_PROCESSORS)
            ends = {
                segment: (pd.Timestamp(time_ns[parts[name]].min()), pd.Timestamp(time_ns[parts[name]].max()))
                for segment, name in SEGMENTS.items()
            }
            model = LGBModel(**PARAMETERS, num_threads=os.cpu_count())
            dataset = DatasetH(handler, segments=ends)
            model.fit(dataset, verbose_eval=0)
            predicted = model.predict(dataset).reindex(frame.index)
            at = np.argsort(numbers)
            place_of = at[np.searchsorted(numbers, parts["test"], sorter=at)]
            score = predicted.to_numpy()[place_of]
            assert not np.isnan(score).any(), "a test row has no prediction"
            np.save(folder / f"{place.stem}.score.npy", score)
            rounds[place.stem] = model.model.best_iteration
        os.chdir(folder)
    versions = {name: importlib.metadata.version(name) for name in ("pyqlib", "lightgbm")}
    print(json.dumps({**versions, "rounds": rounds}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(pathlib.Path(sys.argv[1]).resolve()))
