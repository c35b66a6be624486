"""Trees with vector leaves: which leaf a row falls into, and what the leaves add to its margins."""

from __future__ import annotations

from .compile import kernel


@kernel(types=("f4[:,:]", "i4[:]", "i4[:]", "f4[:]", "i4[:]", "i4[:]", "i1[:]", "i4[:,:]"), brief=True)
def leaves_of_trees(i, X, root, column, below, left, right, unknown_left, leaf):
    """The leaf of each tree that row i falls into.

    At a node it goes left where X[i, column] < below, or where X[i, column] is NaN and unknown_left is not 0.

    Reads:   row i alone.
    Inputs:  X float32 (n_rows, n_features). The nodes of all trees one after another: column int32 (n_nodes,), the
             column that is asked, -1 in a leaf; below float32 (n_nodes,); left, right int32 (n_nodes,), the nodes that
             follow, and in a leaf right is the leaf's number; unknown_left int8 (n_nodes,). root int32 (n_trees,).
    Outputs: leaf int32 (n_rows, n_trees).
    NaN:     goes where the node sends it.
    Source:  XGBoost, doc/tutorials/saving_model.rst (its JSON of a model).
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
    """Add what the leaves of row i say, activity u and direction d, to its margins: u - d to SELL, u + d to BUY.

    Apart from leaves_of_trees, as a loop over labels that follows a walk from node to node is not made of vectors: one
    kernel of both took four times as long.

    Reads:   row i alone.
    Inputs:  leaf int32 (n_rows, n_trees); values float32 (n_leaves, 2 * n_labels), u of label k in column 2 * k, d
             beside it; margin float32 (n_rows, 3 * n_labels).
    Outputs: margin, to which is added, tree by tree.
    NaN:     a value or margin that is NaN stays NaN.
    """
    for t in range(leaf.shape[1]):
        number = leaf[i, t]
        for k in range(margin.shape[1] // 3):
            activity, direction = values[number, 2 * k], values[number, 2 * k + 1]
            margin[i, 3 * k] += activity - direction
            margin[i, 3 * k + 2] += activity + direction
