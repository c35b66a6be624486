"""Alpha158 against values that Qlib computed (make_alpha158_reference.py); as a script it prints the table of errors.

Qlib's windows start with the first value, and Qlib computes some of them in float32. Rows before our windows are full
are not compared.
"""

from __future__ import annotations

import pathlib

import numpy as np

from gpupipe.features.matrix import compute_features, warm_up_of
from tests.support import market

REFERENCE = pathlib.Path(__file__).parents[1] / "support" / "alpha158_reference.npz"
LARGEST_RELATIVE = 1e-4
# For correlations, -1 to 1: near 0 the rounding residue of Qlib's running sums is large relative to the value.
LARGEST_ABSOLUTE = 1e-5


def largest_errors() -> list[tuple[str, int, float, float, int]]:
    """(name, values compared, largest absolute error, largest relative error, values that are NaN on one side only).

    The relative error is relative to the value or, if larger, a thousandth of the column's standard deviation.
    """
    with np.load(REFERENCE) as stored:
        names, symbols, theirs = stored["names"].tolist(), set(stored["symbols"].tolist()), stored["values"]
    whole = market.demo_panel()
    panel = whole.where([name in symbols for name in whole.symbols])
    features = compute_features(panel, names)
    bar = np.arange(panel.n_rows) - np.repeat(panel.offsets[:-1], np.diff(panel.offsets))
    table = []
    for k, name in enumerate(names):
        warm = bar >= warm_up_of(name)
        ours, their = features.values[warm, k].astype(np.float64), theirs[warm, k].astype(np.float64)
        both = ~np.isnan(ours) & ~np.isnan(their)
        error = np.abs(ours[both] - their[both])
        relative = error / np.maximum(np.abs(their[both]), 1e-3 * np.nanstd(their))
        table.append(
            (name, int(both.sum()), error.max(), relative.max(), int((np.isnan(ours) != np.isnan(their)).sum()))
        )
    return table


def as_text(table: list[tuple[str, int, float, float, int]]) -> str:
    lines = [f"{'column':8s} {'values':>7s} {'absolute':>9s} {'relative':>9s} {'unpaired':>8s}"]
    lines += [f"{name:8s} {n:7d} {error:9.1e} {relative:9.1e} {odd:8d}" for name, n, error, relative, odd in table]
    return "\n".join(lines)


def test_all_158_columns_equal_those_of_qlib():
    table = largest_errors()
    assert len(table) == 158
    for name, n_values, absolute, relative, unpaired in table:
        assert n_values > 500, name
        assert unpaired == 0, (name, unpaired)
        if name.startswith(("CORR", "CORD")):
            assert absolute < LARGEST_ABSOLUTE, (name, absolute)
        else:
            assert relative < LARGEST_RELATIVE, (name, relative)


if __name__ == "__main__":
    print(as_text(largest_errors()))
