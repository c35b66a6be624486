"""Networks and the agent with `--device cuda` on the stand-in: near the CPU's results, and no more work than before.

The CPU trains over shards and steps through episodes otherwise than a GPU, so sums differ in their last bits. What a
network has no part in has equal bytes, and so have the agent's positions, trades and money.
"""

from __future__ import annotations

import re

import pytest

from tests.support.ptx import why_not
from tests.support.stand_in import comparing, counting, counts, jobs

pytest.importorskip("torch", reason="networks need Torch")
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

# Numbers that a network has a part in: its weights and losses, and what is measured of its predictions on few rows.
_LINEAR = ("linear",)  # has no part in a network
_FITTED = ("*.safetensors", "*.npz", "*/history.parquet", "OUT/returns.parquet", "*/scaler.json")
_MEASURED = ("OUT/summary.*", "OUT/ranking.parquet", "OUT/curves.parquet", "OUT/calibration_slices.parquet",
             "*/metadata.json")  # fmt: skip
_NETWORK = (comparing.Near(1e-3, 1e-4, _FITTED, _LINEAR), comparing.Near(2e-2, 1e-2, _MEASURED, _LINEAR))
NEAR = {
    "networks": _NETWORK,
    "sequence": _NETWORK,
    "agent": (
        comparing.Near(1e-4, 1e-5, ("*/policy.*", "OUT/summary.*", "OUT/versions/*")),
        comparing.Near(1e-3, 1e-4, ("OUT/training.parquet",)),
    ),
}
# What may differ by more, as lines of `comparing.differences`: of a convolution before a batch normalisation, which
# takes its bias out again, the bias has a gradient of mere rounding, which Adam makes as large as any other.
MAY_DIFFER = re.compile(
    r".*\.safetensors: convolutions\.0\.convolution\.bias in [^,]*, by [^,]*"
    r"(, convolutions\.0\.normalisation\.running_mean in [^,]*, by [^,]*)?"
)


@pytest.fixture(scope="module", params=jobs.NETWORKS)
def job(request, tmp_path_factory):
    """The name of a job, and its folders on both devices."""
    return request.param, jobs.run_on_both(request.param, tmp_path_factory.mktemp(request.param))


def test_results_are_near_those_of_the_cpu(job):
    name, folders = job
    lines = comparing.differences(folders["cpu"], folders["cuda"], NEAR[name])
    unexpected = [line for line in lines if not MAY_DIFFER.fullmatch(line)]
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
    assert counted["ledger"][direction] == counts.of_all_commands(counted, kind)
