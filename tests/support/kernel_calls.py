"""Calls of every kernel, as the library makes them on small panels that hold all kinds of bars, recorded.

`recorded_calls()` is what the kernels' tests run: plain bodies, CPU loops and PTX on the same arguments.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from gpupipe import begin_features, bonds
from gpupipe.backtest import OutOfSample, PositionPath, PositionRules, Rules, backtest, backtest_positions
from gpupipe.backtest.benchmarks import random_entries
from gpupipe.estimators.torch.policy_weights import PolicyWeights
from gpupipe.features import compute
from gpupipe.features.matrix import compute_bins, compute_features
from gpupipe.kernels import environment
from gpupipe.kernels.compile import Kernel
from gpupipe.kernels.digests import WORDS, digest_factors, row_digest
from gpupipe.kernels.elementary import log_growth, logarithms
from gpupipe.kernels.episodes import policy_episode
from gpupipe.kernels.linear import linear_margin, scaled_margin
from gpupipe.kernels.softmax import activity_gradient, softmax_gradient, softmax_log_loss, softmax_probability
from gpupipe.kernels.sums import ROWS_OF_BLOCK, column_sums, derivative_norm
from gpupipe.kernels.trees import add_leaf_activity, leaves_of_trees
from gpupipe.kernels.windows import column_moments, scaled_windows
from gpupipe.targets.barriers import barrier_prices
from gpupipe.targets.triple_barrier import barrier_classes, tp_dd_labels
from gpupipe.workloads.agent.episodes_played import STACKED
from tests.support.made_bonds import made_table, with_calls_and_rates
from tests.support.panels import random_panel
from tests.support.policies import arrays_of_policy

# Features that together use every operation; only a few of the volatility family.
EVERY_OPERATION = (
    "momentum", "range", "candle", "calendar", "cross_sectional", "sma_ratio_20", "ema_ratio_20", "adx_14",
    "aroon_up_25", "log_natr_14", "skewness_20", "autocorrelation_20", "obv_slope_20", "QTLU5", "RANK5",
    "session_vwap_ratio", "session_return",
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A call of a kernel for n items. before, after: copies of its arguments; scalars are as they came."""

    kernel: Kernel
    n: int
    before: tuple[Any, ...]
    after: tuple[Any, ...]


def copies(arguments: Sequence[Any], copy: Callable[[np.ndarray], np.ndarray] = np.array) -> list[Any]:
    """Arguments whose arrays are copied."""
    return [copy(a) if isinstance(a, np.ndarray) else a for a in arguments]


@contextlib.contextmanager
def each_call(use: Callable[[Call], None]) -> Iterator[None]:
    """Hand every call of a kernel on the CPU to `use`, once it is done."""
    launch = Kernel.__call__

    def record(kernel: Kernel, n: int, *arguments: Any) -> None:
        if kernel.cooperative:  # scratch memory is not compared, but must be defined
            arguments[0][...] = 0
        before = copies(arguments)
        launch(kernel, n, *arguments)
        use(Call(kernel, n, tuple(before), tuple(copies(arguments))))

    def one_by_one(kernel: Kernel, calls: Sequence[tuple[Any, ...]]) -> None:
        for n, *arguments in calls:
            kernel(n, *arguments)

    with mock.patch.object(Kernel, "__call__", record), mock.patch.object(Kernel, "together", one_by_one):
        yield


def run_backtests(panel):
    """Call every kernel of the backtest, with entries and exits of all kinds."""
    rng = np.random.default_rng(1)
    n_groups = len(panel.groups)
    unbounded = np.zeros(n_groups, np.int64), np.full(n_groups, 2**62, np.int64)
    values = rng.dirichlet((1, 2, 1), (panel.n_rows, 2)).astype(np.float32)
    source = OutOfSample(
        values,
        np.full((2, n_groups, 2), 0.4, np.float32),
        (2, 5),
        (0.02, 0.05),
        ("linear", "linear"),
        *unbounded,
        "",
        panel,
    )
    for options in ({}, {"entry": "close", "exit_on_opposite": True, "both_in_bar": "target"}, {"overlapping": True}):
        random_entries(backtest(source, Rules(side="both", **options)), seed=0, n_draws=2)
    paths = PositionPath(rng.integers(-1, 2, (2, panel.n_rows)).astype(np.int8), ("a", "b"), panel, 0, 2**62)
    for fill, size in (("open", 1.0), ("close", 30.0)):
        backtest_positions(paths, PositionRules(fill=fill, size=size))


def gather_windows(X, scale):
    """Windows of two matrices of ten rows, of all columns and of some, some of them before a symbol's first row."""
    rows, first, positions = np.array([9, 2, 5]), np.array([4, 0, 4]), np.array([3, 0, 2, 5])
    windows = np.zeros((len(positions), 3, X.shape[1]), np.float32)
    low, high = np.float32([[-0.5], [1]]) + np.zeros_like(scale)
    for k, columns in enumerate((np.empty(0, np.int64), np.array([6, 0]))):
        n_columns = len(columns) or X.shape[1]
        scaled_windows(
            3 * len(positions), X[10 * k : 10 * k + 10].copy(), rows, first, np.int64(3 * k), positions, columns,
            *(column[:n_columns].copy() for column in (X[0], scale, low, high)), windows[:, :, :n_columns].copy(),
        )  # fmt: skip


def sums_and_logarithms(X, margin):
    """Sums of columns with unknown values in two blocks, norms of rows, and logarithms of all kinds of numbers."""
    values = np.resize(X, (ROWS_OF_BLOCK + 40, 3)).copy()
    column_sums(6, values, np.empty((2, 2, 3)))
    derivative_norm(len(margin), margin, margin[::-1].copy(), np.empty(len(margin), np.float32))
    numbers = np.concatenate([[0, -0.0, 1e-45, 1e-39, np.inf, np.nan, -1, 1e38], X.ravel()]).astype(np.float32)
    logarithms(-(-len(numbers) // 16), np.int64(16), numbers, np.empty_like(numbers))
    log_growth(len(numbers), numbers, np.empty_like(numbers))


def step_policy(rng):
    """Two rows of a policy with two layers, whose states are not zero."""
    weights = PolicyWeights.of(arrays_of_policy(2, 6, (5, 3)))
    observations, states = rng.normal(size=(2, 5)), rng.uniform(-0.8, 0.8, (2, 2, 12))
    weights.step(observations.astype(np.float32), *states.astype(np.float32))


def moments_of_columns(X):
    """Moments of some rows and columns in blocks, the last of which is shorter, and one column is all NaN."""
    X = X.copy()
    X[:, 3], X[4, 0] = np.nan, np.inf
    n_blocks, columns = 3, np.array([5, 3, 0])
    shape = (n_blocks, len(columns))
    outputs = [np.empty(shape, kind) for kind in ("f4", "f4", "i8", "f8", "f8")]
    rows = np.array([19, 0, 4, 7, 8, 2, 11])
    column_moments(n_blocks * len(columns), X, rows, columns, np.array([0.5, 0, -1]), *outputs)


def step_environments(X, scale):
    """Environments whose episodes end in all ways, with both rewards and fills, of all columns and of some."""
    rng, n = np.random.default_rng(2), 7
    close = (100 * np.exp(np.cumsum(rng.normal(0, 0.05, len(X))))).astype(np.float32)
    open_, slip = np.roll(close, 1), rng.uniform(0, 1e-3, len(X))
    starts = rng.integers(0, 12, (n, 2))
    stops = starts + rng.integers(1, 8, (n, 2))
    low, high = np.float32([[-0.5], [1]]) + np.zeros_like(scale)
    for k, columns in enumerate((np.empty(0, np.int64), np.array([6, 0]))):
        n_columns = len(columns) or X.shape[1]
        rules = np.array([k, 1e-3, 2.0, 1000.0, 0.9, 300.0, 4.0, k, 100.0, 1.0])
        seen = [X, columns, np.stack([X[0], scale, low, high])[:, :n_columns].copy(), rules]
        integers, money = [column.copy() for column in (starts[:, 0], stops[:, 0], starts[:, 0])], np.full(n, 1000.0)
        state = [*integers, np.zeros(n, np.int64), np.zeros(n, np.int8), money, np.zeros(n), np.ones(n), money.copy(),
                 money.copy(), np.zeros(n, np.int64)]  # fmt: skip
        shape = (n, n_columns + 3)
        outputs = [np.zeros(shape, np.float32), np.zeros(n, np.float32), np.zeros(n, bool), np.zeros(n, bool),
                   np.zeros(shape, np.float32), np.zeros(n), np.zeros(n, np.int8)]  # fmt: skip
        row, position, paid, bars_held = (state[at] for at in (0, 4, 7, 10))
        for _ in range(12):
            action = rng.integers(0, 4, n)
            environment.step_market(n, action, open_, close, slip, *seen, starts, stops, *state, *outputs)
            environment.observe(n, close, *seen, row, position, paid, bars_held, np.zeros_like(outputs[0]))
        assert state[3].max() > 1


def play_episodes(X, scale):
    """Two policies on three episodes, one of which a drawdown stop ends, with fills at opens and at closes."""
    rng = np.random.default_rng(4)
    close = (100 * np.exp(np.cumsum(rng.normal(0, 0.05, len(X))))).astype(np.float32)
    columns, edges = np.array([6, 0]), np.array([[0, 12], [3, 4], [9, 19]])
    policies = [PolicyWeights.of(arrays_of_policy(1, 6, (5, 3))), PolicyWeights.of(arrays_of_policy(1, 6, (5, 3)))]
    weights = [np.concatenate([getattr(policy, name) for policy in policies]) for name in STACKED]
    weights[3][len(weights[3]) // 2 :] *= 50
    scaling = np.stack([X[0], scale, scale * 0 - 1, scale * 0 + 1]).astype(np.float32)[:, :2].copy()
    n, one = 6, policies[0]
    for at_close in (0, 1):
        rules = np.array([at_close, 1e-3, 2.0, 1000.0, 0.9, 300.0, 4.0, 0, 100.0, 1.0])
        seen = [np.roll(close, 1), close, rng.uniform(0, 1e-3, len(X)), X, columns, scaling, rules]
        scratch = np.zeros((n, 2 * one.size + one.n_actions + one.n_work), np.float32)
        policy_episode(
            n, *weights, *seen, edges, np.int64(one.size), np.int64(one.n_actions), np.zeros((n, 5), np.float32),
            scratch, np.zeros((n, 12), np.int8), np.zeros((n, 2)),
        )  # fmt: skip


def value_bonds(n=40):
    """Bonds of all kinds, from yields, from prices and on curves, and their key-rate durations."""
    table = with_calls_and_rates(made_table(n, seed=6), seed=7)
    table["clean"] = np.random.default_rng(8).uniform(90, 110, n)
    table["clean"][[3, 11, 20]] = np.nan, -5.0, 0.0  # no yield: steps of the search that are not numbers
    for kind, convention in (("par", "street"), ("zero", "quantlib")):
        curve = bonds.Curve([0.25, 2.0, 10.0], [[1.0, np.nan, 3.0], [2.0, 2.5, 2.0]], kind, [1_000, 12_000], None)
        for given in ("yield", "clean", "curve"):
            bonds.value(table, given, convention, curve, errors="ignore")
        bonds.key_rate_durations(table, curve, convention, errors="ignore")
    fixed = {name: table[name] for name in ("coupon", "frequency", "issue", "maturity", "settlement", "day_count")}
    terms = bonds.prepare(fixed)
    clean, _ = terms.price(table["yield"])
    clean[[2, 9, 17]] = np.nan, -5.0, 0.0
    terms.yields(clean)
    bonds.value({**fixed, "yield": table["yield"]}, "yield", "treasury", errors="ignore")


def call_labels_and_features():
    """Labels by all rules, all operations of features, bins and backtests, of a panel of four symbols."""
    panel = random_panel((70, 1, 31, 6))
    panel.close[40] = panel.high[80] = np.nan
    panel.close[20:26] = panel.close[20]  # a flat stretch: ranges and gains of zero
    for column in (panel.open, panel.high, panel.low, panel.close):
        column[50:54] = panel.close[49]
    panel.volume[50:54] = 0  # a halt
    barrier_prices(panel.close, 0.05)
    tp_dd_labels(panel)
    tp_dd_labels(panel, rule="first_touch", window="calendar", ambiguous="hold")
    scaled = tp_dd_labels(panel, (1, 30), multiples=(1, 2), volatility=panel.high / panel.low - np.float32(1))
    assert scaled.weight.shape == (panel.n_rows, 8)
    barrier_classes(panel, (1, 2, 5, 30))
    compute_features(panel, EVERY_OPERATION)
    earlier = panel.time_ns < np.unique(panel.time_ns)[25]
    _, state = begin_features(panel.take(earlier), EVERY_OPERATION)
    state.advance(panel.take(~earlier))
    few = compute_features(panel, ("rsi_14", "willr_14", "sector_rank_roc_1"))
    compute_bins(panel, few.names, [np.unique(np.nan_to_num(x))[::9] for x in few.values.T])
    run_backtests(panel)


def call_models():
    """Losses, linear models and trees of 20 rows; windows, environments and episodes of the same rows."""
    rng = np.random.default_rng(0)
    margin, y = rng.normal(0, 3, (20, 18)).astype(np.float32), rng.integers(-1, 3, (20, 6)).astype(np.int8)
    weight, out = rng.uniform(0.5, 2, (6, 3)).astype(np.float32), np.empty_like(margin)
    softmax_gradient(20, margin, y, weight, out, np.empty_like(margin))
    activity_gradient(20, margin, y, weight, *(np.empty((20, 12), np.float32) for _ in range(2)))
    softmax_log_loss(20, margin, y, np.empty(y.shape, np.float32))
    softmax_probability(20, margin, out)
    X, weights = rng.normal(0, 3, (20, 7)).astype(np.float32), rng.normal(0, 1, (10, 18)).astype(np.float32)
    X[rng.random(X.shape) < 0.3] = np.nan
    scale, flag = rng.uniform(0.5, 2, 7).astype(np.float32), np.array([-1, 7, -1, 8, -1, -1, 9])
    scaled_margin(20, X, weights[0, :7].copy(), scale, np.float32(3), flag, weights, weights[1].copy(), out)
    linear_margin(20, X[:, :5].copy(), weights[:5].copy(), weights[1].copy(), np.empty_like(margin))
    # Two trees: a root with two leaves, and a root with another node below; NaN goes to the left and to the right.
    column, left, right = np.array(
        [[0, -1, -1, 3, 6, -1, -1, -1], [1, 0, 0, 4, 6, 0, 0, 0], [2, 0, 1, 5, 7, 2, 3, 4]], np.int32
    )
    below, unknown_left = rng.normal(size=8).astype(np.float32), np.arange(8, dtype=np.int8) % 2
    leaf = np.empty((20, 2), np.int32)
    leaves_of_trees(20, X, np.array([0, 3], np.int32), column, below, left, right, unknown_left, leaf)
    assert len(np.unique(leaf)) == 5
    add_leaf_activity(20, leaf, weights[:5, :12].copy(), margin)
    gather_windows(X, scale)
    moments_of_columns(X)
    sums_and_logarithms(X, margin)
    row_digest(20, X.view(np.int32), digest_factors(7), np.empty((20, WORDS), np.int32))
    step_environments(X, scale)
    play_episodes(X, scale)


@functools.cache
def recorded_calls() -> tuple[Call, ...]:
    """Calls of every kernel's CPU loop, with unknown values, halts, flat stretches and symbols of one bar."""
    calls: list[Call] = []
    with each_call(calls.append):
        call_labels_and_features()
        call_models()
        step_policy(np.random.default_rng(5))
        value_bonds()
    return tuple(calls)


@functools.cache
def calls_in_parts() -> tuple[Call, ...]:
    """Calls of cooperative kernels whose blocks take several items, and each item in several blocks of rows.

    What is left in scratch memory by one of them must not be read by the next one, nor be overwritten too early.
    """
    calls: list[Call] = []
    panel, few_rows = (random_panel(rows, seed=4) for rows in ((1500, 1, 700, 40), (300, 1, 130, 40, 97)))
    for wide in (panel, few_rows):
        wide.close[200] = wide.high[350] = wide.low[500] = np.nan
    with mock.patch.object(compute, "BLOCK", 96), each_call(calls.append):
        fraction = panel.high / panel.low - np.float32(1)
        for rule in ("take_profit_first", "first_touch"):
            tp_dd_labels(panel, (1, 5, 40), rule=rule, multiples=(1,), volatility=fraction)
            tp_dd_labels(panel, (1, 5, 40), rule=rule, window="calendar")
        tp_dd_labels(panel, (1,))
        barrier_classes(panel, (1, 2, 5, 30))
        features = compute_features(few_rows, EVERY_OPERATION)
        cuts = [np.unique(column[~np.isnan(column)])[::97] for column in features.values.T]
        compute_bins(few_rows, EVERY_OPERATION, cuts)
    return tuple(call for call in calls if call.kernel.cooperative)
