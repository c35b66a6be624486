"""Ways to choose the names of a portfolio of ranks: the registry behind `--hold`; a way is a function and a line.

numpy is loaded when names are chosen, because the help of the command line has the ways too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np

DEFAULT_HOLD = "top:10%"


@dataclass(frozen=True)
class Ranked:
    """The names of one date as one side sees them, for each portfolio; the short side sees the order reversed.

    rank: int64 (n_portfolios, n_symbols), a permutation of each row: 0 is the best name of this side. Names without a
        score come last.
    n_scored: int64 (n_portfolios,): the names with a score; those with rank >= n_scored have none.
    held: bool (n_portfolios, n_symbols): whether the portfolio has a position on this side.
    most: int64 (n_portfolios,): the most names that this side may choose; half of all where there are two sides.

        >>> import numpy as np
        >>> names = Ranked(np.array([[2, 0, 1]]), np.array([2]), np.zeros((1, 3), bool), np.array([2]))
        >>> names.scored.tolist()
        [[False, True, True]]
    """

    rank: np.ndarray
    n_scored: np.ndarray
    held: np.ndarray
    most: np.ndarray

    @property
    def scored(self) -> np.ndarray:
        """bool (n_portfolios, n_symbols): whether a name has a score."""
        known: np.ndarray = self.rank < self.n_scored[:, None]
        return known

    def best(self, count: np.ndarray) -> np.ndarray:
        """bool (n_portfolios, n_symbols): the best `count` names, int64 (n_portfolios,), of those with a score."""
        import numpy as np

        chosen: np.ndarray = self.rank < np.minimum(np.minimum(count, self.most), self.n_scored)[:, None]
        return chosen


def top(names: Ranked, count: float) -> np.ndarray:
    """The best `count` names; below 1 it is a share of the names with a score, rounded down, but at least one name.

    Fewer names than `count`: all of them.
    """
    import numpy as np

    share = np.maximum(1, np.floor(count * names.n_scored + 1e-9)).astype(np.int64)  # 0.29 * 100 is 28.999...
    return names.best(share if count < 1 else np.full(len(names.rank), int(count)))


def quantile(names: Ranked, groups: float) -> np.ndarray:
    """The best of `groups` groups, into which the names with a score are cut in their order.

    Name number r of n from the worst, from 0 on, is in group r * groups // n. With fewer names than groups the best
    group may be empty.
    """
    import numpy as np

    n = np.maximum(names.n_scored, 1)[:, None]
    group = (names.n_scored[:, None] - 1 - names.rank) * int(groups) // n
    return names.best(names.most) & (group == int(groups) - 1)


def topk_dropout(names: Ranked, hold: float, drop: float) -> np.ndarray:
    """Hold `hold` names and exchange at most `drop` of them at each rebalance.

    Candidates are the best drop + hold - n_held names that are not held. Of held names and candidates together the
    worst `drop` are found; those among them that are held are sold, and the best candidates take the free places. A
    held name without a score counts as worse than every name with one. Source: TopkDropoutStrategy of Qlib
    (method_sell="bottom", method_buy="top"), which leaves the size of names that stay as it is; here the weighting
    decides sizes, as for every way to choose.
    """
    import numpy as np

    hold_at_most = np.minimum(int(hold), names.most)
    order = np.argsort(names.rank, axis=1)
    held, scored = (np.take_along_axis(x, order, axis=1) for x in (names.held, names.scored))  # from the best on
    n_held = held.sum(axis=1)
    free = ~held & scored
    place = np.cumsum(free, axis=1)
    candidate = free & (place <= (int(drop) + hold_at_most - n_held)[:, None])
    together = held | candidate
    from_worst = np.cumsum(together[:, ::-1], axis=1)[:, ::-1]
    sold = held & (from_worst <= int(drop))
    bought = candidate & (place <= (sold.sum(axis=1) + hold_at_most - n_held)[:, None])
    chosen = np.empty_like(held)
    np.put_along_axis(chosen, order, (held & ~sold) | bought, axis=1)
    return chosen


@dataclass(frozen=True)
class Way:
    """A way to choose names.

    choose: from the names of a side and the numbers of the user to bool (n_portfolios, n_symbols).
    example: how it is written.  text: what it does.  n_numbers: how many numbers it takes.
    share: whether a number may be a share, written with a percent sign.

        >>> WAYS["quantile"].example
        'quantile:10'
    """

    choose: Callable[..., np.ndarray]
    example: str
    text: str
    n_numbers: int = 1
    share: bool = False


WAYS = {
    "top": Way(top, "top:50 or top:10%", "the best K names, or that share of all", share=True),
    "quantile": Way(quantile, "quantile:10", "the best of so many groups, as deciles"),
    "topk-dropout": Way(topk_dropout, "topk-dropout:50,5", "hold 50 names, exchange at most 5 of them", n_numbers=2),
}
HOLD_HELP = "; ".join(f"{way.example}: {way.text}" for way in WAYS.values())


@dataclass(frozen=True)
class Selection:
    """A way to choose names with its numbers, as `--hold` has it.

    Raises UserError for a text that names no way, or not its numbers.

        >>> Selection("top:10%").numbers, Selection("topk-dropout:50,5").numbers
        ((0.1,), (50.0, 5.0))
        >>> import numpy as np
        >>> score = np.array([[0.3, np.nan, 0.9, 0.9, 0.1]])
        >>> Selection("top:2").sides(score, np.zeros((1, 5)), short=True).tolist()
        [[-1, 0, 1, 1, -1]]
    """

    text: str = DEFAULT_HOLD

    def __post_init__(self) -> None:
        if self.name not in WAYS:
            raise UserError(f"--hold {self.text}: expected {HOLD_HELP}")
        way, numbers = WAYS[self.name], self.numbers
        whole = [number for number in numbers if number >= 1 and number == int(number)]
        shares = [number for number in numbers if 0 < number < 1]
        if len(numbers) != way.n_numbers or len(whole) + len(shares) < len(numbers) or (shares and not way.share):
            raise UserError(f"--hold {self.text}: expected {way.example} ({way.text}), numbers from 1 on")

    @property
    def name(self) -> str:
        """The way."""
        return self.text.partition(":")[0]

    @property
    def numbers(self) -> tuple[float, ...]:
        """Its numbers; a share is below 1, and what is no number is NaN."""
        return tuple(_number(word) for word in self.text.partition(":")[2].split(","))

    def sides(self, score: np.ndarray, position: np.ndarray, short: bool) -> np.ndarray:
        """int8 (n_portfolios, n_symbols): 1 for names to be held long, -1 short, 0 not at all.

        score: float (n_portfolios, n_symbols), NaN without one; the highest are held long. Of equal scores the first
            symbol counts as the higher.
        position: of the same shape; its sign is the side that is held now.
        short: whether the lowest are held short; each side then chooses at most half of the names with a score, so that
            none is on both.
        """
        import numpy as np

        order = np.argsort(-score, axis=1, kind="stable")  # NaN last
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(np.arange(score.shape[1]), order.shape), axis=1)
        n_scored = (~np.isnan(score)).sum(axis=1)
        most = n_scored // 2 if short else n_scored
        choose, numbers = WAYS[self.name].choose, self.numbers
        chosen = choose(Ranked(rank, n_scored, position > 0, most), *numbers).astype(np.int8)
        if not short:
            return chosen
        reversed_rank = np.where(rank < n_scored[:, None], n_scored[:, None] - 1 - rank, rank)
        below: np.ndarray = choose(Ranked(reversed_rank, n_scored, position < 0, most), *numbers)
        return np.where(below & (chosen == 0), np.int8(-1), chosen)


def _number(word: str) -> float:
    try:
        value = float(word.removesuffix("%"))
    except ValueError:
        return float("nan")
    if not word.endswith("%"):
        return value if 1 <= value < 1e9 else float("nan")
    return value / 100 if 0 < value < 100 else float("nan")
