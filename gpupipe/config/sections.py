"""The values of a run: one frozen dataclass for each section."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from gpupipe.config.checks import check
from gpupipe.config.names import FAMILIES


@dataclass(frozen=True)
class Labels:
    """What is predicted: horizons in bars, thresholds as fractions of the close (0.05 is 5 %)."""

    horizons: tuple[int, ...] = (1, 2, 5)
    thresholds: tuple[float, ...] = (0.05, 0.10)
    rule: str = "take_profit_first"
    window: str = "bars"


@dataclass(frozen=True)
class FeatureSet:
    """Which columns are computed: "core" (89 columns), "default" (195), a family, a glob, a name, or several of these.

    modules: Python files of your own features, which `names` may then hold; OUT keeps a copy of each.
    """

    names: tuple[str, ...] = ("core",)
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """One split in time; shares are of the distinct usable times, oldest first; what goes with it beside that."""

    train: float = 0.6
    validation: float = 0.2
    shares_until: str = ""  # a date, 2014-12-31: shares are of the times up to it, and all later ones are test
    embargo_bars: int = 5  # times left out before validation and test, beside the purge by the label's end
    parts: int = 3  # the training part is cut into this many for out-of-fold predictions
    stacking: str = "kfold"  # kfold: a part is predicted by models of all others, purged; forward: of those before it
    walk_forward: int = 0  # origins whose windows tile the test part; the last one's models are kept; 0: one split
    window: str = "expanding"  # an origin trains on all before it; rolling: on as many times as the first one
    cpcv: tuple[int, ...] = ()  # N,K: cross-validate what lies before the test part, K of N groups tested at a time


@dataclass(frozen=True)
class Training:
    """What all families share."""

    models: tuple[str, ...] = FAMILIES
    pool: str = "all"  # all: a pooled stage over all sectors, then each sector's own; none: every sector alone
    sample_weight: str = "none"  # none, or uniqueness (rows whose label windows overlap others count less)
    class_weight: str = "none"  # none, or balanced (inverse class shares; probabilities are corrected back)
    min_positives: int = 20  # BUY and SELL rows, each, that a sector's training part must hold (see README)
    min_rows: int = 50  # rows of validation and of test, and a quarter of those of training, that a sector must have
    max_bin: int = 64
    spread: int = 0  # workers that each hold the rows of some sectors only and fit together; 0: each may have all
    early_stopping: int = 20  # rounds without a better validation log-loss; 0: all rounds are grown and kept


@dataclass(frozen=True)
class Ml:
    """Options of training under the names that users of XGBoost know."""

    feature_selection_top_n: int = 0  # train on this many columns, chosen inside each training part; 0: on all
    gradient_sampling: bool = False  # rows with large derivatives are drawn more often (where subsample is below 1)
    subsample: float = 0.0  # share of the rows that a tree sees, in place of every stage's own; 0: as each stage says
    use_quantile_dmatrix: bool = True  # false: xgboost.DMatrix, which holds floats and is binned by each booster
    use_rmm: bool = True  # CUDA: one RMM pool for cupy, numba and torch; false: each library's own


@dataclass(frozen=True)
class Booster:
    """A boosted-tree stage; depth 0 grows leaf-wise up to `leaves`."""

    rounds: int = 200
    learning_rate: float = 0.1
    depth: int = 3
    leaves: int = 0
    min_child_weight: float = 5.0
    l2: float = 5.0
    subsample: float = 0.5
    column_share: float = 0.5  # of the columns, drawn for each node


def cut(share: float) -> tuple[int, bool]:
    """How rows are cut for XGBoost's trees that each see a `share` of them: (parts, whether a tree sees all but one).

    The nearest of 1/n, one part for each tree in turn; above 2/3 the nearest of (n - 1)/n, n up to 10, a part left out
    in turn; above 0.95 all rows.
    """
    if share > 0.95:
        return 1, False
    parts = round(1 / share)
    return (parts, False) if parts > 1 else (min(10, round(1 / (1 - share))), True)


def joint(rounds: int, learning_rate: float) -> Booster:
    """The pooled stage of xgb_joint."""
    # Many rows in every leaf: on short histories whole days are alike, and small leaves learn the day. The rows of all
    # sectors are so many that a tree needs but a quarter of them, and then most of the columns.
    return Booster(
        rounds, learning_rate, depth=4, min_child_weight=50.0, l2=50.0, subsample=0.25, column_share=0.8
    )  # fmt: skip


def joint_sector(rounds: int, learning_rate: float) -> Booster:
    """Its stage of a sector's own."""
    return Booster(rounds, learning_rate, depth=3, min_child_weight=20.0, l2=50.0, subsample=0.25)


@dataclass(frozen=True)
class LightGBM:
    """Leaf-wise trees up to `leaves` and `depth` (0: any); with min_rows in each leaf."""

    rounds: int = 200
    learning_rate: float = 0.05
    depth: int = 0
    leaves: int = 8
    min_rows: int = 40
    l2: float = 10.0
    subsample: float = 0.5
    column_share: float = 0.5  # of the columns, drawn for each node


@dataclass(frozen=True)
class CatBoost:
    """Symmetric trees: all nodes of a level ask the same."""

    rounds: int = 200
    learning_rate: float = 0.05
    depth: int = 4
    l2: float = 5.0
    subsample: float = 0.5  # 1: all rows, with weights that CatBoost draws for each tree
    column_share: float = 0.5  # of the columns, drawn for each level


@dataclass(frozen=True)
class Forest:
    """A random forest; the sector's own trees are fitted to what the pooled forest leaves."""

    trees: int = 100
    sector_trees: int = 50
    depth: int = 7
    subsample: float = 0.25
    column_share: float = 0.25  # of the columns, drawn for each node; 0: the square root of their number
    min_rows: float = 50.0
    shrink_rows: float = 50.0  # pseudo-rows of the class prior (pooled) or of no change (sector) in every leaf
    sector_shrink_rows: float = 500.0


@dataclass(frozen=True)
class Linear:
    """Softmax regression; penalties are rows of pseudo-evidence on standardised columns for each nat of entropy.

    The entropy is that of a label's classes: rare events have little, and so a small penalty.
    """

    l2: float = 28_000.0
    sector_l2: float = 8_000.0  # pulls a sector's weights to the pooled ones
    max_iterations: int = 30
    clip: float = 4.0  # standardised columns are clipped at this many standard deviations


@dataclass(frozen=True)
class Meta:
    """Softmax regression on out-of-fold log-odds, pulled to the families' plain average.

    inputs "probabilities": multinomial logistic regression on the three probabilities of each family, pulled to 0.
    """

    inputs: str = "log_odds"
    l2: float = 200.0
    sector_l2: float = 2000.0
    max_iterations: int = 100


@dataclass(frozen=True)
class Tuned:
    """Values for one sector that win over those of a section, as a table [tuned.SECTOR.SECTION] gives them.

    label: "" for all labels of the sector, or the one of [tuned.SECTOR.LABEL.SECTION], which wins over both.
    values: (name, value) pairs, sorted.
    """

    sector: str
    label: str
    section: str
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes. `preset` names where the values started.

    tuned: sorted by sector, label and section; `gpupipe tune` writes them to a file.
    """

    preset: str = "balanced"
    seed: int = 42
    labels: Labels = field(default_factory=Labels)
    features: FeatureSet = field(default_factory=FeatureSet)
    split: Split = field(default_factory=Split)
    training: Training = field(default_factory=Training)
    ml: Ml = field(default_factory=Ml)
    joint: Booster = field(default_factory=lambda: joint(300, 0.05))
    joint_sector: Booster = field(default_factory=lambda: joint_sector(60, 0.05))
    hist: Booster = field(default_factory=lambda: Booster(rounds=200, learning_rate=0.05))
    leafwise: Booster = field(default_factory=lambda: Booster(rounds=200, learning_rate=0.05, depth=0, leaves=8))
    lightgbm: LightGBM = field(default_factory=LightGBM)
    catboost: CatBoost = field(default_factory=CatBoost)
    forest: Forest = field(default_factory=Forest)
    linear: Linear = field(default_factory=Linear)
    meta: Meta = field(default_factory=Meta)
    tuned: tuple[Tuned, ...] = ()

    def __post_init__(self) -> None:
        check(self)

    def stage(self, section: str, sector: str, label: str) -> Booster:
        """How a sector's label is boosted: the section's values, its sector's tuned ones, and its own."""
        stage: Booster = getattr(self, section)
        for own in self.tuned:
            if (own.section, own.sector) == (section, sector) and own.label in ("", label):
                stage = dataclasses.replace(stage, **dict(own.values))  # type: ignore[arg-type]
        return stage

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, as JSON and TOML can hold it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def digest(self) -> str:
        """SHA-256 of the values (the preset's name is not a value)."""
        values = {key: value for key, value in self.as_dict().items() if key != "preset"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
