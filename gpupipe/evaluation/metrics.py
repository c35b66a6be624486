"""Measures of class probabilities: arrays in, numbers out. A measure that is not defined is NaN.

Classes are ordered, as lower, middle and upper. Rows are called as one of the two outer classes: "buy" is the last
class, "sell" the first. The number of classes is the number of columns of the probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.evaluation import touch_direction
from gpupipe.evaluation.losses import gain

CALIBRATION_BINS = 10
SMALLEST_PROBABILITY = 1e-12


def outer_classes(n_classes: int) -> dict[str, int]:
    """The numbers of the classes that rows are called as, by side.

    >>> outer_classes(3)
    {'buy': 2, 'sell': 0}
    """
    return {"buy": n_classes - 1, "sell": 0}


def log_losses(probability: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 (n,): minus the natural log of the predicted probability of the observed class, nats.

    probability: float (n, n_classes); values below 1e-12 count as 1e-12.
    y: int8 (n,), class numbers: all labels must be known.
    NaN: a NaN probability of the observed class gives NaN.

        >>> log_losses(np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]), np.array([0, 2], np.int8)).round(4)
        array([ 0.6931, -0.    ])
    """
    observed = probability[np.arange(len(y)), y.astype(np.int64)].astype(np.float64)
    return -np.log(np.maximum(observed, SMALLEST_PROBABILITY))


def call_cutoffs(probability: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The probabilities with the best F1 ("buy", "sell") from which a row is called as the last or the first class.

    probability: float (n, n_classes), without NaN.  y: int8 (n,), class numbers: all labels must be known.
    Choose cutoffs on validation rows and apply them to other rows. A class that does not occur in y gets 1.0.

        >>> call_cutoffs(np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]]), np.array([0, 1, 2]))
        {'buy': 0.6, 'sell': 0.7}
    """
    from sklearn.metrics import precision_recall_curve

    cutoffs = {}
    for name, c in outer_classes(probability.shape[1]).items():
        if not (y == c).any():
            cutoffs[name] = 1.0
            continue
        precision, recall, threshold = precision_recall_curve(y == c, probability[:, c])
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        cutoffs[name] = float(threshold[int(np.argmax(f1[:-1]))])
    return cutoffs


def calls(probability: np.ndarray, cutoffs: dict[str, float]) -> np.ndarray:
    """int8 (n,): an outer class where its probability reaches its cutoff, else the middle class, n_classes // 2.

    Two classes have no middle class: rows without a call are -1.
    If both outer classes reach their cutoffs, the larger ratio of probability to cutoff decides, "buy" on a tie.
    probability: float (n, n_classes).  cutoffs: of "buy" and "sell", > 0.
    NaN: a row with a NaN in the probability or the cutoff of an outer class gets the middle class.

        >>> calls(np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6]]), {"buy": 0.5, "sell": 0.5})
        array([0, 1, 2], dtype=int8)
    """
    n_classes = probability.shape[1]
    outer = outer_classes(n_classes)
    buy, sell = (probability[:, c] / cutoffs[name] for name, c in outer.items())
    called = np.full(len(probability), n_classes // 2 if n_classes > 2 else -1, dtype=np.int8)
    called[(buy >= 1) & (buy >= sell)] = outer["buy"]
    called[(sell >= 1) & (sell > buy)] = outer["sell"]
    return called


def calibration_error(probability: np.ndarray, happened: np.ndarray) -> float:
    """Expected calibration error: mean over ten bins of |mean probability - observed frequency|, weighted by rows.

    probability: float (n,), of one class, without NaN.  happened: bool (n,), whether the class was observed.
    Returns NaN without rows.
    Source: Naeini et al. (2015), but with bins of equal counts: equal widths would put a rare class into one bin.
    """
    if len(probability) == 0:
        return float("nan")
    order = np.argsort(probability, kind="stable")
    bins = np.array_split(order, min(CALIBRATION_BINS, len(order)))
    errors = [abs(float(probability[b].mean(dtype=np.float64)) - float(happened[b].mean())) * len(b) for b in bins]
    return float(sum(errors) / len(order))


def has_events(y: np.ndarray) -> bool:
    """Whether rows hold more than one class, so that there is something to tell apart.

    y: int8 (n,), class numbers: all labels must be known.

        >>> has_events(np.int8([1, 1, 2])), has_events(np.int8([1, 1]))
        (True, False)
    """
    return bool(len(y)) and bool((y != y[0]).any())


def measures(
    probability: np.ndarray, y: np.ndarray, prior: np.ndarray, cutoffs: dict[str, float], forward_return: np.ndarray
) -> dict[str, Any]:
    """All measures of one model on one part (validation or test), by name.

    probability: float32 (n, n_classes), without NaN.  y: int8 (n,), class numbers: all labels must be known.
    prior: float64 (n_classes,), class shares of the training part.  cutoffs: of "buy" and "sell".
    forward_return: float32 (n,), return of the price from close to close over the label's horizon. Its mean over rows
        called as "buy" is `return_when_buy`, over rows called as "sell" `return_when_sell` (of the price, not of a
        short position), and over all rows `return_buy_and_hold`.

    gain_over_prior is 1 - log_loss / prior_log_loss; NaN where the rows hold a single class: with nothing to tell apart
    the prior's loss is next to nothing, and the ratio any number. Its parts touch_gain and direction_gain add up to it;
    classes without a middle one have no parts (see `touch_direction.measures`).
    NaN: rows with a NaN forward_return are left out of the mean returns. A measure without any row or call to average,
        or of a class that does not occur, is NaN.
    """
    from sklearn.metrics import average_precision_score

    n_classes = probability.shape[1]
    loss = float(log_losses(probability, y).mean()) if len(y) else float("nan")
    prior_loss = float(log_losses(np.broadcast_to(prior, (len(y), n_classes)), y).mean()) if len(y) else float("nan")
    called, known = calls(probability, cutoffs), ~np.isnan(forward_return)
    recalls = [float((called[y == c] == c).mean()) for c in range(n_classes) if (y == c).any()]
    values: dict[str, Any] = {
        "rows": len(y),
        "log_loss": loss,
        "prior_log_loss": prior_loss,
        "gain_over_prior": gain(loss, prior_loss) if has_events(y) else float("nan"),
        **touch_direction.measures(probability, y, prior),
        "balanced_accuracy": float(np.mean(recalls)) if recalls else float("nan"),
        "return_buy_and_hold": float(forward_return[known].mean(dtype=np.float64)) if known.any() else float("nan"),
    }
    for name, c in outer_classes(n_classes).items():
        happened, claimed = y == c, called == c
        hits = int((happened & claimed).sum())
        returns = forward_return[claimed & known]
        values |= {
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
    return values
