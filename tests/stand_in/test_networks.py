"""Networks and the agent with `--device cuda` on the stand-in: near the CPU's results, and no more work than before.

The CPU trains over shards and steps through episodes otherwise than a GPU, so sums differ in their last bits. What a
network has no part in has equal bytes, and so have the agent's positions, trades and money.
"""

from __future__ import annotations

import fnmatch
from collections import Counter

import pytest

from tests.support.ptx import why_not
from tests.support.stand_in import comparing, counting, counts, jobs

pytest.importorskip("torch", reason="networks need Torch")
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

_MEASURED = ("OUT/summary.*", "OUT/history.parquet", "OUT/versions/*", "*/metadata.json", "*/sequence.*", "OUT/curves.parquet",
             "OUT/calibration_slices.parquet")  # fmt: skip
NEAR = {
    "networks": comparing.Near(2e-3, 1e-3, (*_MEASURED, "OUT/ranking.parquet"), exact=("linear",)),
    "sequence": comparing.Near(1e-3, 1e-4, (*_MEASURED, "OUT/returns.parquet"), exact=("linear",)),
    "agent": comparing.Near(1e-4, 1e-6, ("*/policy.*", "OUT/summary.*", "OUT/training.parquet", "OUT/versions/*")),
}
# What may differ by more, as lines of `comparing.differences`.
_BIAS = "batch normalisation takes it out again: its gradient is rounding, which Adam makes as large as any"
_EDGE = "a probability beside the edge of a bin counts in the other one"
MAY_DIFFER = {
    "*.safetensors: convolutions.0.convolution.bias in * numbers, by 0.00*": _BIAS,
    "OUT/curves.parquet: *": _EDGE,
    "OUT/calibration_slices.parquet: *": _EDGE,
}


@pytest.fixture(scope="module", params=jobs.NETWORKS)
def job(request, tmp_path_factory):
    """The name of a job, and its folders on both devices."""
    return request.param, jobs.run_on_both(request.param, tmp_path_factory.mktemp(request.param))


def test_results_are_near_those_of_the_cpu(job):
    name, folders = job
    lines = comparing.differences(folders["cpu"], folders["cuda"], NEAR[name])
    unexpected = [line for line in lines if not any(fnmatch.fnmatchcase(line, one) for one in MAY_DIFFER)]
    assert not unexpected, "\n".join(unexpected)


def test_launches_waits_and_bytes_are_those_of_the_table(job):
    name, folders = job
    counted = counts.grouped(jobs.counted_by(folders["cuda"])["commands"])
    assert counts.changes(counts.committed()[name], counted) == ([], [])


def test_steps_are_replayed_where_torch_has_its_own_memory(job):
    """Within RMM's pool Torch cannot keep the memory of a graph."""
    name, folders = job
    records = jobs.counted_by(folders["cuda"])["records"][name]
    replays = sum(n for kind, _, what, _, n in records if (kind, what) == (counting.LAUNCHES, "a CUDA graph"))
    assert replays > 0 if name != "networks" else replays == 0


@pytest.mark.parametrize(("kind", "direction"), [(counting.TO_DEVICE, "to_device"), (counting.TO_HOST, "to_host")])
def test_the_ledger_of_the_bus_is_right(job, kind, direction):
    """What `Device` counts, stage by stage, is what the stand-in saw cross the bus; Torch's copies are beside it."""
    counted = jobs.counted_by(job[1]["cuda"])
    by_stage = Counter()
    for kinds in counted["commands"].values():
        by_stage.update(kinds[kind])
    assert counted["ledger"][direction] == dict(by_stage)
