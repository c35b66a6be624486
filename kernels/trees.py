"""Trees with vector leaves: the leaf that a row reaches, and the addition of leaf values to its margins."""

from __future__ import annotations

from .compile import kernel


@kernel(types=("f4[:,:]", "i4[:]", "i4[:]", "f4[:]", "i4[:]", "i4[:]", "i1[:]", "i4[:,:]"), brief=True)
def leaves_of_trees(i, X, root, column, below, left, right, unknown_left, leaf):
    """The leaf of each tree that row i reaches.

    At a node the row goes left where X[i, column] < below, or where X[i, column] is NaN and unknown_left is not 0.

    Reads:   row i alone.
    Inputs:  X float32 (n_rows, n_features). Nodes of all trees, concatenated: column int32 (n_nodes,), the column
             that is tested, -1 in a leaf; below float32 (n_nodes,), the threshold; left, right int32 (n_nodes,), the
             child nodes (in a leaf, right is the leaf's number); unknown_left int8 (n_nodes,). root int32 (n_trees,).
    Outputs: leaf int32 (n_rows, n_trees).
    NaN:     goes to the node's default side.
    Source:  XGBoost, doc/tutorials/saving_model.rst (the JSON format of a model).
    """
    for t in range(root.shape[0]):
        node = root[t]
        while column[node] >= 0:
            value = X[i, column[node]]
            to_left = value < below[node] or (value != value and unknown_left[node] != 0)
            node = left[node] if to_left else right[node]
        leaf[i, t] = right[node]


@kernel(types=("i4[:,:]", "f4[:,:]", "f4[:,:]"), brief=True)
def add_leaf_activity(i, leaf, values, margin):
    """Add the leaf values of row i, activity u and direction d, to its margins: u - d to class 0, u + d to class 2.

    Separate from leaves_of_trees because a loop over labels is not vectorised in one kernel with a tree walk: the fused
    kernel took four times as long.

    Reads:   row i alone.
    Inputs:  leaf int32 (n_rows, n_trees); values float32 (n_leaves, 2 * n_labels), u of label k in column 2 * k and
             d in column 2 * k + 1; margin float32 (n_rows, 3 * n_labels).
    Outputs: margin, updated in place, tree by tree.
    NaN:     a NaN value or margin gives a NaN margin.
    """
    for t in range(leaf.shape[1]):
        number = leaf[i, t]
        for k in range(margin.shape[1] // 3):
            activity, direction = values[number, 2 * k], values[number, 2 * k + 1]
            margin[i, 3 * k] += activity - direction
            margin[i, 3 * k + 2] += activity + direction
