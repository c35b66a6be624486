"""Ensembles of trees in one form, that of ONNX, whose values are float32: what exports are written from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ensemble:
    """Trees whose leaves' values add up.

    offsets: int64 (n_trees + 1,): tree k has the nodes offsets[k] : offsets[k + 1], its root first; a node's number in
        its tree is its place there.
    feature: int64 (n_nodes,).  split: float32 (n_nodes,).  left, right: int64 (n_nodes,), numbers in the tree, 0 of a
        leaf.  missing_left: bool (n_nodes,), where NaN goes.  leaf: int64 (n_nodes,), row of `values`, -1 of a split.
    values: float32 (n_leaves, n_outputs).
    inclusive: left is x <= split (LightGBM, CatBoost), else x < split (XGBoost).

        >>> tree = Ensemble(
        ...     offsets=np.array([0, 3]), feature=np.array([4, 0, 0]), split=np.float32([0.5, 0, 0]),
        ...     left=np.array([1, 0, 0]), right=np.array([2, 0, 0]), missing_left=np.array([True, False, False]),
        ...     leaf=np.array([-1, 0, 1]), values=np.float32([[-1], [1]]), inclusive=True)
        >>> tree.n_trees, [values.tolist() for values in tree.splits_of()]
        (1, [[4], [0.5]])
    """

    offsets: np.ndarray
    feature: np.ndarray
    split: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    leaf: np.ndarray
    values: np.ndarray
    inclusive: bool

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.offsets) - 1

    def part(self, n_trees: int, outputs: slice) -> Ensemble:
        """The first trees, and some of the outputs."""
        offsets = self.offsets[: n_trees + 1]
        nodes = slice(0, offsets[-1])
        leaf = self.leaf[nodes]
        return Ensemble(
            offsets, self.feature[nodes], self.split[nodes], self.left[nodes], self.right[nodes],
            self.missing_left[nodes], leaf, self.values[: leaf.max(initial=-1) + 1, outputs], self.inclusive,
        )  # fmt: skip

    def splits_of(self) -> tuple[np.ndarray, np.ndarray]:
        """Features and values of all splits: int64 and float32 (n_splits,)."""
        inner = self.leaf < 0
        return self.feature[inner], self.split[inner]


class TreeReader:
    """Reads boosters into ensembles, each once however many models share it.

    >>> reader, booster = TreeReader(), object()
    >>> reader.read(booster, lambda booster: "three trees"), reader.read(booster, lambda booster: "never called")
    ('three trees', 'three trees')
    """

    def __init__(self) -> None:
        self._read: dict[int, tuple[Any, Any]] = {}  # a booster beside its trees, so that no other gets its id

    def read(self, booster: Any, read: Callable[[Any], Any]) -> Any:
        """What `read(booster)` returned when it was first called for this booster."""
        if id(booster) not in self._read:
            self._read[id(booster)] = booster, read(booster)
        return self._read[id(booster)][1]


class EnsembleBuilder:
    """Builds an ensemble node by node. A node names its parent's number and the side that it is on: 0 left, 1 right.

    n_outputs: numbers in each leaf.

        >>> builder = EnsembleBuilder(n_outputs=1)
        >>> builder.begin()
        >>> root = builder.split(feature=4, value=0.5, missing_left=True, parent=None, side=0)
        >>> builder.leaf([-1.0], root, side=0)
        >>> builder.leaf([1.0], root, side=1)
        >>> ensemble = builder.ensemble()
        >>> ensemble.n_trees, ensemble.left.tolist(), ensemble.right.tolist(), ensemble.values.tolist()
        (1, [1, 0, 0], [2, 0, 0], [[-1.0], [1.0]])
    """

    def __init__(self, n_outputs: int) -> None:
        self._n_outputs = n_outputs
        self._first: list[int] = []
        self._nodes: list[tuple[int, float, bool, int]] = []  # feature, split, missing_left, leaf
        self._children: list[list[int]] = []
        self._values: list[np.ndarray] = []

    def begin(self) -> None:
        """A new tree."""
        self._first.append(len(self._nodes))

    def split(self, feature: int, value: Any, missing_left: bool, parent: int | None, side: int) -> int:
        """A node that splits; its number."""
        return self._add((feature, float(value), bool(missing_left), -1), parent, side)

    def leaf(self, value: Sequence[float] | np.ndarray, parent: int | None, side: int) -> None:
        """A leaf."""
        self._add((0, 0.0, False, len(self._values)), parent, side)
        self._values.append(np.asarray(value, dtype=np.float32))

    def _add(self, node: tuple[int, float, bool, int], parent: int | None, side: int) -> int:
        number = len(self._nodes) - self._first[-1]
        self._nodes.append(node)
        self._children.append([0, 0])
        if parent is not None:
            self._children[self._first[-1] + parent][side] = number
        return number

    def ensemble(self) -> Ensemble:
        """The ensemble of all trees so far, whose splits are x <= split."""
        feature, split, missing_left, leaf = zip(*self._nodes, strict=True) if self._nodes else ((), (), (), ())
        children = np.array(self._children, dtype=np.int64).reshape(-1, 2)
        return Ensemble(
            np.array([*self._first, len(self._nodes)], dtype=np.int64), np.array(feature, dtype=np.int64),
            np.array(split, dtype=np.float32), children[:, 0], children[:, 1], np.array(missing_left, dtype=bool),
            np.array(leaf, dtype=np.int64), np.array(self._values, dtype=np.float32).reshape(-1, self._n_outputs), True,
        )  # fmt: skip
