"""Optuna studies over families: trials judged by blocks of dates, pruned, and resumed after a kill."""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.config import Config
from gpupipe.estimators.fit_context import FitContext
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import sha256_of, write_atomic
from gpupipe.workloads.bonds.families.contract import mean_squared
from gpupipe.workloads.bonds.families.registry import FAMILIES
from gpupipe.workloads.bonds.models import ModelRows
from gpupipe.workloads.bonds.seeds import seed_of

log = logging.getLogger("gpupipe")

FAMILY = "family"
STARTUP = 4  # trials that are never pruned


@dataclass(frozen=True)
class Study:
    """A search over one family or several.

    names: of the families; with several, the family itself is a parameter.  step: of the eleven.
    rows: what trials are fitted and judged on: each block of later training dates is predicted from earlier dates and
        other issuers. Validation only stops their training early.

        >>> Study(("forest",), None, None, 4).names
        ('forest',)
    """

    names: tuple[str, ...]
    rows: ModelRows
    settings: Config
    step: int

    def run(self, context: FitContext) -> dict[str, Any]:
        """The best trial: family, values, loss, and the number of trials by state."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)  # an error is told once, where it ends the run
        n_trials = self.settings.search.trials
        study = optuna.create_study(pruner=optuna.pruners.MedianPruner(STARTUP), direction="minimize")
        kept = _Kept.of(context)
        for trial in kept.trials(self):
            study.add_trial(trial)
        for number in range(len(study.trials), n_trials):
            # Seeds by number: a study that was killed draws what it would have drawn.
            seed = seed_of(self.rows.seed, self.step, number)
            study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
            study.optimize(self.loss, n_trials=1)
            kept.write(study.trials)
            context.detail(f"trial {number + 1} of {n_trials}")
        complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        if not complete:
            raise UserError(f"no trial of step {self.step} has a finite loss: change the settings of {self.names}")
        best = min(complete, key=lambda trial: (trial.value, trial.number))
        states = [trial.state.name for trial in study.trials]
        values = {name: value for name, value in best.params.items() if name != FAMILY}
        return {
            "family": best.params.get(FAMILY, self.names[0]), "values": _plain(values), "loss": best.value,
            "trials": len(states), "pruned": states.count("PRUNED"),
            "losses": [trial.value for trial in study.trials],
        }  # fmt: skip

    def loss(self, trial: Any) -> float:
        """The mean squared error over the blocks; pruned where the first blocks are worse than of most trials."""
        import optuna

        name = trial.suggest_categorical(FAMILY, list(self.names)) if len(self.names) > 1 else self.names[0]
        values = FAMILIES[name].space(trial) if len(self.names) == 1 else FAMILIES[name].space(_Prefixed(trial, name))
        own = dataclasses.replace(getattr(self.settings, name), **values)
        rows, errors, counts = self.rows, [], []
        for block, fold in enumerate(rows.forward(self.settings.search.folds)):
            model = FAMILIES[name].fit(rows.fit_rows(fold.fit, rows.split.validation, self.step), own)
            errors.append(mean_squared(model.predict(rows.X[fold.predict]), rows.target(fold.predict)))
            counts.append(len(fold.predict))
            trial.report(float(np.average(errors, weights=counts)), block)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.average(errors, weights=counts))


@dataclass(frozen=True)
class _Prefixed:
    """Suggests parameters under the name of their family, where families share names."""

    trial: Any
    family: str

    def __getattr__(self, name: str) -> Any:
        suggest = getattr(self.trial, name)
        return lambda parameter, *arguments, **options: suggest(f"{self.family}.{parameter}", *arguments, **options)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values of settings by name, without the family before it."""
    return {name.rpartition(".")[2]: value for name, value in values.items()}


@dataclass(frozen=True)
class _Kept:
    """Finished trials in the folder of the step's checkpoints; a killed run finds them again."""

    path: pathlib.Path | None
    key: str

    @classmethod
    def of(cls, context: FitContext) -> _Kept:
        folder = context.checkpoints
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return cls(None if folder is None else folder / "trials.json", context.key)

    def trials(self, study: Study) -> list[Any]:
        """The trials that were kept under the same key; none, with a warning, where the file is damaged."""
        if self.path is None or not self.path.exists():
            return []
        try:
            content = json.loads(self.path.read_bytes())
            records = content["trials"]
            if content["sha256"] != sha256_of(records):
                raise ValueError("the digest differs")
            trials = [_trial_of(record, study) for record in records] if content["key"] == self.key else []
        except (ValueError, KeyError, TypeError):
            log.warning("%s is damaged; its trials are made again", self.path)
            return []
        return trials

    def write(self, trials: Sequence[Any]) -> None:
        """Keep the finished trials."""
        if self.path is not None:
            records = [_record_of(trial) for trial in trials]
            content = {"key": self.key, "sha256": sha256_of(records), "trials": records}
            write_atomic(self.path, json.dumps(content).encode())


def _record_of(trial: Any) -> dict[str, Any]:
    return {"state": trial.state.name, "value": trial.value, "params": trial.params,
            "intermediate": sorted(trial.intermediate_values.items())}  # fmt: skip


def _trial_of(record: dict[str, Any], study: Study) -> Any:
    """The finished trial of a record; its distributions are those that its parameters are drawn from."""
    import optuna

    drawn = optuna.trial.FixedTrial(record["params"])
    name = drawn.suggest_categorical(FAMILY, list(study.names)) if len(study.names) > 1 else study.names[0]
    FAMILIES[name].space(drawn if len(study.names) == 1 else _Prefixed(drawn, name))
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[record["state"]], value=record["value"], params=record["params"],
        distributions=drawn.distributions, intermediate_values={int(k): v for k, v in record["intermediate"]},
    )  # fmt: skip
