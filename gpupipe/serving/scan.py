"""Scan: what a run's models say of every symbol's latest bar, and which signals are active."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gpupipe.artifacts.load import Models, Spent
from gpupipe.data.panel import Panel
from gpupipe.dataset.dataset import NEVER, warm_rows
from gpupipe.evaluation.metrics import calls
from gpupipe.features.matrix import compute_features
from gpupipe.runtime.errors import UserError
from gpupipe.serving.levels import MAX_AGE, Levels
from gpupipe.targets.classes import BUY, CLASSES, HOLD, N_CLASSES, SELL, horizon_and_threshold, percent

ABOUT = b"gpupipe.scan"  # in the metadata of a Parquet file of signals
ATR = "natr_14"
ALMOST_ALL = 0.95  # of the symbols: so many BUY or SELL calls say more of the model than of the symbols
SAME = 1e-4  # spread of the probabilities over symbols below which a model says the same of all


@dataclass(frozen=True)
class Signal:
    """What one model of one horizon and threshold says of a symbol's latest bar.

    time: of that bar, UTC.  side: BUY, SELL or HOLD, from the model's own cutoffs, which validation chose.
    probability: of that class.  strength: probability / cutoff of the called side; of HOLD, of the nearer one.
    agreement: share of the other families that call the same; NaN without others.
    entry_low, entry_high, stop, target: prices; NaN for HOLD, or where the ATR is not known.
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
    strength: float
    agreement: float
    entry_low: float
    entry_high: float
    stop: float
    target: float

    @property
    def label(self) -> str:
        """As "5d_10pct"."""
        return f"{self.horizon}d_{percent(self.threshold)}pct"


def scan(
    models: Models, panel: Panel, family: str, as_of: str | None = None, levels: Levels | None = None,
    max_age: int = MAX_AGE,
) -> Scanned:  # fmt: skip
    """Signals of one family for every symbol and label; all families are asked for their agreement.

    models: artifacts.load(OUT).  panel: with enough bars before the latest for every feature, and whole sectors.
    as_of: an ISO date: later bars are not looked at.
    max_age: in times of the data: a symbol without a bar at any of the last so many is left out, as `Scanned.stale`.
    Features and models are those of training, so that a row scanned has the probability that training computed for it.
    Raises UserError for a family that was not trained, a date before the first bar, and StoreError as `Models.predict`.
    """
    levels, of_column = levels or Levels(), models.columns()
    barriers = [horizon_and_threshold(models.target, label) for _, label in of_column]
    if family not in {f for f, *_ in of_column}:
        raise UserError(f"no model {family!r} in {models.out}; there are {', '.join(models.families)}")
    if as_of is not None:
        panel = _until(panel, as_of)
    if max_age < 1:
        raise UserError(f"--max-age {max_age}: expected 1 or more")
    since_ns, until_ns = _newest(panel, max_age)
    seconds: dict[str, float] = {}

    def spent(what: str, more: float) -> None:
        seconds[what] = seconds.get(what, 0.0) + more

    said, atr = _latest(models, panel, since_ns, spent)
    began, device = time.perf_counter(), panel.device
    latest = panel.offsets[1:] - 1
    close, time_ns = (device.to_host(column[latest]) for column in (panel.close, panel.time_ns))
    times = np.datetime_as_string(time_ns.astype("datetime64[ns]").astype("datetime64[s]"))
    called = _called(models, panel, said, of_column)
    own = [m for m, (name, *_) in enumerate(of_column) if name == family]
    agreement = {m: _agreement(called, m, of_column) for m in own}
    silent, stale = np.isnan(said).any(axis=2), time_ns < since_ns
    signals = []
    for s, symbol in enumerate(panel.symbols):
        for m in own:
            if silent[s, m]:
                continue
            (_, label), (horizon, threshold) = of_column[m], barriers[m]
            side = int(called[s, m])
            cutoffs = models.cutoffs[panel.sector[s], label, family]
            p_sell, p_hold, p_buy = probabilities = said[s, m].tolist()
            share = {BUY: p_buy / cutoffs[0], SELL: p_sell / cutoffs[1]}
            low, high, stop, target = _prices(side, float(close[s]), float(atr[s]), levels)
            signals.append(Signal(
                symbol=symbol, sector=panel.sector[s], time=str(times[s]), close=float(close[s]), model=family,
                horizon=horizon, threshold=threshold, side=CLASSES[side], probability=probabilities[side],
                p_sell=p_sell, p_hold=p_hold, p_buy=p_buy, strength=share.get(side, max(share.values())),
                agreement=float(agreement[m][s]), entry_low=low, entry_high=high, stop=stop, target=target,
            ))  # fmt: skip
    unsaid = [panel.symbols[s] for s in np.flatnonzero(silent.all(axis=1) & ~stale)]
    left_out = [panel.symbols[s] for s in np.flatnonzero(stale)]
    degenerate = _degenerate(signals)
    seconds["signals"] = time.perf_counter() - began
    return Scanned(
        tuple(signals), tuple(unsaid), tuple(degenerate), seconds, tuple(left_out), max_age, since_ns, until_ns
    )  # fmt: skip


def _newest(panel: Panel, n: int) -> tuple[int, int]:
    """The first and the last of the n newest distinct times of all symbols; of fewer times, the first there is."""
    offsets = panel.device.to_host(panel.offsets)
    # Each of them is among the last n times of a symbol that has a bar then.
    rows = [np.arange(max(first, last - n), last) for first, last in itertools.pairwise(offsets)]
    there = panel.time_ns[panel.device.asarray(np.concatenate(rows))]
    times = np.unique(panel.device.to_host(there))
    return int(times[-n:][0]), int(times[-1])


def _latest(models: Models, panel: Panel, since_ns: int, spent: Spent) -> tuple[np.ndarray, np.ndarray]:
    """What every model says of the latest bar of each symbol, float32 (n_symbols, n_models, 3), and ATR 14 in prices.

    NaN where nothing is said or known, and where the bar lies before since_ns. Features are those of the whole
    history, as in training: averages that decay remember their beginning. One sector's are held at a time, in memory
    that the next sector takes over. Symbols of a sector are compared from since_ns on alone.
    """
    device, xp = panel.device, panel.device.xp
    of_column, of_symbol = models.columns(), np.array(panel.sector)
    said = np.full((panel.n_symbols, len(of_column), N_CLASSES), np.nan, dtype=np.float32)
    atr = np.full(panel.n_symbols, np.nan, dtype=np.float32)
    known = models.known_groups(panel)
    lengths = device.to_host(panel.offsets[1:] - panel.offsets[:-1])
    n_rows = max(int(lengths[of_symbol == sector].sum()) for sector in known)
    memory = xp.empty((n_rows, len(models.feature_names)), dtype=np.float32)
    for sector in known:
        began = time.perf_counter()
        part = panel.of_group(sector)
        features = models.features(part, memory[: part.n_rows], since_ns)
        latest = part.offsets[1:] - 1
        natr = (features if ATR in features.names else compute_features(part, ATR)).column(ATR)[latest]
        warm = warm_rows(features, latest) & (part.time_ns[latest] >= since_ns)
        X, of_warm = features.values[latest[warm]], device.to_host(warm)
        at = np.flatnonzero(of_symbol == sector)
        atr[at] = device.to_host(natr / 100 * part.close[latest])
        spent("features", time.perf_counter() - began)
        if not len(X):
            continue
        found = models.predict_matrix(sector, X, device, spent=spent)
        for m, (name, label) in enumerate(of_column):
            if (label, name) in found:
                said[at[of_warm], m] = device.to_host(found[label, name])
    return said, atr


def _agreement(called: np.ndarray, own: int, of_column: Sequence[tuple[str, str]]) -> np.ndarray:
    """float64 (n_symbols,): the share of the other families that call the same as column `own`; NaN without others."""
    others = [m for m, one in enumerate(of_column) if m != own and one[1:] == of_column[own][1:]]
    there = called[:, others] >= 0
    same = (called[:, others] == called[:, [own]]) & there
    counts = there.sum(axis=1)
    return np.where(counts > 0, same.sum(axis=1) / np.maximum(counts, 1), np.nan)


@dataclass(frozen=True)
class Scanned:
    """A scan. unsaid: symbols of which no model says anything.  degenerate: models that do not tell symbols apart.

    seconds: by step: features, each family, signals.
    stale: symbols left out, as none of their bars is at one of the last max_age times; since_ns, until_ns: the first
        and the last of these times, int64 UTC ns.
    """

    signals: tuple[Signal, ...]
    unsaid: tuple[str, ...]
    degenerate: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict, compare=False)
    stale: tuple[str, ...] = ()
    max_age: int = MAX_AGE
    since_ns: int = 0
    until_ns: int = NEVER

    def top(self, n: int) -> list[Signal]:
        """One signal a symbol, the strongest BUY or SELL of its labels; strongest first, at most n."""
        best: dict[str, Signal] = {}
        for one in self.signals:
            if one.side != CLASSES[HOLD] and (one.symbol not in best or one.strength > best[one.symbol].strength):
                best[one.symbol] = one
        return sorted(best.values(), key=lambda one: (-one.strength, one.symbol))[:n]


def _until(panel: Panel, as_of: str) -> Panel:
    try:
        day = np.datetime64(as_of)
    except ValueError:
        raise UserError(f"--as-of {as_of}: expected a date such as 2024-05-31") from None
    # A day stands for all of its bars.
    end = (day + 1).astype("datetime64[ns]").astype(np.int64) - 1
    try:
        return panel.until(int(end))
    except ValueError:
        raise UserError(f"--as-of {as_of}: the data begin later") from None


def _called(models: Models, panel: Panel, said: np.ndarray, of_column: Sequence[tuple[str, str]]) -> np.ndarray:
    """int8 (n_symbols, n_models): what each model calls each symbol by its own cutoffs; -1 where it says nothing."""
    found = np.full(said.shape[:2], -1, dtype=np.int8)
    sectors = np.array(panel.sector)
    for m, (family, label) in enumerate(of_column):
        for sector in panel.groups:
            cutoffs = models.cutoffs.get((sector, label, family))
            at = np.flatnonzero((sectors == sector) & ~np.isnan(said[:, m]).any(axis=1))
            if cutoffs is not None and at.size:
                found[at, m] = calls(said[at, m], {"buy": cutoffs[0], "sell": cutoffs[1]})
    return found


def _prices(side: int, close: float, atr: float, levels: Levels) -> tuple[float, float, float, float]:
    """Entry from, entry to, stop, target."""
    if side == HOLD or not np.isfinite(atr):
        return (float("nan"),) * 4
    sign = 1 if side == BUY else -1
    band, stop = levels.band_atr * atr, levels.stop_atr * atr
    # A stop or a target of a very wild symbol may lie below 0, where no price is.
    return close - band, close + band, max(close - sign * stop, 0.0), max(close + sign * levels.target * stop, 0.0)


def _degenerate(signals: Sequence[Signal]) -> list[str]:
    """Labels of which the model says almost the same of all symbols, in words."""
    found = []
    for label in dict.fromkeys(one.label for one in signals):
        own = [one for one in signals if one.label == label]
        if len(own) < 2:
            continue
        (side, most) = Counter(one.side for one in own).most_common(1)[0]
        spread = max(np.std([getattr(one, name) for one in own]) for name in ("p_sell", "p_buy"))
        if spread < SAME:
            found.append(f"{own[0].model} {label} says the same of all {len(own)} symbols: the model is degenerate")
        elif side != CLASSES[HOLD] and most >= ALMOST_ALL * len(own):
            found.append(f"{own[0].model} {label} calls {most} of {len(own)} symbols {side}: the model is degenerate")
    return found


TABLE = """
create table if not exists active_signals (
    symbol text primary key, sector text, status text, side text, model text, horizon integer, threshold real,
    probability real, strength real, agreement real, close real, entry_low real, entry_high real, stop real,
    target real, created text, updated text
)
"""
FIELDS = ("sector", "side", "model", "horizon", "threshold", "probability", "strength", "agreement", "close",
          "entry_low", "entry_high", "stop", "target")  # fmt: skip


def keep_active(path: str, found: Scanned, panel: Panel) -> list[tuple[str, str]]:
    """Bring the table active_signals of an SQLite file up to a scan; what became of which symbol, as (event, symbol).

    One active signal a symbol, its strongest. CREATED: there was none. UPDATED: the same side, a later bar. FLIPPED:
    the other side. A signal that is not called again is kept until as many bars have come as its horizon has, and is
    then removed: EXPIRED; so is that of a symbol which has stopped trading, as Scanned.stale says, or is no longer in
    the data, once it is as old as that. Bars later than those scanned do not count. The same scan again changes
    nothing, and an earlier bar than the one there is left out.
    """
    offsets, time_ns = (panel.device.to_host(array) for array in (panel.offsets, panel.time_ns))
    bars = {symbol: time_ns[offsets[k] : offsets[k + 1]] for k, symbol in enumerate(panel.symbols)}
    try:
        return _keep_active(path, found, bars)
    except sqlite3.Error as error:
        raise UserError(
            f"--active {path}: {error}: name an SQLite file of gpupipe scan, or one that is not there yet, in a folder "
            "that can be written"
        ) from None


def _keep_active(path: str, found: Scanned, bars: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    events: list[tuple[str, str]] = []
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(TABLE)
        rows = database.execute("select symbol, side, updated, created, horizon from active_signals")
        known = {symbol: values for symbol, *values in rows}
        called = {one.symbol: one for one in found.top(len(found.signals))}
        for symbol, one in called.items():
            side, updated, created, _ = known.get(symbol, ("", "", one.time, 0))
            if updated >= one.time:
                continue
            event = "CREATED" if not side else "UPDATED" if side == one.side else "FLIPPED"
            values = [None if value != value else value for value in (getattr(one, name) for name in FIELDS)]
            begun = created if event == "UPDATED" else one.time
            row = (symbol, *values, event, begun, one.time)
            names, marks = ("symbol", *FIELDS, "status", "created", "updated"), ", ".join("?" * len(row))
            database.execute(f"insert or replace into active_signals ({', '.join(names)}) values ({marks})", row)
            events.append((event, symbol))
        for symbol, (_, updated, _, horizon) in known.items():
            if symbol in called:
                continue
            after = int(np.datetime64(updated, "ns").astype(np.int64)) + 10**9 - 1  # `updated` is to the second
            own = bars.get(symbol, np.zeros(0, np.int64))
            n_since = int(((own > after) & (own <= found.until_ns)).sum())
            gone = (symbol in found.stale or symbol not in bars) and after < found.since_ns
            if gone or n_since >= horizon:
                database.execute("delete from active_signals where symbol = ?", (symbol,))
                events.append(("EXPIRED", symbol))
    return events
