"""The values of a run: one frozen dataclass for each section that all workloads have."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FeatureSet:
    """Which columns are computed: "core" (89 columns), "default" (195), a family, a glob, a name, or several of these.

    modules: Python files of your own features, which `names` may then hold; OUT keeps a copy of each.
    """

    names: tuple[str, ...] = ("core",)
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """One split in time, walk-forward and cross-validation; shares are of the distinct usable times, oldest first."""

    train: float = 0.6
    validation: float = 0.2
    shares_until: str = ""  # a date, 2014-12-31: shares are of the times up to it, and all later ones are test
    embargo_bars: int = 5  # times left out before validation and test, in addition to the purge by the label's end
    parts: int = 3  # the training part is cut into this many for out-of-fold predictions
    stacking: str = "kfold"  # kfold: a part is predicted by models of all others, purged; forward: of those before it
    walk_forward: int = 0  # origins whose windows tile the test part; the last one's models are kept; 0: one split
    window: str = "expanding"  # an origin trains on all before it; rolling: on as many times as the first one
    cpcv: tuple[int, ...] = ()  # N,K: cross-validate what lies before the test part, K of N groups tested at a time


@dataclass(frozen=True)
class Training:
    """What all estimators share."""

    models: tuple[str, ...] = ()  # names of estimators; the workload has its default
    pool: str = "all"  # all: a pooled stage over all groups, then each group's own; none: every group alone
    sample_weight: str = "none"  # none, or uniqueness (rows whose label windows overlap others count less)
    class_weight: str = "none"  # none, or balanced (inverse class shares; probabilities are corrected back)
    min_positives: int = 20  # rows of each outer class that a group's training part must hold
    min_rows: int = 50  # rows of validation and of test, and a quarter of those of training, that a group must have
    max_bin: int = 64
    spread: int = 0  # workers that each hold the rows of some groups only and fit together; 0: each may have all
    early_stopping: int = 20  # rounds without a better validation log-loss; 0: all rounds are grown and kept


@dataclass(frozen=True)
class Ml:
    """Options of training under the names that users of XGBoost know."""

    feature_selection_top_n: int = 0  # train on this many columns, chosen inside each training part; 0: on all
    gradient_sampling: bool = False  # rows with large derivatives are drawn more often (where subsample is below 1)
    subsample: float = 0.0  # share of the rows that a tree sees, in the place of every section's own; 0: as each says
    use_quantile_dmatrix: bool = True  # false: xgboost.DMatrix, which holds floats and is binned by each booster
    use_rmm: bool = True  # CUDA: one RMM pool for cupy, numba and torch; false: each library's own


@dataclass(frozen=True)
class Tuned:
    """Values for one group that win over those of a section, as a table [tuned.GROUP.SECTION] gives them.

    label: "" for all labels of the group, or the one of [tuned.GROUP.LABEL.SECTION], which wins over both.
    values: (name, value) pairs, sorted.
    """

    sector: str
    label: str
    section: str
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes. `preset` names where the values started.

    sections: those of the workload and of its estimators, by name; they read as attributes too: `settings.linear`.
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
        # Only for names that are no field: a section. `sections` itself is missing while a copy is being made.
        sections = self.__dict__.get("sections", {})
        if name in sections:
            return sections[name]
        raise AttributeError(f"no section {name!r} in these settings; there are {', '.join(sections)}")

    def replace(self, **changes: Any) -> Config:
        """The same settings with other fields or sections, by name."""
        sections = {name: value for name, value in changes.items() if name in self.sections}
        fields = {name: value for name, value in changes.items() if name not in self.sections}
        return dataclasses.replace(self, **{"sections": {**self.sections, **sections}, **fields})

    def for_label(self, section: str, group: str, label: str) -> Any:
        """A section's values for a label of a group: the section's, the group's tuned ones, and the label's own."""
        values = self.sections[section]
        for tuned in self.tuned:
            if (tuned.section, tuned.sector) == (section, group) and tuned.label in ("", label):
                values = dataclasses.replace(values, **dict(tuned.values))
        return values

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, as JSON and TOML can hold it."""
        plain = dataclasses.asdict(self)
        sections = plain.pop("sections")
        as_json: dict[str, Any] = json.loads(json.dumps({**plain, **sections}))
        return as_json

    def digest(self) -> str:
        """SHA-256 of the values (the preset's name is not a value)."""
        values = {key: value for key, value in self.as_dict().items() if key != "preset"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
