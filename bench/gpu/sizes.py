"""How much each step of `python -m bench.gpu` measures: in full, and small, for a trial without a GPU or before one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Sizes of the steps.

    copied_bytes: of a copy whose rate is measured.  launches: of a kernel, timed.  valued_bonds: of the kernels of
    bonds.  boosters: the share of the rows of XGBoost's cases.  cases: of each name among these, so many; None: all.
    tests: how the names of their files begin.  job: settings of the job.  bars, environments, steps: of the agent's
    market.  bonds: priced.  rows, columns: that cuML and we are fitted on, by half of the rows.  trees: of a forest.

    >>> Sizes().bonds, SMALL.bonds
    (1000000, 2000)
    """

    copied_bytes: int = 1 << 30
    launches: int = 5
    valued_bonds: int = 4_000
    boosters: float = 1.0
    cases: int | None = None
    tests: str = "tests"
    job: tuple[str, ...] = ()
    bars: int = 50_000
    environments: int = 4_096
    steps: int = 256
    bonds: int = 1_000_000
    rows: int = 400_000
    columns: int = 89
    trees: int = 100


SMALL = Sizes(
    copied_bytes=1 << 16, launches=1, valued_bonds=30, boosters=0.02, cases=1, tests="tests/kernels/test_digests.py",
    job=("labels.horizons=1", "labels.thresholds=0.02", "training.models=xgb_joint,linear", "joint.rounds=4",
         "joint_sector.rounds=2", "linear.max_iterations=5", "training.min_rows=20", "training.min_positives=1"),
    bars=400, environments=40, steps=12, bonds=2_000, rows=1_200, columns=6, trees=4,
)  # fmt: skip
