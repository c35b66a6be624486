"""Grouped softmax: one three-class softmax for every label; its log-loss, derivatives and probabilities."""

from __future__ import annotations

import numpy as np

from .compile import inline, kernel
from .elementary import exp_32, log_32


@inline
def largest_of(a, b, c):
    """The largest of three numbers; NaN if one of them is NaN."""
    largest = a if a > b or a != a else b
    return largest if largest > c or largest != largest else c


@inline
def weight_of(class_weight, k, y):
    """The weight of class y of label k; of class 2 where y is unknown."""
    return class_weight[k, 0] if y == 0 else class_weight[k, 1] if y == 1 else class_weight[k, 2]


@kernel(types=("f4[:,:]", "i1[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]"), brief=True)
def softmax_gradient(i, margin, y, class_weight, grad, hess):
    """Gradient and Hessian diagonal of the weighted softmax log-loss of row i, separately for each label.

    With p the softmax of the three margins of a label, c a class and w = class_weight[label, y]:

        grad = w * (p[c] - (c == y))        hess = max(2 * w * p[c] * (1 - p[c]), 1e-16)

    Reads:   row i alone.
    Inputs:  margin float32 (n_rows, 3 * n_labels), class c of label k in column 3 * k + c; y int8
             (n_rows, n_labels), a class 0, 1 or 2, or -1 for unknown; class_weight float32 (n_labels, 3) >= 0.
    Outputs: grad, hess float32 (n_rows, 3 * n_labels); 0 in the three columns of an unknown label.
    NaN:     a NaN margin makes the gradients of its label NaN.
    Source:  XGBoost, src/objective/multiclass_obj.cu (multi:softprob), with its factor 2 and floor.
    """
    zero, one, two, floor = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(1e-16)
    for k in range(y.shape[1]):
        a, b, c = margin[i, 3 * k], margin[i, 3 * k + 1], margin[i, 3 * k + 2]
        largest = largest_of(a, b, c)
        sell, hold, buy = exp_32(a - largest), exp_32(b - largest), exp_32(c - largest)
        total = sell + hold + buy
        known = y[i, k] >= 0
        weight = weight_of(class_weight, k, y[i, k])
        sell, hold, buy = sell / total, hold / total, buy / total
        steep_sell, steep_hold = two * weight * sell * (one - sell), two * weight * hold * (one - hold)
        steep_buy = two * weight * buy * (one - buy)
        grad[i, 3 * k] = weight * (sell - (one if y[i, k] == 0 else zero)) if known else zero
        grad[i, 3 * k + 1] = weight * (hold - (one if y[i, k] == 1 else zero)) if known else zero
        grad[i, 3 * k + 2] = weight * (buy - (one if y[i, k] == 2 else zero)) if known else zero
        hess[i, 3 * k] = (floor if steep_sell < floor else steep_sell) if known else zero
        hess[i, 3 * k + 1] = (floor if steep_hold < floor else steep_hold) if known else zero
        hess[i, 3 * k + 2] = (floor if steep_buy < floor else steep_buy) if known else zero


@kernel(types=("f4[:,:]", "i1[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]"), brief=True)
def activity_gradient(i, margin, y, class_weight, grad, hess):
    """Gradient and Hessian diagonal for a model with two outputs for each label, activity u and direction d.

    The model adds u - d to the margin of class 0 and u + d to the margin of class 2; class 1 is the reference.
    With p the softmax of the three margins of a label, t the one-hot class, w = class_weight[label, y]:

        u: grad = w * ((p[0] - t[0]) + (p[2] - t[2]))        hess = w * p[1] * (1 - p[1])
        d: grad = w * ((p[2] - t[2]) - (p[0] - t[0]))        hess = 2 * w * (p[0] + p[2] - (p[2] - p[0])^2)

    The factor 2 halves the steps of d and its share in the choice of splits. The three margins of softmax_gradient do
    the same where classes 0 and 2 are equally frequent, because the gradient of class 1 is that of u with the opposite
    sign.
    Both Hessians are at least 1e-16.

    Reads:   row i alone.
    Inputs:  as in softmax_gradient.
    Outputs: grad, hess float32 (n_rows, 2 * n_labels), u of label k in column 2 * k and d in column 2 * k + 1; 0 where
             a label is unknown.
    NaN:     a NaN margin makes the gradients of its label NaN.
    Source:  multinomial logit with a reference class (Hastie, Tibshirani and Friedman, section 4.4).
    """
    zero, one, two, floor = np.float32(0.0), np.float32(1.0), np.float32(2.0), np.float32(1e-16)
    for k in range(y.shape[1]):
        a, b, c = margin[i, 3 * k], margin[i, 3 * k + 1], margin[i, 3 * k + 2]
        largest = largest_of(a, b, c)
        sell, hold, buy = exp_32(a - largest), exp_32(b - largest), exp_32(c - largest)
        total = sell + hold + buy
        sell, hold, buy = sell / total, hold / total, buy / total
        known = y[i, k] >= 0
        weight = weight_of(class_weight, k, y[i, k])
        sold = sell - (one if y[i, k] == 0 else zero)
        bought = buy - (one if y[i, k] == 2 else zero)
        steep_u = weight * hold * (one - hold)
        steep_d = two * weight * (sell + buy - (buy - sell) * (buy - sell))
        grad[i, 2 * k] = weight * (bought + sold) if known else zero
        grad[i, 2 * k + 1] = weight * (bought - sold) if known else zero
        hess[i, 2 * k] = (floor if steep_u < floor else steep_u) if known else zero
        hess[i, 2 * k + 1] = (floor if steep_d < floor else steep_d) if known else zero


@kernel(types=("f4[:,:]", "i1[:,:]", "f4[:,:]"), brief=True)
def softmax_log_loss(i, margin, y, loss):
    """Log-loss of row i for each label: loss = log(sum(exp(margins))) - margin of the class y, unweighted.

    Reads:   row i alone.
    Inputs:  margin float32 (n_rows, 3 * n_labels); y int8 (n_rows, n_labels), -1 for unknown.
    Outputs: loss float32 (n_rows, n_labels), nats, >= 0; NaN where the label is unknown.
    NaN:     a NaN margin makes the loss of its label NaN.
    """
    for k in range(y.shape[1]):
        a, b, c = margin[i, 3 * k], margin[i, 3 * k + 1], margin[i, 3 * k + 2]
        largest = largest_of(a, b, c)
        total = exp_32(a - largest) + exp_32(b - largest) + exp_32(c - largest)
        chosen = a if y[i, k] == 0 else b if y[i, k] == 1 else c
        loss[i, k] = log_32(total) + (largest - chosen) if y[i, k] >= 0 else np.float32(np.nan)


@kernel(types=("f4[:,:]", "f4[:,:]"), brief=True)
def softmax_probability(i, margin, probability):
    """Probabilities of row i: the softmax of the three margins of each label.

    Reads:   row i alone.
    Inputs:  margin float32 (n_rows, 3 * n_labels), class c of label k in column 3 * k + c.
    Outputs: probability float32 (n_rows, 3 * n_labels); the three of a label sum to 1 within float32 rounding.
    NaN:     a NaN margin makes the probabilities of its label NaN.
    """
    for k in range(margin.shape[1] // 3):
        a, b, c = margin[i, 3 * k], margin[i, 3 * k + 1], margin[i, 3 * k + 2]
        largest = largest_of(a, b, c)
        sell, hold, buy = exp_32(a - largest), exp_32(b - largest), exp_32(c - largest)
        total = sell + hold + buy
        probability[i, 3 * k], probability[i, 3 * k + 1], probability[i, 3 * k + 2] = (
            sell / total, hold / total, buy / total
        )  # fmt: skip
