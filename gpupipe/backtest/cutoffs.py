"""Cutoffs that weigh costs: from which probability on acting has paid on validation, by the backtest's own rules."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.backtest import engine
from gpupipe.backtest.choices import F1, PROFIT
from gpupipe.backtest.engine import LONG, REASONS, SHORT
from gpupipe.backtest.rules import Rules
from gpupipe.backtest.sources import time_ns_of
from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import FORMAT, dump_json, sha256, write_atomic
from gpupipe.targets.classes import CLASSES, horizon_and_threshold, percent

CUTOFF_SENTENCES = {
    F1: "Rows are called BUY or SELL from the cutoff with the best F1 on validation.",
    PROFIT: "Rows are called BUY or SELL from the cutoff that paid best on validation, or never.",
}
CALLS_MOST = f"That is most of them: the cutoff with the best F1 ignores costs; --cutoff {PROFIT} includes them."
FILE = "cutoffs.json"  # in OUT
FEWEST = 100  # trades, of all sectors together, below which a mean says nothing
LEAST_T = 1.0  # standard errors by which a cutoff has to pay
NEVER = 2.0  # a cutoff that no probability reaches
STEPS = 3  # cutoffs tried for each doubling of the rows called


@dataclass(frozen=True)
class Side:
    """What was chosen for BUY or SELL of one model. cutoff: NEVER where nothing paid, and then the others are NaN.

    trades: on validation.  mean: their net return.  t: that beyond entries on every row, in standard errors.
    """

    cutoff: float
    trades: float = float("nan")
    mean: float = float("nan")
    t: float = float("nan")


@dataclass(frozen=True)
class Cutoffs:
    """By family, horizon and threshold: what was chosen for BUY and for SELL, of all sectors together.

    since, until: the first and the last validation date.  rules: by which trades were judged.
    """

    sides: dict[tuple[str, int, float], tuple[Side, Side]]
    since: str
    until: str
    rules: Rules

    def of(self, models: Any) -> Any:
        """The models (artifacts.Models) with these cutoffs in the place of their own."""
        chosen = {}
        for sector, label, family in models.cutoffs:
            key = (family, *horizon_and_threshold(models.target, label))
            if key in self.sides:
                chosen[sector, label, family] = tuple(side.cutoff for side in self.sides[key])
        return dataclasses.replace(models, cutoffs={**models.cutoffs, **chosen})


@dataclass(frozen=True)
class Part:
    """A sector's bars from its validation part on, up to its sealed test, and what the models say of them.

    values: float32 (n_rows, n_models, 3), of SELL, HOLD, BUY; NaN of rows that are not validation's.
    """

    panel: Panel
    values: Any


def kept(models: Any, panel: Panel, rules: Rules) -> Cutoffs:
    """`choose`, or what it chose before of these models, bars and rules: OUT/cutoffs.json.

    Raises as `choose`. A folder that cannot be written keeps nothing.
    """
    from gpupipe.store import fingerprint

    # What these say matters to the choice of neither side.
    rules = dataclasses.replace(rules, side="both", sizing="equal", exit_on_opposite=False)
    before = _before_test(models, panel)
    digest = hashlib.sha256()
    for sector, part in before:
        digest.update(sector.encode())
        for array in (*part.columns.values(), part.time_ns, part.offsets):
            digest.update(np.ascontiguousarray(part.device.to_host(array)))
    what = [models.manifest["run_key"], rules.as_dict(), digest.hexdigest(), fingerprint.code_hash([__name__])]
    key, path = sha256(dump_json(what)), models.out / FILE
    try:
        found = json.loads(path.read_bytes())
        if found["key"] == key:
            return _from_json(found, rules)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    made = choose(models, panel, rules)
    with contextlib.suppress(OSError):
        write_atomic(path, dump_json({"format": FORMAT, "key": key, **_as_json(made)}))
    return made


def choose(models: Any, panel: Panel, rules: Rules) -> Cutoffs:
    """For each model, from which probability of BUY (traded long) and of SELL (traded short) on acting paid best.

    Rows and trades are those of validation, of all sectors together; the bars of the sealed test are cut off before
    anything is computed, and a trade that had not ended before them is left out. Some cutoffs are tried for each
    doubling of the rows called, each traded by `rules` (of which side is not asked), and that with the highest t is
    taken: of what trades earned after costs beyond the mean of entries on every row, added up by successive blocks of
    as many dates as the horizon has, mean over standard error of a block. So trades of one date count as one bet,
    and what a rising market gives to any entry is no merit of a cutoff. It has to have FEWEST trades, a mean net
    return above 0 and a t of LEAST_T, or the side is never called.

    models: artifacts.load(OUT).  panel: with the bars of validation, and before them enough for every feature.
    Raises UserError where the panel holds no validation row of a sector that has models.
    """
    parts = [_part(models, sector, bars) for sector, bars in _before_test(models, panel)]
    columns = [(family, *horizon_and_threshold(models.target, label)) for family, label in models.columns()]
    dates = np.unique(np.concatenate([panel.device.to_host(part.panel.time_ns) for part in parts]))
    chosen: dict[tuple[str, int, float], list[Side]] = {column: [] for column in columns}
    for side, word, called in ((LONG, "long", "BUY"), (SHORT, "short", "SELL")):
        of_side = dataclasses.replace(rules, side=word)
        for h, t in dict.fromkeys(key[1:] for key in columns):
            of_label = [m for m, key in enumerate(columns) if key[1:] == (h, t)]
            found = _tried(parts, of_label, (h, t), side, CLASSES.index(called), of_side, dates)
            for m, best in zip(of_label, found, strict=True):
                chosen[columns[m]].append(best)
    spans = [models.metadata[sector]["dates"]["validation"] for sector in panel.groups if sector in models.metadata]
    sides = {key: (buy, sell) for key, (buy, sell) in chosen.items()}
    return Cutoffs(sides, min(first for first, _ in spans), max(last for _, last in spans), rules)


def _before_test(models: Any, panel: Panel) -> list[tuple[str, Panel]]:
    """Each sector that has models, and its bars before its sealed test: later ones must choose nothing."""
    found = []
    for sector in panel.groups:
        if sector not in models.by_group:
            continue
        test, (begin, end) = (models.metadata[sector]["dates"][part] for part in ("test", "validation"))
        try:
            bars = panel.of_group(sector).until(time_ns_of(test[0]) - 1)
        except ValueError:
            bars = None
        if bars is None or not bool((bars.time_ns >= time_ns_of(begin)).any()):
            raise UserError(
                f"--cutoff {PROFIT}: the data hold no bar of {sector}'s validation part ({begin} to {end}): give the "
                f"data of the run, or use --cutoff {F1}, which was chosen when the models were trained"
            )
        found.append((sector, bars))
    if not found:
        raise UserError(f"{models.out} has models for {', '.join(models.by_group)}, none for the data's sectors")
    return found


def _part(models: Any, sector: str, bars: Panel) -> Part:
    begin, end = (time_ns_of(text) for text in models.metadata[sector]["dates"]["validation"])
    said = models.predict(bars, None, (bars.time_ns >= begin) & (bars.time_ns <= end))
    panel, rows = engine.bars_of(bars, bars.time_ns >= begin)
    return Part(panel, said.values[rows])


def _tried(
    parts: Sequence[Part], models: Sequence[int], label: tuple[int, float], side: int, c: int, rules: Rules,
    dates: np.ndarray,
) -> list[Side]:  # fmt: skip
    """The best cutoff of each of some models of one label, for one side.

    c: the class of the side.  dates: int64 (n_dates,): all times of the parts.
    """
    host = parts[0].panel.device.to_host
    n_blocks = -(-len(dates) // label[0])
    said = [np.concatenate([host(part.values[:, m, c]) for part in parts]) for m in models]
    cutoffs = [candidates(probability[~np.isnan(probability)]) for probability in said]
    of_model = np.repeat(np.arange(len(models)), [len(own) for own in cutoffs])
    everyone = np.zeros(2)  # sum and number of the entries on every row
    count = np.zeros((len(of_model), n_blocks))
    total = np.zeros_like(count)
    for part in parts:
        panel, xp, asarray = part.panel, part.panel.device.xp, part.panel.device.asarray
        outcomes, _ = engine.outcomes_of(panel, (label[0],), (label[1],), rules)
        probability = xp.ascontiguousarray(part.values[:, models, c].T)
        there = ~xp.isnan(probability)
        every = engine.taken(panel, _calls(there.any(axis=0)[None], side, xp), np.zeros(1, np.int64), outcomes,
                             dataclasses.replace(rules, overlapping=True))  # fmt: skip
        ended = host(every.reason) != REASONS.index("end of data")
        everyone += host(every.net)[ended].sum(), ended.sum()
        if not len(of_model):
            continue
        reached = probability[asarray(of_model)] >= asarray(np.concatenate(cutoffs))[:, None]
        trades = engine.taken(panel, _calls(reached, side, xp), np.zeros(len(of_model), np.int64), outcomes, rules)
        ended = host(trades.reason) != REASONS.index("end of data")
        block = np.searchsorted(dates, host(panel.time_ns[trades.row])[ended]) // label[0]
        at = host(trades.model)[ended] * n_blocks + block
        net = host(trades.net)[ended]
        count += np.bincount(at, minlength=count.size).reshape(count.shape)
        total += np.bincount(at, net, minlength=count.size).reshape(count.shape)
    gained = total - everyone[0] / max(everyone[1], 1.0) * count
    return [_best(own, count[of_model == k], total[of_model == k], gained[of_model == k])
            for k, own in enumerate(cutoffs)]  # fmt: skip


def _calls(reached: Any, side: int, xp: Any) -> Any:
    return xp.where(reached, np.int8(side), np.int8(0)).astype(xp.int8)


def candidates(probability: np.ndarray) -> np.ndarray:
    """float32 (n,): cutoffs that call all rows, or 2 ** (-1 / STEPS) of them, and so on down to FEWEST.

    probability: float32 (n_rows,), none NaN.
    """
    n = len(probability)
    if n < FEWEST:
        return np.empty(0, np.float32)
    steps = np.arange(int(STEPS * np.log2(n / FEWEST)) + 1)
    called = np.unique(np.ceil(n * 2.0 ** (-steps / STEPS)).astype(np.int64))
    found: np.ndarray = np.unique(np.sort(probability)[::-1][called - 1]).astype(np.float32)
    return found


def _best(cutoffs: np.ndarray, count: np.ndarray, total: np.ndarray, gained: np.ndarray) -> Side:
    """The cutoff of the highest t that pays; count, total, gained: float64 (n_cutoffs, n_blocks), of its trades."""
    best = Side(NEVER)
    n_blocks = count.shape[1]
    for k, cutoff in enumerate(cutoffs):
        trades, spread = int(count[k].sum()), float(gained[k].std(ddof=1)) if n_blocks > 1 else 0.0
        if trades < FEWEST or not spread > 0:
            continue
        mean, t = float(total[k].sum() / trades), float(gained[k].mean() / spread * np.sqrt(n_blocks))
        if mean > 0 and t >= LEAST_T and not t <= best.t:
            best = Side(float(cutoff), trades, mean, t)
    return best


def _as_json(chosen: Cutoffs) -> dict[str, Any]:
    return {
        "since": chosen.since, "until": chosen.until,
        "models": [
            {"family": family, "horizon": h, "threshold": t, "buy": dataclasses.asdict(buy),
             "sell": dataclasses.asdict(sell)}
            for (family, h, t), (buy, sell) in chosen.sides.items()
        ],
    }  # fmt: skip


def _from_json(found: dict[str, Any], rules: Rules) -> Cutoffs:
    def side(values: dict[str, float | None]) -> Side:
        return Side(**{name: float("nan") if value is None else value for name, value in values.items()})

    sides = {
        (one["family"], one["horizon"], one["threshold"]): (side(one["buy"]), side(one["sell"]))
        for one in found["models"]
    }
    return Cutoffs(sides, found["since"], found["until"], rules)


def sentences(chosen: Cutoffs, family: str) -> list[str]:
    """What was chosen for a family, in words, a line a label."""
    rules = chosen.rules
    cost = 2 * rules.commission_bps + rules.spread_bps + 2 * rules.slippage_bps
    lines = [f"Cutoffs of {family} by profit, on validation ({chosen.since} to {chosen.until}), {cost:g} basis points "
             "a trade:"]  # fmt: skip
    for (name, h, t), sides in chosen.sides.items():
        if name == family:
            said = (_words(word, side) for word, side in zip(("BUY", "SELL"), sides, strict=True))
            lines.append(f"{h}d {percent(t)} %: {'; '.join(said)}")
    return lines


def _words(word: str, side: Side) -> str:
    if side.cutoff >= NEVER:
        return f"{word} never, as no cutoff paid"
    trades = f"{side.trades:,.0f} trades, {100 * side.mean:.2f} % each, t {side.t:.1f}"
    return f"{word} from {100 * side.cutoff:.1f} % ({trades})"
