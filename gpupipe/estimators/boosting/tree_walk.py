"""Walk: margins of a booster while it grows, by trees read out of it once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.dataset.row_view import LazyRows, in_blocks
from gpupipe.kernels.trees import add_leaf_activity, leaves_of_trees
from gpupipe.runtime.device import Device

FIELDS = ("column", "below", "left", "right", "unknown_left")
# Of XGBoost's trees (doc/model.schema), in UBJSON (ubjson.org), whose arrays have one type: see `arrays_of`.
READ = ("default_left", "leaf_weights", "left_children", "right_children", "split_conditions", "split_indices")
TYPES = {b"U": "u1", b"l": ">i4", b"L": ">i8", b"d": ">f4"}


class Walk:
    """The trees of a booster with two outputs a label, one a round, as arrays where its rows are.

    XGBoost copies all columns of a row before it asks for the few of one tree: for one or two trees of one label
    that takes four times as long as to walk them, and a third of the time of a fit.

        >>> import xgboost
        >>> from gpupipe.estimators.boosting import tree_model
        >>> from gpupipe.estimators.boosting.settings import Booster
        >>> from gpupipe.runtime.device import pick
        >>> X = np.float32([[0], [1], [2], [3]])
        >>> bins = xgboost.QuantileDMatrix(X, max_bin=64)
        >>> stage = Booster(learning_rate=1.0, depth=1, min_child_weight=0.0, l2=0.0, column_share=1.0)
        >>> booster = tree_model.vector_leaf(tree_model.parameters(stage, pick("cpu"), 64, threads=1, seed=1), 1, bins)
        >>> gradient = np.float32([[1, 0], [1, 0], [-1, 0], [-1, 0]])  # of activity and direction
        >>> booster.boost(bins, 0, grad=gradient, hess=np.ones((4, 2), np.float32))
        >>> margin = np.zeros((4, 3), np.float32)
        >>> Walk(booster, pick("cpu")).add([margin], [X], 0, 1)
        >>> margin[[0, 3]].tolist()
        [[-1.0, 0.0, -1.0], [1.0, 0.0, 1.0]]
    """

    def __init__(self, booster: Any, device: Device) -> None:
        self.booster, self.device = booster, device
        self._rounds: dict[int, tuple[dict[str, np.ndarray], np.ndarray]] = {}
        # Of the last call: samples and validation often ask for the same rounds.
        self._span: tuple[int, int] = (0, 0)
        self._arrays: tuple[Any, ...] = ()

    def add(self, margins: Sequence[Any], parts: Sequence[Any], first: int, last: int) -> None:
        """Add rounds [first, last) to the margins of each of several parts of the rows.

        margins: float32 (n_rows, 3 * n_labels), parts: X, float32 (n_rows, n_features), of each.
        """
        if first == last:
            return
        if self._span != (first, last):
            self._arrays = self.device.asarrays(self._joined(first, last))
            self._span = (first, last)
        here = []
        for margin, X in zip(margins, parts, strict=True):
            done = 0
            for block in in_blocks(X):
                pair = (margin[done : done + len(block)], block)
                done += len(block)
                if isinstance(X, LazyRows):  # a copy, which is not kept until all parts are there
                    self._add([pair])
                else:
                    here.append(pair)
        self._add(here)

    def _add(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Walk the trees of the span for pairs of margins and rows, a thread for each."""
        xp, trees, values = self.device.xp, self._arrays[:-1], self._arrays[-1]
        leaves = [xp.empty((len(block), len(trees[0])), dtype=xp.int32) for _, block in pairs]
        leaves_of_trees.together([
            (len(block), xp.ascontiguousarray(block), *trees, leaf)
            for (_, block), leaf in zip(pairs, leaves, strict=True)
        ])  # fmt: skip
        add_leaf_activity.together([
            (len(leaf), leaf, values, margin) for (margin, _), leaf in zip(pairs, leaves, strict=True)
        ])  # fmt: skip

    def _joined(self, first: int, last: int) -> tuple[np.ndarray, ...]:
        """Roots, nodes (as FIELDS) and leaves of some rounds, as leaves_of_trees and add_leaf_activity ask for them."""
        missing = [k for k in range(first, last) if k not in self._rounds]
        if missing:
            self._read(missing[0], missing[-1] + 1)
        chosen = [self._rounds[k] for k in range(first, last)]
        root, leaf = (
            np.cumsum([0, *(len(size) for size in sizes)])[:-1].astype(np.int32)
            for sizes in ([nodes["column"] for nodes, _ in chosen], [values for _, values in chosen])
        )
        joined = {name: np.concatenate([nodes[name] for nodes, _ in chosen]) for name in FIELDS}
        inner, tree = joined["column"] >= 0, np.repeat(np.arange(len(chosen)), [len(n["column"]) for n, _ in chosen])
        joined["left"] += root[tree]
        joined["right"] += np.where(inner, root[tree], leaf[tree])
        return root, *joined.values(), np.concatenate([values for _, values in chosen])

    def _read(self, first: int, last: int) -> None:
        """Take rounds [first, last) out of the booster.

        A slice copies the settings and these trees, however many rounds there are, and UBJSON has their arrays as they
        are in memory: 0.3 ms, most of it the slice. XGBoost has no other way to one tree: `inplace_predict` of a round
        has the same bits, but takes as long for a hundred rows and adds up a span of several rounds by itself, in
        another order.
        """
        content = bytes(self.booster[first:last].save_raw("ubj"))
        trees = {name: arrays_of(content, name) for name in READ}
        assert {len(arrays) for arrays in trees.values()} == {last - first}
        for k, tree in enumerate(zip(*trees.values(), strict=True), first):
            default_left, leaf_weights, left, right, below, column = tree
            is_leaf = left < 0
            nodes: dict[str, np.ndarray] = {
                "column": np.where(is_leaf, -1, column).astype(np.int32), "below": below.astype(np.float32),
                "left": left.astype(np.int32), "right": right.astype(np.int32),
                "unknown_left": default_left.astype(np.int8),
            }  # fmt: skip
            self._rounds[k] = nodes, leaf_weights.astype(np.float32).reshape(int(is_leaf.sum()), -1)


def arrays_of(document: bytes, name: str) -> list[np.ndarray]:
    """The typed arrays of this name in a UBJSON document, in order, big-endian.

    >>> one, two = (k.to_bytes(8, "big") for k in (1, 2))
    >>> arrays_of(b"{L" + one + b"x[$l#L" + two + bytes([0, 0, 0, 7, 0, 0, 0, 8]) + b"}", "x")[0].tolist()
    [7, 8]
    """
    key, found = b"L" + len(name).to_bytes(8, "big") + name.encode() + b"[$", []
    at = document.find(key)
    while at >= 0:
        at += len(key)
        n_items = int.from_bytes(document[at + 3 : at + 11], "big")
        found.append(np.frombuffer(document, TYPES[document[at : at + 1]], n_items, at + 11))
        at = document.find(key, at + 11 + found[-1].nbytes)
    return found
