"""Market: the bars, costs and features of one symbol; Environments: many accounts that step through it together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.data.panel import Panel
from gpupipe.data.report import time_text
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.estimators.torch.scaler import WindowScaler, fit_scaler
from gpupipe.features import outside
from gpupipe.features.matrix import Features, compute_features, warm_up_of
from gpupipe.kernels import environment as kernel
from gpupipe.runtime.device import Device, device_of
from gpupipe.runtime.errors import UserError
from gpupipe.workloads.agent.episodes import RowRange, checked_rows, episode_table
from gpupipe.workloads.agent.rules import MarketRules
from gpupipe.workloads.agent.spread import slip_of

ACTIONS = ("hold", "buy", "sell", "close")  # by number
ACCOUNT_NAMES = ("position", "unrealised_return", "bars_held")


@dataclass(frozen=True, eq=False)
class Market:
    """One symbol's bars with the costs of its fills, and the features that are observed.

    open, close: float32 (n_rows,), prices > 0.  slip: float64 (n_rows,), half the spread plus slippage as a share of
        the row's fill price.  time_ns: int64 (n_rows,), UTC.
    features: the matrix, float32 (n_rows, n_features), never copied.  columns: int64 (n_columns,), numbers of the
        observed ones, or (0,) for all.  scaler: of the observed columns.
    first_row: the first row in which no feature waits for bars.

    All arrays but the scaler's are on one device. Treat them as immutable.

        >>> from gpupipe.data import simulate
        >>> market = Market.of(simulate(n_symbols=1, n_bars=100), ["roc_5", "rsi_14"], spread="2 bps", size=0.5)
        >>> market.observed, market.first_row, market.rules.size
        (('roc_5', 'rsi_14', 'position', 'unrealised_return', 'bars_held'), 14, 0.5)
    """

    symbol: str
    open: Any = field(repr=False)
    close: Any = field(repr=False)
    slip: Any = field(repr=False)
    time_ns: Any = field(repr=False)
    features: Features = field(repr=False)
    columns: Any = field(repr=False)
    scaler: WindowScaler = field(repr=False)
    rules: MarketRules
    first_row: int = 0

    @classmethod
    def of(
        cls,
        panel: Panel,
        features: str | Iterable[str] | Features = "session",
        *,
        columns: Iterable[str] | None = None,
        spread: Any = None,
        point_size: float | None = None,
        scaler: WindowScaler | None = None,
        fit_rows: tuple[int, int] | None = None,
        **rules: Any,
    ) -> Market:
        """The market of a panel of one symbol.

        features: names as in `compute_features`, or the computed Features of this panel.  columns: the names of the
            observed ones among them; None for all.
        spread, point_size: see `spread.slip_of`; with None the panel's column spread or with_spread, in price units.
        scaler: of the observed columns; None: one that is fitted on fit_rows, the first and the last row, both
            included; None for all rows from `first_row` on, which then know where later prices lie.
        rules: the fields of MarketRules.

        Raises UserError for a panel of several symbols, for opens and closes that are not known or not positive, for
        spreads and rules that cannot be, and for rows that the panel does not have.
        """
        if panel.n_symbols != 1:
            raise UserError(
                f"a market has exactly one symbol, and the panel has {', '.join(panel.symbols)}: pass the panel of "
                f"one, panel.where([name == {panel.symbols[0]!r} for name in panel.symbols])"
            )
        market_rules, slip = fills_of(panel, spread, point_size, **rules)
        xp = panel.device.xp
        open_, close = (xp.ascontiguousarray(panel.columns[name]) for name in ("open", "close"))
        outside.register_of(panel)
        matrix = features if isinstance(features, Features) else compute_features(panel, features)
        if matrix.n_rows != panel.n_rows:
            raise UserError(f"the features have {matrix.n_rows} rows, and the panel {panel.n_rows}")
        chosen = matrix.names if columns is None else tuple(columns)
        if missing := [name for name in chosen if name not in matrix.names]:
            raise UserError(f"no feature {', '.join(missing)} among {', '.join(matrix.names)}")
        numbers = [matrix.names.index(name) for name in chosen] if chosen != matrix.names else []
        market = cls(
            panel.symbols[0], open_, close, panel.device.asarray(slip), panel.time_ns, matrix,
            panel.device.asarray(np.array(numbers, np.int64)), _identity(len(chosen)), market_rules,
            first_warm_row(chosen, panel.n_rows),
        )  # fmt: skip
        if scaler is None:
            return market.fitted(*(fit_rows or (market.first_row, panel.n_rows - 1)))
        return market.scaled(scaler)

    @property
    def n_rows(self) -> int:
        """Number of bars."""
        return int(self.close.shape[0])

    @property
    def device(self) -> Device:
        """The device of its arrays."""
        return device_of(self.close)

    @property
    def observed(self) -> tuple[str, ...]:
        """The name of each value of an observation: the features, then the account's."""
        numbers = self.device.to_host(self.columns).tolist() or range(self.features.n_features)
        return (*(self.features.names[k] for k in numbers), *ACCOUNT_NAMES)

    @property
    def width(self) -> int:
        """Values of an observation."""
        return self.scaler.n_columns + kernel.ACCOUNT_COLUMNS

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest value of each position of an observation, float32 (width,) each."""
        low, high = np.minimum(self.scaler.low, 0), np.maximum(self.scaler.high, 0)  # an unknown value is 0
        constant = low == high
        low, high = np.where(constant, -1, low), np.where(constant, 1, high)  # a space needs a width
        return np.array([*low, -1, -1, 0], np.float32), np.array([*high, 1, 1, 1], np.float32)

    def arguments(self) -> tuple[Any, ...]:
        """What kernels/environment.py and kernels/episodes.py read of a market: open, close, ... rules."""
        scaler = self.scaler
        scaling = np.stack([scaler.offset, scaler.scale, scaler.low, scaler.high])
        return (
            self.open, self.close, self.slip, self.features.values, self.columns, self.device.asarray(scaling),
            self.device.asarray(self.rules.array()),
        )  # fmt: skip

    def scaled(self, scaler: WindowScaler) -> Market:
        """The same market with another scaler; ValueError where it is for another number of columns."""
        if scaler.n_columns != self.scaler.n_columns:
            raise ValueError(f"the scaler is for {scaler.n_columns} columns, and {self.scaler.n_columns} are observed")
        return dataclasses.replace(self, scaler=scaler)

    def fitted(self, first: int, last: int, scaling: str = "standard") -> Market:
        """The same market with a scaler that is fitted on the rows from first to last, both included."""
        low, high = checked_rows(self.n_rows, (first, last), None, 1)
        xp = self.device.xp
        rows = xp.arange(int(low[0]), int(high[0]) + 1)
        columns = self.columns if self.columns.shape[0] else None
        offsets = self.device.asarray(np.array([0, self.n_rows]))
        return self.scaled(fit_scaler([FeatureRows(self.features.values, rows, offsets, columns)], scaling))


@dataclass(frozen=True, eq=False)
class Step:
    """What one step of n environments gave, on the market's device.

    observation: float32 (n, width), of the row that is acted on next: where an episode ended, the first row of the next
        one.  reward: float32 (n,).  terminated, truncated: bool (n,).
    final_observation: float32 (n, width), the last of an episode; written only where one ended.
    equity: float64 (n,), and position: int8 (n,), after the step and before a new episode. The position is the one that
        was decided in the row that the action was for: the position path.
    """

    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    final_observation: Any
    equity: Any
    position: Any


# The state of an environment, in the order of the kernel; see `kernels.environment.step_market`.
STATE = {
    "row": np.int64, "stop": np.int64, "start": np.int64, "episode": np.int64, "position": np.int8,
    "balance": np.float64, "stake": np.float64, "paid": np.float64, "equity": np.float64, "peak": np.float64,
    "bars_held": np.int64,
}  # fmt: skip
# The arrays of a Step: the two observations, and what is one value for each environment.
_OBSERVATIONS = ("observation", "final_observation")
_VALUES = {
    "reward": np.float32, "terminated": np.bool_, "truncated": np.bool_, "equity": np.float64, "position": np.int8,
}  # fmt: skip


class Environments:
    """n accounts that trade in one market, each in its own episode; all step in one call.

    rows: the first and the last row that are observed, both included: two numbers, or two int64 arrays (n,), for each
        environment its own. None: from `market.first_row` to the last.
    length: the steps of an episode, whose start is drawn inside the rows; None: every episode is the whole range.
    seed: of the starts, which `episodes.episode_table` draws for all episodes at once.

    Environment i does not depend on the others, nor on n. Raises UserError for rows or a length that the market does
    not have.

        >>> from gpupipe.data import simulate
        >>> market = Market.of(simulate(n_symbols=1, n_bars=100), ["roc_5"], spread=0.01)
        >>> environments = Environments(market, n=3, length=20)
        >>> environments.reset().shape
        (3, 4)
        >>> step = environments.step([1, 2, 0])
        >>> step.position.tolist(), step.terminated.tolist(), step.equity.shape
        ([1, -1, 0], [False, False, False], (3,))
    """

    def __init__(self, market: Market, n: int, rows: RowRange | None = None, length: int | None = None, seed: int = 0):
        if n < 1:
            raise UserError(f"{n} environments: expected 1 or more")
        self.market, self.n, self.length = market, n, length
        self._rows = checked_rows(market.n_rows, rows or (market.first_row, market.n_rows - 1), length, n)
        device = market.device
        self._market = market.arguments()
        self._state = {name: device.xp.zeros(n, kind) for name, kind in STATE.items()}
        self._step = self.new_step()
        self._began = False
        self._draw(seed)

    def new_step(self) -> Step:
        """Arrays that `step` can write to."""
        xp, shape = self.market.device.xp, (self.n, self.market.width)
        observations = {name: xp.zeros(shape, np.float32) for name in _OBSERVATIONS}
        return Step(**observations, **{name: xp.zeros(self.n, kind) for name, kind in _VALUES.items()})

    def _draw(self, seed: int) -> None:
        self.seed = int(seed)
        starts, stops = episode_table(*self._rows, self.length, self.seed)
        self._starts, self._stops = self.market.device.asarray(starts), self.market.device.asarray(stops)
        self._state["episode"][:] = -1

    def reset(self, seed: int | None = None) -> Any:
        """Begin the next episode of every environment, and return the observations, as `observe` does.

        seed: another one draws other episodes, and begins with the first of them; None: the episodes go on.
        """
        if seed is not None:
            self._draw(seed)
        xp, state = self.market.device.xp, self._state
        state["episode"] += 1
        each, k = xp.arange(self.n), state["episode"] % self._starts.shape[1]
        state["row"][:] = state["start"][:] = self._starts[each, k]
        state["stop"][:] = self._stops[each, k]
        for name in ("position", "stake", "bars_held"):
            state[name][:] = 0
        for name in ("balance", "equity", "peak"):
            state[name][:] = self.market.rules.initial_balance
        state["paid"][:] = 1
        self._began = True
        return self.observe()

    def observe(self) -> Any:
        """float32 (n, width): the observation of each environment now."""
        observation = self.market.device.xp.empty((self.n, self.market.width), np.float32)
        account = (self._state[name] for name in ("row", "position", "paid", "bars_held"))
        _, close, _, *seen = self._market
        kernel.observe(self.n, close, *seen, *account, observation)
        return observation

    def step(self, actions: Any, into: Step | None = None) -> Step:
        """Take an action in each environment; one whose episode ended begins its next one in the same step.

        actions: (n,), numbers of `ACTIONS`, int64 on the market's device, or anything that becomes that. They are not
            looked at: another number holds.
        into: the arrays to write to, as `new_step` makes them. None: the environments' own, which the next step
            overwrites.
        Raises ValueError before the first reset, and for another shape.
        """
        if not self._began:
            raise ValueError("the environments have not begun: call reset first")
        actions = self.market.device.asarray(actions, np.int64)
        if actions.shape != (self.n,):
            raise ValueError(f"actions have shape {actions.shape}, expected ({self.n},)")
        result = self._step if into is None else into
        if into is not None:
            self._check(into)
        kernel.step_market(
            self.n, actions, *self._market, self._starts, self._stops, *self._state.values(), result.observation,
            result.reward, result.terminated, result.truncated, result.final_observation, result.equity,
            result.position,
        )  # fmt: skip
        return result

    @property
    def n_observations(self) -> int:
        """Values of an observation."""
        return self.market.width

    @property
    def n_actions(self) -> int:
        """Actions to choose from."""
        return len(ACTIONS)

    def _check(self, into: Step) -> None:
        for name in (*_OBSERVATIONS, *_VALUES):
            shape, expected = getattr(into, name).shape, getattr(self._step, name).shape
            if shape != expected:
                raise ValueError(f"{name} has shape {shape}, expected {expected}")

    def state(self) -> dict[str, np.ndarray]:
        """Copies on the host of all that the next steps depend on: (n,) each, and the seed of the episodes."""
        copies = map(np.array, self.market.device.to_hosts(list(self._state.values())))
        return dict(zip(self._state, copies, strict=True)) | {"seed": np.array(self.seed)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state, with the same bits; ValueError where it is one of other environments."""
        expected = {name: (np.dtype(kind), (self.n,)) for name, kind in STATE.items()} | {
            "seed": (np.dtype(np.int64), ())
        }
        found = {name: (array.dtype, array.shape) for name, array in state.items()}
        if found != expected:
            raise ValueError(f"the state is of {found}, expected {expected}")
        first, last = self._rows
        if bool(((state["row"] < first) | (state["stop"] > last) | (state["row"] >= state["stop"])).any()):
            raise ValueError("the state is at rows that these environments do not have")
        self._draw(int(state["seed"]))
        for name, array in self._state.items():
            array[:] = self.market.device.asarray(state[name])
        self._began = True

    def current(self, name: str) -> Any:
        """(n,): a part of the state now, such as "row" or "equity"; a view that steps write to."""
        return self._state[name]


def _identity(n: int) -> WindowScaler:
    return WindowScaler(
        np.zeros(n, np.float32), np.ones(n, np.float32), np.zeros(n, np.float32), np.ones(n, np.float32)
    )


def fills_of(
    panel: Panel, spread: Any = None, point_size: float | None = None, **rules: Any
) -> tuple[MarketRules, np.ndarray]:
    """The rules of a market, and its slip on the host; UserError for prices, spreads and rules that cannot be.

    The arguments are those of `Market.of`.
    """
    market_rules = MarketRules(**rules)
    for name in ("open", "close"):
        price = panel.columns[name]
        wrong = panel.device.to_host(~((price > 0) & (price < np.inf)))
        if wrong.any():
            row = int(np.argmax(wrong))
            at = time_text(int(panel.device.to_host(panel.time_ns)[row]))
            raise UserError(
                f"{panel.symbols[0]}: the {name} is not known or not positive in {int(wrong.sum())} of {panel.n_rows} "
                f"rows, first at {at}: remove these rows, as gpupipe.read does"
            )
    price = panel.columns["close" if market_rules.at_close else "open"]
    return market_rules, slip_of(panel, price, spread, point_size, market_rules.slippage_bps)


def first_warm_row(names: Iterable[str], n_rows: int) -> int:
    """The first row in which none of these features waits for bars; of those that wait for all rows, none counts."""
    return max((bars for name in names if (bars := warm_up_of(name)) < n_rows - 1), default=0)
