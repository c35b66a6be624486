"""Calls of kernels that the program makes on all bars of a market, run again by something else and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from bench import runs
from gpupipe.data.panel import Panel
from gpupipe.features.matrix import compute_bins, compute_features
from gpupipe.targets.triple_barrier import barrier_classes, tp_dd_labels
from gpupipe.workloads.bonds.valuation import terms
from tests.support.kernel_calls import Call, each_call, run_backtests, value_bonds
from tests.support.ptx.comparison import Comparison, outputs_of

BONDS = 4_000


def steps(panel: Panel, n_bonds: int = BONDS) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What the program computes, by name."""
    fraction = panel.high / panel.low - np.float32(1)
    for rule in ("take_profit_first", "first_touch"):
        for window in ("bars", "calendar"):
            yield f"labels, {rule}, {window}", partial(tp_dd_labels, panel, rule=rule, window=window)
    yield (
        "labels, scaled thresholds",
        partial(tp_dd_labels, panel, (7, 30, 250), rule="first_touch", multiples=(1, 3), volatility=fraction),
    )
    yield "weights", lambda: tp_dd_labels(panel).weight
    yield "classes", partial(barrier_classes, panel)
    yield "features", partial(compute_features, panel, "default")
    cuts = cuts_of(compute_features(panel, "default").values)  # between two steps, so that it is not compared again
    yield "bins", partial(compute_bins, panel, "default", cuts)
    yield "features, Alpha158", partial(compute_features, panel, "alpha158")
    yield "backtests", partial(run_backtests, panel)
    yield f"{n_bonds:,} bonds", partial(value_as_on_a_gpu, n_bonds)


def value_as_on_a_gpu(n_bonds: int) -> None:
    """Value bonds with one of them to an item, as on a GPU: on a CPU an item has many, too many to keep a GPU busy."""
    with mock.patch.dict(terms.BONDS_AT_ONCE, cpu=1), mock.patch.dict(terms.BONDS_OF_FLOWS, cpu=1):
        value_bonds(n_bonds)


def cuts_of(values: np.ndarray) -> list[np.ndarray]:
    """Quantiles of the known values of every column, as the cut points of its bins."""
    shares = np.linspace(0, 1, 65)[1:-1]
    known = (column[~np.isnan(column)] for column in values.T)
    return [np.unique(np.quantile(column, shares).astype(np.float32)) if len(column) else column for column in known]


def compared(
    panel: Panel, only: str, run: Callable[[Call, list[Any]], runs.Line], n_bonds: int = BONDS
) -> Iterator[runs.Line]:
    """A line for each kernel of each step: values, those whose bits differ from the CPU loop's, and what `run` adds.

    run(call, arguments): runs a call over copies of its arguments, in place; numbers that it returns are added up. A
        line has the error in which a step ends, and the next step follows.
    only: how the full names of the kernels begin.
    """
    for step, compute in steps(panel, n_bonds):
        found: dict[str, Comparison] = {}
        numbers: dict[str, runs.Line] = {}

        def use(call: Call, found: dict[str, Comparison] = found, numbers: dict[str, runs.Line] = numbers) -> None:
            name = call.kernel.full_name
            if not name.startswith(only):
                return
            got = [np.array(a) if isinstance(a, np.ndarray) else a for a in call.before]
            sums = numbers.setdefault(name, {"calls": 0})
            sums["calls"] += 1
            for key, value in run(call, got).items():
                sums[key] = sums.get(key, 0) + value
            comparison = found.setdefault(name, Comparison())
            for output, a, b in outputs_of(call, got, call.after):
                comparison.add(output, a, b)

        failed = None
        try:
            with each_call(use):
                compute()
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
        for name, comparison in found.items():
            yield {
                "step": step, "kernel": name, "values": comparison.values, "differ": comparison.differ,
                "ulps": comparison.ulps, "where": comparison.where, **numbers[name],
            }  # fmt: skip
        if failed is not None:
            yield {"step": step, "error": failed}
