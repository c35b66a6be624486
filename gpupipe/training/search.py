"""Tuning: Optuna studies over one fold: what is searched, how a trial is scored and pruned, what the best is worth."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe import config
from gpupipe.estimators import registry
from gpupipe.estimators.boosting import xgb_by_label
from gpupipe.estimators.boosting.gradient_boosting import Watch
from gpupipe.estimators.training_set import Fold
from gpupipe.evaluation import multiple_testing
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import sha256
from gpupipe.training import trial
from gpupipe.training.trial import Validation

SECTIONS = {"xgb_joint": "joint", "xgb_hist": "hist", "xgb_leafwise": "leafwise", "linear": "linear"}
OVER_ALL = ("xgb_joint", "linear")  # one study over all sectors and labels
PRUNERS = ("median", "hyperband")
ACCEPT = ("deflated", "best")
PERIOD_DATES = 5  # a week of daily bars: the dates whose mean counts as one observation of a Sharpe ratio
REPORTS = 10  # times that a label tells its loss on its way
STARTUP = 5  # trials that are never pruned by the median
GAINS = "gain_by_date"


@dataclass(frozen=True)
class Range:
    """From `low` to `high`; `log`: even steps of the logarithm; `whole`: integers; `among`: these values alone."""

    low: float
    high: float
    log: bool = False
    whole: bool = False
    among: tuple[float, ...] = ()


# What is searched. Rounds are not: early stopping finds them, up to the section's own `rounds`.
BOOSTER = {
    "learning_rate": Range(0.02, 0.3, log=True),
    "min_child_weight": Range(1.0, 300.0, log=True),
    "l2": Range(0.3, 300.0, log=True),
    "subsample": Range(0.25, 1.0, among=(0.25, 1 / 3, 0.5, 1.0)),  # trees take 4, 3 or 2 samples of the rows in turn
    "column_share": Range(0.1, 1.0),
}
DEPTH_WISE = {"depth": Range(2, 8, whole=True), **BOOSTER}
LEAF_WISE = {"leaves": Range(4, 64, log=True, whole=True), **BOOSTER}
LINEAR = {"l2": Range(10.0, 1_000_000.0, log=True)}


@dataclass(frozen=True)
class Unit:
    """What one study tunes: a family, of one sector ("" is all of them) and one label ("" is all of them)."""

    family: str
    sector: str
    label: str

    @property
    def section(self) -> str:
        """The section of the settings that is searched."""
        return SECTIONS[self.family]

    @property
    def name(self) -> str:
        """For people and for the study's name."""
        return f"{self.family}/{self.sector or 'all sectors'}/{self.label or 'all labels'}"


def space(section: str, settings: config.Config) -> dict[str, Range]:
    """Ranges of what is searched of a section; they are widened to hold its own values, the first trial of all.

    What ml.subsample says for all stages is not searched. Raises ConfigError for an own value that no range can hold.
    """
    own = getattr(settings, section)
    ranges = LINEAR if section == "linear" else DEPTH_WISE if own.depth else LEAF_WISE
    found = {}
    for name, one in ranges.items():
        if name == "subsample" and settings.ml.subsample:
            continue
        value = getattr(own, name)
        if one.log and value <= 0:
            raise config.ConfigError(f"{section}.{name} = {value} cannot be tuned on a log scale: set it above 0")
        among = tuple(sorted({*one.among, value})) if one.among else ()
        found[name] = dataclasses.replace(one, low=min(one.low, value), high=max(one.high, value), among=among)
    return found


def units(fold: Fold, families: Sequence[str], per: str, minimum: int) -> list[Unit]:
    """The studies of a fold. per: "sector" or "label", for the families of one sector and one label.

    A label that has fewer than `minimum` BUY or SELL rows in a sector is not fitted there, and so not tuned.
    """
    found = []
    for family in families:
        if family in OVER_ALL:
            found.append(Unit(family, "", ""))
            continue
        for sector in fold.sectors:
            labels = _labels_of(fold, sector, minimum)
            names = [fold.label_names[k] for k in labels] if per == "label" else [""] * bool(labels)
            found += [Unit(family, sector, name) for name in names]
    return found


def _labels_of(fold: Fold, sector: str, minimum: int) -> list[int]:
    few = xgb_by_label.too_few(fold, sector, minimum)
    return [k for k in range(fold.n_labels) if not few[k]]


@contextlib.contextmanager
def studies(path: pathlib.Path) -> Iterator[Any]:
    """The Optuna storage in a SQLite file, made if it is not there; UserError if Optuna or the file cannot be used."""
    try:
        import optuna
        import sqlalchemy
    except ImportError:
        raise UserError("tuning needs Optuna: pip install -e '.[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}", {"connect_args": {"timeout": 100}})
    except (sqlalchemy.exc.DatabaseError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} holds no studies for Optuna ({reason}): delete it, or choose another --out") from None
    storage.engine.dispose()

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def quick(connection: Any, _: Any) -> None:  # a report takes 3 ms instead of 25, and survives a kill as before
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


@dataclass(frozen=True)
class Search:
    """What the studies of one fold share.

    rows_key: of the data, the split and the labels.  key: of all that decides a trial's value. Studies of another key
        are other studies, whose trials are counted if they are of the same rows.
    n_trials: finished ones that a study shall have, those of earlier sessions too.  pruner: one of PRUNERS.
    period_dates: dates whose mean gain is one observation.  advance(text): called for each trial.
    """

    fold: Fold
    settings: config.Config
    storage: Any
    rows_key: str
    key: str
    n_trials: int
    pruner: str
    period_dates: int = PERIOD_DATES
    advance: Callable[[str], None] = lambda text: None

    def run(self, unit: Unit) -> dict[str, Any]:
        """Bring one study to its number of trials; what it found, as `verdict` says it."""
        scored = _Scored.of(self, unit)
        study = self._study(unit, scored)
        told = _finished(study)
        for number in range(len(told), self.n_trials):
            # By the number of finished trials: a trial that was killed is asked for again, and a resumed study goes
            # on as one that never stopped.
            study.sampler = _sampler(self.settings.seed, unit, number)
            study.optimize(scored.objective, n_trials=1)
            self.advance(unit.name)
        return verdict(study, unit, self.period_dates, self._tried(unit))

    def _tried(self, unit: Unit) -> int:
        """All trials of a unit on the same rows, whatever the settings around them."""
        import optuna

        summaries = optuna.study.get_all_study_summaries(self.storage, include_best_trial=False)
        return sum(one.n_trials for one in summaries if one.study_name.startswith(f"{unit.name}/{self.rows_key[:16]}/"))

    def _study(self, unit: Unit, scored: _Scored) -> Any:
        """The study; trials of a process that was killed are marked as failed, and the own values come first."""
        import optuna

        study = optuna.create_study(
            storage=self.storage, study_name=f"{unit.name}/{self.rows_key[:16]}/{self.key[:16]}", direction="minimize",
            load_if_exists=True, pruner=_pruner(self.pruner, scored.rounds, scored.n_steps),
        )  # fmt: skip
        states = optuna.trial.TrialState
        for one in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            study.tell(one.number, state=states.FAIL)
        if not _finished(study) and not study.get_trials(deepcopy=False, states=(states.WAITING,)):
            study.enqueue_trial(scored.own(), user_attrs={"preset": True})
        for _ in range(min(self.n_trials, len(_finished(study)))):
            self.advance(unit.name)
        return study


@dataclass(frozen=True)
class _Scored:
    """How a trial of one unit gets its value: mean over labels of validation log-loss / the class prior's."""

    search: Search
    fold: Fold
    unit: Unit
    labels: tuple[int, ...]
    seen: Validation
    ranges: Mapping[str, Range]

    @classmethod
    def of(cls, search: Search, unit: Unit) -> _Scored:
        fold, settings = registry.seen(unit.family, search.fold), search.settings
        if unit.label:
            labels = [fold.label_names.index(unit.label)]
        elif unit.sector:
            labels = _labels_of(fold, unit.sector, settings.training.min_positives)
        else:
            labels = list(range(fold.n_labels))
        seen = trial.validation_of(fold, [unit.sector] if unit.sector else fold.sectors, labels)
        return cls(search, fold, unit, tuple(labels), seen, space(unit.section, settings))

    @property
    def stage(self) -> Any:
        """The section as the settings have it."""
        return getattr(self.search.settings, self.unit.section)

    @property
    def rounds(self) -> int:
        """Steps of one label."""
        return getattr(self.stage, "rounds", 1)

    @property
    def n_steps(self) -> int:
        return self.rounds * (len(self.labels) if self.unit.sector else 1)

    def own(self) -> dict[str, float]:
        return {name: getattr(self.stage, name) for name in self.ranges}

    def objective(self, one: Any) -> float:
        """Fit with what an Optuna trial suggests; its value, of which every report on the way is an earlier state."""
        import optuna

        stage = dataclasses.replace(self.stage, **_suggested(one, self.ranges))
        every = math.ceil(self.rounds / REPORTS)

        def told(step: int, loss: np.ndarray) -> None:
            if step % every == 0:
                one.report(self.value(loss), step)
                goes_on = step < self.n_steps and not one.user_attrs.get("preset")
                if goes_on and one.should_prune():
                    raise optuna.TrialPruned

        loss = self._fit(stage, told)
        mean = np.nanmean(loss, axis=0)
        one.set_user_attr("log_loss", [float(v) for v in mean])
        one.set_user_attr(GAINS, [float(v) for v in gain_by_date(self.seen, loss)])
        return self.value(mean)

    def value(self, loss: np.ndarray) -> float:
        """Of the labels' mean losses, float64 (n_labels,); 1 is the class prior."""
        return float((loss / self.seen.prior).mean())

    def _fit(self, stage: Any, told: Watch) -> np.ndarray:
        fold, settings = self.fold, self.search.settings
        if self.unit.family == "linear":
            return trial.pooled_linear(fold, self.seen, settings, stage)
        if self.unit.family == "xgb_joint":
            return trial.pooled_joint(fold, self.seen, settings, stage, told)
        patience = settings.training.early_stopping
        return trial.boosted(fold, self.unit.sector, self.labels, self.seen, stage, patience, told)


def gain_by_date(seen: Validation, loss: np.ndarray) -> np.ndarray:
    """float64 (n_dates,), oldest first: mean over a date's rows and labels of (prior's - own loss) / prior's mean loss.

    Rows of each date count alike, and so do labels: but for dates with more or fewer rows than others, its mean is
    1 - the value of the trial.
    """
    gain = (seen.prior_loss - loss) / seen.prior
    row, label = np.nonzero(~np.isnan(gain))
    dates, date = np.unique(seen.time_ns[row], return_inverse=True)
    total = np.bincount(date, weights=gain[row, label], minlength=len(dates))
    # Rounded to what float32 probabilities know: a model that says the prior has gained nothing, not 1e-8 on each date.
    return np.round(total / np.bincount(date, minlength=len(dates)), 6)


def verdict(study: Any, unit: Unit, period_dates: int, tried: int) -> dict[str, Any]:
    """What a study found, as JSON holds it.

    best, preset: values of the best trial, and the settings' own.
    best_gain, preset_gain: 1 - the value of the best trial and of the settings' own values: the gain over the class
        prior in validation log-loss, mean over labels.
    deflated_gain: what the trial that is best on half of the periods gains on the other half, over all ways to
        halve them; its number of rounds, which early stopping chose on all periods, stays.
    preset_gain_by_period: of the own values, the mean over the same periods, to hold beside it.
    overfitting: probability of backtest overfitting (see `deflation.overfitting`), of complete trials.
    deflated_sharpe: probability that the best trial's gain over the prior is skill, all trials counted;
        deflated_sharpe_over_preset: the same of its gain over the settings' own values, against the spread of trials
        that are no better than these; None where it is these.
    trials: how many are complete, pruned and failed, and `tried`, all of them and those of other settings on the same
        rows. Complete ones alone have gains by date; all are counted.
    """
    counts = {name: 0 for name in ("complete", "pruned", "fail")}
    trials = [one for one in study.get_trials(deepcopy=False) if one.state.name.lower() in counts]
    for one in trials:
        counts[one.state.name.lower()] += 1
    complete = [one for one in trials if one.state.name == "COMPLETE"]
    best = min(complete, key=lambda one: (one.value, one.number))
    preset = next(k for k, one in enumerate(complete) if one.user_attrs.get("preset"))
    at = complete.index(best)
    series = multiple_testing.periods(np.array([one.user_attrs[GAINS] for one in complete]).T, period_dates)
    overfitting, elsewhere = multiple_testing.overfitting(series)
    over = series[:, at] - series[:, preset]
    found = {
        "family": unit.family, "sector": unit.sector, "label": unit.label, "section": unit.section,
        "study": study.study_name, "best": dict(best.params), "best_trial": best.number,
        "preset": dict(complete[preset].params),
        "trials": {"complete": counts["complete"], "pruned": counts["pruned"], "failed": counts["fail"],
                   "tried": tried},
        "best_gain": 1 - best.value, "preset_gain": 1 - complete[preset].value,
        "deflated_gain": elsewhere,
        "preset_gain_by_period": float(series[:, preset].mean()) if len(series) else math.nan,
        "overfitting": overfitting,
        "deflated_sharpe": multiple_testing.deflated_sharpe(series[:, at], tried, series),
        "deflated_sharpe_over_preset": multiple_testing.deflated_sharpe(over, tried - 1),
        "periods": len(series), "period_dates": period_dates,
    }  # fmt: skip
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in found.items()}


def chosen(found: dict[str, Any], accept: str) -> dict[str, Any]:
    """What a study found with `accepted` and `chosen`: the values to use, the best trial's or the preset's.

    accept "best": the best trial's, whatever it is worth. "deflated": only if what is best on half of the validation
    dates beats the preset's values on the other half (deflated_gain > preset_gain_by_period), over all ways to halve
    them; where that is not known, the preset's.
    """
    deflated, preset = found["deflated_gain"], found["preset_gain_by_period"]
    accepted = accept == "best" or (deflated is not None and preset is not None and deflated > preset)
    return {**found, "accepted": accepted, "chosen": found["best"] if accepted else found["preset"]}


def _suggested(one: Any, ranges: Mapping[str, Range]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, r in ranges.items():
        if r.among:
            found[name] = one.suggest_categorical(name, r.among)
        else:
            found[name] = (one.suggest_int if r.whole else one.suggest_float)(name, r.low, r.high, log=r.log)
    return found


def _finished(study: Any) -> list[Any]:
    import optuna

    states = optuna.trial.TrialState
    return study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))


def _sampler(seed: int, unit: Unit, number: int) -> Any:
    import optuna

    # Not of the data: prices of another day do not draw other trials.
    return optuna.samplers.TPESampler(seed=int(sha256(f"{seed}/{unit.name}/{number}".encode())[:8], 16))


def _pruner(name: str, rounds: int, n_steps: int) -> Any:
    import optuna

    first = math.ceil(rounds / REPORTS)
    if name == "median":
        # Not before a third of a label's rounds: a low learning rate begins late.
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=rounds // 3)
    return optuna.pruners.HyperbandPruner(min_resource=max(first, rounds // 3), max_resource=max(n_steps, 1))
