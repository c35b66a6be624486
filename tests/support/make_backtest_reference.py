"""The trades of two other engines on some stocks of the demo: `python -m tests.support.make_backtest_reference`.

Writes backtest_reference.npz beside this file, with vectorbt and backtesting (Backtesting.py) installed: symbols and
calls, int8 (n_models, n_rows), drawn at random; the trades that Backtesting.py makes of them, as of
tests.support.backtesting_py.trades; those calls that vectorbt can be given, and its records of trades. The rules are
backtesting_py.SAME and backtest.SAME of bench.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from bench.backtest import comparison as bench_backtest  # noqa: E402
from gpupipe.backtest import OutOfSample, backtest  # noqa: E402
from tests.support import backtesting_py  # noqa: E402
from tests.support.market import demo_panel  # noqa: E402

REFERENCE = pathlib.Path(__file__).with_name("backtest_reference.npz")
SYMBOLS = ("AA", "AMD", "BA", "C", "F", "GE")
LABELS = ((1, 0.02), (3, 0.03), (5, 0.05), (10, 0.05))
CALLED = 0.08  # the share of rows that call, on each side
RECORDS = ("col", "entry_idx", "exit_idx", "entry_price", "exit_price", "return", "status")


def panel_of(symbols=SYMBOLS):
    whole = demo_panel()
    return whole.where([name in symbols for name in whole.symbols])


def source_of(panel, calls) -> OutOfSample:
    """Probabilities of 0 and 1 that call so; all rows are out of sample, as nothing was learned."""
    values = np.stack([calls == 2, calls == 0, calls == 1], axis=-1).astype(np.float32).transpose(1, 0, 2)
    n_sectors = len(panel.groups)
    horizons, thresholds = zip(*LABELS, strict=True)
    return OutOfSample(
        values=np.ascontiguousarray(values), cutoffs=np.full((len(LABELS), n_sectors, 2), 0.5, np.float32),
        horizons=horizons, thresholds=thresholds, families=("drawn",) * len(LABELS),
        since_ns=np.zeros(n_sectors, np.int64), until_ns=np.full(n_sectors, np.iinfo(np.int64).max), source="drawn",
        panel=panel,
    )  # fmt: skip


def of_backtesting(panel, calls) -> np.ndarray:
    found = backtest(source_of(panel, calls), backtesting_py.SAME)
    return backtesting_py.trades(backtesting_py.engine()[0], found)


def of_vectorbt(panel, calls) -> tuple[np.ndarray, np.ndarray]:
    """The calls that it can be given, bool (n_models, n_rows), and its trades."""
    import vectorbt

    few, kept = bench_backtest.thinned(source_of(panel, calls))
    found = backtest(few, bench_backtest.SAME)
    records = bench_backtest.vectorbt_trades(vectorbt, bench_backtest.matrices(found, kept))
    return kept, records[list(RECORDS)]


def main() -> None:
    panel = panel_of()
    draw = np.random.default_rng(20).random((len(LABELS), panel.n_rows))
    calls = np.where(draw < CALLED, 1, np.where(draw < 2 * CALLED, 2, 0)).astype(np.int8)
    theirs = of_backtesting(panel, calls)
    kept, records = of_vectorbt(panel, calls)
    table = {f"vectorbt_{name}": np.ascontiguousarray(records[name]) for name in RECORDS}
    np.savez_compressed(REFERENCE, symbols=np.array(panel.symbols), calls=calls, backtesting=theirs, kept=kept, **table)
    print(f"{REFERENCE.name}: {len(theirs):,} trades of Backtesting.py, {len(records):,} of vectorbt")


if __name__ == "__main__":
    main()
