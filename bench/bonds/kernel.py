"""Bonds a second: our kernels, loops of other libraries, and numpy; equality first.

Two sets of made bonds. "treasury": Act/Act, two coupons a year, up to 30 years, first periods whole; all libraries take
them. "mixed": four day counts and frequencies, short first periods, month ends, in QuantLib's convention; QuantLib
alone. The bars are judged on "treasury". Objects and terms are made before; the whole call from dates, and making the
objects, are timed too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.bonds.peers import LOOPS, InNumpy, Peer
from bench.runs import Line, installed
from bench.timing import alternate, timed
from gpupipe import bonds

PEERS = tuple(LOOPS)
PRICE, YIELD = 1e-10, 1e-12  # percent of par; a fraction: against QuantLib, whose yields are asked for within 1e-10
LOOSE = 1e-7  # percent, of yields: QuantLib's tolerance in a timed loop, and of the other libraries
BARS = {"price": 400.0, "yield": 300.0}  # times QuantLib
RISK_BAR = 2.0  # times the time of the price
DAY_COUNTS = ("act/act", "30/360", "act/360", "act/365")


def treasuries(n: int) -> dict[str, np.ndarray]:
    """Bonds with a day of the month up to 27 and whole first periods, settled within their first five years."""
    rng = np.random.default_rng(1)
    months = rng.integers(12 * 20, 12 * 45, n).astype("datetime64[M]")
    day = rng.integers(0, 27, n).astype("timedelta64[D]")
    terms = rng.choice([2, 3, 5, 7, 10, 20, 30], n)
    issue = months.astype("datetime64[D]") + day
    maturity = (months + 12 * terms).astype("datetime64[D]") + day
    span = (maturity - issue).astype(int)
    settlement = issue + np.minimum(rng.integers(0, 1_800, n), span - 20).astype("timedelta64[D]")
    return {
        "coupon": rng.integers(1, 80, n) / 8, "frequency": np.full(n, 2), "issue": issue, "maturity": maturity,
        "settlement": settlement, "day_count": np.full(n, "act/act"),
    }  # fmt: skip


def mixed(n: int) -> dict[str, np.ndarray]:
    """The same over all day counts and frequencies, issued within a period, some at month ends."""
    rng, table = np.random.default_rng(2), treasuries(n)
    end = (table["maturity"].astype("datetime64[M]") + 1).astype("datetime64[D]") - 1
    table["maturity"] = np.where(rng.random(n) < 0.3, end, table["maturity"])
    table["issue"] = table["issue"] - rng.integers(0, 25, n).astype("timedelta64[D]")
    return {**table, "frequency": rng.choice([1, 2, 4, 12], n), "day_count": rng.choice(DAY_COUNTS, n)}


SETS: dict[str, tuple[Any, str]] = {"treasury": (treasuries, "street"), "mixed": (mixed, "quantlib")}


def lines(chosen: argparse.Namespace) -> Iterator[Line]:
    """For each set: equality of all sides on the looped bonds, then bonds a second."""
    for name, (make, convention) in SETS.items():
        table = make(chosen.bonds)
        rate = np.random.default_rng(3).uniform(0.1, 9, chosen.bonds)
        few = {column: values[: chosen.looped] for column, values in table.items()}
        makers = {peer: LOOPS[peer] for peer in chosen.peers if name == "treasury" or peer == "quantlib"}
        made = {peer: _Made(maker, few) for peer, maker in makers.items()}
        peers = {peer: timed_maker.peer for peer, timed_maker in installed(made, made).items()}
        terms = bonds.prepare(table, convention)
        clean, _ = terms.price(rate)
        yield {"kind": "kernel equality", "set": name, **compared(terms, peers, rate, clean, chosen.looped, table)}
        yield {"kind": "kernel pace", "set": name, **pace(table, terms, peers, rate, clean, chosen)}
        seconds = {peer: made[peer].seconds for peer in peers}
        yield {"kind": "kernel whole call", "set": name, **whole_call(table, rate, convention, chosen, seconds)}


class _Made:
    """A maker of a peer that keeps how long making its objects took."""

    def __init__(self, maker: Any, table: dict[str, np.ndarray]) -> None:
        self.maker, self.table, self.seconds = maker, table, 0.0

    def __call__(self) -> _Made:
        self.seconds, self.peer = timed(lambda: self.maker(self.table))
        return self

    peer: Peer


def compared(
    terms: Any, peers: dict[str, Peer], rate: np.ndarray, clean: np.ndarray, n: int, table: dict[str, np.ndarray]
) -> Line:
    """The largest differences to each peer in price and yield; SystemExit where QuantLib's are beyond the parity."""
    rates, cleans, ours = rate[:n].tolist(), clean[:n].tolist(), terms.yields(clean)[0]
    differences: Line = {"bonds": n}
    for name, peer in peers.items():
        prices = np.array([price(y) for price, y in zip(peer.price, rates, strict=True)])
        yields = np.array([found(p) for found, p in zip(peer.rate, cleans, strict=True)])
        differences[f"{name}_price"] = float(np.abs(prices - clean[:n]).max())
        differences[f"{name}_yield"] = float(np.abs(yields - ours[:n]).max())
    back = float(np.abs(ours - rate).max()) / 100
    differences["own_yield"] = back
    if "quantlib" in peers and not (differences["quantlib_price"] <= PRICE and differences["quantlib_yield"] <= LOOSE):
        raise SystemExit(f"the kernel differs from QuantLib: {differences}")
    if not back <= YIELD * 10:
        raise SystemExit(f"yields are not found again: {back:g}")
    if (table["day_count"] == "act/act").all():
        numpy_side = InNumpy(table)
        differences["numpy_price"] = float(np.abs(numpy_side.price(rate) - clean).max())
        differences["numpy_yield"] = float(np.abs(numpy_side.rate(clean) - ours).max())
    return differences


def pace(
    table: dict[str, np.ndarray], terms: Any, peers: dict[str, Peer], rate: np.ndarray, clean: np.ndarray,
    chosen: argparse.Namespace,
) -> Line:  # fmt: skip
    """Bonds a second of every side, in turn, and our ratios to QuantLib."""
    n, looped = chosen.bonds, chosen.looped
    rates, cleans = rate[:looped].tolist(), clean[:looped].tolist()
    priced, measured = terms.price(rate), terms.measure(rate)  # whose arrays are written again
    sides: dict[str, Any] = {
        "kernel price": lambda: terms.price(rate, priced), "kernel risk": lambda: terms.measure(rate, measured),
        "kernel yield": lambda: terms.yields(clean),
    }  # fmt: skip
    if (table["day_count"] == "act/act").all():
        numpy_side = InNumpy(table)
        sides |= {"numpy price": lambda: numpy_side.price(rate), "numpy yield": lambda: numpy_side.rate(clean)}
    counts = dict.fromkeys(sides, n)
    for name, peer in peers.items():
        works = {"price": (peer.price, rates), "yield": (peer.rate, cleans), "risk": (peer.risk, rates)}
        for work, (functions, values) in works.items():
            if functions is not None:
                sides[f"{name} {work}"] = _loop(functions, values)
                counts[f"{name} {work}"] = looped
    for side in sides.values():
        side()
    seconds, rounds = alternate(chosen.times, sides)
    per_second = {name: counts[name] / s for name, s in seconds.items()}
    result: Line = {"bonds_per_s": per_second, "rounds": rounds, "bonds": n, "looped": looped}
    result["risk_over_price"] = seconds["kernel risk"] / seconds["kernel price"]
    if "quantlib" in peers:
        ratios = {work: per_second[f"kernel {work}"] / per_second[f"quantlib {work}"] for work in BARS}
        holds = all(ratios[work] >= bar for work, bar in BARS.items()) and result["risk_over_price"] <= RISK_BAR
        result |= {"ratios": ratios, "bars": BARS | {"risk_over_price": RISK_BAR}, "holds": holds}
    return result


def _loop(functions: list[Any], values: list[float]) -> Any:
    def run() -> None:
        for function, value in zip(functions, values, strict=True):
            function(value)

    return run


def whole_call(
    table: dict[str, np.ndarray], rate: np.ndarray, convention: Any, chosen: argparse.Namespace,
    made_s: dict[str, float],
) -> Line:  # fmt: skip
    """Bonds a second from dates: `bonds.value` with all its columns, and the loops' objects made."""
    numbers = {name: index for index, name in enumerate(DAY_COUNTS)}
    whole = {**table, "day_count": np.array([numbers[text] for text in table["day_count"].tolist()], np.int8)}
    clean = bonds.value({**whole, "yield": rate}, "yield", convention)["clean"]
    sides = {
        "value from yield": lambda: bonds.value({**whole, "yield": rate}, "yield", convention),
        "value from clean": lambda: bonds.value({**whole, "clean": clean}, "clean", convention),
        "prepare": lambda: bonds.prepare(whole, convention),
    }  # fmt: skip
    began = time.perf_counter()
    seconds, rounds = alternate(max(3, chosen.times // 3), sides)
    per_second = {name: chosen.bonds / s for name, s in seconds.items()}
    per_second |= {f"{name} objects": chosen.looped / s for name, s in made_s.items() if s}
    return {"bonds_per_s": per_second, "rounds": rounds, "seconds": time.perf_counter() - began}
