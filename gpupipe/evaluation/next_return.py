"""Predictions of the next bar's log-return against zero, the last return and the mean, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.evaluation import block_bootstrap
from gpupipe.evaluation.block_bootstrap import NO_SKILL, NOT_KNOWN, ROUNDING, SKILL

# What a prediction has to beat: a return of 0 (the price stays: persistence of the price), the last return again
# (persistence of the return), and the mean return of the fitted rows.
ZERO, PERSISTENCE, MEAN = "zero", "persistence", "mean"
REFERENCES = (ZERO, PERSISTENCE, MEAN)
WORDS = {ZERO: "zero return", PERSISTENCE: "the last return again", MEAN: "the mean return"}
MODEL = "model"
LABEL = "log_return_1"


@dataclass(frozen=True)
class NextReturns:
    """Rows of one symbol with the return of their next bar, all float64 (n_rows,).

    time_ns: int64, rising.  close: of the row.  realised: log-return of the next bar.  predicted: by the model.
    last: log-return of the row itself, 0 where it is not known.  mean: of the fitted rows, for each row that of its
        fold.

        >>> returns, nothing = np.array([0.01, -0.01]), np.zeros(2)
        >>> rows = NextReturns(np.array([0, 1]), np.full(2, 100.0), returns, returns, nothing, nothing)
        >>> rows.n, [float(error) for error in rows.errors(MODEL)]
        (2, [0.0, 0.0])
    """

    time_ns: np.ndarray
    close: np.ndarray
    realised: np.ndarray
    predicted: np.ndarray
    last: np.ndarray
    mean: np.ndarray

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.time_ns)

    def prediction_of(self, name: str) -> np.ndarray:
        """The log-returns that the model, or a reference, predicts."""
        return {MODEL: self.predicted, ZERO: np.zeros(self.n), PERSISTENCE: self.last, MEAN: self.mean}[name]

    def errors(self, name: str) -> np.ndarray:
        """Realised minus predicted log-returns."""
        errors: np.ndarray = self.realised - self.prediction_of(name)
        return errors


def joined(parts: list[NextReturns]) -> NextReturns:
    """The rows of several periods of a symbol, in the order of time."""
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("time_ns", "close", "realised", "predicted", "last", "mean")
    }
    order = np.argsort(columns["time_ns"], kind="stable")
    return NextReturns(**{name: column[order] for name, column in columns.items()})


def measures(rows: NextReturns, seed: int) -> dict[str, Any]:
    """What a model's predictions of returns are worth on rows that it has not seen, in the types of JSON.

    rmse_return: root of the mean squared error of log-returns, of the model and of each reference.
    rmse_price, mape_price: of the price close * exp(predicted), in its currency and in percent: the measures of many
        publications. A flat line does well by them; they are shown beside that line.
    gain: by reference, 1 - squared error / that of the reference, with its 95 % interval (block bootstrap over times).
    skill: "skill" where all of these intervals lie above 0, else "no skill"; "not known" without enough rows.
    sign_share: share of the rows whose return has the predicted sign, of those with neither at 0.
    correlation: of predicted and realised returns; NaN where one of them does not vary.
    """
    names = (MODEL, *REFERENCES)
    if not rows.n:
        return {"rows": 0, "skill": NOT_KNOWN}
    squares = {name: rows.errors(name) ** 2 for name in names}
    price = rows.close * np.exp(rows.realised)
    predicted = {name: rows.close * np.exp(rows.prediction_of(name)) for name in names}
    moved = (rows.realised != 0) & (rows.predicted != 0)
    same = np.sign(rows.realised[moved]) == np.sign(rows.predicted[moved])
    varies = rows.realised.std() > 0 and rows.predicted.std() > 0
    gains = _gains(rows, squares, seed)
    lows = [gain["low"] for gain in gains.values()]
    known = bool(np.isfinite(lows).all())
    return {
        "rows": rows.n,
        "rmse_return": {name: float(np.sqrt(squares[name].mean())) for name in names},
        "rmse_price": {name: float(np.sqrt(((predicted[name] - price) ** 2).mean())) for name in names},
        "mape_price": {name: float(100 * np.abs(predicted[name] / price - 1).mean()) for name in names},
        "gain": gains,
        "skill": (SKILL if min(lows) > ROUNDING else NO_SKILL) if known else NOT_KNOWN,
        "sign_share": float(same.mean()) if len(same) else float("nan"),
        "correlation": float(np.corrcoef(rows.realised, rows.predicted)[0, 1]) if varies else float("nan"),
    }


def _gains(rows: NextReturns, squares: Mapping[str, np.ndarray], seed: int) -> dict[str, dict[str, float]]:
    """By reference: the gain of the model in squared error, and its interval."""
    losses = block_bootstrap.by_time(rows.time_ns, {(LABEL, name): square for name, square in squares.items()})
    resampled = block_bootstrap.resample(block_bootstrap.draw(rows.time_ns, 1, seed), {"": losses})
    gains = {}
    for name in REFERENCES:
        reference = squares[name].mean()
        gain = 1 - squares[MODEL].mean() / reference if reference > 0 else np.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = 1 - resampled.loss["", LABEL, MODEL] / resampled.loss["", LABEL, name]
        low, high = resampled.interval([""], gain, drawn)
        gains[name] = {"gain": float(gain), "low": low, "high": high}
    return gains


def sentence(symbol: str, measured: Mapping[str, Any]) -> str:
    """What the measures say of a symbol.

    >>> gain = {name: {"gain": -0.01, "low": -0.02, "high": 0.0} for name in REFERENCES}
    >>> print(sentence("BTC", {"rows": 5000, "skill": "no skill", "gain": gain}))
    BTC: the next bar's return is predicted without skill: gain in squared error over zero return -1.00 [-2.00, 0.00] \
%, over the last return again -1.00 [-2.00, 0.00] %, over the mean return -1.00 [-2.00, 0.00] %
    """
    if not measured["rows"] or measured["skill"] == NOT_KNOWN:
        return f"{symbol}: the next bar's return was predicted on too few rows ({measured['rows']:,}) to judge"
    gains = {words: measured["gain"][name] for name, words in WORDS.items()}
    listed = ", ".join(
        f"over {words} {100 * gain['gain']:z.2f} [{100 * gain['low']:z.2f}, {100 * gain['high']:z.2f}] %"
        for words, gain in gains.items()
    )
    how = "with skill" if measured["skill"] == SKILL else "without skill"
    return f"{symbol}: the next bar's return is predicted {how}: gain in squared error {listed}"
