"""Settings of bonds: what is predicted, the split, and the families of models."""

from __future__ import annotations

from dataclasses import dataclass

from gpupipe.config import Catalogue, Section

CONVENTIONS = ("street", "quantlib", "treasury")


@dataclass(frozen=True)
class BondSettings:
    """What a run of bonds predicts, on which rows, and how it judges.

    >>> BondSettings(convention="exotic").problem(), BondSettings(train=0.9).problem()[0]
    (('convention', 'street, quantlib, treasury'), 'train')
    """

    convention: str = "street"  # of yields and prices: street, quantlib, treasury
    most_gap_days: float = 45.0  # between two quotes of a bond; a later one is not the next period
    train: float = 0.5  # share of the dates, oldest first
    validation: float = 0.2  # share of the dates after them; the rest is the sealed test
    issuers_train: float = 0.5  # share of the issuers whose bonds are trained on
    issuers_validation: float = 0.2  # share of those that validate; the rest is tested
    sample: float = 0.0  # bonds for the steps 9 to 11: a share, or a number; 0: all of them
    n_regimes: int = 4  # clusters of dates at most
    n_factors: int = 3  # principal components of yield changes
    tail_dates: int = 500  # curve moves of the tail risk at most, the latest
    least_rows: int = 200  # of training; fewer are refused

    def problem(self) -> tuple[str, str] | None:
        """A field with a value that it cannot have, and what it may be."""
        if self.convention not in CONVENTIONS:
            return "convention", ", ".join(CONVENTIONS)
        for first, second in (("train", "validation"), ("issuers_train", "issuers_validation")):
            shares = getattr(self, first), getattr(self, second)
            if not (0 < shares[0] < 1 and 0 < shares[1] < 1 and sum(shares) < 1):
                return first, f"a share above 0, and below 1 together with {second}"
        if self.sample < 0 or (self.sample > 1 and self.sample != int(self.sample)):
            return "sample", "a share below 1, or a number of bonds; 0 for all of them"
        return _problem(self, ("n_regimes", "n_factors", "tail_dates", "least_rows", "most_gap_days"))


def _problem(section: object, ones: tuple[str, ...], shares: tuple[str, ...] = ()) -> tuple[str, str] | None:
    """The first of the fields `ones` that is below 1, or of `shares` that is no share above 0."""
    for name in ones:
        if not getattr(section, name) >= 1:
            return name, "1 or more"
    for name in shares:
        if not 0 < getattr(section, name) <= 1:
            return name, "more than 0, up to 1"
    return None


@dataclass(frozen=True)
class ForestSettings:
    """A random forest. Trees are added until validation no longer gains.

    >>> ForestSettings().max_depth
    8
    """

    n_trees: int = 200
    trees_at_once: int = 25  # trees that are added before validation is asked again
    max_depth: int = 8
    max_features: float = 0.5  # share of the columns that a node chooses from
    max_samples: float = 0.3  # share of the rows that a tree sees
    least_leaf: int = 20  # rows of a leaf
    patience: int = 2  # additions without a gain on validation, then it stops

    def problem(self) -> tuple[str, str] | None:
        """See `BondSettings`."""
        ones = ("n_trees", "trees_at_once", "max_depth", "least_leaf", "patience")
        return _problem(self, ones, shares=("max_features", "max_samples"))


@dataclass(frozen=True)
class BoostingSettings:
    """Gradient boosting by XGBoost.

    >>> BoostingSettings().rounds
    400
    """

    rounds: int = 400
    max_depth: int = 4
    learning_rate: float = 0.05
    subsample: float = 0.5
    colsample: float = 0.7
    l2: float = 10.0
    least_leaf: float = 50.0  # sum of Hessians of a leaf: rows
    patience: int = 25  # rounds without a gain on validation, then it stops

    def problem(self) -> tuple[str, str] | None:
        """See `BondSettings`."""
        return _problem(self, ("rounds", "max_depth", "patience"), shares=("subsample", "colsample"))


@dataclass(frozen=True)
class NetworkSettings:
    """A multilayer perceptron.

    >>> NetworkSettings().width
    32
    """

    width: int = 32
    layers: int = 2
    epochs: int = 60
    batch: int = 512
    learning_rate: float = 1e-3
    l2: float = 1e-3
    patience: int = 6  # epochs without a gain on validation, then it stops

    def problem(self) -> tuple[str, str] | None:
        """See `BondSettings`."""
        return _problem(self, ("width", "layers", "epochs", "batch", "patience"))


@dataclass(frozen=True)
class LinearSettings:
    """A ridge regression.

    >>> LinearSettings().l2
    0.1
    """

    l2: float = 0.1  # penalty of a squared weight of a standardised column, times the rows

    def problem(self) -> tuple[str, str] | None:
        """See `BondSettings`."""
        return None if self.l2 > 0 else ("l2", "more than 0")


@dataclass(frozen=True)
class SearchSettings:
    """The searches of the steps 2, 4, 8 and 11.

    >>> SearchSettings().trials
    20
    """

    depths: tuple[int, ...] = (3, 5, 8, 12, 16)  # of the forest in step 2
    trials: int = 20  # of each study
    folds: int = 3  # blocks of training dates that a trial is judged on, one after the other

    def problem(self) -> tuple[str, str] | None:
        """See `BondSettings`."""
        if not self.depths or min(self.depths) < 1:
            return "depths", "depths of 1 or more"
        if self.folds < 2:
            return "folds", "2 or more"
        return _problem(self, ("trials",))


def catalogue() -> Catalogue:
    """What the settings of bonds may hold.

    >>> sorted(catalogue().sections)
    ['bonds', 'boosting', 'forest', 'linear', 'network', 'search']
    """
    return Catalogue(
        sections={
            "bonds": Section(BondSettings),
            "forest": Section(ForestSettings),
            "boosting": Section(BoostingSettings),
            "network": Section(NetworkSettings),
            "linear": Section(LinearSettings),
            "search": Section(SearchSettings),
        },
        models=(),
        default_models=(),
        presets=("balanced",),
    )
