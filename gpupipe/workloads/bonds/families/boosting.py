"""Gradient boosting by XGBoost, stopped by validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gpupipe.estimators.boosting.device_memory import use_driver_pool
from gpupipe.workloads.bonds.families.contract import Family, FitRows, Model, Report
from gpupipe.workloads.bonds.settings import BoostingSettings


class BoostingModel(Model):
    """A booster of as many rounds as validation chose."""

    kind: ClassVar = "boosting"

    def __init__(self, booster: Any, found: Mapping[str, Any]) -> None:
        self.booster, self.found = booster, dict(found)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """See `Model`."""
        if not len(X):
            return np.zeros(0, np.float32)
        return np.asarray(self.booster.inplace_predict(_known(X)), np.float32)

    def files(self) -> dict[str, bytes]:
        """See `Model`."""
        return {".boosting.ubj": bytes(self.booster.save_raw("ubj"))}

    def about(self) -> dict[str, Any]:
        """See `Model`."""
        return {"rounds": self.booster.num_boosted_rounds(), **self.found}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> BoostingModel:
        """See `Model`."""
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(bytearray(files[".boosting.ubj"]))
        return cls(booster, {})


class Boosting(Family):
    """The family."""

    name: ClassVar = "boosting"
    model: ClassVar = BoostingModel

    def space(self, trial: Any) -> dict[str, Any]:
        """See `Family`."""
        return {
            "max_depth": trial.suggest_int("max_depth", 2, 7),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
            "subsample": trial.suggest_float("subsample", 0.2, 1.0),
            "l2": trial.suggest_float("l2", 0.1, 300.0, log=True),
            "least_leaf": trial.suggest_float("least_leaf", 5.0, 300.0, log=True),
        }

    def fit(self, rows: FitRows, settings: BoostingSettings, report: Report | None = None) -> BoostingModel:
        """See `Family`."""
        import xgboost

        use_driver_pool(rows.device)
        train = xgboost.QuantileDMatrix(_known(rows.X), rows.y)
        # Not binned: each round predicts it faster so, to the same bytes.
        validation = xgboost.DMatrix(_known(rows.validation_x), rows.validation_y, nthread=rows.threads)
        parameters = {
            "max_depth": settings.max_depth, "eta": settings.learning_rate, "subsample": settings.subsample,
            "colsample_bynode": settings.colsample, "lambda": settings.l2, "min_child_weight": settings.least_leaf,
            "seed": rows.seed, "nthread": rows.threads, "device": rows.device, "tree_method": "hist",
            "base_score": float(rows.y.mean()),
        }  # fmt: skip

        class Reporting(xgboost.callback.TrainingCallback):
            def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
                if report is not None:
                    report(epoch + 1, float(evals_log["validation"]["rmse"][-1]) ** 2)
                return False

        log: dict[str, Any] = {}
        booster = xgboost.train(
            parameters, train, settings.rounds, evals=[(validation, "validation")], evals_result=log,
            early_stopping_rounds=settings.patience, verbose_eval=False, callbacks=[Reporting()],
        )  # fmt: skip
        kept = booster[: booster.best_iteration + 1]
        kept.set_param({"device": "cpu"})  # wherever it was grown, it predicts rows of the host
        losses = [float(loss) ** 2 for loss in log["validation"]["rmse"]]
        return BoostingModel(kept, {"validation_losses": losses})


def _known(X: np.ndarray) -> np.ndarray:
    """X in C order, with NaN for infinities, which XGBoost refuses."""
    return np.ascontiguousarray(np.where(np.isfinite(X), X, np.float32(np.nan)))
