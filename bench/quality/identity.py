"""How well one row of features names its symbol: `python -m bench.quality.identity [--data FILE --sector-map FILE]`.

Two classifiers, linear and of trees, learn to name the symbol from one row, on the first 60 % of the dates. They are
asked on rows of the last 20 %, so that a year of five lies between, and no window reaches from one into the other; and,
again, of the 20 dates right after training. Columns are replaced by their ranks. Compared are sets of features, and
what should give a symbol away: the logarithms of close and volume ("level"). Chance is one over the number of symbols.
The last lines are JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier

from bench import runs
from gpupipe.data.panel import Panel
from gpupipe.features.matrix import compute_features

N_TRAIN, N_TEST = 40_000, 20_000
WHEN = {"a fifth of the dates later": True, "the 20 dates after": False}


def main() -> int:
    panel, _ = runs.read(runs.options(__doc__, data="demo").parse_args())
    return runs.report("identity", lines(panel), symbols=panel.n_symbols, rows=panel.n_rows)


def lines(panel: Panel) -> Iterator[runs.Line]:
    """A line for each set of columns, distance in time and classifier."""
    for name in ("default", "core", "level"):
        columns = levels(panel) if name == "level" else compute_features(panel, name).values
        for when, later in WHEN.items():
            for classifier, share in named(panel, columns, later).items():
                yield {"columns": name, "when": when, "classifier": classifier, "share_named": round(share, 5),
                       "times_chance": round(share * panel.n_symbols, 1)}  # fmt: skip


def levels(panel: Panel) -> np.ndarray:
    """The columns that the features leave out: float32 (n_rows, 2), logarithms of close and volume."""
    return np.stack([np.log(panel.close), np.log(panel.volume + 1)], axis=1).astype(np.float32)


def named(panel: Panel, columns: np.ndarray, later: bool) -> dict[str, float]:
    """Share of rows whose symbol is named, by classifier. Rows with a missing column are left out."""
    times = np.unique(panel.time_ns)
    end = int(0.6 * len(times))
    first = int(0.8 * len(times)) if later else end + 1
    last = len(times) - 1 if later else min(end + 20, len(times) - 1)
    whole = ~np.isnan(columns).any(axis=1)
    rng = np.random.default_rng(0)
    before = np.flatnonzero(whole & (panel.time_ns <= times[end]))
    after = np.flatnonzero(whole & (panel.time_ns >= times[first]) & (panel.time_ns <= times[last]))
    train = rng.choice(before, min(N_TRAIN, len(before)), replace=False)
    test = rng.choice(after, min(N_TEST, len(after)), replace=False)
    symbol, shares = panel.symbol_of_row, {}
    learned, asked = ranks(columns[train], columns[train]), ranks(columns[train], columns[test])
    for name, classifier in {
        "linear": LinearDiscriminantAnalysis(),
        "trees": ExtraTreesClassifier(60, min_samples_leaf=3, random_state=0),
    }.items():
        classifier.fit(learned, symbol[train])
        shares[name] = float((classifier.predict(asked) == symbol[test]).mean())
    return shares


def ranks(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each column of `values` as the share of the column of `known` that is below it."""
    pairs = zip(np.sort(known, axis=0).T, values.T, strict=True)
    return np.stack([np.searchsorted(a, b) / len(a) for a, b in pairs], axis=1)


if __name__ == "__main__":
    sys.exit(main())
