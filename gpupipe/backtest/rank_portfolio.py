"""Portfolios of ranks, simulated in shares and cash: decisions, fills, drifting weights; all models date by date."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gpupipe.backtest.rank_bars import RankBars, bars_of
from gpupipe.backtest.rank_rules import RankRules
from gpupipe.backtest.rank_selection import Selection
from gpupipe.backtest.sources import OutOfSample
from gpupipe.data.panel import Panel

REASONS = ("rebalance", "end of data", "all lost")
REBALANCE, END, LOST = range(3)
AT_OPEN, AT_CLOSE, AT_END = range(3)  # the steps of a date
_DUST = 1e-9  # purchases cut to less than this share are left out: the cash is 0 but for rounding
# The columns of Fills with their types.
COLUMNS = {
    "portfolio": np.int64, "symbol": np.int64, "date": np.int64, "decided": np.int64, "step": np.int8,
    "price": np.float64, "shares": np.float64, "after": np.float64, "equity": np.float64, "reason": np.int8,
    "waited": bool,
}  # fmt: skip


@dataclass(frozen=True)
class Fills:
    """All fills of all portfolios in the order of dates and steps; arrays (n_fills,) on the host.

    portfolio: int64, number of the model.  symbol, date: int64.  decided: int64, the date of the decision.
    step: int8, AT_OPEN, AT_CLOSE, or AT_END for a closing at the last close of a symbol's data.
    price: float64, before costs.  shares: float64, bought if above 0, sold if below.  after: float64, shares held
        afterwards, exactly 0 where the position is closed. A position that changes sides has two fills, of which the
        first ends at 0.
    equity: float64, the portfolio's before the fills of this step.  reason: int8, of REASONS.
    waited: bool, whether a halt had delayed the fill.

        >>> Fills.of([]).n_fills
        0
    """

    portfolio: np.ndarray
    symbol: np.ndarray
    date: np.ndarray
    decided: np.ndarray
    step: np.ndarray
    price: np.ndarray
    shares: np.ndarray
    after: np.ndarray
    equity: np.ndarray
    reason: np.ndarray
    waited: np.ndarray

    @property
    def n_fills(self) -> int:
        """The number of fills."""
        return len(self.symbol)

    @property
    def weight(self) -> np.ndarray:
        """float64 (n_fills,): the traded value before costs as a share of the equity; NaN where all is lost."""
        equity = np.where(self.equity > 0, self.equity, np.nan)
        share: np.ndarray = np.abs(self.shares) * self.price / equity
        return share

    @classmethod
    def of(cls, parts: list[dict[str, np.ndarray]]) -> Fills:
        """The fills of several steps, each a column by name."""
        return cls(**{
            name: np.concatenate([np.asarray(part[name], kind) for part in parts]) if parts else np.zeros(0, kind)
            for name, kind in COLUMNS.items()
        })  # fmt: skip


@dataclass(frozen=True)
class Decisions:
    """What was decided; arrays on the host.

    model, date: int64 (n_decisions,), sorted by model, then date.
    place, symbol: int64, and weight: float64, all (n_chosen,): the share of the equity that decision number `place`
        gives to a symbol, below 0 for a short position; ascending in place.

        >>> Decisions(np.array([0]), np.array([3]), np.array([0]), np.array([2]), np.array([1.0])).of(0, 4).tolist()
        [[0.0, 0.0, 1.0, 0.0]]
    """

    model: np.ndarray
    date: np.ndarray
    place: np.ndarray
    symbol: np.ndarray
    weight: np.ndarray

    def of(self, model: int, n_symbols: int) -> np.ndarray:
        """float64 (n_decisions of the model, n_symbols): its target weights."""
        first, last = np.searchsorted(self.model, [model, model + 1])
        begin, end = np.searchsorted(self.place, [first, last])
        weights = np.zeros((last - first, n_symbols))
        weights[self.place[begin:end] - first, self.symbol[begin:end]] = self.weight[begin:end]
        return weights


@dataclass(frozen=True)
class RankBacktest:
    """The portfolios of all models over all dates; arrays float64 (n_models, n_dates) on the host unless stated.

    panel: the out-of-sample rows alone.  every: int64 (n_models,), dates between two decisions.
    equity: at the close of a date, 1 before the first fill; 0 for good once all is lost.
    returns: equity / that of the date before - 1; 0 on the first date, and after all is lost.
    gross, net: sums of |value| and of value of the positions at the close, as shares of the equity; on a symbol's last
        date before it is closed.  names: int64, positions at that time.
    traded: the value of all fills of a date, as a share of the equity of the close before.  cost: all costs of it.
    unfilled: int64 (n_models,): orders that lapsed in a halt.

        >>> from gpupipe.data import simulate
        >>> panel = simulate(n_symbols=3, n_bars=30)
        >>> values = np.full((90, 1, 3), 1 / 3, np.float32)
        >>> values[30:60] = 0.2, 0.2, 0.6  # the second symbol is the best on every date
        >>> source = OutOfSample(
        ...     values, np.full((1, 3, 2), 0.5, np.float32), (5,), (0.05,), ("linear",),
        ...     panel.time_ns[[0, 0, 0]], panel.time_ns[[-1, -1, -1]] + 1, "an example", panel)
        >>> result = rank_portfolio(source, RankRules(hold="top:1"))
        >>> set(result.fills.symbol.tolist()), result.names[0, :4].tolist(), len(result.decisions.date)
        ({1}, [0, 1, 1, 1], 6)
    """

    bars: RankBars = field(repr=False)
    panel: Panel = field(repr=False)
    source: OutOfSample = field(repr=False)
    rules: RankRules
    every: np.ndarray
    fills: Fills = field(repr=False)
    decisions: Decisions = field(repr=False)
    equity: np.ndarray = field(repr=False)
    returns: np.ndarray = field(repr=False)
    gross: np.ndarray = field(repr=False)
    net: np.ndarray = field(repr=False)
    names: np.ndarray = field(repr=False)
    traded: np.ndarray = field(repr=False)
    cost: np.ndarray = field(repr=False)
    unfilled: np.ndarray = field(repr=False)


def rank_portfolio(source: OutOfSample, rules: RankRules | None = None) -> RankBacktest:
    """Simulate a portfolio of ranks for every model of `source`, on the host.

    Decisions are made on the first date with a score and every so many dates after it, from the scores of that date and
    the positions at its close; a date without any score leaves the portfolio as it is. On the date of the fill, a
    chosen name gets its weight times the equity at the prices of the fill, every other position is closed; in between,
    shares stay as they are and weights drift. Sales come first; where the cash does not suffice for all purchases and
    their costs, all purchases are made smaller by the same factor. At its last bar in the data, a symbol's position is
    closed at the close. There is no interest on cash and no borrowing cost.
    Raises ValueError when no row is out of sample.
    """
    rules = rules or RankRules()
    bars, panel = bars_of(source, rules)
    every = np.array([rules.rebalance or h for h in source.horizons], np.int64)
    book = simulated(bars, every, rules)
    return RankBacktest(
        bars=bars, panel=panel, source=source, rules=rules, every=every, fills=Fills.of(book.fills),
        decisions=book.decisions(), names=book.series["names"].astype(np.int64), unfilled=book.unfilled,
        **{name: values for name, values in book.series.items() if name != "names"},
    )  # fmt: skip


def simulated(bars: RankBars, every: np.ndarray, rules: RankRules) -> Book:
    """The book after the last date.  every: int64 (n_models,), dates between two decisions."""
    book, first = Book(bars, rules), bars.first_scored()
    for date in range(bars.n_dates):
        deciding = np.flatnonzero((date >= first) & ((date - first) % every == 0))
        ends = bars.last == date
        if rules.fills.at_close:
            book.decide(date, deciding)
            book.fill(date, AT_CLOSE, bars.close[date], bars.listed[date] & ~ends, bars.traded[date])
        else:
            book.fill(date, AT_OPEN, bars.open[date], bars.listed[date], bars.traded[date])
        book.measure(date)
        book.end(date, ends)
        book.close(date)
        if not rules.fills.at_close:
            book.decide(date, deciding)
    return book


class Book:
    """Cash, shares and pending orders of every portfolio, and what has happened to them so far.

    shares: float64 (n_models, n_symbols).  cash, equity: float64 (n_models,), the equity at the last close.
    series: the series of RankBacktest by name, float64 (n_models, n_dates).  fills: see `Fills.of`.
    pending: float64 (n_models, n_symbols): the target weight that waits for the symbol's next bar; NaN without one.

        >>> from gpupipe.backtest.rank_bars import bars_of_panel
        >>> from gpupipe.data import simulate
        >>> panel = simulate(n_symbols=2, n_bars=3)
        >>> score = np.repeat(np.float32([0.1, 0.2]), 3)[:, None]  # the second symbol is the better
        >>> book = Book(bars_of_panel(panel, score, RankRules()), RankRules(hold="top:1"))
        >>> book.decide(0, np.array([0]))
        >>> book.pending.tolist()
        [[nan, 1.0]]
    """

    def __init__(self, bars: RankBars, rules: RankRules) -> None:
        self.bars, self.rules, self._selection = bars, rules, Selection(rules.hold)
        shape = (bars.n_models, bars.n_symbols)
        self.shares, self.pending = np.zeros(shape), np.full(shape, np.nan)
        self.cash, self.equity = np.ones(bars.n_models), np.ones(bars.n_models)
        self.unfilled = np.zeros(bars.n_models, np.int64)
        self.fills: list[dict[str, np.ndarray]] = []
        self._late = np.zeros(shape, bool)
        self._decided = np.zeros(bars.n_models, np.int64)
        self._targets: list[tuple[int, np.ndarray, np.ndarray]] = []
        names = ("equity", "returns", "gross", "net", "names", "traded", "cost")
        self.series = {name: np.zeros((bars.n_models, bars.n_dates)) for name in names}

    def decide(self, date: int, deciding: np.ndarray) -> None:
        """Give the portfolios `deciding`, int64, their target weights, from the scores of a date.

        A portfolio without any score on the date, or that has lost everything, keeps its orders.
        """
        score = self.bars.scores(date)[deciding]
        known = ~np.isnan(score).all(axis=1) & (self.equity[deciding] > 0)
        deciding, score = deciding[known], score[known]
        if not len(deciding):
            return
        held = self.shares[deciding]
        chosen = self._selection.sides(score, held, self.rules.short)
        weight = self._weights(chosen, date)
        self.pending[deciding] = np.where(weight != 0, weight, np.where(held != 0, 0.0, np.nan))
        self._late[deciding] &= self.pending[deciding] == 0
        self._decided[deciding] = date
        self._targets.append((date, deciding, weight))

    def _weights(self, chosen: np.ndarray, date: int) -> np.ndarray:
        """float64 (n, n_symbols): shares of the equity, below 0 for short positions.  chosen: int8, -1, 0 or 1."""
        inverse = np.ones(self.bars.n_symbols)
        if self.bars.volatility is not None:
            volatility = self.bars.volatility[date]
            inverse = np.where(volatility > 0, 1 / np.where(volatility > 0, volatility, 1), 0.0)
        weight = np.zeros(chosen.shape)
        for side, gross in self.rules.gross.items():
            part = (chosen == side) * inverse
            total = part.sum(axis=1, keepdims=True)
            weight += side * gross * part / np.where(total > 0, total, 1)
        return weight

    def fill(self, date: int, step: int, price: np.ndarray, listed: np.ndarray, traded: np.ndarray) -> None:
        """Fill pending orders.  price: float64, listed, traded: bool, all (n_symbols,): of the bars of the date."""
        waiting = ~np.isnan(self.pending) & listed
        if not waiting.any():
            return
        mark = self.bars.mark[date if step == AT_CLOSE else date - 1]  # date 0 has no order for the open
        self._trade(date, step, np.where(traded, price, mark), waiting & traded, REBALANCE)
        blocked = waiting & ~traded
        leaving = blocked & (self.shares != 0) & (self.pending * self.shares <= 0)
        self.unfilled += (blocked & ~leaving).sum(axis=1)
        self.pending[waiting] = np.nan
        self.pending[leaving] = 0.0
        self._late |= leaving

    def end(self, date: int, ends: np.ndarray) -> None:
        """Close the positions of symbols that have no later bar, at the close.  ends: bool (n_symbols,)."""
        if not ends.any():
            return
        self.pending[:, ends] = np.where(self.shares[:, ends] != 0, 0.0, np.nan)
        self._trade(date, AT_END, self.bars.mark[date], ~np.isnan(self.pending) & ends, END)
        self.pending[:, ends] = np.nan

    def _trade(self, date: int, step: int, price: np.ndarray, orders: np.ndarray, reason: int) -> None:
        """Bring positions to their pending weights.

        price: float64 (n_symbols,), of the fill, or the last mark of what is not filled.
        orders: bool (n_models, n_symbols), the pending weights that are filled.
        """
        who = np.flatnonzero(orders.any(axis=1))
        if not len(who):
            return
        slip, commission = self.rules.fills.slip, self.rules.fills.commission
        price, shares, orders = np.where(np.isnan(price), 0.0, price), self.shares[who], orders[who]
        equity = self.cash[who] + shares @ price
        weight = np.where(orders, self.pending[who], 0.0)
        wanted = weight * np.maximum(equity, 0.0)[:, None] / np.where(price > 0, price, 1)
        change = np.where(orders, wanted - shares, 0.0)
        covered = np.clip(-shares, 0.0, np.maximum(change, 0.0))  # purchases that close short positions
        opened = np.maximum(change, 0.0) - covered
        sold, covering, opening = (x @ price for x in (np.maximum(-change, 0.0), covered, opened))
        buying, selling = (1 + slip) * (1 + commission), (1 - slip) * (1 - commission)  # cash for a value of 1
        cash = self.cash[who] + sold * selling - covering * buying
        needed = opening * buying
        factor = np.where(needed > cash, np.maximum(cash, 0.0) / np.where(needed > 0, needed, 1), 1.0)
        factor = np.where(factor < _DUST, 0.0, factor)
        after = np.where(
            orders & (weight == 0), 0.0, shares + np.minimum(change, 0.0) + covered + opened * factor[:, None]
        )
        self.cash[who], self.shares[who] = cash - needed * factor, after
        before = np.where(self.equity[who] > 0, self.equity[who], 1.0)
        self.series["traded"][who, date] += (sold + covering + opening * factor) / before
        self.series["cost"][who, date] += (equity - self.cash[who] - after @ price) / before
        self._record(date, step, reason, who, price, shares, after, equity)

    def _record(self, date: int, step: int, reason: int, who: np.ndarray, price: np.ndarray, before: np.ndarray,
                after: np.ndarray, equity: np.ndarray) -> None:  # fmt: skip
        """Keep the fills.  before, after: float64 (n, n_symbols), shares.  equity: float64 (n,), before the fills."""
        turned = before * after < 0  # through 0: two fills
        for begin, end in ((before, np.where(turned, 0.0, after)), (np.where(turned, 0.0, after), after)):
            row, symbol = np.nonzero(begin != end)
            at = who[row]
            self.fills.append({
                "portfolio": at, "symbol": symbol, "date": np.full(len(row), date), "decided": self._decided[at],
                "step": np.full(len(row), step), "price": price[symbol], "shares": (end - begin)[row, symbol],
                "after": end[row, symbol], "equity": equity[row], "reason": np.full(len(row), reason),
                "waited": self._late[at, symbol] & (end[row, symbol] == 0),
            })  # fmt: skip
        self._late[who] &= after != 0

    def measure(self, date: int) -> None:
        """Note exposures and names at the close, before positions at the end of their data are closed."""
        value = self.shares * np.nan_to_num(self.bars.mark[date])
        equity = self.cash + value.sum(axis=1)
        whole = np.where(equity > 0, equity, np.inf)
        self.series["gross"][:, date] = np.abs(value).sum(axis=1) / whole
        self.series["net"][:, date] = value.sum(axis=1) / whole
        self.series["names"][:, date] = (self.shares != 0).sum(axis=1)

    def close(self, date: int) -> None:
        """Value the portfolios at the close; one that is worth nothing is closed for good."""
        mark = np.nan_to_num(self.bars.mark[date])
        equity = self.cash + self.shares @ mark
        lost = np.flatnonzero((equity <= 0) & (self.equity > 0))
        if len(lost):
            nothing = np.zeros((len(lost), self.bars.n_symbols))
            self._record(date, AT_END, LOST, lost, mark, self.shares[lost], nothing, equity[lost])
            self.shares[lost], self.cash[lost], equity[lost] = 0.0, 0.0, 0.0
            self.pending[lost] = np.nan
        alive = self.equity > 0
        self.series["returns"][alive, date] = equity[alive] / self.equity[alive] - 1
        self.series["equity"][:, date] = self.equity = np.where(alive, equity, 0.0)

    def decisions(self) -> Decisions:
        """All decisions so far, by model and date."""
        model = np.concatenate([who for _, who, _ in self._targets] or [np.zeros(0, np.int64)])
        date = np.concatenate([np.full(len(who), date) for date, who, _ in self._targets] or [np.zeros(0, np.int64)])
        parts = [np.nonzero(weight) for _, _, weight in self._targets]
        starts = np.cumsum([0, *(len(who) for _, who, _ in self._targets)])
        row = np.concatenate([part[0] + start for part, start in zip(parts, starts, strict=False)] or [date])
        symbol = np.concatenate([part[1] for part in parts] or [date])
        weight = np.concatenate([w[at] for (_, _, w), at in zip(self._targets, parts, strict=True)] or [np.zeros(0)])
        order = np.lexsort((date, model))
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        by_place = np.argsort(place[row], kind="stable")
        return Decisions(model[order], date[order], place[row][by_place], symbol[by_place], weight[by_place])
