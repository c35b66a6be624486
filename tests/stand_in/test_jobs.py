"""Small jobs with `--device cuda` on the stand-in: the files of the CPU, and no more work for a GPU than before."""

from __future__ import annotations

import fnmatch
import json
import sys
from collections import Counter

import pytest

from tests.support.ptx import why_not
from tests.support.stand_in import comparing, counting, counts, jobs

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="a GPU needs CPython 3.12: 3.11 gets XGBoost 3.2"),
]
# Files that are not the same on both, and why. A file that has become the same has to leave this list.
_EXP = "gradients and probabilities: exp of CUDA and of the C library differ in the last place"
_SUMS = "losses, means and measures of predictions that differ in the last place"
_CUML = "forests that scikit-learn grows step by step, with a loss for each, and cuML at once"
_BONDS = "yields and spreads: exp and log of CUDA and of the C library differ in the last place"
DIFFERENT: dict[str, dict[str, str]] = {
    "equity": {
        "OUT/trained_*/xgb_*.ubj": _EXP, "OUT/trained_*/linear.npz": _EXP, "OUT/trained_*/meta_learner.npz": _EXP,
        "OUT/trained_*/metadata.json": _SUMS, "OUT/summary.json": _SUMS, "OUT/summary.parquet": _SUMS,
        "OUT/calibration_slices.parquet": _SUMS, "OUT/curves.parquet": _SUMS, "OUT/ranking.parquet": _SUMS,
        "OUT/importance.json": _SUMS, "OUT/cutoffs.json": _SUMS, "signals.parquet": _EXP,
    },
    "nightly": {
        "OUT/trained_*/linear.npz": _EXP, "OUT/trained_*/meta_learner.npz": _EXP, "OUT/trained_*/metadata.json": _SUMS,
        "OUT/summary.json": _SUMS, "OUT/summary.parquet": _SUMS, "OUT/calibration_slices.parquet": _SUMS,
        "OUT/curves.parquet": _SUMS, "OUT/ranking.parquet": _SUMS, "OUT/signals.parquet": _EXP,
        "OUT/signals.sqlite": _EXP,
    },
    "bonds": {
        "OUT/bonds/curves.parquet": _BONDS, "OUT/bonds/dates.parquet": _BONDS, "OUT/bonds/predictions.parquet": _BONDS,
        "OUT/bonds/risk.parquet": _BONDS, "OUT/bonds/signals.parquet": _BONDS, "OUT/bonds/states.npz": _BONDS,
        "OUT/bonds/losses.parquet": _CUML, "OUT/bonds/models/*": _CUML, "OUT/summary.json": _CUML,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=jobs.JOBS)
def job(request, tmp_path_factory):
    """The name of a job, and its folders on both devices."""
    folders = {}
    for device in ("cpu", "cuda"):
        folders[device] = tmp_path_factory.mktemp(f"{request.param}_{device}")
        done = jobs.run_in_process(request.param, device, folders[device])
        assert done.returncode == 0, done.stderr
    return request.param, folders


def test_results_are_those_of_the_cpu(job):
    name, folders = job
    lines = comparing.differences(folders["cpu"], folders["cuda"])
    unexpected = [line for line in lines if not any(_named(line, pattern) for pattern in DIFFERENT[name])]
    assert not unexpected, "\n".join(unexpected)
    equal_now = [pattern for pattern in DIFFERENT[name] if not any(_named(line, pattern) for line in lines)]
    assert not equal_now, f"the same on both now; remove from DIFFERENT: {equal_now}"


def _named(line: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(line.partition(":")[0], pattern)


def test_launches_waits_and_bytes_are_those_of_the_table(job):
    name, folders = job
    risen, fallen = counts.changes(counts.committed().get(name, {}), counted_by(folders["cuda"])["commands"])
    assert not risen, "\n".join(["more than counts.json says:", *risen])
    assert not fallen, "\n".join(["fewer: python -m tests.support.stand_in.counts writes the table anew", *fallen])


def counted_by(folder):
    return json.loads((folder / jobs.COUNTED).read_text())


@pytest.mark.parametrize(("kind", "direction"), [(counting.TO_DEVICE, "to_device"), (counting.TO_HOST, "to_host")])
def test_the_ledger_of_the_bus_is_right(job, kind, direction):
    """What `Device` counts, stage by stage, is what the stand-in saw cross the bus."""
    counted = counted_by(job[1]["cuda"])
    by_stage = Counter()
    for kinds in counted["commands"].values():
        by_stage.update(kinds[kind])
    assert counted["ledger"][direction] == dict(by_stage)
