"""Whole jobs on a GPU against the CPU beside it: the GPU tests, the equity job, the agent's market, bonds, cuML."""

from __future__ import annotations

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench import runs
from bench.gpu.kernels import milliseconds
from bench.runs import Line
from bench.timing import alternate
from gpupipe.runtime.device import pick

N_BONDS, N_ENVIRONMENTS, STEPS = 1_000_000, 4096, 256
TREES, ROWS, COLUMNS = 100, 400_000, 89
FAMILY = {"forest": "random_forest", "linear": "linear"}


def tests(chosen: argparse.Namespace) -> Iterator[Line]:
    """`pytest -m gpu`: how many passed, and the names of those that failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-rfE", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=runs.ROOT)
    lines = done.stdout.splitlines()
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error|errors|skipped)", lines[-1])}
    failed = [line.split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    yield {"exit_code": done.returncode, **counts, "failures": failed[:40]}


def job(chosen: argparse.Namespace) -> Iterator[Line]:
    """The fast job on the GPU (once to warm up, then again) and on the CPU: seconds, bytes over the bus, gains."""
    options = ["--data", str(chosen.data), "--sectors", "all", "--preset", "fast"]
    options += ["--sector-map", str(chosen.sector_map)] if chosen.sector_map else []
    with tempfile.TemporaryDirectory() as folder:
        done = {}
        for name, device in (("first", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")):
            run = runs.run_job([*options, "--device", device], pathlib.Path(folder, name))
            done[name] = run
            yield {"run": name, "device": device, "seconds": run.wall_s, "bus_bytes": run.summary.get("bus_bytes")}
        gains = {name: gains_of(run.out) for name, run in done.items()}
    apart = np.abs(gains["cuda"] - gains["cpu"])
    again = np.abs(gains["cuda"] - gains["first"])
    yield {
        "run": "compared", "ratio": done["cpu"].wall_s / done["cuda"].wall_s, "models": len(apart),
        "gain_apart_median": float(np.median(apart)), "gain_apart_largest": float(apart.max()),
        "gain_apart_of_two_gpu_runs": float(again.max()),
    }  # fmt: skip


def gains_of(out: pathlib.Path) -> np.ndarray:
    """The gain of every model over the prior on the sealed test, in the order of the models."""
    import pyarrow.parquet as pq

    table = pq.read_table(out / "summary.parquet")
    order = [(name, "ascending") for name in ("sector", "label", "model")]
    return table.sort_by(order)["test_gain_over_prior"].to_numpy()


def agent(chosen: argparse.Namespace) -> Iterator[Line]:
    """Steps a second of many environments in one market, on the GPU and on the CPU, after equal rewards."""
    from gpupipe.data import simulate
    from gpupipe.workloads.agent.market import Environments, Market

    panel = simulate(n_symbols=1, n_bars=50_000)
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 3, (STEPS, N_ENVIRONMENTS))
    rewards, seconds = {}, {}
    for kind in ("cpu", "cuda"):
        device = pick(kind)
        market = Market.of(panel.to(device), "core", spread="2 bps")
        environments = Environments(market, N_ENVIRONMENTS, length=1_000)
        environments.reset()
        here = [device.asarray(row) for row in actions]
        rewards[kind] = np.stack([np.array(device.to_host(environments.step(row).reward)) for row in here])

        def step_all(environments: Any = environments, here: Sequence[Any] = here) -> None:
            for row in here:
                environments.step(row)

        seconds[kind], _ = alternate(3, {kind: step_all}, device)
    paces = {f"{kind}_steps_s": STEPS * N_ENVIRONMENTS / seconds[kind][kind] for kind in seconds}
    equal = bool((rewards["cpu"].view(np.int32) == rewards["cuda"].view(np.int32)).all())
    yield {"environments": N_ENVIRONMENTS, "equal": equal, **paces}


def bond_values(chosen: argparse.Namespace) -> Iterator[Line]:
    """A million bonds priced and their yields found, on the GPU and on the CPU, after equal bits."""
    from gpupipe import bonds
    from tests.support.made_bonds import made_table

    made = made_table(N_BONDS, seed=1)
    numbers = {name: np.asarray(made[name]) for name in ("coupon", "frequency", "issue", "maturity", "settlement")}
    # Dates as int64 days: a GPU has no type of its own for them.
    numbers = {name: column.view(np.int64) if column.dtype.kind == "M" else column for name, column in numbers.items()}
    values: dict[str, list[np.ndarray]] = {}
    line: Line = {"bonds": N_BONDS}
    for kind in ("cpu", "cuda"):
        device = pick(kind)
        columns = {name: device.asarray(column) for name, column in numbers.items()}
        terms = bonds.prepare({**columns, "day_count": made["day_count"]})
        rates = device.asarray(np.asarray(made["yield"], np.float64))
        clean, _ = terms.price(rates)
        values[kind] = [device.to_host(clean), device.to_host(terms.yields(clean))]
        sides = {"price": lambda t=terms, r=rates: t.price(r), "yield": lambda t=terms, c=clean: t.yields(c)}
        seconds, _ = alternate(5, sides, device)
        line |= {f"{kind}_{name}_bonds_s": N_BONDS / spent for name, spent in seconds.items()}
    same = [np.array_equal(a, b, equal_nan=True) for a, b in zip(values["cpu"], values["cuda"], strict=True)]
    yield {**line, "equal": all(same)}


def cuml(chosen: argparse.Namespace) -> Iterator[Line]:
    """cuML's forest and logistic regression against ours on the same rows: milliseconds, log-loss on other rows.

    Rows are made: a class depends on three of 89 columns. Ours are fitted as the job does, one label at a time.
    """
    from cuml.ensemble import RandomForestClassifier
    from cuml.linear_model import LogisticRegression

    from bench.gpu.one_label import fitted

    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, COLUMNS), np.float32)
    score = X[:, 0] + 0.5 * X[:, 1] * X[:, 2] + rng.standard_normal(ROWS)
    y = np.digitize(score, (-1.2, 1.2)).astype(np.int32)
    half = ROWS // 2
    device = pick("cuda")
    train, test = (device.asarray(X[:half]), device.asarray(y[:half])), (device.asarray(X[half:]), y[half:])
    makers = {
        "forest": lambda: RandomForestClassifier(n_estimators=TREES, max_depth=7, n_bins=64, random_state=1),
        "linear": lambda: LogisticRegression(),
    }
    for name, make in makers.items():
        theirs = make()
        spent = milliseconds(lambda theirs=theirs: theirs.fit(*train), times=1)
        probability = device.to_host(device.asarray(theirs.predict_proba(test[0])))
        line = {"family": name, "cuml_ms": spent, "cuml_loss": log_loss(probability, test[1])}
        seconds, probability = fitted(FAMILY[name], X, y, half, device)
        yield {**line, "ours_ms": 1000 * seconds, "ours_loss": log_loss(probability, test[1])}


def log_loss(probability: np.ndarray, y: np.ndarray) -> float:
    """Mean log-loss in nats."""
    return float(-np.log(np.maximum(probability[np.arange(len(y)), y], 1e-9)).mean())
