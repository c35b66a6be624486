"""What surrounds a network runs with `--device cuda` on the stand-in; the network itself is placed on the CPU.

Torch's tensors have no stand-in on CUDA: windows, CUDA graphs and the agent's policy are left to a GPU. The agent's
market runs on the stand-in by tests/workloads/agent, which `pytest -m gpu` includes.
"""

from __future__ import annotations

import pytest

from tests.support.ptx import why_not
from tests.support.stand_in import comparing, counting, counts, jobs

pytest.importorskip("torch", reason="networks need Torch")
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return jobs.run_on_both("networks", tmp_path_factory.mktemp("networks"))


def test_results_are_those_of_the_cpu(folders):
    assert comparing.differences(folders["cpu"], folders["cuda"]) == []


def test_launches_waits_and_bytes_are_those_of_the_table(folders):
    counted = counts.grouped(jobs.counted_by(folders["cuda"])["commands"])
    assert counts.changes(counts.committed()["networks"], counted) == ([], [])
    assert sum(counted["networks"][counting.LAUNCHES].values()) > 0
