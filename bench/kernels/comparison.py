"""Labels and features against other libraries: `python -m bench.kernels.comparison [--data FILE --sector-map FILE]`.

Every comparison first checks that both sides have the same values, then times them in this process, in turn; reported
are medians, and the share of the measured rate of copying memory, which binds where a column is cheap. A peer whose
definition is another is marked `equal: false` with the reason. One that is not installed is reported as skipped:

    pip install -e ".[cpu,test,bench]"      pandas, polars, TA-Lib, polars-talib, ml4t-engineer, vectorbt, matplotlib
    --qlib PYTHON                           an interpreter with pyqlib==0.9.7 (see tests/support/foreign_peers.py)
    --mlfinpy PYTHON                        an interpreter with mlfinpy==0.1.2

    --ladder                                simulated panels of 10 thousand to 10 million rows (or --rows 10000,...)
    --cold                                  time to the first result in fresh processes
    --device cuda                           ours on the GPU, transfers in and out apart; peers stay on the host

The last lines are JSON, one for each comparison; --out adds them to a file, which `python -m bench.pictures` draws.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench import runs
from bench.kernels import feature_peers, label_peers
from bench.kernels.cold_start import cold_start
from bench.kernels.label_peers import FIELDS, HORIZONS, IN_BLOCKS, THRESHOLDS, Peer
from bench.timing import alternate, memory_copy
from gpupipe.data import simulate
from gpupipe.data.panel import Panel
from gpupipe.features.matrix import compute_features, feature_names, warm_up_of
from gpupipe.runtime.device import pick
from gpupipe.targets.triple_barrier import barrier_classes, tp_dd_labels
from tests.support.talib_columns import ARRAYS, OUR_COLUMNS, our_columns

LADDER, LADDER_BARS = [10_000, 100_000, 1_000_000, 10_000_000], 1000
HORIZON_CURVE = (1, 2, 5, 10, 20, 50, 100, 250)
TOLERANCE = 1e-4  # relative, of float32 columns; the tests hold TA-Lib's to 5e-7
QLIB_TOLERANCE = 1e-3  # Qlib's running sums in float32 wander: on 505 stocks by 5e-4, its correlations by 5e-5
Arrays = Callable[[Any], Sequence[Any]]  # the arrays of our result that are counted
Check = Callable[[Any], str]  # says what was compared in a peer's result, or exits


class Run(NamedTuple):
    """What the comparisons of one panel share; `panel` is `host` on the device."""

    host: Panel
    panel: Panel
    times: int
    limit_s: float
    copy_rate: float

    def timed(self, **sides: Callable[[], Any]) -> tuple[dict[str, float], int]:
        """Median seconds of each side, and how often it ran."""
        return alternate(self.times, sides, self.panel.device, self.limit_s)


def main() -> int:
    parser = runs.options(__doc__, data="demo", times=15)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a comparison may go on repeating")
    parser.add_argument("--ladder", action="store_true")
    parser.add_argument("--rows", type=runs.numbers(), help="sizes of the ladder, as 10000,100000")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--qlib", metavar="PYTHON")
    parser.add_argument("--mlfinpy", metavar="PYTHON")
    parser.add_argument("--out", help="a file that the JSON lines are added to")
    chosen = parser.parse_args()
    device = pick(chosen.device)
    copy_rate = memory_copy(device)
    print(f"{device.name}: memory copy {copy_rate / 1e9:.1f} GB/s, read and written")
    return runs.report("kernels", lines(chosen, device, copy_rate), chosen.out, device=device.name,
                       memory_copy_gb_per_s=round(copy_rate / 1e9, 1))  # fmt: skip


def lines(chosen: argparse.Namespace, device: Any, copy_rate: float) -> Iterator[runs.Line]:
    """A line for each comparison that the options name."""

    def run_of(host: Panel) -> Run:
        return Run(host, host.to(device), chosen.times, chosen.limit, copy_rate)

    def named(data: str, *comparisons: Iterable[runs.Line]) -> Iterator[runs.Line]:
        return (line | {"data": data} for line in itertools.chain(*comparisons))

    if chosen.cold:
        yield from named("simulated", cold_start(chosen.device))
    for n_rows in chosen.rows or (LADDER if chosen.ladder else ()):
        run = run_of(simulate(max(n_rows // LADDER_BARS, 1), min(n_rows, LADDER_BARS)))
        labels, columns = classes(run, label_peers.FASTEST), shared(run, feature_peers.IN_TALIB)
        yield from named("simulated", labels, everything(run), columns, whole_set(run))
    if chosen.cold or chosen.ladder or chosen.rows:
        return
    run = run_of(runs.read(chosen)[0])
    yield from named(
        pathlib.Path(chosen.data).name,
        classes(run, label_peers.IN_LIBRARIES), everything(run), by_horizon(run), first_touch(run, chosen.mlfinpy),
        shared(run, feature_peers.IN_LIBRARIES), shared(run, feature_peers.IN_TALIB, reuse=True), whole_set(run),
        in_pandas(run), alpha158(run, chosen.qlib),
    )  # fmt: skip


def describe(run: Run, what: str, check: str, seconds: float, arrays: Sequence, read: int = 12, **more: Any) -> dict:
    """One line. arrays: those that were computed; read: bytes of a row that have to be read for them."""
    device = run.panel.device
    n_values, n_bytes = sum(x.size for x in arrays), sum(x.nbytes for x in arrays) + read * run.host.n_rows
    line = {
        "what": what, **more, "seconds": seconds, "rows_per_s": run.host.n_rows / seconds,
        "values_per_s": n_values / seconds, "gb_per_s": n_bytes / seconds / 1e9,
        "share_of_memory_copy": round(n_bytes / seconds / run.copy_rate, 3),
    }  # fmt: skip
    if device.kind == "cuda":
        sides = {"in": lambda: run.host.to(device), "out": lambda: [device.to_host(x) for x in arrays]}
        for side in sides.values():
            side()
        transfers, _ = alternate(min(run.times, 5), sides, device, run.limit_s)
        line |= {f"transfer_{name}_seconds": value for name, value in transfers.items()}
    return line | {"check": check, "rows": run.host.n_rows, "symbols": run.host.n_symbols}


def against(
    run: Run, what: str, ours: Callable[[], Any], arrays: Arrays, peer: Peer, agrees: Check, read: int = 12
) -> dict:
    """The line of one peer, after its check. arrays: those of our result that the peer computes too."""
    computed = arrays(ours())
    check = agrees(peer.matrix(peer.run()))
    seconds, times = run.timed(ours=ours, peer=peer.run)
    return describe(
        run, what, check, seconds["ours"], computed, read, peer=peer.name, equal=True, peer_seconds=seconds["peer"],
        ratio=seconds["peer"] / seconds["ours"], times=times,
    )  # fmt: skip


def classes(run: Run, peers: Iterable[Callable[[Panel], Peer]]) -> Iterator[dict]:
    """Six labels, y alone."""
    ours = partial(barrier_classes, run.panel, HORIZONS, THRESHOLDS)
    y = run.panel.device.to_host(ours())
    for make in peers:
        with runs.skipping():
            peer = make(run.host)
            yield against(run, "six labels, y alone", ours, lambda y: [y], peer, same_labels(peer.name, y))


def everything(run: Run) -> Iterator[dict]:
    """Labels with all that goes with them."""
    ours = partial(tp_dd_labels, run.panel, HORIZONS, THRESHOLDS)
    peer = Peer(IN_BLOCKS, partial(label_peers.numpy_label_cube, run.host, FIELDS), lambda cube: cube)

    def agrees(theirs: dict[str, np.ndarray]) -> str:
        for field, values in zip(FIELDS, map(run.panel.device.to_host, all_fields(ours())), strict=True):
            if not np.array_equal(values, theirs[field], equal_nan=values.dtype.kind == "f"):
                raise SystemExit(f"{field}: {peer.name} has other values")
        return f"{', '.join(FIELDS)} are the same"

    yield against(run, "six labels with all that goes with them", ours, all_fields, peer, agrees)


def all_fields(labels: Any) -> list[Any]:
    return [getattr(labels, name) for name in FIELDS]


def by_horizon(run: Run) -> Iterator[dict]:
    """Two labels of one horizon, for horizons far beyond those that are used: the cost of a bar more."""
    check = "the two kernels have the same labels"
    for h in HORIZON_CURVE:
        alone = partial(barrier_classes, run.panel, (h,), THRESHOLDS)
        cube = partial(tp_dd_labels, run.panel, (h,), THRESHOLDS)
        labels = cube()
        if not bool((labels.y == alone()).all()):
            raise SystemExit(f"labels of horizon {h}: the two kernels differ")
        seconds, times = run.timed(alone=alone, cube=cube)
        what = "two labels of one horizon"
        yield describe(run, f"{what}, y alone", check, seconds["alone"], [labels.y], horizon=h, times=times)
        yield describe(run, f"{what}, with all that goes with them", check, seconds["cube"], all_fields(labels),
                       horizon=h, times=times)  # fmt: skip


def first_touch(run: Run, mlfinpy: str | None) -> Iterator[dict]:
    """Labels of the first barrier touched, with all that goes with them."""
    what = "six labels of the first touch"
    ours = partial(tp_dd_labels, run.panel, HORIZONS, THRESHOLDS, rule="first_touch")
    y = run.panel.device.to_host(ours().y)
    with runs.skipping():
        peer = label_peers.in_ml4t(run.host)
        yield against(run, what, ours, all_fields, peer, same_labels(peer.name, y))
    if mlfinpy is None:
        print("mlfinpy is skipped: it wants numpy 1; give an interpreter that has it as --mlfinpy PYTHON")
        return
    peer_line, theirs = apart(run.host, mlfinpy, "mlfinpy")
    # Our labels of the same rows from closes alone, which is all that it looks at.
    closes, n = run.host.replace(high=run.host.close, low=run.host.close), peer_line["rows"]
    near = tp_dd_labels(closes, HORIZONS, THRESHOLDS, rule="first_touch").y[:n]
    known = (near >= 0) & (theirs >= 0)
    reason = (
        "closes alone, a barrier must be passed and not only reached, and an end beyond ln(1 + t) counts as touched: "
        f"{(near == theirs)[known].mean():.4f} of its labels are ours of closes, "
        f"{(y[:n] == theirs)[known].mean():.4f} ours of highs and lows"
    )
    seconds, times = run.timed(ours=ours)
    yield describe(
        run, what, reason, seconds["ours"], all_fields(ours()), peer=peer_line["library"], equal=False,
        peer_seconds=peer_line["seconds"], peer_rows=n, times=times,
        ratio=peer_line["seconds"] / n / (seconds["ours"] / run.host.n_rows),
    )  # fmt: skip


def same_labels(name: str, y: np.ndarray) -> Check:
    """A check that a matrix of labels is `y`."""

    def agrees(theirs: np.ndarray) -> str:
        if theirs.shape != y.shape or not np.array_equal(theirs, y):
            raise SystemExit(f"labels: {name} has other ones")
        return "all labels are the same"

    return agrees


def shared(run: Run, peers: Iterable[Callable], reuse: bool = False) -> Iterator[dict]:
    """The columns that TA-Lib computes too, into a new matrix, or into an existing matrix.

    Peers drop their results, whose memory serves them again.
    """
    out = run.panel.device.xp.empty((run.host.n_rows, len(OUR_COLUMNS)), np.float32) if reuse else None
    ours = partial(compute_features, run.panel, OUR_COLUMNS, out)
    values = run.panel.device.to_host(ours().values)
    deviations = np.nanstd(values[:: 1 + len(values) // 1_000_000], axis=0, dtype=np.float64)
    what = f"{len(OUR_COLUMNS)} columns that hold TA-Lib's {len(ARRAYS)}{', matrix given' if reuse else ''}"
    for make in peers:
        with runs.skipping(), make(run.host) as peer:
            agrees = same_columns(peer.name, run.host, values, deviations)
            yield against(run, what, ours, lambda features: [features.values], peer, agrees, 16)


def same_columns(peer: str, panel: Panel, values: np.ndarray, deviations: np.ndarray) -> Check:
    """A check that our columns follow from a peer's arrays, to TOLERANCE of the value or a thousandth of the spread.

    A value that only one of the two knows is let pass within the first bars of a symbol alone.
    """

    def agrees(theirs: Iterable[tuple[int, int, list[np.ndarray]]]) -> str:
        begun, compared, worst = 0, 0, 0.0
        for k, begun, arrays in theirs:
            rows = slice(int(panel.offsets[k]), int(panel.offsets[k + 1]))
            close, volume = panel.close[rows].astype(np.float64), panel.volume[rows].astype(np.float64)
            with np.errstate(all="ignore"):
                their = np.column_stack(list(our_columns(arrays, close, volume).values()))[begun:]
            our = values[rows][begun:]
            error = np.abs(our - their) / np.maximum(np.abs(their), 1e-3 * deviations)
            if (error > TOLERANCE).any():
                name = OUR_COLUMNS[int((error > TOLERANCE).any(axis=0).argmax())]
                raise SystemExit(f"{name} of {panel.symbols[k]}: {peer} has other values")
            late = max(feature_peers.SETTLED_BARS - begun, 0)
            if (np.isnan(our) != np.isnan(their))[late:].any():
                raise SystemExit(f"{panel.symbols[k]}: {peer} and we do not know the same values")
            compared += np.isfinite(error).sum(axis=0)
            worst = max(worst, float(np.nanmax(error, initial=0.0)))
        if not np.all(compared):
            raise SystemExit(f"no symbol is long enough to compare all columns with {peer}")
        return (
            f"{len(OUR_COLUMNS)} columns of every symbol from bar {begun} on, {compared.sum()} values, "
            f"largest relative error {worst:.0e}"
        )

    return agrees


def whole_set(run: Run) -> Iterator[dict]:
    """The default set of columns, which no library has: the smallest sector alone, on the host, is the check."""
    ours = partial(compute_features, run.panel, "default")
    check = same_alone(run, ours().values, "default")
    seconds, times = run.timed(ours=ours)
    what = f"default set, {len(feature_names('default'))} columns"
    yield describe(run, what, check, seconds["ours"], [ours().values], 28, times=times)


def same_alone(run: Run, values: Any, names: str) -> str:
    """Check that a sector's values do not depend on the rest of the panel: bit for bit on a CPU."""
    host = run.host
    sector = min(host.groups, key=host.sector.count)
    alone = compute_features(host.of_group(sector), names).values
    mine = np.array([name == sector for name in host.sector])[host.symbol_of_row]
    ours = run.panel.device.to_host(values[run.panel.device.asarray(mine)])
    if run.panel.device.kind == "cpu":
        if not np.array_equal(ours, alone, equal_nan=True):
            raise SystemExit(f"{names}: {sector} alone has other values")
        return f"no peer; the {len(alone)} rows of {sector} computed alone have the same bits"
    error = np.abs(ours - alone) / np.maximum(np.abs(alone), 1e-3 * np.nanstd(alone, axis=0, dtype=np.float64))
    if (np.isnan(ours) != np.isnan(alone)).any() or (error > TOLERANCE).any():
        raise SystemExit(f"{names}: {sector} on the host has other values")
    worst = float(np.nanmax(error, initial=0.0))
    return f"no peer; the {len(alone)} rows of {sector} on the host, largest relative error {worst:.0e}"


def in_pandas(run: Run) -> Iterator[dict]:
    """The 172 columns that bench.predecessor computes in pandas, one symbol after the other."""
    with runs.skipping():
        _, name = runs.library("pandas", "pandas")
        from bench.predecessor import equality, rows

        frame = run.host.to_arrow().to_pandas()
        names = rows.names_of(rows.with_features(frame[frame["symbol"] == run.host.symbols[0]]))
        ours = partial(compute_features, run.panel, names)

        def agrees(theirs: np.ndarray) -> str:
            values = run.panel.device.to_host(ours().values)
            furthest, where = equality.furthest_apart(names, values, theirs)
            return f"{len(names)} columns, at most {furthest:.0e} of their spread apart ({where})"

        peer = Peer(f"{name} in a loop", lambda: rows.with_features(frame), lambda frame: frame[names].to_numpy(float))
        what = f"{len(names)} columns in pandas"
        yield against(run, what, ours, lambda features: [features.values], peer, agrees, 28)


def alpha158(run: Run, qlib: str | None) -> Iterator[dict]:
    """Qlib's Alpha158; tests/features/test_alpha158_parity.py compares it with stored values of Qlib, too."""
    ours = partial(compute_features, run.panel, "alpha158")
    features, more = ours(), {}
    check = same_alone(run, features.values, "alpha158")
    if qlib is None:
        print("Qlib is skipped: give an interpreter that has pyqlib as --qlib PYTHON")
    else:
        peer_line, theirs = apart(run.host, qlib, "qlib")
        values = run.panel.device.to_host(features.values)
        check += f"; {same_as_qlib(run.host, values, features.names, theirs, peer_line['names'])}"
        more = {"peer": peer_line["library"], "equal": True, "peer_seconds": peer_line["seconds"]}
    del features
    seconds, times = run.timed(ours=ours)
    if more:
        more["ratio"] = more["peer_seconds"] / seconds["ours"]
    yield describe(run, "Alpha158", check, seconds["ours"], [ours().values], 20, **more, times=times)


def same_as_qlib(panel: Panel, values: np.ndarray, ours: Sequence[str], theirs: np.ndarray, names: list[str]) -> str:
    """Check columns against Qlib's, from the bars on where our windows are full: Qlib's begin with what there is."""
    bar = np.arange(panel.n_rows) - panel.offsets[:-1][panel.symbol_of_row]
    worst = 0.0
    for k, name in enumerate(names):
        warm = bar >= warm_up_of(name)
        our, their = (x[warm].astype(np.float64) for x in (values[:, ours.index(name)], theirs[:, k]))
        # A correlation near 0 is mostly what is left of Qlib's running sums: its error is that of a value of 0.1.
        floor = 0.1 if name.startswith(("CORR", "CORD")) else 1e-3 * np.nanstd(their)
        error = np.abs(our - their) / np.maximum(np.abs(their), floor)
        if (np.isnan(our) != np.isnan(their)).any() or (error > QLIB_TOLERANCE).any():
            raise SystemExit(f"{name}: Qlib has other values")
        worst = max(worst, float(np.nanmax(error)))
    return f"{len(names)} columns of Qlib, largest relative error {worst:.0e}"


def apart(panel: Panel, python: str, peer: str) -> tuple[dict, np.ndarray]:
    """The last line and the values of tests/support/foreign_peers.py, run with another interpreter on our bars."""
    import pyarrow.parquet

    with tempfile.TemporaryDirectory() as folder:
        bars, values = f"{folder}/bars.parquet", f"{folder}/values.npy"
        table = panel.to_arrow()
        plain = table.set_column(0, "symbol", table["symbol"].cast("string")).drop_columns(["sector"])
        pyarrow.parquet.write_table(plain, bars)
        script = runs.ROOT / "tests" / "support" / "foreign_peers.py"
        # Nothing of ours is to be found there.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [python, "-W", "ignore", str(script), peer, bars, values]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
        if done.returncode:
            raise SystemExit(f"{peer} failed: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1]), np.load(values)


if __name__ == "__main__":
    sys.exit(main())
