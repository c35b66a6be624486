"""Load the models of a finished run, and predict from a Panel."""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpupipe.artifacts.layout import MANIFEST, MODULES
from gpupipe.artifacts.manifest import inside, read_manifest
from gpupipe.artifacts.published_files import group_by_of, metadata_of, models_of, target_of
from gpupipe.data.panel import Panel, row_table
from gpupipe.dataset.dataset import warm_rows
from gpupipe.dataset.feature_rows import FeatureRows
from gpupipe.dataset.lookback import NO_LOOKBACK, Lookback
from gpupipe.dataset.window_marks import mark_windows
from gpupipe.estimators import columns, registry
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.contract import Model
from gpupipe.estimators.stacking.contract import StackedModel
from gpupipe.evaluation.expected_return import ExpectedReturn
from gpupipe.features import outside
from gpupipe.features.formulas import FEATURES
from gpupipe.features.formulas.registry import load_contents
from gpupipe.features.matrix import Features, compute_features
from gpupipe.kernels.cores import available_cores
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import StoreError, sha256
from gpupipe.targets.target import Target

if TYPE_CHECKING:
    import pyarrow

Spent = Callable[[str, float], None]  # what took time, and how many seconds


@dataclass(frozen=True)
class Predictions:
    """Predictions for every row of a panel.

    values: float32 (n_rows, n_models, n_outputs), probabilities of the classes, or one value; NaN where the row is not
        warm or its group has no such model.
    names: one for each model, as "meta_learner_5d_10pct".
    class_names: of the outputs; empty for values.

        >>> from gpupipe.data import simulate
        >>> from gpupipe.targets.classes import CLASSES
        >>> values = np.full((6, 1, 3), 1 / 3, np.float32)
        >>> predictions = Predictions(values, ("linear_5d_10pct",), CLASSES, simulate(2, n_bars=3))
        >>> predictions.of("linear_5d_10pct").shape, predictions.to_arrow().column_names[-1]
        ((6, 3), 'linear_5d_10pct_buy')
    """

    values: Any
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    panel: Panel = field(repr=False)

    def of(self, name: str) -> Any:
        """float32 (n_rows, n_outputs): the predictions of one model."""
        if name not in self.names:
            raise ValueError(f"no model {name!r}; there are {', '.join(self.names[:6])}, ...")
        return self.values[:, self.names.index(name)]

    def to_arrow(self) -> pyarrow.Table:
        """A table with columns symbol, time, sector, then NAME_sell, NAME_hold, NAME_buy for each model.

        Classes of other names give columns of these names, and values the column NAME.
        """
        host = self.panel.device.to_host(self.values)
        endings = [f"_{word.lower()}" for word in self.class_names] or [""]
        columns = {
            f"{name}{ending}": np.ascontiguousarray(host[:, k, c])
            for k, name in enumerate(self.names)
            for c, ending in enumerate(endings)
        }
        return row_table(self.panel, columns, with_group=True)


@dataclass(frozen=True)
class Models:
    """The models of a run.

    target: what they predict; its names are those of the labels.
    by_group: for each group and label, a model for each estimator.
    modules: the Python files of the user's own features that the models were trained on, content by path.
    manifest: the one of OUT.
    metadata: for each group, that of one of its labels; what all labels share is there.
    cutoffs: by group, label and estimator, the probabilities from which a row is called as the upper and as the lower
        class, chosen on validation; 1.0 for a class that never happened there. Empty for values.
    expected_returns: by group, label and estimator, what a trade of theirs is expected to earn; without those that
        could not be learned, and empty where nothing is traded.
    base_rates: by group and label, the class shares of the training rows, in the order of the classes.
    lookback: the rows before a row that the models read; rows without them are not predicted.

        >>> models = load("OUT")                                                    # doctest: +SKIP
        >>> models.families, models.target.names[:2]                                # doctest: +SKIP
        (('xgb_joint', ..., 'meta_learner'), ('label_1d_5pct', 'label_1d_10pct'))
        >>> models.predict(panel).of("meta_learner_5d_10pct").shape                 # doctest: +SKIP
        (27300, 3)
    """

    out: pathlib.Path
    settings: dict[str, Any]
    feature_names: tuple[str, ...]
    features_hash: str
    target: Target
    by_group: dict[str, dict[str, dict[str, Model]]] = field(repr=False)
    modules: dict[str, bytes] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    metadata: dict[str, dict[str, Any]] = field(repr=False)
    cutoffs: dict[tuple[str, str, str], tuple[float, float]] = field(repr=False)
    expected_returns: dict[tuple[str, str, str], ExpectedReturn] = field(default_factory=dict, repr=False)
    base_rates: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict, repr=False)
    lookback: Lookback = NO_LOOKBACK

    @property
    def group_by(self) -> str:
        """What the run grouped symbols by: an attribute of its panel, or "symbol"; "sector" in older runs."""
        return group_by_of(self.manifest)

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the families that there are models of."""
        return self._families(None)

    @property
    def learned_by_group(self) -> dict[str, list[ExpectedReturn]]:
        """The expected returns of each group; groups of a pool share theirs, as the same objects."""
        by_group: dict[str, list[ExpectedReturn]] = {}
        for (group, _, _), learned in self.expected_returns.items():
            by_group.setdefault(group, []).append(learned)
        return by_group

    def columns(self, families: Sequence[str] | None = None) -> list[tuple[str, str]]:
        """Estimator and label of each model of `predict`, in its order."""
        chosen = self._families(families)
        return [(family, label) for label in self.target.names for family in chosen]

    def parameters(self, label: str) -> Mapping[str, Any]:
        """What defines a label, such as {"horizon": 5, "threshold": 0.1}."""
        return self.target.parameters[self.target.names.index(label)] if self.target.parameters else {}

    def predict(self, panel: Panel, families: Sequence[str] | None = None, rows: Any = None) -> Predictions:
        """Predictions for every row of a panel, on its device.

        rows: bool (n_rows,), on its device: the rows wanted, the others are NaN; all if None. Features are computed
        from all rows either way, so that those of a row are the same.
        families: which models; all if None. Cross-sectional features compare the symbols of a group, so give
        whole groups, as in training. Where the models were trained on features of the user's own, the Python files
        of OUT/features are run, and theirs are the only features of files until other ones are loaded.
        Raises StoreError when this gpupipe computes other features than those that the models were trained on, or no
        group of the panel has models.
        """
        panel = self.grouped(panel)
        chosen, columns = self._families(families), self.columns(families)
        names = tuple(f"{family}_{label.removeprefix('label_')}" for family, label in columns)
        xp, device = panel.device.xp, panel.device
        values = xp.full((panel.n_rows, len(names), self.target.n_outputs), xp.nan, dtype=xp.float32)
        known = self.known_groups(panel)
        for group in known:
            in_group = np.array([name == group for name in panel.group])
            at = xp.flatnonzero(device.asarray(in_group)[panel.symbol_of_row])
            features = self.features(panel.of_group(group))
            warm = self.warm(features)
            if rows is not None:
                warm = warm & rows[at]
                if not bool(warm.any()):
                    continue
            predictions = self.predict_features(group, self.feature_rows(features, xp.flatnonzero(warm)), chosen)
            for k, (family, label) in enumerate(columns):
                if (label, family) in predictions:
                    values[at[warm], k] = predictions[label, family]
        return Predictions(values, names, self.target.class_names, panel)

    def grouped(self, panel: Panel) -> Panel:
        """The panel with the groups that the models were trained for; StoreError where it lacks their attribute."""
        if panel.group_by == self.group_by:
            return panel
        if self.group_by != "symbol" and self.group_by not in panel.attributes:
            raise StoreError(f"the models of {self.out} are for groups by {self.group_by}, which the panel lacks")
        return panel.replace(group_by=self.group_by)

    def known_groups(self, panel: Panel) -> list[str]:
        """The groups of a panel that have models; StoreError where there is none."""
        known = [group for group in panel.groups if group in self.by_group]
        if not known:
            raise StoreError(
                f"{self.out} has models for {', '.join(self.by_group)}, none for {', '.join(panel.groups)}"
            )
        return known

    def predict_rows(
        self, group: str, X: np.ndarray, families: Sequence[str] | None = None
    ) -> dict[tuple[str, str], np.ndarray]:
        """Predictions float32 (n_rows, n_outputs) by label and estimator, of the models of one group.

        X: float32 (n_rows, n_features), columns as `feature_names`; in host memory, where it is computed. Where the run
        looks back (`lookback`), (n_rows, length, n_features): each row after the rows before it.
        """
        rows = FeatureRows.of_windows(X) if X.ndim == 3 else FeatureRows.of_matrix(X)
        return self.predict_features(group, rows, families)

    def warm(self, features: Features, rows: Any = slice(None)) -> Any:
        """bool (n_rows,), or of `rows` alone: rows that are predicted; they have their features and the rows before."""
        return warm_rows(features, rows) & mark_windows(features.panel, self.lookback).complete[rows]

    def feature_rows(self, features: Features, rows: Any) -> FeatureRows:
        """The rows of these numbers, int64 on the device, with the rows before them."""
        return FeatureRows(features.values, rows, features.panel.offsets)

    def inputs(self, rows: FeatureRows) -> Any:
        """What `predict_rows` takes for these rows: float32 (n, n_features), or windows where the run looks back."""
        return rows.windows(self.lookback.rows + 1) if self.lookback.rows else rows.X

    def warm_rows(self, panel: Panel) -> FeatureRows:
        """The rows of a panel of one group that are predicted. Errors: see `predict`."""
        features = self.features(panel)
        return self.feature_rows(features, panel.device.xp.flatnonzero(self.warm(features)))

    def _families(self, families: Sequence[str] | None) -> tuple[str, ...]:
        there = {family: None for labels in self.by_group.values() for models in labels.values() for family in models}
        if families is None:
            return tuple(there)
        for name in families:
            if name not in there:
                raise ValueError(f"no model {name!r} in {self.out}; there are {', '.join(there)}")
        return tuple(families)

    def features(self, panel: Panel, out: Any = None, compared_since: int | None = None) -> Features:
        """The features that the models were trained on, of every row; StoreError where they are others here.

        out, compared_since: see `compute_features`.
        """
        load_contents(self.modules)
        outside.require(panel, self.feature_names, f"the models of {self.out}")
        missing = [name for name in self.feature_names if name not in FEATURES]
        if missing:
            raise StoreError(
                f"the models of {self.out} were trained on features that are not registered here "
                f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): import the code that registers them"
            )
        features = compute_features(panel, self.feature_names, out, compared_since)
        if features.hash != self.features_hash:
            raise StoreError(
                f"the models of {self.out} were trained on other features (hash {self.features_hash[:12]}) than this "
                f"gpupipe computes ({features.hash[:12]}): train again, or use the gpupipe that trained them"
            )
        return features

    def predict_features(
        self, group: str, rows: FeatureRows, families: Sequence[str] | None = None, spent: Spent | None = None
    ) -> dict[tuple[str, str], Any]:
        """Predictions float32 (n, n_outputs) by label and estimator, of rows of features of one group.

        rows: warm rows of `features`. The prediction of a row depends on it and the rows before it alone.
        Estimators that a stacking estimator reads are computed too.
        spent: called with the seconds of each estimator.
        """
        chosen, by_label, device = self._families(families), self.by_group[group], rows.device
        labels, began = [label for label in self.target.names if label in by_label], time.perf_counter()

        def done(family: str) -> None:
            nonlocal began
            if spent is not None:
                device.sync()
                spent(family, time.perf_counter() - began)
            began = time.perf_counter()

        stacked = [family for family in chosen if registry.estimator(family).stacks]
        needed = dict.fromkeys(family for family in chosen if family not in stacked)
        for models in by_label.values():
            for family in stacked:
                if family in models:
                    needed.update(dict.fromkeys(cast(StackedModel, models[family]).families))
        predictions: dict[tuple[str, str], Any] = {}
        for family in needed:
            pairs = [(label, by_label[label][family]) for label in labels if family in by_label[label]]
            if pairs:
                family_predictions = columns.predict(registry.estimator(family), [model for _, model in pairs], rows)
                predictions |= {(label, family): family_predictions[:, k] for k, (label, _) in enumerate(pairs)}
                done(family)
        for label in labels:
            for family in stacked:
                if family in by_label[label]:
                    model = cast(StackedModel, by_label[label][family])
                    predictions[label, family] = model.predict([predictions[label, f] for f in model.families], device)
                    done(family)
        return predictions


def _contents(root: pathlib.Path, manifest: dict[str, Any]) -> dict[str, bytes]:
    """The published files of a run by path; StoreError where one is not as it was written."""
    contents: dict[str, bytes] = {}
    for relative, entry in manifest["files"].items():
        path = inside(root, relative)
        content = path.read_bytes() if path.is_file() else b""
        if sha256(content) != entry["sha256"]:
            raise StoreError(f"{path} is gone or was altered since it was written: run again with --out {root}")
        contents[relative] = content
    return contents


def load(out: str | os.PathLike[str], threads: int | None = None) -> Models:
    """The models of a finished run; every file is checked against the manifest, and none is run.

    threads: with which XGBoost predicts; one for each core to use if None. One is best for few rows, as of a scan: on
        cores that others use too, threads take longer to wait for each other than for what they share out.

    Raises StoreError when OUT has no manifest, a file is gone or altered, a format is newer, or it is of another kind
    of run, as of bonds.
    """
    root = pathlib.Path(out)
    manifest = read_manifest(root)
    if manifest is None:
        raise StoreError(f"{root} has no {MANIFEST}: it is no finished run; run gpupipe with --out {root}")
    contents = _contents(root, manifest)
    if not any(relative.endswith("/metadata.json") for relative in contents):
        raise StoreError(f"{root} holds no models of bars: give the folder of a run of gpupipe run or gpupipe sequence")
    boosters: dict[bytes, Any] = {}
    by_group: dict[str, dict[str, dict[str, Model]]] = {}
    metadata: dict[str, dict[str, Any]] = {}
    cutoffs: dict[tuple[str, str, str], tuple[float, float]] = {}
    expected_returns: dict[tuple[str, str, str], ExpectedReturn] = {}
    base_rates: dict[tuple[str, str], tuple[float, ...]] = {}
    distinct: dict[str, ExpectedReturn] = {}
    folders: dict[str, tuple[str, dict[str, Any]]] = {}
    names, features_hash = (), ""
    for relative, content in contents.items():
        if not relative.endswith("/metadata.json"):
            continue
        try:
            about = metadata_of(root / relative, content)
            group, label = about["sector"], about["label"]
            fitted = models_of(root, relative.removesuffix("metadata.json"), about, contents, boosters)
            metadata[group] = about
            by_group.setdefault(group, {})[label] = fitted
            folders[label] = relative.removesuffix("/metadata.json"), about
            names, features_hash = tuple(about["features"]["names"]), about["features"]["hash"]
            shares = about.get("class_shares", {}).get("train", {})
            base_rates[group, label] = tuple(shares[name] for name in about["classes"])
            for family, described in about["models"].items():
                if described["cutoffs"]:
                    cutoffs[group, label, family] = (described["cutoffs"]["buy"], described["cutoffs"]["sell"])
                if plain := described.get("expected_return"):  # older runs have none
                    # The groups of a pool share theirs, as one object: rules compare the symbols that share one.
                    learned = distinct.setdefault(json.dumps(plain), ExpectedReturn.from_dict(plain))
                    expected_returns[group, label, family] = learned
        except UserError:  # says what is missing or broken
            raise
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise StoreError(
                f"{root / relative} is no metadata of models ({type(error).__name__}: {error}): run again with --out "
                f"{root}"
            ) from error
    tree_model.limit_threads(boosters.values(), threads or available_cores())
    modules = {str(root / name): contents[name] for name in sorted(contents) if name.startswith(f"{MODULES}/")}
    try:
        target, lookback = target_of(manifest, folders), Lookback(**manifest.get("lookback", {}))
        if missing := sorted(set(folders) - set(target.names)):
            raise ValueError(f"there are models of {', '.join(missing)}, which it does not name")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{root / MANIFEST}: its target or lookback cannot be used ({error}): run again with --out {root}"
        ) from error
    return Models(
        root, manifest["settings"], names, features_hash, target, by_group, modules, manifest, metadata, cutoffs,
        expected_returns, base_rates, lookback,
    )  # fmt: skip
