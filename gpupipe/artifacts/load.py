"""Load the models of a finished run, and predict from a Panel."""

from __future__ import annotations

import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.artifacts.layout import MANIFEST, MODULES
from gpupipe.artifacts.manifest import inside, read_manifest
from gpupipe.data.panel import Panel, row_table
from gpupipe.dataset.dataset import warm_rows
from gpupipe.estimators import columns, registry
from gpupipe.estimators.boosting import tree_model
from gpupipe.estimators.stacking.meta_learner import MetaModel
from gpupipe.features.formulas import FEATURES
from gpupipe.features.formulas.registry import load_contents
from gpupipe.features.matrix import Features, compute_features
from gpupipe.runtime.device import pick
from gpupipe.runtime.errors import UserError
from gpupipe.store.content_store import FORMAT, StoreError, sha256
from gpupipe.targets.classes import CLASSES, N_CLASSES, percent

if TYPE_CHECKING:
    import pyarrow

Spent = Callable[[str, float], None]  # what took time, and how many seconds


@dataclass(frozen=True)
class Predictions:
    """Probabilities for every row of a panel.

    values: float32 (n_rows, n_models, 3), of SELL, HOLD, BUY; NaN where the row is not warm or its sector has no
    such model. names: one for each model, as "meta_learner_5d_10pct".
    """

    values: Any
    names: tuple[str, ...]
    panel: Panel = field(repr=False)

    def of(self, name: str) -> Any:
        """float32 (n_rows, 3): the probabilities of one model."""
        if name not in self.names:
            raise ValueError(f"no model {name!r}; there are {', '.join(self.names[:6])}, ...")
        return self.values[:, self.names.index(name)]

    def to_arrow(self) -> pyarrow.Table:
        """A table with columns symbol, time, sector, then NAME_sell, NAME_hold, NAME_buy for each model."""
        host = self.panel.device.to_host(self.values)
        columns = {
            f"{name}_{word.lower()}": np.ascontiguousarray(host[:, k, c])
            for k, name in enumerate(self.names)
            for c, word in enumerate(CLASSES)
        }
        return row_table(self.panel, columns, with_group=True)


@dataclass(frozen=True)
class Models:
    """The models of a run.

    by_sector: for each sector and (horizon, threshold), a model for each family.
    modules: the Python files of the user's own features that the models were trained on, content by path.
    manifest: as it was read.  metadata: of each sector, as one of its labels' has it; what labels share is there.
    cutoffs: by sector, horizon, threshold and family, from which probability on a row is called BUY and SELL: chosen
        on validation, 1.0 for a class that never happened there.
    """

    out: pathlib.Path
    settings: dict[str, Any]
    feature_names: tuple[str, ...]
    features_hash: str
    by_sector: dict[str, dict[tuple[int, float], dict[str, Any]]] = field(repr=False)
    modules: dict[str, bytes] = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    metadata: dict[str, dict[str, Any]] = field(repr=False)
    cutoffs: dict[tuple[str, int, float, str], tuple[float, float]] = field(repr=False)

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the families that there are models of."""
        return self._families(None)

    def columns(self, families: Sequence[str] | None = None) -> list[tuple[str, int, float]]:
        """Family, horizon and threshold of each model of `predict`, in its order."""
        chosen = self._families(families)
        keys = sorted({key for by_label in self.by_sector.values() for key in by_label})
        return [(family, h, t) for h, t in keys for family in chosen]

    def predict(self, panel: Panel, families: Sequence[str] | None = None, rows: Any = None) -> Predictions:
        """Probabilities for every row of a panel, on its device.

        rows: bool (n_rows,), on its device: the rows wanted, the others are NaN; all if None. Features are computed
        from all rows either way, so that those of a row are the same.
        families: which models; all if None. Cross-sectional features compare the symbols of a sector, so give
        whole sectors, as in training. Where the models were trained on features of the user's own, the Python files
        of OUT/features are run, and theirs are the only features of files until other ones are loaded.
        Raises StoreError when this gpupipe computes other features than those that the models were trained on, or no
        sector of the panel has models.
        """
        chosen = self._families(families)
        keys = sorted({key for by_label in self.by_sector.values() for key in by_label})
        names = tuple(f"{family}_{h}d_{percent(t)}pct" for family, h, t in self.columns(families))
        xp, device = panel.device.xp, panel.device
        values = xp.full((panel.n_rows, len(names), N_CLASSES), xp.nan, dtype=xp.float32)
        known = [sector for sector in panel.groups if sector in self.by_sector]
        if not known:
            raise StoreError(
                f"{self.out} has models for {', '.join(self.by_sector)}, none for {', '.join(panel.groups)}"
            )
        for sector in known:
            of_symbol = np.array([name == sector for name in panel.sector])
            at = xp.flatnonzero(device.asarray(of_symbol)[panel.symbol_of_row])
            features = self.features(panel.of_group(sector))
            X, warm = features.values, warm_rows(features)
            if rows is not None:
                warm = warm & rows[at]
                if not bool(warm.any()):
                    continue
            said = self.predict_matrix(sector, X[warm], device, chosen)
            for key_number, key in enumerate(keys):
                for family_number, family in enumerate(chosen):
                    if (key, family) in said:
                        column = key_number * len(chosen) + family_number
                        values[at[warm], column] = said[key, family]
        return Predictions(values, names, panel)

    def predict_rows(
        self, sector: str, X: np.ndarray, families: Sequence[str] | None = None
    ) -> dict[tuple[tuple[int, float], str], np.ndarray]:
        """Probabilities float32 (n_rows, 3) by (horizon, threshold) and family, of one sector's models.

        X: float32 (n_rows, n_features), columns as `feature_names`; in host memory, where it is computed.
        """
        return self.predict_matrix(sector, X, pick("cpu"), families)

    def warm_features(self, panel: Panel) -> Any:
        """float32 (n_rows, n_features): rows of one sector's panel that the models can judge. Raises as `predict`."""
        features = self.features(panel)
        return features.values[warm_rows(features)]

    def _families(self, families: Sequence[str] | None) -> tuple[str, ...]:
        there = {family: None for by_label in self.by_sector.values() for by in by_label.values() for family in by}
        if families is None:
            return tuple(there)
        for name in families:
            if name not in there:
                raise ValueError(f"no model {name!r} in {self.out}; there are {', '.join(there)}")
        return tuple(families)

    def features(self, panel: Panel, out: Any = None, compared_since: int | None = None) -> Features:
        """The features that the models were trained on, of every row; StoreError where they are others here.

        out, compared_since: as of compute_features.
        """
        load_contents(self.modules)
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

    def predict_matrix(
        self, sector: str, X: Any, device: Any, families: Sequence[str] | None = None, spent: Spent | None = None
    ) -> dict[tuple[tuple[int, float], str], Any]:
        """Probabilities float32 (n, 3) by (horizon, threshold) and family, of rows of features of one sector.

        X: float32 (n, n_features), warm rows of `features`. What a row gets does not depend on the rows beside it.
        What a meta-learner needs is computed beside what was asked for.
        spent: is told of the seconds of each family.
        """
        chosen, by_label = self._families(families), self.by_sector[sector]
        keys, began = sorted(by_label), time.perf_counter()

        def done(family: str) -> None:
            nonlocal began
            if spent is not None:
                device.sync()
                spent(family, time.perf_counter() - began)
            began = time.perf_counter()

        needed = dict.fromkeys(f for f in chosen)
        for by in by_label.values():
            for model in by.values():
                if isinstance(model, MetaModel) and any(by.get(f) is model for f in chosen):
                    needed.update(dict.fromkeys(model.families))
        said: dict[tuple[tuple[int, float], str], Any] = {}
        for family in needed:
            pairs = [(key, by_label[key][family]) for key in keys if family in by_label[key]]
            if pairs and not isinstance(pairs[0][1], MetaModel):
                probability = columns.predict(registry.estimator(family), [model for _, model in pairs], X, device)
                said |= {(key, family): probability[:, k] for k, (key, _) in enumerate(pairs)}
                done(family)
        for key in keys:
            for family, model in by_label[key].items():
                if isinstance(model, MetaModel) and family in chosen:
                    said[key, family] = model.predict([said[key, f] for f in model.families], device)
                    done(family)
        return said


def load(out: str | os.PathLike[str], threads: int | None = None) -> Models:
    """The models of a finished run; every file is checked against the manifest, and none is run.

    threads: with which XGBoost predicts; all there are if None. One is best for few rows, as of a scan: on cores that
        others use too, threads take longer to wait for each other than for what they share out.

    Raises StoreError when OUT has no manifest, a file is gone or altered, or a format is newer.
    """
    root = pathlib.Path(out)
    manifest = read_manifest(root)
    if manifest is None:
        raise StoreError(f"{root} has no {MANIFEST}: it is no finished run; run gpupipe with --out {root}")
    contents: dict[str, bytes] = {}
    for relative, entry in manifest["files"].items():
        path = inside(root, relative)
        content = path.read_bytes() if path.is_file() else b""
        if sha256(content) != entry["sha256"]:
            raise StoreError(f"{path} is gone or was altered since it was written: run again with --out {root}")
        contents[relative] = content
    boosters: dict[bytes, Any] = {}
    by_sector: dict[str, dict[tuple[int, float], dict[str, Any]]] = {}
    features: dict[str, Any] = {}
    metadata: dict[str, dict[str, Any]] = {}
    cutoffs: dict[tuple[str, int, float, str], tuple[float, float]] = {}
    for relative, content in contents.items():
        if not relative.endswith("/metadata.json"):
            continue
        try:
            about = _metadata_of(root / relative, content)
            features = about["features"]
            fitted = _models_of(root, relative.removesuffix("metadata.json"), about, contents, boosters)
            metadata[about["sector"]] = about
            by_sector.setdefault(about["sector"], {})[about["horizon"], about["threshold"]] = fitted
            for family, one in about["models"].items():
                of = (about["sector"], about["horizon"], about["threshold"], family)
                cutoffs[of] = (one["cutoffs"]["buy"], one["cutoffs"]["sell"])
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{root / relative} is no metadata of models ({type(error).__name__}: {error}): run again with --out "
                f"{root}"
            ) from error
    if threads is not None:
        tree_model.limit_threads(boosters.values(), threads)
    modules = {str(root / name): contents[name] for name in sorted(contents) if name.startswith(f"{MODULES}/")}
    names = tuple(features["names"])
    return Models(
        root, manifest["settings"], names, features["hash"], by_sector, modules, manifest, metadata, cutoffs
    )  # fmt: skip


def _metadata_of(path: pathlib.Path, content: bytes) -> dict[str, Any]:
    """The metadata of a label's models; StoreError if it is not JSON or of another format."""
    try:
        about = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not JSON ({error}): run again") from error
    if about["format"] != FORMAT:
        raise StoreError(
            f"{path} has format {about['format']!r}, this gpupipe reads {FORMAT}: use the gpupipe that wrote it"
        )
    return about


def _models_of(
    root: pathlib.Path, folder: str, about: dict[str, Any], contents: dict[str, bytes], boosters: dict[bytes, Any]
) -> dict[str, Any]:
    """The model of each family in a folder; StoreError, which names it, for one that cannot be read."""
    fitted = {}
    for family, one in about["models"].items():
        files = {suffix: contents[f"{folder}{family}{suffix}"] for suffix in one["files"]}
        try:
            fitted[family] = registry.load_model(files, one, boosters)
        except UserError:  # the library is not installed
            raise
        except Exception as error:  # each library has errors of its own for what is no file of its
            problem = (str(error).splitlines() or [""])[0]
            names = " and ".join(str(root / f"{folder}{family}{suffix}") for suffix in files)
            raise StoreError(
                f"{names} cannot be read as a model of {family} "
                f"({type(error).__name__}: {problem}): use the gpupipe that wrote it, or run again with --out {root}"
            ) from error
    return fitted
