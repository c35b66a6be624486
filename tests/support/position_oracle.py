"""A plain-Python event loop of one account that follows a position path: cash and units, with its own arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Followed:
    """What the loop found: equity by row, trades, and decided positions that were never entered.

    trades: (decided row, entry row, exit row, side, entry price, exit price, reason, waited, net return).
    """

    equity: list[float] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    trades: list[tuple] = field(default_factory=list)
    unfilled: int = 0


def follow(opens, closes, positions, halted, slip, commission, size, at_close) -> Followed:
    """Follow one path over one symbol; lists of numbers in Python."""
    found = Followed()
    cash, units, side, ruined, mark = 1.0, 0.0, 0, False, None
    entry = None  # (decided, row, price, paid)
    waiting = False
    for row in range(len(positions)):
        if row > 0:
            wanted = 0 if ruined else positions[row - 1]
            price = closes[row] if at_close else opens[row]
            if wanted != side and not halted[row] and price > 0:
                if side:
                    received = price * (1 - side * slip[row])
                    cash += units * received - commission * abs(units) * received
                    why = "all lost" if positions[row - 1] == side else "position"
                    found.trades.append(_trade(entry, row, side, price, received, why, waiting, commission))
                    units, side = 0.0, 0
                if wanted and cash > 0:
                    paid = price * (1 + wanted * slip[row])
                    stake = size * cash
                    units, side = wanted * stake / paid, wanted
                    cash -= units * paid + commission * stake
                    decided = row - 1
                    while decided > 0 and positions[decided - 1] == wanted:
                        decided -= 1
                    entry = (decided, row, price, paid)
                waiting, mark, mark_row = False, price, row
            else:
                waiting = side != 0 and wanted != side
        if closes[row] > 0:
            mark, mark_row = closes[row], row
        worth = cash + units * mark if units else cash
        ruined = ruined or worth <= 0
        found.equity.append(worth)
        found.held.append(side)
    if side:
        received = mark * (1 - side * slip[mark_row])
        found.trades.append(_trade(entry, mark_row, side, mark, received, "end of data", waiting, commission))
    found.unfilled = _unfilled(positions, found)
    return found


def _trade(entry, row, side, price, received, why, waited, commission):
    decided, entered, entry_price, paid = entry
    net = side * (received / paid - 1) - commission * (1 + received / paid)
    return decided, entered, row, side, entry_price, price, why, waited, net


def _unfilled(positions, found) -> int:
    """Runs of one side, of decisions that had a next row, after whose last fill row the side was not held."""
    n, count = len(positions), 0
    for row in range(n - 1):
        last_of_run = row == n - 2 or positions[row + 1] != positions[row]
        if positions[row] and last_of_run and found.held[row + 1] != positions[row]:
            count += min(found.equity[: row + 2]) > 0
    return count
