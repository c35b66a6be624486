"""The recurrent policy without BLAS: an LSTM of one or more layers, and heads for the logits and the value; row by row.

Weights are transposed, float32, so that the innermost loops run over contiguous outputs; the bias is the last row:

    recurrent (rows, 4 * size): for each layer its inputs, its state, its bias; gates are input, forget, cell, output
    first (size + 1, 2 * a): of both heads side by side, the policy's first
    second (a + 1, 2 * b): likewise; each half reads the outputs of its own half before it
    last (b + 1, n_actions + 1): the logits, then the value

Sums are float32, the bias first and then the inputs in order, so that the bits of a row depend on no other row.
"""

from __future__ import annotations

import numpy as np

from .compile import inline, kernel
from .elementary import exp_32


@inline
def sigmoid(x):
    """1 / (1 + exp(-x)) within 1.2e-7, without overflow; NaN for NaN."""
    one = np.float32(1.0)
    small = exp_32(x if x < np.float32(0.0) else -x)
    return small / (one + small) if x < np.float32(0.0) else one / (one + small)


@inline
def hyperbolic_tangent(x):
    """tanh(x) within 1.2e-7, without overflow; NaN for NaN."""
    one, two = np.float32(1.0), np.float32(2.0)
    small = exp_32(two * x if x < np.float32(0.0) else -two * x)
    size = (one - small) / (one + small)
    return -size if x < np.float32(0.0) else size


@inline
def add_products(x, weights, first, begin, out):
    """out[k] += sum over j of x[j] * weights[first + j, begin + k], in the order of j."""
    n, n_outputs = x.shape[0], out.shape[0]
    # Four inputs at a time: the sums are read and written a quarter as often, with the same result.
    fours = n // 4 * 4
    for j in range(0, fours, 4):
        p, q, r, s, row = x[j], x[j + 1], x[j + 2], x[j + 3], first + j
        for k in range(n_outputs):
            total = out[k] + p * weights[row, begin + k]
            total += q * weights[row + 1, begin + k]
            total += r * weights[row + 2, begin + k]
            out[k] = total + s * weights[row + 3, begin + k]
    for j in range(fours, n):
        p = x[j]
        for k in range(n_outputs):
            out[k] += p * weights[first + j, begin + k]


@inline
def lstm_cell(x, h, c, weights, first, gates):
    """One step of an LSTM layer for one row, in place.

    x float32 (n_inputs,); h, c float32 (size,), updated; weights as `recurrent` above, of which the layer's begin at
    row `first`; gates float32 (4 * size,), scratch. Source: Torch's documentation of nn.LSTM.
    """
    n_inputs, size = x.shape[0], h.shape[0]
    for k in range(4 * size):
        gates[k] = weights[first + n_inputs + size, k]
    add_products(x, weights, first, 0, gates)
    add_products(h, weights, first + n_inputs, 0, gates)
    for k in range(size):
        entry, forget = sigmoid(gates[k]), sigmoid(gates[size + k])
        cell = forget * c[k] + entry * hyperbolic_tangent(gates[2 * size + k])
        c[k] = cell
        h[k] = sigmoid(gates[3 * size + k]) * hyperbolic_tangent(cell)


@inline
def dense(x, weights, begin, out):
    """out[k] = bias + sum of x[j] * weights[j, begin + k]; the bias is row n_inputs of the weights."""
    for k in range(out.shape[0]):
        out[k] = weights[x.shape[0], begin + k]
    add_products(x, weights, 0, begin, out)


@inline
def rectify(out):
    """Negative numbers become 0."""
    for k in range(out.shape[0]):
        out[k] = np.float32(0.0) if out[k] < np.float32(0.0) else out[k]


@inline
def policy_row(x, h, c, recurrent, first, second, last, work, logits):
    """One step of the policy for one row, in place; returns the value.

    x float32 (n_observations,); h, c float32 (layers * size,), updated, one layer after the other; weights as above;
    work float32 (n,), scratch, n >= 4 * size and >= 2 * a + 2 * b; logits float32 (n_actions,), written.
    """
    size, width, below = recurrent.shape[1] // 4, first.shape[1], second.shape[1]
    lstm_cell(x, h[:size], c[:size], recurrent, 0, work[: 4 * size])
    row = x.shape[0] + size + 1
    for k in range(size, h.shape[0], size):
        lstm_cell(h[k - size : k], h[k : k + size], c[k : k + size], recurrent, row, work[: 4 * size])
        row += 2 * size + 1
    upper, lower = work[:width], work[width : width + below]
    dense(h[h.shape[0] - size :], first, 0, upper)
    rectify(upper)
    dense(upper[: width // 2], second, 0, lower[: below // 2])
    dense(upper[width // 2 :], second, below // 2, lower[below // 2 :])
    rectify(lower)
    dense(lower[: below // 2], last, 0, logits)
    value = last[below // 2, logits.shape[0]]
    for j in range(below // 2):
        value += lower[below // 2 + j] * last[j, logits.shape[0]]
    return value


@inline
def greedy(logits):
    """The number of the largest logit, the first of equal ones; 0 where they are NaN."""
    best = 0
    for k in range(1, logits.shape[0]):
        best = k if logits[k] > logits[best] else best
    return best


@kernel(
    types=(
        "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]",
        "f4[:,:]", "f4[:]", "i8[:]",
    )
)  # fmt: skip
def policy_step(i, observations, h, c, recurrent, first, second, last, work, next_h, next_c, logits, values, actions):
    """One step of the policy for row i: LSTM, heads, and the greedy action.

    Reads:   row i alone.
    Inputs:  observations float32 (n_rows, n_observations); h, c float32 (n_rows, layers * size), the states before the
             step, zero where an episode starts; recurrent, first, second, last float32, the weights as the module
             describes them; work float32 (n_rows, at least 4 * size and 2 * a + 2 * b), scratch.
    Outputs: next_h, next_c float32 (n_rows, layers * size); logits float32 (n_rows, n_actions); values float32
             (n_rows,); actions int64 (n_rows,), the number of the largest logit, the first of equal ones.
    NaN:     an observation that is NaN makes the row's outputs NaN, and its action 0.
    Source:  Hochreiter and Schmidhuber (1997), with the forget gate of Gers et al. (2000); Torch's nn.LSTM.
    """
    for k in range(h.shape[1]):
        next_h[i, k], next_c[i, k] = h[i, k], c[i, k]
    values[i] = policy_row(
        observations[i], next_h[i], next_c[i], recurrent, first, second, last, work[i], logits[i]
    )  # fmt: skip
    actions[i] = greedy(logits[i])
