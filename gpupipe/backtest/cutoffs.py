"""Cutoffs by profit: the probability from which acting paid most on validation, by the rules of the backtest."""

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
from gpupipe.backtest.engine import REASONS
from gpupipe.backtest.rules import Rules
from gpupipe.backtest.sources import time_ns_of
from gpupipe.data.halts import halted_rows
from gpupipe.data.panel import Panel
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import FORMAT, dump_json, sha256_of, write_atomic
from gpupipe.targets.classes import CLASSES, has_fixed_barriers, horizon_and_threshold, percent
from gpupipe.targets.trade_return import LONG, SHORT

FILE = "cutoffs.json"  # in OUT
FEWEST = 100  # trades, of all sectors together, below which a mean is not used
LEAST_T = 1.0  # standard errors by which a cutoff has to pay
NEVER = 2.0  # a cutoff that no probability reaches
STEPS = 3  # cutoffs tried for each doubling of the rows called


@dataclass(frozen=True)
class Side:
    """The cutoff chosen for BUY or SELL of a model; NEVER where no cutoff paid, and then the other fields are NaN.

    trades: their number on validation.  mean: their mean net return.
    t: the net return beyond that of entries on every row, in standard errors.

        >>> side = Side(0.6, trades=120.0, mean=0.004, t=2.1)
        >>> side.cutoff < NEVER, Side(NEVER).cutoff
        (True, 2.0)
    """

    cutoff: float
    trades: float = float("nan")
    mean: float = float("nan")
    t: float = float("nan")


@dataclass(frozen=True)
class Cutoffs:
    """The cutoffs chosen for BUY and for SELL by estimator, horizon and threshold, for all sectors together.

    since, until: the first and the last validation date.  rules: those of the trades that chose.

        >>> sides = {("linear", 5, 0.1): (Side(NEVER), Side(0.6, trades=120.0, mean=0.004, t=2.1))}
        >>> chosen = Cutoffs(sides, "2020-01-02", "2020-06-30", Rules())
        >>> [side.cutoff for side in chosen.sides["linear", 5, 0.1]]  # never SELL; BUY from 60 %
        [2.0, 0.6]
    """

    sides: dict[tuple[str, int, float], tuple[Side, Side]]
    since: str
    until: str
    rules: Rules

    def of(self, models: Any) -> Any:
        """The models (artifacts.Models) with these cutoffs instead of those they were published with."""
        chosen = {}
        for sector, label, family in models.cutoffs:
            if not has_fixed_barriers(models.target, label):
                continue
            key = (family, *horizon_and_threshold(models.target, label))
            if key in self.sides:
                chosen[sector, label, family] = tuple(side.cutoff for side in self.sides[key])
        return dataclasses.replace(models, cutoffs={**models.cutoffs, **chosen})


@dataclass(frozen=True)
class ValidationPart:
    """A sector's bars from the begin of its validation part to its sealed test, and the predictions for them.

    values: float32 (n_rows, n_models, 3), of SELL, HOLD, BUY; NaN on rows outside of validation.
    halted: int8 (n_rows,), see `data.halts.halted_rows`.

        >>> from gpupipe.data import simulate
        >>> values = np.full((6, 1, 3), np.nan, np.float32)
        >>> values[3:] = 0.2, 0.5, 0.3
        >>> part = ValidationPart(simulate(n_symbols=1, n_bars=6), values, np.zeros(6, np.int8))
        >>> int((~np.isnan(part.values[:, 0, 2])).sum()), part.panel.n_rows  # validation rows, and all bars
        (3, 6)
    """

    panel: Panel
    values: Any
    halted: Any


@dataclass(frozen=True)
class Bet:
    """A side of a label: BUY traded long, or SELL traded short.

    side: LONG or SHORT.  class_number: its position among the probabilities.  rules: those that act on this side alone.

        >>> bet = Bet(5, 0.1, SHORT, class_number=0, rules=Rules(side="short"))
        >>> CLASSES[bet.class_number], bet.rules.sides == (bet.side,)
        ('SELL', True)
    """

    horizon: int
    threshold: float
    side: int
    class_number: int
    rules: Rules


def kept(models: Any, panel: Panel, rules: Rules) -> Cutoffs:
    """`choose`, or its earlier result for these models, bars and rules: OUT/cutoffs.json.

    Raises as `choose`. Where the folder cannot be written, nothing is kept.
    """
    from gpupipe.store import fingerprint

    # These three rules do not matter to the choice of either side.
    rules = dataclasses.replace(rules, side="both", sizing="equal", exit_on_opposite=False)
    digest = hashlib.sha256()
    for sector, bars in _before_test(models, panel):
        digest.update(sector.encode())
        for array in (*bars.columns.values(), bars.time_ns, bars.offsets):
            digest.update(np.ascontiguousarray(bars.device.to_host(array)))
    inputs = [models.manifest["run_key"], rules.as_dict(), digest.hexdigest(), fingerprint.code_hash([__name__])]
    key, path = sha256_of(inputs), models.out / FILE
    try:
        content = json.loads(path.read_bytes())
        if content["key"] == key:
            return _from_json(content, rules)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    chosen = choose(models, panel, rules)
    with contextlib.suppress(OSError):
        write_atomic(path, dump_json({"format": FORMAT, "key": key, **_as_json(chosen)}))
    return chosen


def choose(models: Any, panel: Panel, rules: Rules) -> Cutoffs:
    """For each model, the probabilities of BUY (traded long) and of SELL (traded short) from which acting paid best.

    Rows and trades are those of validation, of all sectors together. The bars of the sealed test are cut off before
    anything is computed, and a trade that had not ended before them is left out. Some cutoffs are tried for each
    doubling of the rows called; each is traded by `rules`, whose side is ignored. The cutoff with the highest t is
    chosen. t is the net return of its trades beyond the mean of entries on every row, summed over successive blocks of
    as many dates as the horizon has: mean over standard error of a block. So trades of one date count as one bet, and
    a rising market is no merit of a cutoff. A cutoff needs FEWEST trades, a mean net return above 0 and a t of
    LEAST_T; without such a cutoff the side is never called.

    models: artifacts.load(OUT).  panel: with the bars of validation, and before them enough for every feature.
    Raises UserError where the panel holds no validation row of a sector that has models.
    """
    parts = [_validation_part(models, sector, bars) for sector, bars in _before_test(models, panel)]
    columns = {
        m: (family, *horizon_and_threshold(models.target, label))
        for m, (family, label) in enumerate(models.columns()) if has_fixed_barriers(models.target, label)
    }  # fmt: skip
    dates = np.unique(np.concatenate([panel.device.to_host(part.panel.time_ns) for part in parts]))
    chosen: dict[tuple[str, int, float], list[Side]] = {column: [] for column in columns.values()}
    for side, word, called in ((LONG, "long", "BUY"), (SHORT, "short", "SELL")):
        side_rules = dataclasses.replace(rules, side=word)
        for h, t in dict.fromkeys(key[1:] for key in columns.values()):
            bet = Bet(h, t, side, CLASSES.index(called), side_rules)
            numbers = [m for m, key in columns.items() if key[1:] == (h, t)]
            for m, best in zip(numbers, _best_cutoffs(parts, dates, bet, numbers), strict=True):
                chosen[columns[m]].append(best)
    spans = [models.metadata[sector]["dates"]["validation"] for sector in panel.groups if sector in models.metadata]
    sides = {key: (buy, sell) for key, (buy, sell) in chosen.items()}
    return Cutoffs(sides, min(first for first, _ in spans), max(last for _, last in spans), rules)


def _before_test(models: Any, panel: Panel) -> list[tuple[str, Panel]]:
    """Each sector that has models, with its bars before its sealed test: later bars must not choose anything."""
    sectors = []
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
                f"--call profit: the data hold no bar of {sector}'s validation part ({begin} to {end}): give the data "
                "of the run, or use --call score, which was learned when the models were trained"
            )
        sectors.append((sector, bars))
    if not sectors:
        raise UserError(f"{models.out} has models for {', '.join(models.by_group)}, none for the data's sectors")
    return sectors


def _validation_part(models: Any, sector: str, bars: Panel) -> ValidationPart:
    begin, end = (time_ns_of(text) for text in models.metadata[sector]["dates"]["validation"])
    predictions = models.predict(bars, None, (bars.time_ns >= begin) & (bars.time_ns <= end))
    panel, rows = engine.bars_of(bars, bars.time_ns >= begin)
    return ValidationPart(panel, predictions.values[rows], halted_rows(bars)[rows])


def _best_cutoffs(parts: Sequence[ValidationPart], dates: np.ndarray, bet: Bet, models: Sequence[int]) -> list[Side]:
    """The best cutoff of a bet for each of some models.

    dates: int64 (n_dates,): all times of the parts.  models: their positions among the predictions.
    """
    host = parts[0].panel.device.to_host
    n_blocks = -(-len(dates) // bet.horizon)
    probabilities = [np.concatenate([host(part.values[:, m, bet.class_number]) for part in parts]) for m in models]
    cutoffs = [candidates(probability[~np.isnan(probability)]) for probability in probabilities]
    model_of_cutoff = np.repeat(np.arange(len(models)), [len(model_cutoffs) for model_cutoffs in cutoffs])
    every_row = np.zeros(2)  # sum and number of the net returns of entries on every row
    count = np.zeros((len(model_of_cutoff), n_blocks))
    total = np.zeros_like(count)
    for part in parts:
        panel, xp, asarray = part.panel, part.panel.device.xp, part.panel.device.asarray
        outcomes, _ = engine.outcomes_of(panel, (bet.horizon,), (bet.threshold,), bet.rules, part.halted)
        probability = xp.ascontiguousarray(part.values[:, models, bet.class_number].T)
        predicted = ~xp.isnan(probability).all(axis=0)[None]
        overlapping = dataclasses.replace(bet.rules, overlapping=True)
        one_model = np.zeros(1, np.int64)
        entries = engine.taken(panel, _calls(predicted, bet.side, xp), one_model, outcomes, overlapping)
        ended = host(entries.reason) != REASONS.index("end of data")
        every_row += host(entries.net)[ended].sum(), ended.sum()
        if not len(model_of_cutoff):
            continue
        reached = probability[asarray(model_of_cutoff)] >= asarray(np.concatenate(cutoffs))[:, None]
        variant = np.zeros(len(model_of_cutoff), np.int64)
        trades = engine.taken(panel, _calls(reached, bet.side, xp), variant, outcomes, bet.rules)
        ended = host(trades.reason) != REASONS.index("end of data")
        block = np.searchsorted(dates, host(panel.time_ns[trades.row])[ended]) // bet.horizon
        cell = host(trades.model)[ended] * n_blocks + block
        net = host(trades.net)[ended]
        count += np.bincount(cell, minlength=count.size).reshape(count.shape)
        total += np.bincount(cell, net, minlength=count.size).reshape(count.shape)
    gained = total - every_row[0] / max(every_row[1], 1.0) * count
    selections = [model_of_cutoff == k for k in range(len(models))]
    return [
        _best(model_cutoffs, count[rows], total[rows], gained[rows])
        for model_cutoffs, rows in zip(cutoffs, selections, strict=True)
    ]


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
    cutoffs: np.ndarray = np.unique(np.sort(probability)[::-1][called - 1]).astype(np.float32)
    return cutoffs


def _best(cutoffs: np.ndarray, count: np.ndarray, total: np.ndarray, gained: np.ndarray) -> Side:
    """The cutoff with the highest t among those that pay.

    count, total, gained: float64 (n_cutoffs, n_blocks): number, net return and excess net return of the trades.
    """
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


def _from_json(content: dict[str, Any], rules: Rules) -> Cutoffs:
    def side(values: dict[str, float | None]) -> Side:
        return Side(**{name: float("nan") if value is None else value for name, value in values.items()})

    sides = {
        (model["family"], model["horizon"], model["threshold"]): (side(model["buy"]), side(model["sell"]))
        for model in content["models"]
    }
    return Cutoffs(sides, content["since"], content["until"], rules)


def sentences(chosen: Cutoffs, family: str) -> list[str]:
    """The cutoffs of an estimator in words: a headline, and a line for each label."""
    rules = chosen.rules
    cost = 2 * rules.commission_bps + rules.spread_bps + 2 * rules.slippage_bps
    lines = [
        f"Cutoffs of {family} by profit, on validation ({chosen.since} to {chosen.until}), {cost:g} basis points a "
        "trade:"
    ]
    for (name, h, t), sides in chosen.sides.items():
        if name == family:
            texts = (_words(word, side) for word, side in zip(("BUY", "SELL"), sides, strict=True))
            lines.append(f"{h}d {percent(t)} %: {'; '.join(texts)}")
    return lines


def _words(word: str, side: Side) -> str:
    if side.cutoff >= NEVER:
        return f"{word} never, as no cutoff paid"
    trades = f"{side.trades:,.0f} trades, {100 * side.mean:.2f} % each, t {side.t:.1f}"
    return f"{word} from {100 * side.cutoff:.1f} % ({trades})"
