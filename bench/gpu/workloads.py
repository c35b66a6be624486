"""Whole jobs on a GPU against the CPU beside it: the GPU tests, the equity job, the agent's market, bonds, cuML."""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench import runs
from bench.gpu import caught
from bench.runs import Line
from bench.timing import alternate
from gpupipe.runtime.device import pick

MADE_BONDS = 20_000  # made one by one, which takes long; a larger table repeats them
FAMILY = {"forest": "random_forest", "linear": "linear"}


def job(chosen: argparse.Namespace) -> Iterator[Line]:
    """The fast job on the GPU, on the CPU, and on the GPU again: seconds, bytes over the bus, how far gains are apart.

    The first run warms up; the times that are compared are of the other two.
    """
    options = ["--data", str(chosen.data), "--sectors", "all", "--preset", "fast"]
    options += ["--sector-map", str(chosen.sector_map)] if chosen.sector_map else []
    options += [f"--set={setting}" for setting in chosen.sizes.job]
    done: dict[str, runs.Run] = {}
    gains: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, device in (("first", "cuda"), ("cpu", "cpu"), ("cuda", "cuda")):
            run = done[name] = run_job([*options, "--device", device], pathlib.Path(folder, name))
            gains[name] = gains_of(run.out)
            bus = {way: sum(stages.values()) for way, stages in run.summary["bus_bytes"].items()}
            apart = np.abs(gains[name] - gains["first"])
            yield {
                "run": name, "on": device, "seconds": run.wall_s, **bus, "models": len(apart),
                "gain_apart_median": float(np.median(apart)), "gain_apart_largest": float(apart.max()),
                "stages": run.summary["seconds"],
            }  # fmt: skip
    yield {"run": "compared", "ratio": done["cpu"].wall_s / done["cuda"].wall_s}


def run_job(options: Sequence[str], out: pathlib.Path) -> runs.Run:
    """Run a job in a process of its own; RuntimeError with the end of what it wrote where it fails."""
    with tempfile.TemporaryFile("w+") as text:
        try:
            return runs.run_job(options, out, stderr=text)
        except SystemExit as failed:
            text.seek(0)
            said = text.read().strip()
            print(said, file=sys.stderr)
            raise RuntimeError(f"{failed}: {' | '.join(said.splitlines()[-4:])}") from None


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

    sizes = chosen.sizes
    panel = simulate(n_symbols=1, n_bars=sizes.bars)
    actions = np.random.default_rng(0).integers(0, 3, (sizes.steps, sizes.environments))
    rewards, seconds = {}, {}
    for kind in ("cpu", "cuda"):
        device = pick(kind)
        market = Market.of(panel.to(device), "core", spread="2 bps")
        environments = Environments(market, sizes.environments, length=market.n_rows // 50 + 2)
        environments.reset()
        here = [device.asarray(row) for row in actions]
        # A step returns the same arrays again and again, which a host does not copy.
        rewards[kind] = np.stack([np.array(device.to_host(environments.step(row).reward)) for row in here])

        def step_all(environments: Any = environments, here: Sequence[Any] = here) -> None:
            for row in here:
                environments.step(row)

        seconds[kind] = alternate(3, {kind: step_all}, device)[0][kind]
    paces = {f"{kind}_steps_s": actions.size / spent for kind, spent in seconds.items()}
    yield {"environments": sizes.environments, **differing_values(rewards["cuda"], rewards["cpu"]), **paces}


def bond_values(chosen: argparse.Namespace) -> Iterator[Line]:
    """A million bonds priced and their yields found, on the GPU and on the CPU, after equal bits."""
    from gpupipe import bonds
    from tests.support.made_bonds import made_table

    n = chosen.sizes.bonds
    made = {name: np.resize(column, n) for name, column in made_table(min(n, MADE_BONDS), seed=1).items()}
    numbers = {name: made[name] for name in ("coupon", "frequency", "issue", "maturity", "settlement")}
    # Dates as int64 days: a GPU has no type of its own for them.
    numbers = {name: column.view(np.int64) if column.dtype.kind == "M" else column for name, column in numbers.items()}
    values: dict[str, list[np.ndarray]] = {}
    line: Line = {"bonds": n}
    for kind in ("cpu", "cuda"):
        device = pick(kind)
        columns = {name: device.asarray(column) for name, column in numbers.items()}
        terms = bonds.prepare({**columns, "day_count": made["day_count"]})
        rates = device.asarray(made["yield"])
        clean, _ = terms.price(rates)
        values[kind] = [device.to_host(clean), device.to_host(terms.yields(clean)[0])]
        sides = {"price": lambda t=terms, r=rates: t.price(r), "yield": lambda t=terms, c=clean: t.yields(c)}
        seconds, _ = alternate(5, sides, device)
        line |= {f"{kind}_{name}_bonds_s": n / spent for name, spent in seconds.items()}
    yield {**line, **differing_values(np.stack(values["cuda"]), np.stack(values["cpu"]))}


def differing_values(got: np.ndarray, expected: np.ndarray) -> Line:
    """How many values there are, how many differ in their bits, and how many are known: NaN is equal to NaN."""
    from tests.support.ptx.comparison import differing

    n_differ = int(differing(got, expected).sum())
    return {"values": got.size, "known": int((expected == expected).sum()), "differ": n_differ, "equal": n_differ == 0}


def cuml(chosen: argparse.Namespace) -> Iterator[Line]:
    """cuML's forest and logistic regression against ours on the same rows: milliseconds, log-loss on other rows.

    Rows are made: a class depends on three of the columns. Ours are fitted as the job does, one label at a time. Both
    are fitted twice, and the second fit is timed.
    """
    from cuml.ensemble import RandomForestClassifier
    from cuml.linear_model import LogisticRegression

    from bench.gpu.one_label import fitted

    sizes = chosen.sizes
    rng = np.random.default_rng(0)
    X = rng.standard_normal((sizes.rows, sizes.columns), np.float32)
    score = X[:, 0] + 0.5 * X[:, 1] * X[:, 2] + rng.standard_normal(sizes.rows)
    y = np.digitize(score, (-1.2, 1.2)).astype(np.int32)
    half = sizes.rows // 2
    device = pick("cuda")
    train, test = (device.asarray(X[:half]), device.asarray(y[:half])), (device.asarray(X[half:]), y[half:])
    makers = {
        "forest": lambda: RandomForestClassifier(n_estimators=sizes.trees, max_depth=7, n_bins=64, random_state=1),
        "linear": lambda: LogisticRegression(),
    }

    def measured(name: str) -> Line:
        make = makers[name]
        theirs = make().fit(*train)
        seconds, _ = alternate(1, {name: lambda: make().fit(*train)}, device)
        probability = device.to_host(device.asarray(theirs.predict_proba(test[0])))
        line = {"cuml_ms": 1000 * seconds[name], "cuml_loss": log_loss(probability, test[1])}
        spent, probability = fitted(FAMILY[name], X, y, half, device, [f"forest.trees={sizes.trees}"])
        return {**line, "ours_ms": 1000 * spent, "ours_loss": log_loss(probability, test[1])}

    for name in makers:
        yield caught.line_of({"family": name}, functools.partial(measured, name))


def log_loss(probability: np.ndarray, y: np.ndarray) -> float:
    """Mean log-loss in nats."""
    return float(-np.log(np.maximum(probability[np.arange(len(y)), y], 1e-9)).mean())
