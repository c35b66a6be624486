"""Config, and a frozen dataclass for each section that all workloads have."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FeatureSet:
    """The computed features.

    names: "core" (89 columns), "default" (195), "session" (36), a family, a glob, a name, or several of these.
    modules: Python files with user features, which `names` may contain; OUT keeps a copy of each file.

        >>> FeatureSet(names=("momentum", "natr_14")).modules
        ()
    """

    names: tuple[str, ...] = ("core",)
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """The split in time, walk-forward and cross-validation. Shares refer to the distinct usable times, oldest first.

    >>> round(1 - Split().train - Split().validation, 2)  # the share of the sealed test
    0.2
    """

    train: float = 0.6
    validation: float = 0.2
    shares_until: str = ""  # a date, 2014-12-31: shares refer to the times up to it, and all later times are test
    embargo_bars: int = 5  # times left out before validation and test, in addition to the purge by the label's end
    parts: int = 3  # number of blocks of the training part for out-of-fold predictions
    stacking: str = "kfold"  # kfold: models of all other blocks predict a block; forward: models of earlier blocks
    walk_forward: int = 0  # origins whose windows tile the test part; models of the last are kept; 0: a single split
    window: str = "expanding"  # an origin trains on all earlier times; rolling: on as many times as the first origin
    lookback_rows: int = 0  # rows of its symbol that precede each used row, where no estimator reads more of them
    cpcv: tuple[int, ...] = ()  # N,K: cross-validate the times before the test part, testing K of N groups at a time


@dataclass(frozen=True)
class Training:
    """Settings of training that all estimators share.

    >>> Training(models=("linear",)).pool
    'all'
    """

    models: tuple[str, ...] = ()  # names of estimators; the workload has a default
    pool: str = "all"  # all: a pooled stage over all groups, then a stage for each group; none: every group alone
    sample_weight: str = "none"  # none, or uniqueness (rows whose label windows overlap others count less)
    class_weight: str = "none"  # none, or balanced (inverse class shares; probabilities are corrected back)
    min_positives: int = 20  # rows of each outer class that a group's training part must hold
    min_rows: int = 50  # least rows of a group in validation and in test; training needs four times as many
    max_bin: int = 64
    spread: int = 0  # number of workers that each hold the rows of some groups and fit together; 0: rows are not spread
    place: tuple[str, ...] = ()  # "random_forest=cpu", "xgb_joint.pool=cuda": stages that are not placed by themselves
    early_stopping: int = 20  # rounds without a better validation log-loss; 0: all rounds are grown and kept


@dataclass(frozen=True)
class Ml:
    """Options of training under the names that users of XGBoost know.

    >>> Ml(subsample=0.5).use_rmm
    True
    """

    feature_selection_top_n: int = 0  # train on this many columns, chosen inside each training part; 0: on all
    gradient_sampling: bool = False  # rows with large derivatives are drawn more often (where subsample is below 1)
    subsample: float = 0.0  # share of the rows of a tree, which overrides the share of every section; 0: no override
    use_quantile_dmatrix: bool = True  # false: xgboost.DMatrix, which holds floats and is binned by each booster
    use_rmm: bool = True  # CUDA: one RMM pool for cupy, numba and torch; false: a pool for each library


@dataclass(frozen=True)
class Tuned:
    """Tuned values of a section for one group, from a table [tuned.GROUP.SECTION]; they override the section.

    label: "" for all labels of the group; a label, from [tuned.GROUP.LABEL.SECTION], overrides the values for all.
    values: (name, value) pairs, sorted.

        >>> dict(Tuned("energy", "", "hist", (("depth", 4), ("rounds", 200))).values)["depth"]
        4
    """

    sector: str
    label: str
    section: str
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Config:
    """All values that decide the results of a run.

    `make` and `with_table` check a configuration against the workload's catalogue, and `replace` checks ranges;
    `dataclasses.replace` checks nothing.
    preset: the name of the preset from which the values started.
    sections: of the workload and of its estimators, by name; they are attributes too: `settings.linear`.
    tuned: sorted by group, label and section; `gpupipe tune` writes them to a file.

        >>> from gpupipe.workloads import equity
        >>> settings = equity.make("fast", settings=["linear.l2=100.0"])
        >>> settings.training.max_bin, settings.linear.l2
        (32, 100.0)
    """

    preset: str = "balanced"
    seed: int = 42
    features: FeatureSet = field(default_factory=FeatureSet)
    split: Split = field(default_factory=Split)
    training: Training = field(default_factory=Training)
    ml: Ml = field(default_factory=Ml)
    sections: Mapping[str, Any] = field(default_factory=dict)
    tuned: tuple[Tuned, ...] = ()

    def __getattr__(self, name: str) -> Any:
        # Called for names that are no field. `sections` itself is missing while an object is copied.
        sections = self.__dict__.get("sections", {})
        if name in sections:
            return sections[name]
        raise AttributeError(f"no section {name!r} in these settings; there are {', '.join(sections)}")

    def replace(self, **changes: Any) -> Config:
        """The configuration with other fields or sections, by name; raises ConfigError for a value out of range.

        >>> import dataclasses
        >>> from gpupipe.workloads import equity
        >>> settings = equity.make("fast")
        >>> settings.replace(split=dataclasses.replace(settings.split, train=2.0))
        Traceback (most recent call last):
        gpupipe.config.errors.ConfigError: split.train = 2.0: expected a share between 0 and 1
        """
        from gpupipe.config.checks import check_values  # checks imports Config

        changed = self.unchecked(**changes)
        check_values(changed)
        return changed

    def unchecked(self, **changes: Any) -> Config:
        """Like `replace`, without checks: for intermediate configurations, while settings are read."""
        sections = {name: value for name, value in changes.items() if name in self.sections}
        fields = {name: value for name, value in changes.items() if name not in self.sections}
        return dataclasses.replace(self, **{"sections": {**self.sections, **sections}, **fields})

    def for_label(self, section: str, group: str, label: str) -> Any:
        """The values of a section for a label of a group, with tuned values of the group and then of the label."""
        values = self.sections[section]
        for tuned in self.tuned:
            if (tuned.section, tuned.sector) == (section, group) and tuned.label in ("", label):
                values = dataclasses.replace(values, **dict(tuned.values))
        return values

    def as_dict(self) -> dict[str, Any]:
        """A nested dict in the types of JSON and TOML."""
        plain = dataclasses.asdict(self)
        if not self.training.place:  # which says nothing then
            del plain["training"]["place"]
        sections = plain.pop("sections")
        as_json: dict[str, Any] = json.loads(json.dumps({**plain, **sections}))
        return as_json

    def digest(self) -> str:
        """SHA-256 of the values, without the preset's name."""
        values = {key: value for key, value in self.as_dict().items() if key != "preset"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
