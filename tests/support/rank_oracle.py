"""Portfolios of ranks once more, in plain Python loops over dates and symbols, and a small dirty market for them."""

from __future__ import annotations

import math
import statistics

import numpy as np

from gpupipe.backtest import OutOfSample
from gpupipe.data.halts import halted_rows
from gpupipe.data.panel import Panel
from tests.support.market import DAY_NS


def dirty_market(n_symbols=9, n_dates=75, seed=0) -> Panel:
    """Bars with gaps, halts, a late symbol, one that ends early, one with a single bar; two sectors."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(n_symbols):
        first, last = {0: (14, n_dates), 1: (0, 57), 2: (40, 41)}.get(k, (0, n_dates))
        price = 20.0 + k
        for day in range(first, last):
            before, price = price, price * math.exp(rng.normal(0, 0.03))
            begin = before * math.exp(rng.normal(0, 0.01))
            if day > first and rng.random() < 0.05:
                continue  # no bar
            if day > first and rng.random() < 0.08:
                price = rows[-1][5]
                rows.append((k, day, price, price, price, price, 0.0))
                continue
            high, low = max(begin, price) * 1.01, min(begin, price) * 0.99
            rows.append((k, day, *(float(np.float32(x)) for x in (begin, high, low, price)), rng.integers(1e3, 1e5)))
    symbol, day, *columns = (np.array(column) for column in zip(*rows, strict=True))
    return Panel.of_bars(
        **{name: column.astype(np.float32)
           for name, column in zip(("open", "high", "low", "close", "volume"), columns, strict=True)},
        time_ns=day.astype(np.int64) * DAY_NS, offsets=np.searchsorted(symbol, np.arange(n_symbols + 1)),
        symbols=tuple(f"S{k:02d}" for k in range(n_symbols)),
        sector=tuple("energy" if k % 2 else "utilities" for k in range(n_symbols)),
    )  # fmt: skip


def source_of(panel, score, horizons=(5,)) -> OutOfSample:
    """Probabilities of which P(BUY) - P(SELL) is a score, float (n_rows, n_models) in (-1, 1); all rows unseen."""
    score = np.asarray(score, np.float32).reshape(panel.n_rows, len(horizons))
    values = np.stack([(1 - score) / 2, np.where(np.isnan(score), np.nan, 0), (1 + score) / 2], axis=2)
    n_sectors = len(panel.groups)
    return OutOfSample(
        values=values.astype(np.float32), cutoffs=np.full((len(horizons), n_sectors, 2), 0.5, np.float32),
        horizons=tuple(horizons), thresholds=(0.05,) * len(horizons),
        families=tuple(f"model_{k}" for k in range(len(horizons))), since_ns=np.full(n_sectors, panel.time_ns.min()),
        until_ns=np.full(n_sectors, panel.time_ns.max() + 1), source="drawn", panel=panel,
    )  # fmt: skip


def dirty_scores(panel, n_models=1, seed=1) -> np.ndarray:
    """float32 (n_rows, n_models): scores with ties, rows without one, and a date without any."""
    rng = np.random.default_rng(seed)
    score = np.round(rng.uniform(-0.9, 0.9, (panel.n_rows, n_models)), 1).astype(np.float32)
    score[rng.random(score.shape) < 0.1] = np.nan
    score[panel.time_ns == np.unique(panel.time_ns)[10]] = np.nan
    return score


def names_of(hold, score, held, most):
    """The chosen of one side: a list of symbols.  score: {symbol: score}, higher is better.  held: set of symbols."""
    way, _, numbers = hold.partition(":")
    order = sorted(score, key=lambda name: -score[name])  # stable: ties by the order of the dict
    if way == "top":
        count = float(numbers.rstrip("%")) / 100 * len(order) if numbers.endswith("%") else int(numbers)
        return order[: min(max(1, math.floor(count + 1e-9)), most)]
    if way == "quantile":
        groups = int(numbers)
        chosen = [name for r, name in enumerate(reversed(order)) if r * groups // len(order) == groups - 1]
        return list(reversed(chosen))[:most]
    hold_most, drop = (int(word) for word in numbers.split(","))
    hold_most = min(hold_most, most)
    last = [name for name in order if name in held] + sorted(held - set(score))
    today = [name for name in order if name not in held][: max(0, drop + hold_most - len(last))]
    together = [name for name in order if name in last or name in today] + sorted(held - set(score))
    sell = [name for name in last if name in together[-drop:]]
    buy = today[: max(0, len(sell) + hold_most - len(last))]
    return [name for name in last if name not in sell] + buy


def portfolio(panel, score, every, rules, volatility=None):
    """Equity by date, and round trips (symbol, side, entry date, exit date, net), of one portfolio.

    score, volatility: float (n_rows,).
    """
    times = np.unique(panel.time_ns).tolist()
    halted = halted_rows(panel) if rules.fills.halts == "wait" else np.zeros(panel.n_rows)
    bar = {}
    for row in range(panel.n_rows):
        bar[times.index(panel.time_ns[row]), int(panel.symbol_of_row[row])] = row
    last_date = {k: max(date for date, symbol in bar if symbol == k) for k in range(panel.n_symbols)}
    cash, shares, mark, order, equity = 1.0, {}, {}, {}, []
    book, trades, next_decision = {}, [], None
    slip, fee = rules.fills.slip, rules.fills.commission

    def value(prices):
        return cash + sum(n * prices[k] for k, n in shares.items())

    def change(k, n, price, date):
        nonlocal cash
        fill = price * (1 + math.copysign(slip, n))
        cash -= n * fill + abs(n) * fill * fee
        trip = book.setdefault(k, {"side": math.copysign(1, n), "entry": date, "stake": 0.0, "profit": 0.0})
        trip["stake"] += abs(n) * fill if n * trip["side"] > 0 else 0
        trip["profit"] -= n * fill + abs(n) * fill * fee

    def closed(k, date):
        trip = book.pop(k)
        trades.append((k, int(trip["side"]), trip["entry"], date, trip["profit"] / trip["stake"]))

    def bring(wanted, prices, date):
        """wanted: {symbol: shares}; sales and covers first, then all other purchases, smaller if there is no cash."""
        grow = {}
        for k, n in wanted.items():
            now = shares.get(k, 0.0)
            if now * n < 0 or n == 0:
                if now:
                    change(k, -now, prices[k], date)
                    closed(k, date)
                    del shares[k]
                now = 0.0
            step = n - now
            if step < 0 or (step > 0 and now < 0):
                change(k, step, prices[k], date)
                shares[k] = n
            elif step > 0:
                grow[k] = step
        needed = sum(n * prices[k] * (1 + slip) * (1 + fee) for k, n in grow.items())
        factor = max(0.0, cash) / needed if needed > max(0.0, cash) else 1.0
        grow = grow if factor > 1e-9 else {}
        for k, n in grow.items():
            change(k, n * factor, prices[k], date)
            shares[k] = shares.get(k, 0.0) + n * factor

    def fill(date, price, but=()):
        prices, wanted = dict(mark), {}
        due = {k: w for k, w in order.items() if (date, k) in bar and k not in but}
        for k in list(mark.keys() | due.keys()):
            if (date, k) in bar and not halted[bar[date, k]]:
                prices[k] = float(price[bar[date, k]])
        whole = value(prices)
        for k, w in due.items():
            del order[k]
            if halted[bar[date, k]]:
                if shares.get(k, 0) and w * shares[k] <= 0:
                    order[k] = 0.0  # an exit waits, anything else lapses
                continue
            wanted[k] = w * whole / prices[k]
        bring(wanted, prices, date)

    def decide(date):
        nonlocal next_decision
        rows = {k: bar[date, k] for k in range(panel.n_symbols) if (date, k) in bar}
        if next_decision is None and any(not math.isnan(score[row]) for row in rows.values()):
            next_decision = date
        if next_decision is None or date < next_decision:
            return
        next_decision += every
        known = {k: float(score[row]) for k, row in rows.items() if not math.isnan(score[row]) and not halted[row]}
        if not known:
            return
        most = len(known) // 2 if rules.short else len(known)
        sides = {1: names_of(rules.hold, known, {k for k, n in shares.items() if n > 0}, most)}
        if rules.short:
            low = {k: -known[k] for k in reversed(known)}  # of equal scores the last is the lowest
            below = names_of(rules.hold, low, {k for k, n in shares.items() if n < 0}, most)
            sides[-1] = [k for k in below if k not in sides[1]]
        order.clear()
        order.update(dict.fromkeys(shares, 0.0))
        for side, names in sides.items():
            inverse = {k: 1.0 for k in names}
            if volatility is not None:
                inverse = {k: 1 / volatility[rows[k]] if k in rows and volatility[rows[k]] > 0 else 0.0 for k in names}
            total = sum(inverse.values())
            for k in names:
                if total and inverse[k]:
                    order[k] = side * rules.gross[side] * inverse[k] / total

    for date in range(len(times)):
        ending = {k for k, day in last_date.items() if day == date}
        if rules.fills.at_close:
            decide(date)
            fill(date, panel.close, ending)
        else:
            fill(date, panel.open)
        for k in range(panel.n_symbols):
            if (date, k) in bar:
                mark[k] = float(panel.close[bar[date, k]])
        bring({k: 0.0 for k in ending if k in shares}, mark, date)
        for k in ending:
            order.pop(k, None)
        equity.append(value(mark))
        if not rules.fills.at_close:
            decide(date)
    return np.array(equity), trades


def median_volume(panel, row, bars=20):
    """The median of close * volume over the last bars of a symbol up to a row."""
    begin = int(panel.offsets[panel.symbol_of_row[row]])
    rows = range(max(begin, row - bars + 1), row + 1)
    return statistics.median(float(panel.close[r]) * float(panel.volume[r]) for r in rows)
