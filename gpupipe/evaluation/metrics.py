"""Measures of a probabilistic three-class model: arrays in, numbers out. NaN means that a measure is not defined."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.targets.classes import BUY, HOLD, N_CLASSES, SELL

CALIBRATION_BINS = 10
SMALLEST_PROBABILITY = 1e-12
CALLED = {"buy": BUY, "sell": SELL}


def log_losses(probability: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 (n,): minus the log of the probability given to what happened.

    probability: float (n, 3). y: int8 (n,), 0, 1 or 2.
    """
    chosen = probability[np.arange(len(y)), y.astype(np.int64)].astype(np.float64)
    return -np.log(np.maximum(chosen, SMALLEST_PROBABILITY))


def call_cutoffs(probability: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """For BUY and SELL, the probability from which a row is called so: the one with the best F1 on these rows.

    Chosen on validation and then applied elsewhere. A class that does not occur in y gets 1.0: it is never called.
    """
    from sklearn.metrics import precision_recall_curve

    cutoffs = {}
    for name, c in CALLED.items():
        if not (y == c).any():
            cutoffs[name] = 1.0
            continue
        precision, recall, threshold = precision_recall_curve(y == c, probability[:, c])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        cutoffs[name] = float(threshold[int(np.argmax(f1[:-1]))])
    return cutoffs


def calls(probability: np.ndarray, cutoffs: dict[str, float]) -> np.ndarray:
    """int8 (n,): BUY or SELL where its probability reaches its cutoff (the one further above it if both), else HOLD."""
    buy = probability[:, BUY] / cutoffs["buy"]
    sell = probability[:, SELL] / cutoffs["sell"]
    called = np.full(len(probability), HOLD, dtype=np.int8)
    called[(buy >= 1) & (buy >= sell)] = BUY
    called[(sell >= 1) & (sell > buy)] = SELL
    return called


def calibration_error(probability: np.ndarray, happened: np.ndarray) -> float:
    """Mean over ten equally filled bins of |mean probability - share that happened|, weighted by rows.

    probability: float (n,), of one class. happened: bool (n,).
    Source: expected calibration error, Naeini et al. (2015), with quantile bins, because rare classes would fall
    into one bin of equal width.
    """
    if len(probability) == 0:
        return float("nan")
    order = np.argsort(probability, kind="stable")
    parts = np.array_split(order, min(CALIBRATION_BINS, len(order)))
    errors = [abs(float(probability[p].mean(dtype=np.float64)) - float(happened[p].mean())) * len(p) for p in parts]
    return float(sum(errors) / len(order))


def measures(
    probability: np.ndarray, y: np.ndarray, prior: np.ndarray, cutoffs: dict[str, float], forward_return: np.ndarray
) -> dict[str, Any]:
    """All measures of one model on one part.

    probability: float32 (n, 3).  y: int8 (n,), all known.  prior: float64 (3,), class shares of the training part.
    forward_return: float32 (n,), close to close over the label's horizon; mean over the rows called is
        `return_when_buy` and `return_when_sell` (the return of the price, not of a short position), over all rows
        `return_buy_and_hold`.
    """
    from sklearn.metrics import average_precision_score

    loss = float(log_losses(probability, y).mean()) if len(y) else float("nan")
    prior_loss = float(log_losses(np.broadcast_to(prior, (len(y), N_CLASSES)), y).mean()) if len(y) else float("nan")
    called, known = calls(probability, cutoffs), ~np.isnan(forward_return)
    recalls = [float((called[y == c] == c).mean()) for c in range(N_CLASSES) if (y == c).any()]
    found: dict[str, Any] = {
        "rows": len(y),
        "log_loss": loss,
        "prior_log_loss": prior_loss,
        "gain_over_prior": 1.0 - loss / prior_loss if prior_loss else float("nan"),
        "balanced_accuracy": float(np.mean(recalls)) if recalls else float("nan"),
        "return_buy_and_hold": float(forward_return[known].mean(dtype=np.float64)) if known.any() else float("nan"),
    }
    for name, c in CALLED.items():
        happened, claimed = y == c, called == c
        hits = int((happened & claimed).sum())
        returns = forward_return[claimed & known]
        found |= {
            f"share_{name}": float(happened.mean()) if len(y) else float("nan"),
            f"calls_{name}": int(claimed.sum()),
            f"precision_{name}": hits / int(claimed.sum()) if claimed.any() else float("nan"),
            f"recall_{name}": hits / int(happened.sum()) if happened.any() else float("nan"),
            f"pr_auc_{name}": float(average_precision_score(happened, probability[:, c]))
            if happened.any()
            else float("nan"),
            f"calibration_error_{name}": calibration_error(probability[:, c], happened),
            f"return_when_{name}": float(returns.mean(dtype=np.float64)) if returns.size else float("nan"),
        }
    return found
