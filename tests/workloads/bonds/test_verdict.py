"""Verdicts on rows, and rows of one key that differ or repeat."""

import numpy as np

from gpupipe.workloads.bonds.verdict import Verdict, conflicts_and_repeats


def test_a_row_keeps_its_first_reason():
    verdict = Verdict("quotes", np.int64([0, 1, -1]), ["A", "B", "?"].__getitem__)
    verdict.reject("one", np.array([True, False, True]))
    verdict.reject("two", np.array([True, True, False]))
    verdict.tell("three", "flagged", np.array([True, True, True]))  # no row is left to tell of
    assert verdict.rejected.tolist() == [0, 1, 2] and verdict.reasons == ["one", "two", "one"]
    assert [(f.kind, f.rows, f.symbols, f.example) for f in verdict.findings()] == [
        ("quotes: one", 2, 1, "A"), ("quotes: two", 1, 1, "B"),
    ]  # fmt: skip


def test_conflicts_and_repeats_equal_a_plain_loop():
    rng = np.random.default_rng(1)
    for _ in range(50):
        n = int(rng.integers(0, 12))
        keys = rng.integers(0, 4, n)
        values = rng.choice([1.0, 2.0, np.nan], (n, 2), p=[0.7, 0.15, 0.15])
        rows = np.arange(n) * 3
        texts = [str(row) for row in values.tolist()]
        conflicts, repeats = [], []
        for k in range(n):
            same = [j for j in range(n) if keys[j] == keys[k]]
            if len({texts[j] for j in same}) > 1:
                conflicts.append(3 * k)
            elif same[0] != k:
                repeats.append(3 * k)
        found = conflicts_and_repeats(keys, values, rows)
        assert [array.tolist() for array in found] == [conflicts, repeats]
