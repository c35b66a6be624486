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

from gpupipe.config import Config, ConfigError
from gpupipe.estimators import columns, registry
from gpupipe.estimators.contract import Estimator, Range, SearchSpace, Watch
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.evaluation import multiple_testing
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import sha256
from gpupipe.training import trial
from gpupipe.training.trial import TrialRows, Validation

PRUNERS = ("median", "hyperband")
ACCEPT = ("deflated", "best")
PERIOD_DATES = 5  # a week of daily bars: the dates whose mean counts as one observation of a Sharpe ratio
REPORTS = 10  # times that a label tells its loss on its way
STARTUP = 5  # trials that are never pruned by the median
GAINS = "gain_by_date"


def searched() -> dict[str, SearchSpace]:
    """What can be searched, by estimator."""
    return {item.name: item.search for item in registry.estimators() if item.search}


def pooled_only() -> tuple[str, ...]:
    """Estimators that have one study over all groups and targets."""
    return tuple(name for name, space in searched().items() if space.pooled)


@dataclass(frozen=True)
class Study:
    """What one study tunes: an estimator, of one group ("" is all of them) and one label ("" is all of them)."""

    family: str
    sector: str
    label: str

    @property
    def section(self) -> str:
        """The section of the settings that is searched."""
        return searched()[self.family].section

    @property
    def estimator(self) -> Estimator:
        """The estimator that is tuned."""
        return registry.estimator(self.family)

    @property
    def name(self) -> str:
        """For people and for the study's name."""
        return f"{self.family}/{self.sector or 'all sectors'}/{self.label or 'all labels'}"


def space(study: Study, settings: Config) -> dict[str, Range]:
    """Ranges of what is searched, widened to hold the section's own values, which are the first trial of all.

    The share that ml.subsample sets for all stages is not searched. Raises ConfigError for a value of the section that
    no range can hold.
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
    """The studies of a training set. per: "sector" or "label", for estimators of one group and one label.

    A label that has fewer than `minimum` rows of an outer class in a group is not fitted there, and so not tuned.
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
    """What the studies of one training set share.

    rows_key: of the data, the split and the labels.  key: of all that decides a trial's value. Studies of another key
        are other studies, whose trials are counted if they are of the same rows.
    n_trials: finished ones that a study shall have, those of earlier sessions too.  pruner: one of PRUNERS.
    period_dates: dates whose mean gain is one observation.  advance(text): called for each trial.
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

    def run(self, study: Study) -> dict[str, Any]:
        """Bring one study to its number of trials; its result, see `verdict`."""
        scored = _Scored.of(self, study)
        optuna_study = self._optuna_study(study, scored)
        finished = _finished(optuna_study)
        for number in range(len(finished), self.n_trials):
            # By the number of finished trials: a trial that was killed is asked for again, and a resumed study
            # continues like one that never stopped.
            optuna_study.sampler = _sampler(self.settings.seed, study, number)
            optuna_study.optimize(scored.objective, n_trials=1)
            self.advance(study.name)
        return verdict(optuna_study, study, self.period_dates, self._tried(study))

    def _tried(self, study: Study) -> int:
        """All trials of a study on the same rows, whatever the settings around them."""
        import optuna

        summaries = optuna.study.get_all_study_summaries(self.storage, include_best_trial=False)
        return sum(
            one.n_trials for one in summaries if one.study_name.startswith(f"{study.name}/{self.rows_key[:16]}/")
        )

    def _optuna_study(self, study: Study, scored: _Scored) -> Any:
        """The study; trials of a process that was killed are marked as failed, and the own values come first."""
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
            optuna_study.enqueue_trial(scored.own(), user_attrs={"preset": True})
        for _ in range(min(self.n_trials, len(_finished(optuna_study)))):
            self.advance(study.name)
        return optuna_study


@dataclass(frozen=True)
class _Scored:
    """How a trial of one study gets its value: mean over targets of validation log-loss / the class prior's."""

    search: Search
    study: Study
    rows: TrialRows
    ranges: Mapping[str, Range]

    @classmethod
    def of(cls, search: Search, study: Study) -> _Scored:
        settings = search.settings
        training_set = columns.seen_by(study.estimator, search.training_set)
        if study.label:
            targets = [training_set.target.names.index(study.label)]
        elif study.sector:
            targets = _targets_of(training_set, study.sector, settings.training.min_positives)
        else:
            targets = list(range(training_set.n_targets))
        groups = [study.sector] if study.sector else training_set.groups
        validation = trial.validation_of(training_set, groups, targets)
        rows = TrialRows(training_set, study.sector, tuple(targets), validation)
        return cls(search, study, rows, space(study, settings))

    @property
    def stage(self) -> Any:
        """The section as the settings have it."""
        return getattr(self.search.settings, self.study.section)

    @property
    def rounds(self) -> int:
        """Steps of one target."""
        return getattr(self.stage, "rounds", 1)

    @property
    def n_steps(self) -> int:
        return self.rounds * (len(self.rows.targets) if self.study.sector else 1)

    def own(self) -> dict[str, float]:
        return {name: getattr(self.stage, name) for name in self.ranges}

    def objective(self, one: Any) -> float:
        """Fit with what an Optuna trial suggests; its value, of which every report on the way is an earlier state."""
        import optuna

        stage = dataclasses.replace(self.stage, **_suggested(one, self.ranges))
        every = math.ceil(self.rounds / REPORTS)

        def report(step: int, loss: np.ndarray) -> None:
            if step % every == 0:
                one.report(self.value(loss), step)
                goes_on = step < self.n_steps and not one.user_attrs.get("preset")
                if goes_on and one.should_prune():
                    raise optuna.TrialPruned

        loss = self._fit(stage, report)
        mean = np.nanmean(loss, axis=0)
        one.set_user_attr("log_loss", [float(v) for v in mean])
        one.set_user_attr(GAINS, [float(v) for v in gain_by_date(self.rows.validation, loss)])
        return self.value(mean)

    def value(self, loss: np.ndarray) -> float:
        """Of the labels' mean losses, float64 (n_labels,); 1 is the class prior."""
        return float((loss / self.rows.validation.prior).mean())

    def _fit(self, stage: Any, report: Watch) -> np.ndarray:
        patience = self.search.settings.training.early_stopping
        fit = trial.fit_labels if self.study.sector else trial.fit_pool
        return fit(self.study.estimator, self.rows, stage, patience, report)


def gain_by_date(validation: Validation, loss: np.ndarray) -> np.ndarray:
    """float64 (n_dates,), oldest first: mean over a date's rows and labels of (prior's - own loss) / prior's mean loss.

    Rows of each date count alike, and so do labels: but for dates with more or fewer rows than others, its mean is
    1 - the value of the trial.
    """
    gain = (validation.prior_loss - loss) / validation.prior
    row, label = np.nonzero(~np.isnan(gain))
    dates, date = np.unique(validation.time_ns[row], return_inverse=True)
    total = np.bincount(date, weights=gain[row, label], minlength=len(dates))
    # Rounded to what float32 probabilities know: a model that says the prior has gained nothing, not 1e-8 on each date.
    return np.round(total / np.bincount(date, minlength=len(dates)), 6)


def verdict(optuna_study: Any, study: Study, period_dates: int, tried: int) -> dict[str, Any]:
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
    trials = [one for one in optuna_study.get_trials(deepcopy=False) if one.state.name.lower() in counts]
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
        "family": study.family, "sector": study.sector, "label": study.label, "section": study.section,
        "study": optuna_study.study_name, "best": dict(best.params), "best_trial": best.number,
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


def _sampler(seed: int, study: Study, number: int) -> Any:
    import optuna

    # Not of the data: prices of another day do not draw other trials.
    return optuna.samplers.TPESampler(seed=int(sha256(f"{seed}/{study.name}/{number}".encode())[:8], 16))


def _pruner(name: str, rounds: int, n_steps: int) -> Any:
    import optuna

    first = math.ceil(rounds / REPORTS)
    if name == "median":
        # Not before a third of a label's rounds: a low learning rate begins late.
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=rounds // 3)
    return optuna.pruners.HyperbandPruner(min_resource=max(first, rounds // 3), max_resource=max(n_steps, 1))
