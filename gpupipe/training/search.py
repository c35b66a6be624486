"""Tuning by Optuna studies over one fold: search spaces, scored and pruned trials, and the value of the best trial."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config, ConfigError
from gpupipe.estimators import columns, registry
from gpupipe.estimators.contract import Estimator, Range, SearchSpace, Watch
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.evaluation import multiple_testing
from gpupipe.runtime.device import Device
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import sha256
from gpupipe.training import trial
from gpupipe.training.placement import stage_name
from gpupipe.training.trial import TrialRows, Validation

PRUNERS = ("median", "hyperband")
ACCEPT = ("deflated", "best")
PERIOD_DATES = 5  # a week of daily bars: the dates whose mean counts as one observation of a Sharpe ratio
REPORTS = 10  # reports of a label's loss to the pruner while it is fitted
STARTUP = 5  # trials that are never pruned by the median
GAINS = "gain_by_date"


def searched() -> dict[str, SearchSpace]:
    """The search space of each estimator that has one."""
    return {item.name: item.search for item in registry.estimators() if item.search}


def pooled_only() -> tuple[str, ...]:
    """Estimators that have one study over all groups and targets."""
    return tuple(name for name, space in searched().items() if space.pooled)


@dataclass(frozen=True)
class Study:
    """The estimator, the sector and the label that one study tunes; "" stands for all sectors or all labels.

    >>> Study("xgb_hist", "energy", "").name
    'xgb_hist/energy/all labels'
    """

    family: str
    sector: str
    label: str

    @property
    def section(self) -> str:
        """The name of the searched section of the settings, such as "hist"."""
        return searched()[self.family].section

    @property
    def estimator(self) -> Estimator:
        """The estimator that is tuned."""
        return registry.estimator(self.family)

    @property
    def name(self) -> str:
        """The study's name for people, and the first part of its name in Optuna's storage."""
        return f"{self.family}/{self.sector or 'all sectors'}/{self.label or 'all labels'}"


def space(study: Study, settings: Config) -> dict[str, Range]:
    """Search ranges by setting, widened to include the section's values, which are the first trial.

    A share that ml.subsample sets for all stages is not searched. Raises ConfigError for a value that no range can
    include.
    """
    section = study.section
    values = getattr(settings, section)
    ranges = {}
    for name, wide in searched()[study.family].ranges(values).items():
        if name == "subsample" and settings.ml.subsample:
            continue
        value = getattr(values, name)
        if wide.log and value <= 0:
            raise ConfigError(f"{section}.{name} = {value} cannot be tuned on a log scale: set it above 0")
        among = tuple(sorted({*wide.among, value})) if wide.among else ()
        ranges[name] = dataclasses.replace(wide, low=min(wide.low, value), high=max(wide.high, value), among=among)
    return ranges


def studies_of(training_set: TrainingSet, families: Sequence[str], per: str, minimum: int) -> list[Study]:
    """The studies of a training set.

    per: "sector" or "label": the unit of a study, for estimators that fit each group and label alone.
    minimum: a label with fewer rows of an outer class in a group is neither fitted nor tuned there.
    """
    studies = []
    for family in families:
        if searched()[family].pooled:
            studies.append(Study(family, "", ""))
            continue
        for group in training_set.groups:
            targets = _targets_of(training_set, group, minimum)
            names = [training_set.target.names[k] for k in targets] if per == "label" else [""] * bool(targets)
            studies += [Study(family, group, name) for name in names]
    return studies


def _targets_of(training_set: TrainingSet, group: str, minimum: int) -> list[int]:
    counts = training_set.counts[group]
    return [k for k in range(training_set.n_targets) if min(counts[k][0], counts[k][-1]) >= minimum]


@contextlib.contextmanager
def storage_in(path: pathlib.Path) -> Iterator[Any]:
    """The Optuna storage in a SQLite file, created if missing; UserError if Optuna or the file cannot be used."""
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
    """The training set, storage and options that several studies share.

    rows_key: digest of the data, the split and the labels.
    key: digest of everything that decides a trial's value. A study of another key is another study; its trials are
        counted where they have the same rows.
    n_trials: number of finished trials for each study, trials of earlier sessions included.  pruner: one of PRUNERS.
    period_dates: number of dates whose mean gain is one observation.  advance(text): called after each trial.
    device_of(stage): see `TrainingContext`; by default all are fitted where the training set is.

        >>> from gpupipe.workloads.equity import EQUITY
        >>> search = Search(None, EQUITY.settings("fast"), None, "rows12", "key34", n_trials=30, pruner="median")
        >>> search.n_trials, search.period_dates  # a period is a week of daily bars
        (30, 5)
    """

    training_set: TrainingSet
    settings: Config
    storage: Any
    rows_key: str
    key: str
    n_trials: int
    pruner: str
    period_dates: int = PERIOD_DATES
    advance: Callable[[str], None] = lambda text: None
    device_of: Callable[[str], Device | None] = lambda stage: None

    def run(self, study: Study) -> dict[str, Any]:
        """Run the trials that a study lacks; returns its result, see `verdict`."""
        scored = _Scored.of(self, study)
        optuna_study = self._optuna_study(study, scored)
        finished = _finished(optuna_study)
        for number in range(len(finished), self.n_trials):
            # The seed depends on the number of finished trials: a killed trial is drawn again, and a resumed study
            # continues as if it had never stopped.
            optuna_study.sampler = _sampler(self.settings.seed, study, number)
            optuna_study.optimize(scored.objective, n_trials=1)
            self.advance(study.name)
        return verdict(optuna_study, study, self.period_dates, self._tried(study))

    def _tried(self, study: Study) -> int:
        """Number of all trials of a study on the same rows, with any settings."""
        import optuna

        summaries = optuna.study.get_all_study_summaries(self.storage, include_best_trial=False)
        return sum(
            summary.n_trials
            for summary in summaries
            if summary.study_name.startswith(f"{study.name}/{self.rows_key[:16]}/")
        )

    def _optuna_study(self, study: Study, scored: _Scored) -> Any:
        """Load or create the study, mark trials of a killed process as failed, and enqueue the preset's values."""
        import optuna

        optuna_study = optuna.create_study(
            storage=self.storage, study_name=f"{study.name}/{self.rows_key[:16]}/{self.key[:16]}",
            direction="minimize", load_if_exists=True, pruner=_pruner(self.pruner, scored.rounds, scored.n_steps),
        )  # fmt: skip
        states = optuna.trial.TrialState
        for trial_of_dead in optuna_study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            optuna_study.tell(trial_of_dead.number, state=states.FAIL)
        waiting = optuna_study.get_trials(deepcopy=False, states=(states.WAITING,))
        if not _finished(optuna_study) and not waiting:
            optuna_study.enqueue_trial(scored.preset_values(), user_attrs={"preset": True})
        for _ in range(min(self.n_trials, len(_finished(optuna_study)))):
            self.advance(study.name)
        return optuna_study


@dataclass(frozen=True)
class _Scored:
    """Scores the trials of one study: the mean over targets of validation log-loss / log-loss of the class prior."""

    search: Search
    study: Study
    rows: TrialRows
    ranges: Mapping[str, Range]

    @classmethod
    def of(cls, search: Search, study: Study) -> _Scored:
        settings, stage = search.settings, stage_name(study.estimator, study.sector or None)
        training_set = columns.seen_by(study.estimator, search.training_set, search.device_of(stage))
        if study.label:
            targets = [training_set.target.names.index(study.label)]
        elif study.sector:
            targets = _targets_of(training_set, study.sector, settings.training.min_positives)
        else:
            targets = list(range(training_set.n_targets))
        groups = [study.sector] if study.sector else training_set.groups
        validation = trial.validation_of(training_set, groups, targets)
        trial_rows = TrialRows(training_set, study.sector, tuple(targets), validation)
        return cls(search, study, trial_rows, space(study, settings))

    @property
    def stage(self) -> Any:
        """The searched section of the settings, with the preset's values."""
        return getattr(self.search.settings, self.study.section)

    @property
    def rounds(self) -> int:
        """Boosting rounds of one target; 1 for an estimator without rounds."""
        return getattr(self.stage, "rounds", 1)

    @property
    def n_steps(self) -> int:
        return self.rounds * (len(self.rows.targets) if self.study.sector else 1)

    def preset_values(self) -> dict[str, float]:
        return {name: getattr(self.stage, name) for name in self.ranges}

    def objective(self, optuna_trial: Any) -> float:
        """Fit with the values that an Optuna trial suggests; returns its value. Reports are the value so far."""
        import optuna

        stage = dataclasses.replace(self.stage, **_suggested(optuna_trial, self.ranges))
        every = math.ceil(self.rounds / REPORTS)

        def report(step: int, loss: np.ndarray) -> None:
            if step % every == 0:
                optuna_trial.report(self.value(loss), step)
                goes_on = step < self.n_steps and not optuna_trial.user_attrs.get("preset")
                if goes_on and optuna_trial.should_prune():
                    raise optuna.TrialPruned

        loss = self._fit(stage, report)
        mean = np.nanmean(loss, axis=0)
        optuna_trial.set_user_attr("log_loss", [float(v) for v in mean])
        optuna_trial.set_user_attr(GAINS, [float(v) for v in gain_by_date(self.rows.validation, loss)])
        return self.value(mean)

    def value(self, loss: np.ndarray) -> float:
        """The value of a trial from its mean losses by label, float64 (n_labels,); the class prior has the value 1.

        Labels without events on validation are left out (`Validation.judged`).
        """
        validation = self.rows.validation
        return float((loss / validation.prior)[validation.judged].mean())

    def _fit(self, stage: Any, report: Watch) -> np.ndarray:
        patience = self.search.settings.training.early_stopping
        fit = trial.fit_labels if self.study.sector else trial.fit_pool
        return fit(self.study.estimator, self.rows, stage, patience, report)


def gain_by_date(validation: Validation, loss: np.ndarray) -> np.ndarray:
    """float64 (n_dates,), oldest first: the mean over a date's rows and labels of the gain over the class prior.

        gain = (loss of the prior - loss) / mean loss of the prior

    Rows of a date have equal weights, and so have labels; those without events are left out. Where all dates have the
    same number of rows, the mean over dates is 1 - the value of the trial.
    """
    gain = (validation.prior_loss - loss) / validation.prior
    gain[:, ~validation.judged] = np.nan
    row, label = np.nonzero(~np.isnan(gain))
    dates, date = np.unique(validation.time_ns[row], return_inverse=True)
    total = np.bincount(date, weights=gain[row, label], minlength=len(dates))
    # Rounded to the precision of float32 probabilities: predictions equal to the prior gain 0, not 1e-8 on each date.
    return np.round(total / np.bincount(date, minlength=len(dates)), 6)


def verdict(optuna_study: Any, study: Study, period_dates: int, tried: int) -> dict[str, Any]:
    """The result of a study, in the types of JSON; None where a figure is not known.

    best, preset: values of the best trial, and of the preset.
    best_gain, preset_gain: 1 - the value of the best trial, and of the preset's trial: the gain over the class prior in
        validation log-loss, mean over labels.
    deflated_gain: gain on half of the periods of the trial that is best on the other half, averaged over all ways to
        halve the periods. The number of rounds stays as early stopping chose it on all periods.
    preset_gain_by_period: mean gain of the preset's trial over the same periods, to compare with deflated_gain.
    overfitting: probability of backtest overfitting over complete trials (`multiple_testing.overfitting`).
    deflated_sharpe: probability that the best trial's gain over the prior is skill, given the number of all trials.
    deflated_sharpe_over_preset: the same for its gain over the preset, against the spread of trials that are no better
        than the preset; None where the preset is the best.
    trials: numbers of complete, pruned and failed trials, and `tried`, all trials on the same rows, with any settings.
        Complete trials alone have gains by date; all are counted.
    """
    counts = {name: 0 for name in ("complete", "pruned", "fail")}
    trials = [item for item in optuna_study.get_trials(deepcopy=False) if item.state.name.lower() in counts]
    for item in trials:
        counts[item.state.name.lower()] += 1
    complete = [item for item in trials if item.state.name == "COMPLETE"]
    best = min(complete, key=lambda item: (item.value, item.number))
    preset = next(k for k, item in enumerate(complete) if item.user_attrs.get("preset"))
    at = complete.index(best)
    series = multiple_testing.periods(np.array([item.user_attrs[GAINS] for item in complete]).T, period_dates)
    overfitting, deflated_gain = multiple_testing.overfitting(series)
    over = series[:, at] - series[:, preset]
    result = {
        "family": study.family, "sector": study.sector, "label": study.label, "section": study.section,
        "study": optuna_study.study_name, "best": dict(best.params), "best_trial": best.number,
        "preset": dict(complete[preset].params),
        "trials": {"complete": counts["complete"], "pruned": counts["pruned"], "failed": counts["fail"],
                   "tried": tried},
        "best_gain": 1 - best.value, "preset_gain": 1 - complete[preset].value,
        "deflated_gain": deflated_gain,
        "preset_gain_by_period": float(series[:, preset].mean()) if len(series) else math.nan,
        "overfitting": overfitting,
        "deflated_sharpe": multiple_testing.deflated_sharpe(series[:, at], tried, series),
        "deflated_sharpe_over_preset": multiple_testing.deflated_sharpe(over, tried - 1),
        "periods": len(series), "period_dates": period_dates,
    }  # fmt: skip
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in result.items()}


def chosen(result: dict[str, Any], accept: str) -> dict[str, Any]:
    """The result of a study with `accepted`, and `chosen`, the values to use: the best trial's or the preset's.

    accept "best" takes the best trial's values. "deflated" takes them only if deflated_gain > preset_gain_by_period;
    where one of both is not known, the preset's values stay.

        >>> result = {"best": {"depth": 4}, "preset": {"depth": 6}}
        >>> result |= {"deflated_gain": 0.01, "preset_gain_by_period": 0.02}
        >>> chosen(result, "deflated")["chosen"], chosen(result, "best")["chosen"]
        ({'depth': 6}, {'depth': 4})
    """
    deflated, preset = result["deflated_gain"], result["preset_gain_by_period"]
    accepted = accept == "best" or (deflated is not None and preset is not None and deflated > preset)
    return {**result, "accepted": accepted, "chosen": result["best"] if accepted else result["preset"]}


def _suggested(optuna_trial: Any, ranges: Mapping[str, Range]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, r in ranges.items():
        if r.among:
            values[name] = optuna_trial.suggest_categorical(name, r.among)
        else:
            suggest = optuna_trial.suggest_int if r.whole else optuna_trial.suggest_float
            values[name] = suggest(name, r.low, r.high, log=r.log)
    return values


def _finished(study: Any) -> list[Any]:
    import optuna

    states = optuna.trial.TrialState
    return study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))


def _sampler(seed: int, study: Study, number: int) -> Any:
    import optuna

    # The seed does not depend on the data: new prices do not draw other trials.
    return optuna.samplers.TPESampler(seed=int(sha256(f"{seed}/{study.name}/{number}".encode())[:8], 16))


def _pruner(name: str, rounds: int, n_steps: int) -> Any:
    import optuna

    first = math.ceil(rounds / REPORTS)
    if name == "median":
        # Not before a third of a label's rounds: a low learning rate begins late.
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=rounds // 3)
    return optuna.pruners.HyperbandPruner(min_resource=max(first, rounds // 3), max_resource=max(n_steps, 1))
