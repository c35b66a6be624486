"""XGBoost on a GPU: rounds on matrices in turn, threads, milliseconds a round, and ways to read margins.

    python -m bench.gpu.boosters CASE cuda|cpu SCALE ...     one case, a line of JSON; CuPy (or numpy) and xgboost alone

Each case is a process of its own, as a wrong one can abort it. `turns` asks what `Grower` of
gpupipe.estimators.boosting.tree_model rests on: XGBoost's CUDA updater looks at the first matrix alone
(src/tree/updater_gpu_hist.cu, GPUHistMaker::InitData) unless a parameter is set, so rounds on matrices in turn would be
fitted on the first. On the CPU every case is right, which tests hold.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Line = dict[str, Any]
N_COLUMNS = 89
GROWTH: dict[str, dict[str, Any]] = {
    "depth 3": {"grow_policy": "depthwise", "max_depth": 3},
    "depth 4": {"grow_policy": "depthwise", "max_depth": 4},
    "8 leaves": {"grow_policy": "lossguide", "max_depth": 0, "max_leaves": 8},
}
# Rows of two matrices, and the shares of unknown values in each.
PAIRS = [(15_000, 15_011, 0, 0), (15_011, 15_000, 0, 0), (15_000, 45_000, 0, 0), (45_000, 15_000, 0, 0),
         (15_000, 15_000, 0, 0.1), (15_000, 15_000, 0.1, 0)]  # fmt: skip


class Place:
    """Where arrays and boosters are."""

    def __init__(self, device: str) -> None:
        import xgboost

        self.device, self.xgboost, self.xp = device, xgboost, np
        if device == "cuda":
            import cupy

            self.xp = cupy

    def wait(self) -> None:
        """Until the device is idle."""
        if self.device == "cuda":
            self.xp.cuda.runtime.deviceSynchronize()  # XGBoost has streams of its own

    def rows(self, n: int, columns: int, seed: int, unknown: float = 0.0) -> Any:
        """float32 (n, columns), drawn on the host."""
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((n, columns), np.float32)
        if unknown:
            X[rng.random(X.shape) < unknown] = np.nan
        return self.xp.asarray(X)

    def host(self, array: Any) -> np.ndarray:
        """An array as numpy's."""
        return np.asarray(array if isinstance(array, np.ndarray) else self.xp.asnumpy(self.xp.asarray(array)))

    def derivatives(self, X: Any, n_outputs: int, seed: int) -> tuple[Any, Any]:
        """Gradient and Hessian that depend on columns and not on a margin: a tree then knows nothing of others."""
        rng = np.random.default_rng(seed)
        columns = np.nan_to_num(self.host(X))[:, :n_outputs]
        gradient = (np.sin(2 * columns) + rng.standard_normal(columns.shape)).astype(np.float32)
        return self.xp.asarray(gradient), self.xp.asarray(np.full_like(gradient, 0.25))

    def matrix(self, X: Any, ref: Any = None) -> Any:
        """Bins of X."""
        return self.xgboost.QuantileDMatrix(X, max_bin=64, ref=ref, nthread=2)

    def booster(self, growth: str, n_outputs: int, bins: Any, **more: Any) -> Any:
        """An empty booster with vector leaves, as gpupipe makes it."""
        parameters = {
            "tree_method": "hist", "device": self.device, **GROWTH[growth], "eta": 0.1, "min_child_weight": 1.0,
            "lambda": 1.0, "max_bin": 64, "nthread": 2, "seed": 1, "base_score": 0.0,
            "multi_strategy": "multi_output_tree", "num_target": n_outputs, **more,
        }  # fmt: skip
        return self.xgboost.Booster(parameters, [bins])


def trees(booster: Any) -> list[Line]:
    """The trees of a booster."""
    return json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]["model"]["trees"]


def alike(tree: Line, other: Line) -> bool:
    """Whether two trees are the same, up to the order in which a GPU adds."""
    if tree["split_indices"] != other["split_indices"] or tree["left_children"] != other["left_children"]:
        return False
    return np.allclose(tree["leaf_weights"], other["leaf_weights"], rtol=1e-4, atol=1e-5)


def turns(
    place: Place, scale: float, first: str, second: str, unknown: str, growth: str, outputs: str, way: str
) -> Line:
    """Six rounds on two matrices in turn against boosters of one round each.

    way: "plain"; "set" sets a parameter before each round; "predict" predicts after each, which reads what the updater
    keeps of the rows; "zeros" takes one matrix, with derivatives of 0 outside of the round's rows, as gpupipe does.
    """
    shares = [float(share) for share in unknown.split("/")]
    sizes = [int(int(n) * scale) for n in (first, second)]
    parts = [place.rows(n, 40, k, share) for k, (n, share) in enumerate(zip(sizes, shares, strict=True))]
    whole = place.matrix(place.xp.concatenate(parts))
    matrices = [place.matrix(X, whole) for X in parts]
    given = [place.derivatives(X, int(outputs), k) for k, X in enumerate(parts)]
    begin = (0, sizes[0])
    booster = place.booster(growth, int(outputs), whole)
    for k in range(6):
        gradient, hessian = given[k % 2]
        if way == "set":
            booster.set_param({"nthread": 2})
        if way == "zeros":
            spread = [place.xp.zeros((sum(sizes), int(outputs)), np.float32) for _ in range(2)]
            rows = slice(begin[k % 2], begin[k % 2] + sizes[k % 2])
            spread[0][rows], spread[1][rows] = gradient, hessian
            booster.boost(whole, k, grad=spread[0], hess=spread[1])
        else:
            booster.boost(matrices[k % 2], k, grad=gradient, hess=hessian)
        if way == "predict":
            booster.predict(matrices[k % 2], output_margin=True)
    grown, wrong = trees(booster), []
    for k in range(6):
        fresh = place.booster(growth, int(outputs), whole)
        fresh.boost(matrices[k % 2], 0, grad=given[k % 2][0], hess=given[k % 2][1])
        if not alike(grown[k], trees(fresh)[0]):
            wrong.append(k)
    return {"rounds_unlike_a_fresh_booster": wrong}


def threads(place: Place, scale: float) -> Line:
    """11 boosters of one label, one after another and in 8 threads: equal trees, and milliseconds a round."""
    n = int(15_000 * scale)
    parts = [place.rows(n, N_COLUMNS, k) for k in range(11)]
    whole = place.matrix(place.xp.concatenate(parts))
    matrices = [place.matrix(X, whole) for X in parts]
    given = [place.derivatives(X, 2, k) for k, X in enumerate(parts)]

    def fit(k: int) -> list[Line]:
        booster = place.booster("depth 3", 2, whole)
        for round_ in range(20):
            booster.boost(matrices[k], round_, grad=given[k][0], hess=given[k][1])
        return trees(booster)

    fit(0)
    began = time.perf_counter()
    alone = [fit(k) for k in range(11)]
    middle = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        beside = list(pool.map(fit, range(11)))
    ended = time.perf_counter()
    same = sum(all(map(alike, a, b)) for a, b in zip(alone, beside, strict=True))
    return {
        "alike": same, "of": 11, "equal": same == 11, "ms_alone": 1000 * (middle - began) / 220,
        "ms_in_threads": 1000 * (ended - middle) / 220,
    }  # fmt: skip


def speed(place: Place, scale: float, growth: str, rows: str, outputs: str) -> Line:
    """Milliseconds a round: plain, with a parameter set before each, and with CUDA's own pool; and of the bins."""
    X = place.rows(int(int(rows) * scale), N_COLUMNS, 0)
    place.matrix(X)  # loads the code
    place.wait()
    began = time.perf_counter()
    bins = place.matrix(X)
    place.wait()
    line: Line = {"bins_ms": 1000 * (time.perf_counter() - began)}
    gradient, hessian = place.derivatives(X, int(outputs), 0)
    ways = {"plain": (False, False), "set_param": (True, False)}
    if place.device == "cuda":
        ways["async_pool"] = (False, True)
    for name, (again, pool) in ways.items():
        options = {"use_cuda_async_pool": True} if pool else {}
        try:
            with place.xgboost.config_context(**options):
                booster = place.booster(growth, int(outputs), bins, colsample_bynode=0.3)
                line[f"{name}_ms"] = 1000 * statistics.median(_rounds(place, booster, bins, gradient, hessian, again))
        except (place.xgboost.core.XGBoostError, TypeError, ValueError) as error:
            line[f"{name}_error"] = str(error).splitlines()[0][:100]
    return line


def _rounds(place: Place, booster: Any, bins: Any, gradient: Any, hessian: Any, again: bool) -> list[float]:
    """Seconds of each of 20 rounds, after 5 that are not counted."""
    seconds = []
    for k in range(25):
        began = time.perf_counter()
        if again:
            booster.set_param({"nthread": 2})
        booster.boost(bins, k, grad=gradient, hess=hessian)
        place.wait()
        seconds.append(time.perf_counter() - began)
    return seconds[5:]


def reading(place: Place, scale: float) -> Line:
    """Milliseconds to read margins of two new rounds, and how far the margins are from those of the CPU."""
    X = place.rows(int(15_000 * scale), N_COLUMNS, 0)
    bins = place.matrix(X)
    gradient, hessian = place.derivatives(X, 2, 0)
    booster = place.booster("depth 4", 2, bins)
    for k in range(40):
        booster.boost(bins, k, grad=gradient, hess=hessian)

    def timed(call: Callable[[], Any]) -> float:
        for _ in range(3):
            call()
        place.wait()
        began = time.perf_counter()
        for _ in range(20):
            call()
        place.wait()
        return 1000 * (time.perf_counter() - began) / 20

    def predicted(first: int, last: int) -> Any:
        return booster.inplace_predict(X, iteration_range=(first, last), predict_type="margin")

    loaded = place.xgboost.Booster(model_file=bytearray(booster.save_raw("ubj")))
    expected = loaded.inplace_predict(place.host(X), predict_type="margin")
    margins = {"inplace": predicted(0, 40), "cached": booster.predict(bins, output_margin=True)}
    line: Line = {f"{name}_distance": float(abs(place.host(m) - expected).max()) for name, m in margins.items()}
    return line | {
        "slice_and_ubj_ms": timed(lambda: booster[38:40].save_raw("ubj")),
        "inplace_two_rounds_ms": timed(lambda: predicted(38, 40)), "inplace_all_ms": timed(lambda: predicted(0, 40)),
    }  # fmt: skip


def cuts(place: Place, scale: float) -> Line:
    """Cut points found on the host and handed to a matrix on the device by `ref`, as gpupipe does.

    differ: how many are others there, expected 0.  of_the_device: how many others its own sketch finds.
    """
    X = place.rows(int(100_000 * scale), 40, 0, 0.1)
    host = place.matrix(place.host(X))
    expected = host.get_quantile_cut()[1]
    handed, found = (place.matrix(X, ref).get_quantile_cut()[1] for ref in (host, None))
    numbers = {"differ": handed, "of_the_device": found}
    return {name: int((values != expected).sum()) if len(values) == len(expected) else -1
            for name, values in numbers.items()}  # fmt: skip


# Growth, rows and outputs whose rounds are timed.
SPEEDS = [
    ("depth 3", 15_000, 2), ("8 leaves", 15_000, 2), ("depth 4", 15_000, 12), ("depth 4", 150_000, 12),
    ("8 leaves", 150_000, 2), ("depth 4", 600_000, 12),
]  # fmt: skip
CASES: dict[str, Callable[..., Line]] = {
    "turns": turns, "cuts": cuts, "threads": threads, "speed": speed, "reading": reading,
}  # fmt: skip


def cases() -> list[list[str]]:
    """All cases, the most valuable first: gpupipe's own ways, times, then the ways that are known to be wrong."""
    return [
        *_turns("zeros", "set"), ["cuts"], ["reading"], ["threads"],
        *(["speed", growth, str(rows), str(outputs)] for growth, rows, outputs in SPEEDS),
        *_turns("plain", "predict"),
    ]  # fmt: skip


def _turns(*ways: str) -> Iterator[list[str]]:
    for way in ways:
        for first, second, *unknown in PAIRS:
            yield ["turns", str(first), str(second), "/".join(map(str, unknown)), "depth 4", "2", way]
        yield ["turns", "15000", "15011", "0/0", "8 leaves", "12", way]


def measured(
    device: str = "cuda", scale: float = 1.0, limit_s: float = 40, n_of_each: int | None = None
) -> Iterator[Line]:
    """Every case, a line each; neighbours of `turns` side by side, the others alone.

    limit_s: of a case.  n_of_each: so many of each name, for a trial: all side by side. None: all.
    """
    from bench.runs import MODULE

    def line_of(case: list[str]) -> Line:
        command = [*MODULE, "bench.gpu.boosters", case[0], device, str(scale), *case[1:]]
        line: Line = {"case": " ".join(case)}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return line | {"error": f"not done in {limit_s:.0f} s"}
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            said = " | ".join(done.stderr.strip().splitlines()[-2:])[:200]
            return line | {"error": f"ended by {done.returncode}: {said}"}
        return line | json.loads(done.stdout.splitlines()[-1])

    every = cases()
    if n_of_each is not None:
        every = [case for k, case in enumerate(every) if [one[0] for one in every[:k]].count(case[0]) < n_of_each]
    with concurrent.futures.ThreadPoolExecutor(6 if device == "cuda" else 2) as pool:
        for together, some in itertools.groupby(every, lambda case: case[0] == "turns" or n_of_each is not None):
            in_order = pool.map if together else map
            yield from in_order(line_of, some)


if __name__ == "__main__":
    name, where, size, *rest = sys.argv[1:]
    print(json.dumps(CASES[name](Place(where), float(size), *rest)))
