"""Scan: predictions of a run's models for every symbol's latest bar, and what a trade of it is expected to earn."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gpupipe.artifacts.load import Models, Spent
from gpupipe.backtest.calling import registry
from gpupipe.backtest.calling.calls import Refusal, judged, sentences
from gpupipe.backtest.calling.contract import CallingRule, Candidates, net_scores
from gpupipe.backtest.rules import Rules
from gpupipe.backtest.sources import absent_groups
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import NEVER
from gpupipe.evaluation.expected_return import VOLATILITY, lean_of, ranker_of, scores_of
from gpupipe.features.matrix import compute_features
from gpupipe.runtime.errors import UserError
from gpupipe.serving.display import Display
from gpupipe.serving.expected_moves import expected_moves
from gpupipe.serving.latest_bars import has_several_zones, newest, until
from gpupipe.serving.levels import MAX_AGE, Levels
from gpupipe.targets.classes import BUY, CLASSES, HOLD, SELL, has_fixed_barriers, horizon_and_threshold, percent
from gpupipe.targets.trade_return import SIDES

ABOUT = b"gpupipe.scan"  # in the metadata of a Parquet file of signals
NATR = VOLATILITY  # which is also the average true range that levels are placed by, in per cent of the close
CLASS_OF_CALL = np.array([HOLD, BUY, SELL], np.int8)  # by NOTHING, LONG, SHORT
SAME = 1e-4  # spread of the probabilities over symbols below which they count as equal


@dataclass(frozen=True)
class Signal:
    """The prediction of a model of one horizon and threshold for a symbol's latest bar.

    time: of that bar, UTC.  side: BUY, SELL or HOLD, by the calling rule.
    probability: of that class.  base_sell, base_buy: shares of these classes in the training rows of the sector.
    expected_net_return: of a trade of that side after costs, as a share of the stake; of HOLD, of the better side.
    uncertainty: its standard error. Both are NaN where the model has no expected return.
    agreement: share of the other families that call the same; NaN without others.
    entry_low, entry_high, stop, target: prices; NaN for HOLD, or where the ATR is not known.
    expected_move: the standard deviation of the return over the label's bars, as a fraction; see `expected_moves`.

        >>> signal = Signal(
        ...     "XOM", "energy", "2020-06-30T00:00:00Z", close=100.0, model="linear", horizon=5, threshold=0.1,
        ...     side="BUY", probability=0.6, p_sell=0.1, p_hold=0.3, p_buy=0.6, base_sell=0.2, base_buy=0.2,
        ...     expected_net_return=0.004, uncertainty=0.002, agreement=0.75, entry_low=99.5, entry_high=100.5,
        ...     stop=97.0, target=107.5)
        >>> signal.label, signal.p_buy > signal.base_buy
        ('5d_10pct', True)
    """

    symbol: str
    sector: str
    time: str
    close: float
    model: str
    horizon: int
    threshold: float
    side: str
    probability: float
    p_sell: float
    p_hold: float
    p_buy: float
    base_sell: float
    base_buy: float
    expected_net_return: float
    uncertainty: float
    agreement: float
    entry_low: float
    entry_high: float
    stop: float
    target: float
    expected_move: float = math.nan

    @property
    def label(self) -> str:
        """As "5d_10pct"."""
        return f"{self.horizon}d_{percent(self.threshold)}pct"


@dataclass(frozen=True)
class _Latest:
    """The latest bar of every symbol, on the host, and its predictions.

    values: float32 (n_symbols, n_models, 3); NaN where there is no prediction.  natr: float32 (n_symbols,), per cent.
    close: float32 (n_symbols,).  time_ns: int64 (n_symbols,).
    """

    values: np.ndarray
    natr: np.ndarray
    close: np.ndarray
    time_ns: np.ndarray

    @property
    def atr(self) -> np.ndarray:
        """float32 (n_symbols,), in prices."""
        return self.natr / 100 * self.close


@dataclass(frozen=True)
class _Called:
    """What a rule calls.

    side: int8 (n_symbols, n_models), the class that each model calls; -1 where there is no prediction.
    expected, error: float64 (n_symbols, n_models, 2), expected net returns of a long and of a short trade.
    without: why a model calls nothing.
    """

    side: np.ndarray
    expected: np.ndarray
    error: np.ndarray
    without: tuple[Refusal, ...]


def scan(
    models: Models,
    panel: Panel,
    family: str,
    as_of: str | None = None,
    levels: Levels | None = None,
    max_age: int = MAX_AGE,
    rule: CallingRule | None = None,
    rules: Rules | None = None,
) -> Scanned:
    """Signals of one estimator for every symbol and label; all estimators predict, for the agreement.

    models: artifacts.load(OUT).  panel: with enough bars before the latest for every feature, and whole sectors.
    family: name of the estimator.  as_of: an ISO date; later bars are not looked at.
    max_age: in times of the data: a symbol without a bar at any of the last max_age times is left out, as
        `Scanned.stale`. Of intraday bars of several time zones it is in session dates: a bar of Tokyo is as new as one
        of New York of the same date, which comes hours later.
    rule: which symbols are called; the default of `calling.registry` if None. The symbols' latest bars are compared
        with each other as those of one date.  rules: of the trades, for their costs.
    Features and models are those of training, so that a scanned row has the probability that training computed for it.
    Raises UserError for an estimator that was not trained or a date before the first bar, and StoreError as
    `Models.predict`.
    """
    if family not in models.families:
        raise UserError(no_family(family, models.families, str(models.out)))
    panel = models.grouped(panel)
    if as_of is not None:
        panel = until(panel, as_of)
    if max_age < 1:
        raise UserError(f"--max-age {max_age}: expected 1 or more")
    since_ns, until_ns = newest(panel, max_age)
    seconds: dict[str, float] = {}

    def spent(step: str, more: float) -> None:
        seconds[step] = seconds.get(step, 0.0) + more

    values, natr = _predictions(models, panel, since_ns, spent)
    began, to_host = time.perf_counter(), panel.device.to_host
    close, time_ns = (to_host(column[panel.offsets[1:] - 1]) for column in (panel.close, panel.time_ns))
    latest = _Latest(values, natr, close, time_ns)
    rule = rule or registry.rule(registry.DEFAULT)
    called = _called(models, panel, latest, rule, rules or Rules())
    signals = _signals(models, panel, latest, called, family, levels or Levels())
    traded = [label for label in models.target.names if has_fixed_barriers(models.target, label)]
    names = {f"{family}_{label.removeprefix('label_')}" for label in traded}
    silent, stale = np.isnan(values).any(axis=2).all(axis=1), time_ns < since_ns
    seconds["signals"] = time.perf_counter() - began
    return Scanned(
        signals=tuple(signals),
        unpredicted=tuple(panel.symbols[s] for s in np.flatnonzero(silent & ~stale)),
        degenerate=tuple(_degenerate(signals)),
        without_calls=tuple(sentences([refusal for refusal in called.without if refusal.model in names], rule)),
        seconds=seconds,
        stale=tuple(panel.symbols[s] for s in np.flatnonzero(stale)),
        max_age=max_age,
        since_ns=since_ns,
        until_ns=until_ns,
        by_session=has_several_zones(panel),
        display=Display.of(panel),
        unseen_from=min((about["dates"]["test"][0] for about in models.metadata.values()), default=""),
        absent=absent_groups(models.learned_by_group, panel.groups),
        untraded=tuple(label for label in models.target.names if label not in traded),
    )


def no_family(family: str, families: Sequence[str], where: str) -> str:
    """The message for a family that has no model. families: those that have.  where: the run that has them."""
    return f"no model {family!r} in {where}; there are {', '.join(families)}: choose one, as --family {families[0]}"


def _signals(
    models: Models, panel: Panel, latest: _Latest, called: _Called, family: str, levels: Levels
) -> list[Signal]:
    """Signals of one estimator, symbol by symbol and label by label."""
    columns = models.columns()
    wanted = [m for m, (name, label) in enumerate(columns)
              if name == family and has_fixed_barriers(models.target, label)]  # fmt: skip
    barriers = {m: horizon_and_threshold(models.target, columns[m][1]) for m in wanted}
    agreement = {m: _agreement(called.side, m, columns) for m in wanted}
    moves = expected_moves(models, latest.values, family)
    times = np.datetime_as_string(latest.time_ns.astype("datetime64[ns]").astype("datetime64[s]"))
    signals = []
    for s, symbol in enumerate(panel.symbols):
        close, sector = float(latest.close[s]), panel.group[s]
        for m in wanted:
            if np.isnan(latest.values[s, m]).any():
                continue
            label, (horizon, threshold) = columns[m][1], barriers[m]
            side, expected = int(called.side[s, m]), called.expected[s, m]
            p_sell, p_hold, p_buy = probabilities = latest.values[s, m].tolist()
            base = models.base_rates.get((sector, label)) or (float("nan"),) * len(CLASSES)
            traded = {BUY: 0, SELL: 1}.get(side, int(expected[1] > expected[0]))
            move = float(moves[horizon][s])
            low, high, stop, target = levels.prices(side - HOLD, close, float(latest.atr[s]), move)
            signals.append(Signal(
                symbol=symbol, sector=sector, time=str(times[s]), close=close, model=family, horizon=horizon,
                threshold=threshold, side=CLASSES[side], probability=probabilities[side], p_sell=p_sell, p_hold=p_hold,
                p_buy=p_buy, base_sell=base[SELL], base_buy=base[BUY], expected_net_return=float(expected[traded]),
                uncertainty=float(called.error[s, m, traded]), agreement=float(agreement[m][s]),
                entry_low=low, entry_high=high, stop=stop, target=target, expected_move=move,
            ))  # fmt: skip
    return signals


def _predictions(models: Models, panel: Panel, since_ns: int, spent: Spent) -> tuple[np.ndarray, np.ndarray]:
    """Predictions for the latest bar of each symbol, float32 (n_symbols, n_models, 3), and its NATR 14 in per cent.

    NaN where there is no prediction or no NATR, and where the bar lies before since_ns. Features are those of the whole
    history, as in training, because averages that decay remember their beginning. The features of one sector are in
    memory at a time; the next sector uses that memory again. Symbols of a sector are compared from since_ns on alone.
    """
    device, xp = panel.device, panel.device.xp
    columns, sector_of_symbol = models.columns(), np.array(panel.group)
    values = np.full((panel.n_symbols, len(columns), len(CLASSES)), np.nan, dtype=np.float32)
    natr = np.full(panel.n_symbols, np.nan, dtype=np.float32)
    sectors = models.known_groups(panel)
    lengths = device.to_host(panel.offsets[1:] - panel.offsets[:-1])
    n_rows = max(int(lengths[sector_of_symbol == sector].sum()) for sector in sectors)
    memory = xp.empty((n_rows, len(models.feature_names)), dtype=np.float32)
    for sector in sectors:
        began = time.perf_counter()
        bars = panel.of_group(sector)
        latest = bars.offsets[1:] - 1
        features = models.features(bars, memory[: bars.n_rows], _compared_since(models, bars, since_ns))
        volatility = (features if NATR in features.names else compute_features(bars, NATR)).column(NATR)[latest]
        warm = models.warm(features, latest) & (bars.time_ns[latest] >= since_ns)
        rows, is_warm = models.feature_rows(features, latest[warm]), device.to_host(warm)
        symbols = np.flatnonzero(sector_of_symbol == sector)
        natr[symbols] = device.to_host(volatility)
        spent("features", time.perf_counter() - began)
        if not rows.n:
            continue
        predictions = models.predict_features(sector, rows, spent=spent)
        for m, (family, label) in enumerate(columns):
            if (label, family) in predictions:
                values[symbols[is_warm], m] = device.to_host(predictions[label, family])
    return values, natr


def _compared_since(models: Models, bars: Panel, since_ns: int) -> int:
    """The first time, UTC ns, from which windows of latest bars at or after `since_ns` hold compared columns."""
    if not models.lookback.rows:
        return since_ns
    xp, latest = bars.device.xp, bars.offsets[1:] - 1
    begin = bars.time_ns[xp.maximum(latest - models.lookback.rows, bars.offsets[:-1])]
    return min(since_ns, int(xp.where(bars.time_ns[latest] >= since_ns, begin, since_ns).min()))


def _agreement(called: np.ndarray, model: int, columns: Sequence[tuple[str, str]]) -> np.ndarray:
    """float64 (n_symbols,): the share of the other estimators that call the same as a model; NaN without others."""
    others = [m for m, (_, label) in enumerate(columns) if m != model and label == columns[model][1]]
    predicted = called[:, others] >= 0
    same = (called[:, others] == called[:, [model]]) & predicted
    counts = predicted.sum(axis=1)
    return np.where(counts > 0, same.sum(axis=1) / np.maximum(counts, 1), np.nan)


@dataclass(frozen=True)
class Scanned:
    """The result of a scan.

    unpredicted: symbols without any prediction.  degenerate: sentences on models that do not distinguish symbols.
    seconds: by step: features, each estimator, signals.
    stale: symbols left out, because none of their bars is at any of the last max_age times.
    since_ns, until_ns: the first and the last of these times, int64 UTC ns.
    by_session: whether max_age is in session dates, as of intraday bars of several time zones.
    display: how times and prices of the signals are shown.
    without_calls: sentences on labels for which the rule calls no symbol.
    unseen_from: the ISO date on which the sealed test begins; models learned from earlier bars, or were chosen by them.
    absent: sectors that the panel lacks, with whose symbols the expected returns were learned (`absent_groups`).
    untraded: labels without barriers of a fixed size, which have no signals.

        >>> nan = float("nan")
        >>> signals = [
        ...     Signal(symbol, "energy", "2020-06-30", 100.0, "linear", 5, 0.1, side, 0.6, 0.2, 0.2, 0.6, 0.2, 0.2,
        ...            earned, 0.001, 1.0, nan, nan, nan, nan)
        ...     for symbol, side, earned in (("CVX", "HOLD", 0.01), ("HES", "BUY", 0.002), ("XOM", "BUY", 0.003))]
        >>> [signal.symbol for signal in Scanned(tuple(signals), (), ()).top(2)]
        ['XOM', 'HES']
    """

    signals: tuple[Signal, ...]
    unpredicted: tuple[str, ...]
    degenerate: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    stale: tuple[str, ...] = ()
    max_age: int = MAX_AGE
    since_ns: int = 0
    until_ns: int = NEVER
    by_session: bool = False
    display: Display = field(default_factory=Display)
    without_calls: tuple[str, ...] = ()
    unseen_from: str = ""
    absent: tuple[str, ...] = ()
    untraded: tuple[str, ...] = ()

    def top(self, n: int) -> list[Signal]:
        """The BUY or SELL signal of each symbol that is expected to earn most; the best symbols first, at most n.

        Signals without an expected return come last, by their probability over its base rate.
        """
        return _best([signal for signal in self.signals if signal.side != CLASSES[HOLD]], n)

    def nearest(self, n: int) -> list[Signal]:
        """The signal of each symbol that is expected to earn most, whether or not it is called; at most n."""
        return _best(self.signals, n)


def _best(signals: Sequence[Signal], n: int) -> list[Signal]:
    best: dict[str, Signal] = {}
    for signal in signals:
        if signal.symbol not in best or _order(signal) < _order(best[signal.symbol]):
            best[signal.symbol] = signal
    return sorted(best.values(), key=_order)[:n]


def _order(signal: Signal) -> tuple[float, float, str]:
    """A key that sorts signals, those expected to earn most first."""
    expected = signal.expected_net_return if math.isfinite(signal.expected_net_return) else -math.inf
    base = signal.base_buy if signal.side == CLASSES[BUY] else signal.base_sell
    return -expected, -(signal.probability / base if base > 0 else 0.0), signal.symbol


def _called(models: Models, panel: Panel, latest: _Latest, rule: CallingRule, rules: Rules) -> _Called:
    """What a rule calls for every model, of both sides; the latest bars of all symbols are one date."""
    columns, n = models.columns(), panel.n_symbols
    group = np.asarray(panel.group_of_symbol).astype(np.int64)
    date, symbol = np.full(n, latest.time_ns.max()), np.arange(n)
    side = np.full((n, len(columns)), -1, np.int8)
    expected, error = (np.full((n, len(columns), 2), np.nan) for _ in range(2))
    without = []
    for m, (family, label) in enumerate(columns):
        keys = [(name, label, family) for name in panel.groups]
        cutoffs = np.array([models.cutoffs.get(key, (np.nan, np.nan)) for key in keys], np.float32)[group]
        learned = [models.expected_returns.get(key) for key in keys]
        lean = lean_of(latest.values[:, columns.index((ranker_of(learned, family), label))])
        scores, costs = net_scores(scores_of(learned, latest.values[:, m], lean, latest.natr, date, group), rules)
        candidates = Candidates(latest.values[:, m], cutoffs, date, group, symbol, scores, costs)
        calls, refusal = judged(rule, candidates, SIDES, f"{family}_{label.removeprefix('label_')}")
        side[:, m] = np.where(candidates.predicted, CLASS_OF_CALL[calls], -1)
        expected[:, m], error[:, m] = scores.expected, scores.error
        without += [refusal] if refusal else []
    return _Called(side, expected, error, tuple(without))


def _degenerate(signals: Sequence[Signal]) -> list[str]:
    """Sentences on labels for which the model predicts almost the same for all symbols."""
    texts = []
    for label in dict.fromkeys(signal.label for signal in signals):
        label_signals = [signal for signal in signals if signal.label == label]
        if len(label_signals) < 2:
            continue
        name, n = f"{label_signals[0].model} {label}", len(label_signals)
        spread = max(np.std([getattr(signal, field) for signal in label_signals]) for field in ("p_sell", "p_buy"))
        if spread < SAME:
            texts.append(f"{name} predicts the same for all {n} symbols: the model is degenerate")
    return texts
