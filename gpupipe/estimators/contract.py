"""The contract of an estimator: what it declares, how it is fitted, and what its models can do."""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from gpupipe.config import Config, Section
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.lookback import Lookback
from gpupipe.estimators.earlier import EarlierModels
from gpupipe.estimators.ensemble import TreeReader
from gpupipe.estimators.fit_context import NO_CONTEXT, FitContext
from gpupipe.estimators.onnx_graph import CriticalValues, OnnxGraph
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.runtime.errors import UserError
from gpupipe.runtime.placement import Size, Work

# Called after each round with its number and the validation loss, float64 (n_targets,); may raise to stop.
Watch = Callable[[int, np.ndarray], None]


class Model(Protocol):
    """A fitted model of one target.

    scope: "pool" if it was fitted on all groups, "sector" if some or all of it is the group's own.

        >>> from gpupipe.estimators.linear.softmax_regression import Weights
        >>> from gpupipe.estimators.stacking.meta_learner import MetaModel
        >>> model = MetaModel(("xgb_joint", "linear"), Weights(np.zeros((4, 3)), np.zeros(3)))
        >>> model.scope, list(model.files()), model.describe()["kind"]
        ('sector', ['.npz'], 'meta')
    """

    @property
    def scope(self) -> str:
        """Whose rows it was fitted on."""
        ...

    def files(self) -> dict[str, bytes]:
        """What to write, content by suffix."""
        ...

    def describe(self) -> dict[str, Any]:
        """What `Estimator.load` needs beside the files, JSON-serialisable; its "kind" is one of `model_kinds`."""
        ...


@dataclass(frozen=True)
class Range:
    """What a search may try, from `low` to `high`.

    log: even steps of the logarithm.  whole: integers.  among: these values alone.

        >>> Range(2, 8, whole=True).high, Range(0.25, 1.0, among=(0.25, 0.5, 1.0)).among
        (8, (0.25, 0.5, 1.0))
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    among: tuple[float, ...] = ()


@dataclass(frozen=True)
class SearchSpace:
    """What `gpupipe tune` searches of an estimator.

    section: the section of the settings whose values are searched.
    ranges(values): what to try, given the section's present values.
    pooled: whether one study serves all groups and targets; else there is one for each group (and target).

        >>> from gpupipe.estimators import registry
        >>> space = registry.estimator("linear").search
        >>> space.section, space.pooled, space.ranges(None)["l2"].high
        ('linear', True, 1000000.0)
    """

    section: str
    ranges: Callable[[Any], Mapping[str, Range]]
    pooled: bool = False


@dataclass(frozen=True)
class Shape:
    """How large a run is, in rows: what estimates of memory are made from.

    fit, validation, test: of the published fold.  out_of_fold: fitted in one out-of-fold fit.
    largest: share of all rows that the largest group has.  late_columns: columns with missing values on usable rows.

        >>> from gpupipe.estimators import registry
        >>> from gpupipe.workloads import equity
        >>> shape = Shape(
        ...     100_000, fit=60_000.0, validation=15_000.0, test=15_000.0, out_of_fold=48_000.0, largest=0.25,
        ...     n_features=89, late_columns=10, n_targets=6)
        >>> round(registry.estimator("xgb_joint").fit_bytes(shape, equity.make("fast"), sparing=False) / 2**20, 1)
        12.7
    """

    n_rows: int
    fit: float
    validation: float
    test: float
    out_of_fold: float
    largest: float
    n_features: int
    late_columns: int
    n_targets: int


@dataclass(frozen=True)
class FileForm:
    """How a whole file of a model begins and ends. Some libraries end the process when they read half a file.

    near_end: bytes that must occur in the file's last 48 bytes.

        >>> FileForm(b"PK", b"").check(".npz", b"PK...")
    """

    begins: bytes
    ends: bytes
    near_end: bytes = b""

    def check(self, suffix: str, content: bytes) -> None:
        """Raise ValueError for a file that is not whole."""
        if not (content.startswith(self.begins) and content.endswith(self.ends) and self.near_end in content[-48:]):
            raise ValueError(f"the {suffix} file of {len(content)} bytes is truncated or of another format")


NPZ = {".npz": FileForm(b"PK\3\4", b"")}


class EstimatorSettings:
    """The settings that an estimator may read: its own sections, and the shared ones that it declares.

    Any other is an error: a setting that a model depends on and its cache key does not name would let a stale model
    pass for a fresh one.

        >>> from gpupipe.estimators import registry
        >>> from gpupipe.workloads import equity
        >>> settings = registry.readable(equity.make("fast"), "linear")
        >>> settings.linear.max_iterations, settings.values(None, None)["linear.clip"]
        (12, 4.0)
    """

    def __init__(self, settings: Config, estimator: Estimator) -> None:
        self._settings, self._estimator = settings, estimator

    def __getattr__(self, name: str) -> Any:
        if name in self._estimator.sections:
            return self._settings.sections[name]
        if name in self._estimator.shared_settings:
            return getattr(self._settings.training, name)
        raise AttributeError(
            f"{self._estimator.name} reads the setting {name!r}, which is no part of its cache keys: declare it in "
            f"`sections` or `shared_settings` of {type(self._estimator).__name__}"
        )

    def for_label(self, section: str, group: str, label: str) -> Any:
        """A section's values for a label of a group, with the tuned ones."""
        getattr(self, section)
        return self._settings.for_label(section, group, label)

    def values(self, group: str | None, label: str | None) -> dict[str, Any]:
        """All that may be read by the fit of a group (None: the pool) and label (None: all), by "section.field"."""
        values: dict[str, Any] = {}
        for name, section in self._estimator.sections.items():
            section_values = self._settings.sections[name]
            if section.by_group and group is not None:
                section_values = self._settings.for_label(name, group, label or "")
            values |= {f"{name}.{field}": value for field, value in dataclasses.asdict(section_values).items()}
        return values | {f"training.{name}": getattr(self, name) for name in self._estimator.shared_settings}


class Estimator(ABC):
    """One family of models: how it is fitted on all groups and on one, how it predicts, and all that others ask.

    A new estimator is one file with a subclass, and one line in `gpupipe.estimators.registry`. Class attributes say
    what scheduling, tuning, caching, memory estimates, warm starts, reports and export need to know:

    name: of the family, as in training.models and in the names of files.
    short_name: the heading of its column in console tables; its name if empty.
    sections: its sections of the settings, by name, with the values of each preset.
    shared_settings: fields of [training] that its models depend on.
    kinds: kinds of `Target` that it can fit.
    by_label: whether targets are fitted each by itself, so that one may be kept while another is fitted again.
    uses_bins: whether it is fitted on XGBoost's bins, which all such estimators share.
    pooled_sample: the section whose `subsample` the pooled fit draws; "" if it takes all rows or is not always there.
    stacks: whether it learns from the other estimators' out-of-fold predictions (see `stacking`), not from rows.
    ranks_returns: whether its log-odds are fitted to order symbols by their return: expected returns of all models of a
        run read them.
    spreads: whether several processes that hold some groups each can fit it together.
    warm_startable: whether the final fit can start from an earlier run's models.
    free_when_warm: fields of its settings, as "section.field", that the earlier run may have had otherwise.
    package: the Python package that has to be installed for it; "" where gpupipe's dependencies suffice.
    extra: the extra of gpupipe that installs the package.
    judged: whether the verdict compares it with the baselines.
    search: what `gpupipe tune` searches; None for nothing.
    chart_style: in the report's charts, its colour (a variable of page.css), the shape of its points (a symbol of Vega)
        and the dash of its lines (pixels drawn and left out); by default that of baselines.
    first_cost_us: assumed microseconds for each fitted row, of the pooled and of a group's fit; scheduling uses them
        until the run has measured its own.
    on_host: why its fits belong on the CPU where the features are on a GPU; "" where `work` decides.
    kernels: names of the kernels that its fits and predictions call, which are compiled before a run needs them.
    model_kinds: the "kind" that its models' descriptions have.
    file_forms: by suffix, how a whole file of its models begins and ends.
    earlier: an earlier run's models that the final fit starts from; see `starting_from`.
    context: where a long fit keeps its progress; see `within`.

    Every fit takes and gives lists with one entry for each target of the training set. `frozen_choices` is None in the
    final fit, which chooses rounds and scope on validation; out-of-fold fits take the choices of the final models.
    Models that an estimator returns are `Model`s; those that it is given are its own, of its own type, hence Any.

        >>> from gpupipe.estimators import registry
        >>> linear = registry.estimator("linear")
        >>> linear.kinds, linear.uses_bins, list(linear.file_forms), linear.first_cost_us
        (('classes',), False, ['.npz'], (7.0, 7.0))
    """

    name: ClassVar[str]
    short_name: ClassVar[str] = ""
    sections: ClassVar[Mapping[str, Section]] = {}
    shared_settings: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[tuple[str, ...]] = ("classes",)
    by_label: ClassVar[bool] = False
    uses_bins: ClassVar[bool] = False
    pooled_sample: ClassVar[str] = ""
    stacks: ClassVar[bool] = False
    ranks_returns: ClassVar[bool] = False
    spreads: ClassVar[bool] = True
    warm_startable: ClassVar[bool] = False
    free_when_warm: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str] = ""
    extra: ClassVar[str] = "boosters"
    judged: ClassVar[bool] = False
    search: ClassVar[SearchSpace | None] = None
    chart_style: ClassVar[tuple[str, str, tuple[int, int]]] = ("base", "circle", (1, 1))
    first_cost_us: ClassVar[tuple[float, float]] = (75.0, 75.0)
    on_host: ClassVar[str] = ""
    kernels: ClassVar[tuple[str, ...]] = ()
    model_kinds: ClassVar[tuple[str, ...]] = ()
    file_forms: ClassVar[Mapping[str, FileForm]] = {}
    earlier: EarlierModels | None = None
    context: FitContext = NO_CONTEXT

    @abstractmethod
    def fit_pool(
        self, training_set: TrainingSet, settings: EstimatorSettings, frozen_choices: Sequence[Any] | None
    ) -> Sequence[Model | None]:
        """Models fitted on all groups; an entry is None where no group needs one."""

    @abstractmethod
    def fit_group(
        self,
        training_set: TrainingSet,
        group: str,
        settings: EstimatorSettings,
        pooled: Sequence[Any],
        frozen_choices: Sequence[Any] | None,
    ) -> Sequence[Model]:
        """Models of one group, which may be or begin with the pooled ones."""

    @abstractmethod
    def predict(self, models: Sequence[Any], rows: FeatureRows) -> Any:
        """Predictions float32 (n_rows, n_models, n_outputs), on the rows' device.

        A prediction depends on its row alone, and on the `lookback` rows before it: not on the other rows.
        """

    @abstractmethod
    def load(self, files: dict[str, bytes], description: dict[str, Any], boosters: dict[bytes, Any]) -> Model:
        """A saved model again.

        boosters: shared between calls, so that equal files are loaded once.
        ValueError, or the library's own error, for a file that is not of this estimator.
        """

    def lookback(self, settings: Config) -> Lookback | None:
        """What it reads of the rows before each row, by `FeatureRows.windows`; None where it reads rows alone.

        An estimator that looks back does not read `RowView.X`, which is then not gathered for it.
        """
        return None

    def work(self, size: Size, settings: Config, pooled: bool) -> Work | None:
        """What one fit computes, of the pooled stage or of a group's, to estimate how long it takes on a device.

        None where that is not known: the fit then stays on the run's device, unless it is `on_host`.
        """
        return None

    def starting_from(self, earlier: EarlierModels) -> Estimator:
        """This estimator, starting from an earlier run's models; ValueError where it is not warm_startable."""
        if not self.warm_startable:
            raise ValueError(f"{self.name} cannot start from earlier models")
        starting = copy.copy(self)
        starting.earlier = earlier
        return starting

    def within(self, context: FitContext) -> Estimator:
        """This estimator, whose next fit may keep its progress there."""
        within = copy.copy(self)
        within.context = context
        return within

    def from_nothing(self) -> Estimator:
        """This estimator without earlier models."""
        cold = copy.copy(self)
        cold.earlier = None
        return cold

    def resumable(self, models: Sequence[Any]) -> bool:
        """Whether an earlier run's models are of a form that its fits can start from."""
        return True

    def sampled_shares(self, settings: Config) -> tuple[list[float], list[float]]:
        """Shares of the rows whose bins are kept, of pooled fits and of groups' fits: for estimates of memory."""
        return [], []

    def fit_bytes(self, shape: Shape, settings: Config, sparing: bool) -> float:
        """Bytes that one fit holds at most in addition to rows and bins."""
        return 0.0

    def to_onnx(self, model: Any, graph: OnnxGraph) -> str:
        """Add a model to a graph; the name of its predictions, float32 (n_rows, n_outputs).

        UserError where the estimator has no such form, or one of its models has none.
        """
        raise UserError(f"{self.name} has no ONNX form: leave it out of --models")

    def critical_values(self, model: Any, reader: TreeReader) -> CriticalValues:
        """Where a model and its graph would differ first: the check of an export draws rows from there."""
        return CriticalValues()

    def feature_gains(self, models: Sequence[Any]) -> list[tuple[tuple[int, float], ...]]:
        """For each tree ensemble of the models: (column, total gain of its splits); empty without splits."""
        return []
