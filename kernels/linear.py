"""Margins of linear models, row by row: the bits of a row do not depend on the other rows of the call."""

from __future__ import annotations

import numpy as np

from .compile import inline, kernel


@kernel(types=("f4[:,:]", "f4[:,:]", "f4[:]", "f4[:,:]"))
def linear_margin(i, Z, coefficients, intercept, margin):
    """Margins of row i: intercept + Z[i] @ coefficients, summed in the order of the inputs, the intercept first.

    For prediction: BLAS sums one row in another order than many rows. For fitting BLAS is faster.

    Reads:   row i alone.
    Inputs:  Z float32 (n_rows, n_inputs); coefficients float32 (n_inputs, 3 * n_labels); intercept float32
             (3 * n_labels,).
    Outputs: margin float32 (n_rows, 3 * n_labels).
    NaN:     an input that is NaN makes the row's margins NaN.
    """
    for k in range(0, margin.shape[1], 3):
        a, b, c = intercept[k], intercept[k + 1], intercept[k + 2]
        for j in range(Z.shape[1]):
            z = Z[i, j]
            a += z * coefficients[j, k]
            b += z * coefficients[j, k + 1]
            c += z * coefficients[j, k + 2]
        margin[i, k], margin[i, k + 1], margin[i, k + 2] = a, b, c


@inline
def scaled(value, mean, scale, clip):
    """(value - mean) / scale, clipped to [-clip, clip]; 0 for NaN."""
    z = (value - mean) / scale
    z = -clip if z < -clip else clip if z > clip else z
    return z if z == z else np.float32(0.0)


@kernel(types=("f4[:,:]", "f4[:]", "f4[:]", "f4", "i8[:]", "f4[:,:]", "f4[:]", "f4[:,:]"))
def scaled_margin(i, X, mean, scale, clip, flag, coefficients, intercept, margin):
    """Margins of row i from unscaled columns, which are scaled, clipped and flagged where missing.

    With z[j] = (X[i, j] - mean[j]) / scale[j], clipped to [-clip, clip], and summed in this order:

        margin = intercept + sum of z[j] * coefficients[j] over known columns j
                           + sum of coefficients[flag[j]] over missing columns j

    Reads:   row i alone.
    Inputs:  X float32 (n_rows, n_features); mean, scale float32 (n_features,); clip float32 > 0; flag int64
             (n_features,), the row of coefficients for "column j is missing", -1 for none; coefficients
             float32 (n_inputs, n_outputs); intercept float32 (n_outputs,).
    Outputs: margin float32 (n_rows, n_outputs).
    NaN:     a NaN column without a flag adds nothing.
    """
    n_features, n_outputs = X.shape[1], margin.shape[1]
    for k in range(n_outputs):
        margin[i, k] = intercept[k]
    # Four columns at a time: the sums are read and written a quarter as often, with the same result.
    fours = n_features // 4 * 4
    for j in range(0, fours, 4):
        p = scaled(X[i, j], mean[j], scale[j], clip)
        q = scaled(X[i, j + 1], mean[j + 1], scale[j + 1], clip)
        r = scaled(X[i, j + 2], mean[j + 2], scale[j + 2], clip)
        s = scaled(X[i, j + 3], mean[j + 3], scale[j + 3], clip)
        for k in range(n_outputs):
            total = margin[i, k] + p * coefficients[j, k]
            total += q * coefficients[j + 1, k]
            total += r * coefficients[j + 2, k]
            margin[i, k] = total + s * coefficients[j + 3, k]
    for j in range(fours, n_features):
        p = scaled(X[i, j], mean[j], scale[j], clip)
        for k in range(n_outputs):
            margin[i, k] += p * coefficients[j, k]
    for j in range(n_features):
        if X[i, j] != X[i, j] and flag[j] >= 0:
            for k in range(n_outputs):
                margin[i, k] += coefficients[flag[j], k]
