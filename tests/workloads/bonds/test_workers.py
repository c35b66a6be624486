"""Workers of a cluster and a memory limit change how the steps are run, and no byte of what they find."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("optuna")

from gpupipe.pipeline import job
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import pick
from gpupipe.runtime.errors import UserError
from gpupipe.training.distributed import worker_run
from gpupipe.training.distributed.cluster import cluster
from gpupipe.workloads.bonds import BONDS, recipe
from tests.support import kill
from tests.support.bond_run import lasting, market, run_bonds, small_settings
from tests.support.dask_warnings import OF_DASK

pytestmark = pytest.mark.filterwarnings(*OF_DASK)


@pytest.fixture(scope="module")
def two():
    with cluster(pick("cpu"), workers=2, jobs=2) as workers:
        yield workers


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What lasts of a run in this process."""
    out = tmp_path_factory.mktemp("alone") / "OUT"
    run_bonds(out)
    return lasting(out)


def execute(out, panel=None, **options):
    bonds = market().panel if panel is None else panel
    return job.execute(BONDS, bonds, None, small_settings(), out, job.JobOptions(**options))[0]


def units_of(out):
    return [line for line in run_log.read(out / run_log.FILE) if line["event"] == "unit"]


def test_two_workers_find_the_same(alone, two, tmp_path):
    out = tmp_path / "OUT"
    execute(out, workers=two)
    assert lasting(out) == alone
    assert {line["worker"] for line in units_of(out)} == {0, 1} and len(units_of(out)) == 13
    assert not kill.broken_promises(out) and not kill.unaccounted(out)
    assert not any(two.client.run(lambda: dict(worker_run._runs)).values()), "workers keep nothing of a finished run"


def test_what_workers_found_is_reused_without_them(alone, two, tmp_path):
    out = tmp_path / "OUT"
    execute(out, workers=two)
    (out / "manifest.json").unlink()
    assert execute(out, jobs=2)["units"]["step"] == {"made": 0, "reused": 13} and lasting(out) == alone


def test_an_error_on_a_worker_is_the_users_line(two, tmp_path):
    panel = market().panel
    with pytest.raises(UserError, match=r"none of the .* quotes has a spread"):
        execute(tmp_path / "OUT", panel.replace(clean=panel.clean * float("nan")), workers=two)


def test_a_limit_makes_one_step_at_a_time_and_finds_the_same(alone, tmp_path, caplog):
    panel, settings = market().panel, small_settings()
    one, two = (memory.Estimate(memory.AS_IT_IS, recipe.peak_bytes(panel, settings, jobs)) for jobs in (1, 2))
    between = memory.Limits((one.asked_of_host + two.asked_of_host) // 2)
    out = tmp_path / "OUT"
    with caplog.at_level(logging.WARNING, "gpupipe"):
        whole = execute(out, jobs=2, limits=between)
    assert whole["memory"]["plan"] == "one step at a time" and whole["jobs"] == 1
    assert any("memory plan 'one step at a time'" in record.getMessage() for record in caplog.records)
    assert lasting(out) == alone
    enough = BONDS.memory_plan(panel, settings, 2, memory.Limits(two.asked_of_host))
    assert enough == (memory.AS_IT_IS, "")


def test_a_limit_that_is_too_low_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"--memory .* is too little: .* or give fewer bonds or dates") as error:
        execute(tmp_path / "OUT", limits=memory.Limits(1 << 20))
    assert "\n" not in str(error.value) and "sectors" not in str(error.value) and not (tmp_path / "OUT").exists()
    with pytest.raises(UserError, match="--device-memory: the memory of the workload bonds is not known"):
        execute(tmp_path / "OUT", limits=memory.Limits(None, 1 << 30))


def test_memory_is_not_less_than_was_measured():
    """Peaks of whole runs on 2 cores, bytes: quotes, steps at a time."""
    measured = {(7_016, 1): 455_460_000, (7_016, 2): 458_930_000, (53_568, 1): 546_880_000, (53_568, 2): 566_800_000,
                (142_347, 1): 691_980_000}  # fmt: skip

    class Rows:
        def __init__(self, n):
            self.n_rows = n

    for (n, jobs), peak in measured.items():
        asked = memory.Estimate(memory.AS_IT_IS, recipe.peak_bytes(Rows(n), small_settings(), jobs)).asked_of_host
        assert peak <= asked <= 1.5 * peak
