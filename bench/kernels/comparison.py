"""Labels and features against other libraries: `python -m bench.kernels.comparison [--data FILE --sector-map
FILE] [--out FILE]`.

Every comparison first checks that both sides say the same, then times them in this process, in turn; reported are
medians, and the share of the measured rate of copying memory. A peer whose definition is another is marked `equal:
false` with the reason. One that is not installed is skipped with a word:

    pip install -e ".[cpu,test,bench]"      pandas, polars, TA-Lib, polars-talib, ml4t-engineer, vectorbt, matplotlib
    --qlib PYTHON                           an interpreter with pyqlib==0.9.7: bench/kernels/qlib_alpha158.py runs there
    --mlfinpy PYTHON                        an interpreter with mlfinpy==0.1.2: bench/kernels/mlfinpy_labels.py
    runs there

    --ladder                                simulated panels of 10 thousand to 10 million rows (or --rows 10000,...)
    --cold                                  time to the first result in fresh processes
    --device cuda                           ours on the GPU, transfers in and out apart; peers stay on the host

The last lines are JSON, one for each comparison; --out adds them to a file, from which bench/pictures.py draws.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.kernels import feature_peers, label_peers
from bench.kernels.cold_start import cold
from bench.kernels.label_peers import FIELDS, HORIZONS, THRESHOLDS, Peer, SkippedError
from bench.kernels.talib_columns import ARRAYS, OUR_COLUMNS, our_columns
from bench.timing import alternate, cores, memory_copy
from gpupipe.data import load, simulate
from gpupipe.data.panel import Panel
from gpupipe.features.matrix import Features, compute_features, feature_names, warm_up_of
from gpupipe.runtime.device import pick
from gpupipe.targets.triple_barrier import barrier_classes, tp_dd_labels

ROOT = pathlib.Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "support" / "alpha158_reference.npz"
LADDER, LADDER_BARS = (10_000, 100_000, 1_000_000, 10_000_000), 1000
HORIZON_CURVE = (1, 2, 5, 10, 20, 50, 100, 250)
TOLERANCE = 1e-4  # relative, of float32 columns; the tests hold TA-Lib's to 5e-7
QLIB_TOLERANCE = 1e-3  # Qlib's running sums in float32 wander: on 505 stocks by 5e-4, its correlations by 5e-5


class Run(NamedTuple):
    """What the comparisons of one panel share; `panel` is `host` on the device."""

    host: Panel
    panel: Panel
    times: int
    limit_s: float
    copy_rate: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo")
    parser.add_argument("--sector-map")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a comparison may go on repeating")
    parser.add_argument("--ladder", action="store_true")
    parser.add_argument("--rows", help="sizes of the ladder, as 10000,100000")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--qlib", metavar="PYTHON")
    parser.add_argument("--mlfinpy", metavar="PYTHON")
    parser.add_argument("--out", help="a file that the JSON lines are added to")
    chosen = parser.parse_args()
    device = pick(chosen.device)
    copy_rate = memory_copy(device)
    print(f"{device.name}: memory copy {copy_rate / 1e9:.1f} GB/s, read and written")
    machine = {
        "device": device.name, "cores": cores(), "machine": platform.machine(), "python": platform.python_version(),
        "memory_copy_gb_per_s": round(copy_rate / 1e9, 1),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }  # fmt: skip
    lines = []
    for data, made in _lines(chosen, device, copy_rate):
        line = {"benchmark": "kernels", **made, "data": data, **machine}
        words = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in made.items())
        print(", ".join(words), flush=True)
        lines.append(json.dumps(line))
        if chosen.out:
            with open(chosen.out, "a") as file:
                file.write(lines[-1] + "\n")
    print(*lines, sep="\n")
    return 0


def _lines(chosen: argparse.Namespace, device: Any, copy_rate: float) -> Iterator[tuple[str, dict]]:
    """(name of the data, line) of all that was asked for."""
    if chosen.cold:
        yield from (("simulated", line) for line in cold(chosen.device))
    if chosen.ladder or chosen.rows:
        for n_rows in map(int, chosen.rows.split(",")) if chosen.rows else LADDER:
            host = simulate(max(n_rows // LADDER_BARS, 1), min(n_rows, LADDER_BARS))
            run = Run(host, host.to(device), chosen.times, chosen.limit, copy_rate)
            for made in (
                classes(run, label_peers.FASTEST), everything(run), shared(run, feature_peers.IN_TALIB),
                whole_set(run, "default"),
            ):  # fmt: skip
                yield from (("simulated", line) for line in made)
    if chosen.cold or chosen.ladder or chosen.rows:
        return
    host, _ = load(chosen.data, chosen.sector_map, "all", "cpu")
    run = Run(host, host.to(device), chosen.times, chosen.limit, copy_rate)
    name = pathlib.Path(chosen.data).name
    for made in (
        classes(run, label_peers.CLASSES_ELSEWHERE), everything(run), by_horizon(run), first_touch(run, chosen.mlfinpy),
        shared(run, feature_peers.COLUMNS_ELSEWHERE), shared(run, feature_peers.IN_TALIB, there=True),
        whole_set(run, "default"), alpha158(run, chosen.qlib),
    ):  # fmt: skip
        yield from ((name, line) for line in made)


def describe(run: Run, what: str, check: str, seconds: float, made: Sequence[Any], read: int, **more: Any) -> dict:
    """One line. made: the arrays that were computed; read: bytes of a row that have to be read for them."""
    device = run.panel.device
    n_values, n_bytes = sum(x.size for x in made), sum(x.nbytes for x in made) + read * run.host.n_rows
    line = {
        "what": what, **more, "seconds": seconds, "rows_per_s": run.host.n_rows / seconds,
        "values_per_s": n_values / seconds, "gb_per_s": n_bytes / seconds / 1e9,
        "share_of_memory_copy": round(n_bytes / seconds / run.copy_rate, 3),
    }  # fmt: skip
    if device.kind == "cuda":
        sides = {"in": lambda: run.host.to(device), "out": lambda: [device.to_host(x) for x in made]}
        for side in sides.values():
            side()
        transfers, _ = alternate(min(run.times, 5), run.limit_s, device, sides)
        line |= {f"transfer_{name}_seconds": value for name, value in transfers.items()}
    return line | {"check": check, "rows": run.host.n_rows, "symbols": run.host.n_symbols}


def against(
    run: Run, what: str, ours: Callable[[], Any], arrays: Callable[[Any], Sequence[Any]], read: int, peer: Peer,
    agrees: Callable[[Any], str],
) -> dict:  # fmt: skip
    """The line of one peer, after its check. agrees: says what was compared in what `peer.matrix` gives, or exits."""
    made = arrays(ours())
    check = agrees(peer.matrix(peer.run()))
    seconds, times = alternate(run.times, run.limit_s, run.panel.device, {"ours": ours, "peer": peer.run})
    return describe(
        run, what, check, seconds["ours"], made, read, peer=peer.name, equal=True, peer_seconds=seconds["peer"],
        ratio=seconds["peer"] / seconds["ours"], times=times,
    )  # fmt: skip


def classes(run: Run, peers: Iterable[Callable[[Panel], Peer]]) -> Iterator[dict]:
    """Six labels, y alone."""
    ours = partial(barrier_classes, run.panel, HORIZONS, THRESHOLDS)
    y = run.panel.device.to_host(ours())
    for make in peers:
        with skipping():
            peer = make(run.host)
            agrees = same_labels(peer.name, y)
            yield against(run, "six labels, y alone", ours, lambda made: [made], 12, peer, agrees)


def everything(run: Run) -> Iterator[dict]:
    """Labels with all that goes with them."""
    ours = partial(tp_dd_labels, run.panel, HORIZONS, THRESHOLDS)
    name = f"numpy {np.__version__} in blocks on {cores()} threads"
    peer = Peer(name, partial(label_peers.numpy_label_cube, run.host, FIELDS), lambda cube: cube)

    def agrees(theirs: dict[str, np.ndarray]) -> str:
        made = ours()
        for field in FIELDS:
            one = run.panel.device.to_host(getattr(made, field))
            if not np.array_equal(one, theirs[field], equal_nan=one.dtype.kind == "f"):
                raise SystemExit(f"{field}: {peer.name} says otherwise")
        return f"{', '.join(FIELDS)} are the same"

    yield against(run, "six labels with all that goes with them", ours, _fields, 12, peer, agrees)


def by_horizon(run: Run) -> Iterator[dict]:
    """Two labels of one horizon, for horizons far beyond those that are used: what does a bar more cost?"""
    for h in HORIZON_CURVE:
        alone = partial(barrier_classes, run.panel, (h,), THRESHOLDS)
        cube = partial(tp_dd_labels, run.panel, (h,), THRESHOLDS)
        made = cube()
        if not bool((made.y == alone()).all()):
            raise SystemExit(f"labels of horizon {h}: the two kernels do not say the same")
        seconds, times = alternate(run.times, run.limit_s, run.panel.device, {"alone": alone, "cube": cube})
        for side, what, arrays in (
            ("alone", "y alone", [made.y]), ("cube", "with all that goes with them", _fields(made)),
        ):  # fmt: skip
            yield describe(
                run, f"two labels of one horizon, {what}", "the two kernels say the same", seconds[side], arrays, 12,
                horizon=h, times=times,
            )  # fmt: skip


def _fields(made: Any) -> list[Any]:
    return [getattr(made, name) for name in FIELDS]


def first_touch(run: Run, mlfinpy: str | None) -> Iterator[dict]:
    """Labels of the first barrier touched, with all that goes with them."""
    what = "six labels of the first touch"
    ours = partial(tp_dd_labels, run.panel, HORIZONS, THRESHOLDS, rule="first_touch")
    y = run.panel.device.to_host(ours().y)
    with skipping():
        peer = label_peers.in_ml4t(run.host)
        yield against(run, what, ours, _fields, 12, peer, same_labels(peer.name, y))
    if mlfinpy is None:
        print("mlfinpy is skipped: it wants numpy 1; give an interpreter that has it as --mlfinpy PYTHON")
        return
    said, theirs = apart(run.host, mlfinpy, "mlfinpy_labels.py")
    # Our labels of the same rows from closes alone, which is all that it looks at.
    closes = dataclasses.replace(run.host, high=run.host.close, low=run.host.close)
    near = tp_dd_labels(closes, HORIZONS, THRESHOLDS, rule="first_touch").y[: said["rows"]]
    known = (near >= 0) & (theirs >= 0)
    reason = (
        "closes alone, a barrier must be passed and not only reached, and an end beyond ln(1 + t) counts as touched: "
        f"{(near == theirs)[known].mean():.4f} of its labels are ours of closes, "
        f"{(y[: said['rows']] == theirs)[known].mean():.4f} ours of highs and lows"
    )
    seconds, times = alternate(run.times, run.limit_s, run.panel.device, {"ours": ours})
    yield describe(
        run, what, reason, seconds["ours"], _fields(ours()), 12, peer=said["library"], equal=False,
        peer_seconds=said["seconds"], peer_rows=said["rows"], times=times,
        ratio=said["seconds"] / said["rows"] / (seconds["ours"] / run.host.n_rows),
    )  # fmt: skip


def same_labels(name: str, y: np.ndarray) -> Callable[[np.ndarray], str]:
    """A check that a matrix of labels is `y`."""

    def agrees(theirs: np.ndarray) -> str:
        if theirs.shape != y.shape or not np.array_equal(theirs, y):
            raise SystemExit(f"labels: {name} says otherwise")
        return "all labels are the same"

    return agrees


def shared(run: Run, peers: Iterable[Callable], there: bool = False) -> Iterator[dict]:
    """The columns that TA-Lib computes too, into a new matrix, or into one that is there already.

    Peers drop what they have computed, and the memory of it serves them again.
    """
    out = run.panel.device.xp.empty((run.host.n_rows, len(OUR_COLUMNS)), np.float32) if there else None
    ours = partial(compute_features, run.panel, OUR_COLUMNS, out)
    values = run.panel.device.to_host(ours().values)
    deviations = np.nanstd(values[:: 1 + len(values) // 1_000_000], axis=0, dtype=np.float64)
    what = f"{len(OUR_COLUMNS)} columns that hold TA-Lib's {len(ARRAYS)}{', matrix given' if there else ''}"
    for make in peers:
        with skipping(), make(run.host) as peer:
            agrees = same_columns(peer.name, run.host, values, deviations)
            yield against(run, what, ours, lambda made: [made.values], 16, peer, agrees)


def same_columns(
    peer: str, panel: Panel, values: np.ndarray, deviations: np.ndarray
) -> Callable[[Iterable[tuple[int, int, list[np.ndarray]]]], str]:
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
                raise SystemExit(f"{name} of {panel.symbols[k]}: {peer} says otherwise")
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


def whole_set(run: Run, names: str) -> Iterator[dict]:
    """A set of columns that no library has, against itself: the smallest sector alone, on the host."""
    ours = partial(compute_features, run.panel, names)
    check = same_alone(run, ours(), names)
    seconds, times = alternate(run.times, run.limit_s, run.panel.device, {"ours": ours})
    what = f"default set, {len(feature_names(names))} columns"
    yield describe(run, what, check, seconds["ours"], [ours().values], 28, times=times)


def same_alone(run: Run, made: Features, names: str) -> str:
    """Check that a sector's values do not depend on the rest of the panel: bit for bit on a CPU."""
    host = run.host
    sector = min(host.sectors, key=host.sector.count)
    alone = compute_features(host.of_sector(sector), names).values
    mine = np.array([name == sector for name in host.sector])[host.symbol_of_row]
    ours = run.panel.device.to_host(made.values[run.panel.device.asarray(mine)])
    if run.panel.device.kind == "cpu":
        if not np.array_equal(ours, alone, equal_nan=True):
            raise SystemExit(f"{names}: {sector} alone has other values")
        return f"no peer; the {len(alone)} rows of {sector} computed alone have the same bits"
    error = np.abs(ours - alone) / np.maximum(np.abs(alone), 1e-3 * np.nanstd(alone, axis=0, dtype=np.float64))
    if (np.isnan(ours) != np.isnan(alone)).any() or (error > TOLERANCE).any():
        raise SystemExit(f"{names}: {sector} on the host has other values")
    worst = float(np.nanmax(error, initial=0.0))
    return f"no peer; the {len(alone)} rows of {sector} on the host, largest relative error {worst:.0e}"


def alpha158(run: Run, qlib: str | None) -> Iterator[dict]:
    """Qlib's Alpha158."""
    ours = partial(compute_features, run.panel, "alpha158")
    made, more = ours(), {}
    check = f"{same_alone(run, made, 'alpha158')}; {same_as_stored()}"
    if qlib is None:
        print("Qlib is skipped: give an interpreter that has pyqlib as --qlib PYTHON")
    else:
        said, theirs = apart(run.host, qlib, "qlib_alpha158.py", "--processes", str(cores()))
        check = same_as_qlib(run.host, run.panel.device.to_host(made.values), made.names, theirs, said["names"])
        more = {"peer": said["library"], "equal": True, "peer_seconds": said["seconds"]}
    del made
    seconds, times = alternate(run.times, run.limit_s, run.panel.device, {"ours": ours})
    if more:
        more["ratio"] = more["peer_seconds"] / seconds["ours"]
    yield describe(run, "Alpha158", check, seconds["ours"], [ours().values], 20, **more, times=times)


def same_as_stored() -> str:
    """Check Alpha158 of some stocks of the demo against what Qlib computed of them once."""
    with np.load(REFERENCE) as stored:
        names, symbols, theirs = stored["names"].tolist(), stored["symbols"].tolist(), stored["values"]
    try:
        demo, _ = load("demo", device="cpu")
    except ValueError as error:
        return f"the stored values of Qlib were not compared: {error}"
    panel = demo.where([name in symbols for name in demo.symbols])
    # Qlib was given volumes in hundreds, as the demo's file has them; its correlations are with ln(volume + 1).
    panel = dataclasses.replace(panel, volume=np.rint(panel.volume / 100))
    ours = compute_features(panel, "alpha158")
    return f"{', '.join(symbols)} of the demo: {same_as_qlib(panel, ours.values, ours.names, theirs, names)}"


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
            raise SystemExit(f"{name}: Qlib says otherwise")
        worst = max(worst, float(np.nanmax(error)))
    return f"{len(names)} columns of Qlib, largest relative error {worst:.0e}"


def apart(panel: Panel, python: str, script: str, *options: str) -> tuple[dict, np.ndarray]:
    """Run a script of this folder with another interpreter on the panel's bars: what it says, and its values."""
    import pyarrow.parquet

    with tempfile.TemporaryDirectory() as place:
        bars, values = pathlib.Path(place, "bars.parquet"), pathlib.Path(place, "values.npy")
        table = panel.to_arrow()
        plain = table.set_column(0, "symbol", table["symbol"].cast("string")).drop_columns(["sector"])
        pyarrow.parquet.write_table(plain, bars)
        command = [
            python,
            "-W",
            "ignore",
            str(ROOT / "bench/kernels" / script),
            str(bars),
            "--values",
            str(values),
            *options,
        ]
        # Nothing of ours is to be found there.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place)
        if done.returncode:
            raise SystemExit(f"{script} failed: {done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1]), np.load(values)


@contextlib.contextmanager
def skipping() -> Iterator[None]:
    """Say why a peer is skipped, and go on."""
    try:
        yield
    except SkippedError as error:
        print(f"skipped: {error}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
