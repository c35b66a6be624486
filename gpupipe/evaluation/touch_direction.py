"""Split a log-loss into touch and direction: does the price reach a barrier, and which one does it reach?

The classes of a target are ordered, with a middle class: SELL, HOLD, BUY. The probability of an outer class is the
probability of any outer class times its share of that, so its log-loss is a sum of two:

    -log P(class) = touch loss + direction loss
    touch loss     = -log P(touch) where the row moved, -log P(middle) where it did not; P(touch) = 1 - P(middle)
    direction loss = -log(P(class) / P(touch)) where the row moved, 0 where it did not

This is the chain rule of the logarithmic score, exact for every row, so that gains over a reference add up too:
touch gain + direction gain = gain, each as a share of the reference's whole loss.
Source: the log-loss of a nested (sequential) logit, e.g. Train (2009), Discrete Choice Methods, section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpupipe.evaluation import losses
from gpupipe.evaluation.losses import SMALLEST_PROBABILITY
from gpupipe.targets.target import Target

WHOLE, TOUCH, DIRECTION = "", "touch", "direction"  # the whole loss, and its two parts
PARTS = (TOUCH, DIRECTION)
# The columns of a summary's rows with the gain of each; all other columns of a part begin with its name.
GAINS = {WHOLE: "gain_over_prior", TOUCH: "touch_gain", DIRECTION: "direction_gain"}


def has_parts(n_classes: int) -> bool:
    """Whether classes have a middle one, so that their log-loss has a touch and a direction part.

    >>> [has_parts(n) for n in (0, 2, 3, 4, 5)]
    [False, False, True, False, True]
    """
    return n_classes >= 3 and n_classes % 2 == 1


def touch_losses(probability: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 (n,), nats: the touch part of each row's log-loss; the direction part is the rest of it.

    probability: float (n, n_classes), n_classes odd; P(touch) is the sum of all but the middle class, and as in
        `losses.log_loss` what is below 1e-12 counts as 1e-12, so that the rest is 0 or more up to rounding.
    y: int (n,), class numbers; NaN where y is -1.
    Raises ValueError where the classes have no middle one.

        >>> probability, y = np.array([[0.1, 0.5, 0.4], [0.1, 0.8, 0.1]]), np.int8([2, 1])
        >>> touch = touch_losses(probability, y)
        >>> touch.round(4), (losses.log_loss(probability, y) - touch).round(4)  # -log(.5), -log(.8); -log(.4 / .5), 0
        (array([0.6931, 0.2231]), array([0.2231, 0.    ]))
    """
    n_classes = probability.shape[1]
    if not has_parts(n_classes):
        raise ValueError(f"probability has {n_classes} classes, expected an odd number from 3 on, with a middle class")
    middle = n_classes // 2
    known, stayed = y >= 0, y == middle
    moves = np.delete(probability, middle, axis=1).sum(axis=1, dtype=np.float64)
    chosen = np.where(stayed, probability[:, middle].astype(np.float64), moves)
    return np.where(known, -np.log(np.maximum(chosen, SMALLEST_PROBABILITY)), np.nan)


def by_model(
    target: Target, label: str, predictions: Mapping[str, np.ndarray], y: np.ndarray
) -> dict[tuple[str, str], np.ndarray]:
    """`touch_losses` of one column's predictions, by (label, model); empty for targets without parts.

    predictions: by model, (n, n_outputs).  y: (n,), values of the column.

        >>> target = Target(("next_return",), "value", (1,), loss="squared_error", reference="last_value")
        >>> by_model(target, "next_return", {"linear": np.zeros((2, 1))}, np.zeros(2))
        {}
    """
    parted = target.kind == "classes" and target.loss == "log_loss" and has_parts(target.n_classes)
    return {(label, name): touch_losses(p, y) for name, p in predictions.items()} if parted else {}


def measures(probability: np.ndarray, y: np.ndarray, prior: np.ndarray) -> dict[str, float]:
    """The touch loss of a model and of the class prior, and both gains, by name; empty without a middle class.

    probability: float (n, n_classes).  y: int8 (n,), all labels known.  prior: float64 (n_classes,).
    touch_loss, touch_loss_of_prior: mean over rows, nats; the direction loss is log_loss - touch_loss.
    touch_gain, direction_gain: the difference to the prior's part as a share of the prior's whole log-loss; NaN without
        rows, and where the rows hold a single class, as the gain itself.

        >>> probability = np.array([[0.1, 0.5, 0.4], [0.1, 0.8, 0.1]])
        >>> found = measures(probability, np.int8([2, 1]), np.array([0.25, 0.5, 0.25]))
        >>> found["touch_gain"].__round__(3), found["direction_gain"].__round__(3)
        (0.226, 0.226)
    """
    if not has_parts(len(prior)):
        return {}
    names = ("touch_loss", "touch_loss_of_prior", *(GAINS[part] for part in PARTS))
    if not len(y):
        return dict.fromkeys(names, float("nan"))
    reference = np.broadcast_to(prior, (len(y), len(prior)))
    touch, touch_of_prior = (float(touch_losses(p, y).mean()) for p in (probability, reference))
    whole, whole_of_prior = (float(losses.log_loss(p, y).mean()) for p in (probability, reference))
    gains = part_gains(whole, whole_of_prior, touch, touch_of_prior)
    if (y == y[0]).all():
        gains = dict.fromkeys(gains, float("nan"))
    return {"touch_loss": touch, "touch_loss_of_prior": touch_of_prior, **{GAINS[p]: gains[p] for p in PARTS}}


def part_gains(loss: float, prior_loss: float, touch: float, touch_of_prior: float) -> dict[str, float]:
    """The gains of both parts, which add up to 1 - loss / prior_loss; NaN where the prior's loss is 0.

    loss, prior_loss: the whole loss of a model and of the reference.  touch, touch_of_prior: their touch parts.

        >>> part_gains(0.8, 1.0, 0.5, 0.6)["touch"].__round__(3)
        0.1
    """
    if not prior_loss:
        return dict.fromkeys(PARTS, float("nan"))
    gain = (touch_of_prior - touch) / prior_loss
    return {TOUCH: gain, DIRECTION: losses.gain(loss, prior_loss) - gain}


def gains_of(row: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """The gain of the whole loss and of those parts that a row has.  start: what its names begin with, as "test_".

    >>> gains_of({"test_gain_over_prior": 0.1}, "test_")
    {'': 0.1}
    """
    return {part: row[f"{start}{name}"] for part, name in GAINS.items() if f"{start}{name}" in row}


def named(part: str, name: str) -> str:
    """The name of a measure of a part.

    >>> named(WHOLE, "skill"), named(TOUCH, "skill")
    ('skill', 'touch_skill')
    """
    return f"{part}_{name}" if part else name
