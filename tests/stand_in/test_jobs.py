"""Small jobs with `--device cuda` on the stand-in: the files of the CPU, and no more work for a GPU than before."""

from __future__ import annotations

import fnmatch

import pytest

from tests.support.ptx import why_not
from tests.support.stand_in import comparing, counting, counts, jobs

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
# Differences that are expected, as lines of `comparing.differences`, and why. One that is gone has to leave this list.
_FOREST = "scikit-learn grows a forest step by step, with a loss for each; cuML grows it at once"
DIFFERENT: dict[str, dict[str, str]] = {
    "equity": {},
    "nightly": {},
    "bonds": {
        **{f"OUT/bonds/models/{name}.json: *": _FOREST for name in ("basic", "tuning", "enhanced", "automatic")},
        "OUT/bonds/models/stacked.json: *": _FOREST, "OUT/bonds/models/stacked.stack.npz: bytes": _FOREST,
        "OUT/bonds/models/*.forest.npz: bytes": _FOREST,
        "OUT/bonds/predictions.parquet: stacked in * rows, tuning in * rows": _FOREST,
        "OUT/summary.json: bonds.fits.stacked.*": _FOREST,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=DIFFERENT)
def job(request, tmp_path_factory):
    """The name of a job, and its folders on both devices."""
    if reason := jobs.why_not(request.param):
        pytest.skip(reason)
    return request.param, jobs.run_on_both(request.param, tmp_path_factory.mktemp(request.param))


def test_results_are_those_of_the_cpu(job):
    name, folders = job
    lines = comparing.differences(folders["cpu"], folders["cuda"])
    unexpected = [line for line in lines if not any(fnmatch.fnmatchcase(line, one) for one in DIFFERENT[name])]
    assert not unexpected, "\n".join(unexpected)
    gone = [one for one in DIFFERENT[name] if not any(fnmatch.fnmatchcase(line, one) for line in lines)]
    assert not gone, f"the same on both now; remove from DIFFERENT: {gone}"


def test_launches_waits_and_bytes_are_those_of_the_table(job):
    name, folders = job
    risen, fallen = counts.changes(
        counts.committed()[name], counts.grouped(jobs.counted_by(folders["cuda"])["commands"])
    )
    assert not risen, "\n".join(["more than counts.json says:", *risen])
    assert not fallen, "\n".join(["fewer: python -m tests.support.stand_in.counts writes the table anew", *fallen])


@pytest.mark.parametrize(("kind", "direction"), [(counting.TO_DEVICE, "to_device"), (counting.TO_HOST, "to_host")])
def test_the_ledger_of_the_bus_is_right(job, kind, direction):
    """What `Device` counts, stage by stage, is what the stand-in saw cross the bus."""
    counted = jobs.counted_by(job[1]["cuda"])
    assert counted["ledger"][direction] == counts.of_all_commands(counted, kind)
