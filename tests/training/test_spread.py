"""Rows spread over workers: no worker has all of them, the models are those of all rows together, also after a loss."""

from __future__ import annotations

import dataclasses
import os
import signal
from concurrent.futures import CancelledError

import numpy as np
import pytest

from gpupipe import config
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import pick
from gpupipe.runtime.errors import UserError
from gpupipe.training import fold_data
from gpupipe.training.distributed import sharded_worker, spread
from gpupipe.training.distributed.calls import LostError, results
from gpupipe.training.distributed.cluster import ClusterError, cluster
from gpupipe.training.fold_data import FoldId
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.dask_warnings import OF_DASK
from tests.support.tiny import QUICK, SECTORS, contents_of_models, tiny_market, units_of

pytestmark = pytest.mark.filterwarnings(*OF_DASK)

# Sums in another order, and cuts of columns merged from those of each worker: a tree may split elsewhere. Of a label's
# validation log-loss, as a share of it. With QUICK alone the largest of 72 models is 0.010, and the mean 0.003.
CLOSE = 0.03


@pytest.fixture(scope="module")
def settings():
    fewer = ("labels.thresholds=0.03", "split.parts=2", "joint.rounds=8", "training.spread=3")
    return equity.make("fast", settings=[*QUICK, *fewer])


@pytest.fixture(scope="module")
def three():
    with cluster(pick("cpu"), workers=3, jobs=3) as workers:
        yield workers


@pytest.fixture(scope="module")
def together(three, settings, tmp_path_factory):
    """A run on three workers: its folder, its summary, and what each worker held."""
    out = tmp_path_factory.mktemp("together")
    whole, _ = tiny.execute(tiny_market(), None, settings, out, workers=three)
    held = [line["rows_held"] for line in run_log.read(out / run_log.FILE) if line["event"] == "worker"]
    return out, whole, held


def test_no_worker_holds_more_than_its_own_sectors(together):
    _, _, held = together
    panel = tiny_market()
    assert sorted(sector for own in held for sector in own) == sorted(SECTORS)
    assert all(len(own) == 1 for own in held)
    assert sum(sum(own.values()) for own in held) == panel.n_rows
    assert max(sum(own.values()) for own in held) < 0.6 * panel.n_rows


def test_a_sectors_stage_is_fitted_where_its_rows_are(together):
    out, _, _ = together
    workers = {}
    for line in units_of(out):
        if line["stage"] != "meta_learner":
            workers.setdefault(line["unit"].rsplit("/", 1)[1], set()).add(line.get("worker"))
    assert workers.pop("pool") == {None}
    assert sorted(workers) == sorted(SECTORS) and sorted(map(len, workers.values())) == [1, 1, 1]
    assert set.union(*workers.values()) == {0, 1, 2}


def test_models_are_close_to_those_of_one_process(together, settings, tmp_path):
    alone = settings.replace(training=dataclasses.replace(settings.training, spread=0))
    one, _ = tiny.execute(tiny_market(), None, alone, tmp_path, 2)
    losses = [
        {(row["sector"], row["label"], row["model"]): row["validation_log_loss"] for row in whole["models"]}
        for whole in (one, together[1])
    ]  # fmt: skip
    assert losses[0].keys() == losses[1].keys()
    shares = {key: losses[1][key] / losses[0][key] - 1 for key in losses[0]}
    assert max(map(abs, shares.values())) < CLOSE
    assert abs(np.mean(list(shares.values()))) < CLOSE / 10
    linear = [abs(share) for (_, _, model), share in shares.items() if model == "linear"]
    assert max(linear) < 1e-4, "only the order of sums differs"


def test_the_same_bytes_again_and_units_are_found_again(together, three, settings, tmp_path):
    tiny.execute(tiny_market(), None, settings, tmp_path, workers=three)
    assert contents_of_models(tmp_path) == contents_of_models(together[0])
    # What nothing changed for is taken; the sector stages that are made again find bins that no one has made yet.
    changed = settings.replace(joint_sector=dataclasses.replace(settings.joint_sector, rounds=3))
    whole, _ = tiny.execute(tiny_market(), None, changed, tmp_path, workers=three)
    n_labels, n_rounds = 2, 3
    assert whole["units"]["model"]["made"] <= len(SECTORS) * n_rounds + n_rounds
    assert whole["units"]["model"]["reused"] > n_labels * len(SECTORS)


def test_status_knows_the_units_of_spread_rows(together, settings):
    found = tiny.survey(tiny_market(), settings, together[0])
    assert set(found.states.values()) == {"done"}
    for other in (0, 2):
        changed = settings.replace(training=dataclasses.replace(settings.training, spread=other))
        found = tiny.survey(tiny_market(), changed, together[0])
        assert "done" not in found.states.values(), "sums over other workers differ in the last bits"


def test_workers_killed_in_mid_training_change_nothing(together, three, settings, tmp_path, monkeypatch):
    """One while all fit a pooled stage together, another while it fits a sector's."""
    three.client.wait_for_workers(3)
    three = dataclasses.replace(three, addresses=tuple(sorted(three.client.scheduler_info(n_workers=-1)["workers"])))
    killed = {}
    submit = spread.Spread._submit

    def submit_and_kill(self, worker, function, *arguments, priority=0):
        future = submit(self, worker, function, *arguments, priority=priority)
        now = next((at for at in moments if at[:2] == (function, worker) and at[2] in arguments), None)
        if now and now not in killed:
            (killed[now],) = self._client.run(os.getpid, workers=[self._addresses[worker]]).values()
            os.kill(killed[now], signal.SIGKILL)
        return future

    moments = [(sharded_worker.fit_pool, 1, "xgb_joint"), (sharded_worker.fit_group, 0, "random_forest")]

    monkeypatch.setattr(spread.Spread, "_submit", submit_and_kill)
    _, worked = tiny.execute(tiny_market(), None, settings, tmp_path, workers=three)
    assert worked and len(killed) == 2
    done = [line["unit"] for line in units_of(tmp_path)]
    assert len(done) == len(set(done)), "no unit is done twice"
    assert contents_of_models(tmp_path) == contents_of_models(together[0])
    assert not set(killed.values()) & set(three.client.run(os.getpid).values())
    warned = [line for line in run_log.read(tmp_path / run_log.FILE) if line["event"] == "warning"]
    assert sum("is lost" in line["text"] for line in warned) == 2


def test_workers_that_are_lost_again_and_again_end_the_run(three, settings, monkeypatch):
    three.client.wait_for_workers(3)
    addresses = sorted(three.client.scheduler_info(n_workers=-1)["workers"])
    workers, plan = dataclasses.replace(three, addresses=tuple(addresses)), memory.AS_IT_IS
    with workers.running(equity.EQUITY, tiny_market(), settings, "k", plan, ()) as run:
        asked = []

        def lost():
            asked.append(1)
            raise LostError("gone")

        with pytest.raises(ClusterError, match=r"a unit: workers were lost in 4 attempts .*spread over more"):
            run._again("a unit", lost)
        assert len(asked) == spread.ATTEMPTS
        monkeypatch.setattr(spread, "REPLACED_S", 0.1)
        monkeypatch.setattr(run, "_there", lambda: set(run._addresses[1:]))
        with pytest.raises(ClusterError, match=r"no worker has replaced it for .* seconds: start another"):
            run._complete(run._losses)


def test_an_error_of_a_worker_is_told_as_it_is(three, settings):
    three.client.wait_for_workers(3)
    addresses = sorted(three.client.scheduler_info(n_workers=-1)["workers"])
    workers, plan = dataclasses.replace(three, addresses=tuple(addresses)), memory.AS_IT_IS
    with workers.running(equity.EQUITY, tiny_market(), settings, "k2", plan, ()) as run:
        for sector in SECTORS:
            run.dataset(sector)
        fold = FoldId(None, SECTORS, None, (0,))  # without a fold in time nothing can be gathered
        with pytest.raises(AttributeError):
            run.inputs(fold)


def test_what_cannot_be_spread_is_refused(three, settings, tmp_path):
    with pytest.raises(UserError, match="--workers 3"):
        tiny.execute(tiny_market(), None, settings, tmp_path)
    with pytest.raises(UserError, match="leave out --memory and add workers"):
        tiny.execute(tiny_market(), None, settings, tmp_path, workers=three, limits=memory.Limits(10**12))
    with pytest.raises(UserError, match="leave one of them out"):
        tiny.execute(tiny_market(), None, settings, tmp_path, workers=three, warm_start=tmp_path)
    with pytest.raises(config.ConfigError, match="lightgbm cannot be fitted by several workers"):
        equity.make("fast", settings=["training.models=lightgbm", "training.spread=2"])
    with pytest.raises(config.ConfigError, match=r"does not go with ml\.gradient_sampling: set it to false"):
        equity.make("fast", settings=["ml.gradient_sampling=true", "training.spread=2"])
    four = settings.replace(training=dataclasses.replace(settings.training, spread=4))
    with pytest.raises(ClusterError, match="the cluster has 3 workers"):
        tiny.execute(tiny_market(), None, four, tmp_path, workers=three)
    assert not (tmp_path / "manifest.json").exists()


def test_sectors_are_balanced_by_rows():
    rows = {"a": 10, "b": 70, "c": 30, "d": 35, "e": 5}
    assert fold_data.share_groups(rows, 2) == [("b", "e"), ("a", "c", "d")]
    assert fold_data.share_groups(rows, 9) == [("b",), ("d",), ("c",), ("a",), ("e",)]
    assert fold_data.share_groups(rows, 1) == [tuple(rows)]


class _Done:
    """A call that Dask says is done, and whose result does not come for some tries."""

    key, status = "call", "finished"

    def __init__(self, *tries):
        self.tries = list(tries)

    def done(self):
        return True

    def cancel(self):
        pass

    def result(self, timeout):
        now = self.tries.pop(0)
        if isinstance(now, BaseException):
            raise now
        return now


def test_a_worker_that_goes_with_its_result_is_not_waited_for():
    """Dask would wait for that very worker to make it again, for ever."""

    def found(*calls):
        return results(None, calls, lambda: {"tcp://b"})

    assert found(("tcp://b", _Done(TimeoutError(), TimeoutError(), 7))) == [7], "slow, and still there"
    for gone in (TimeoutError(), CancelledError()):
        with pytest.raises(LostError, match="tcp://a"):
            found(("tcp://b", _Done(7)), ("tcp://a", _Done(gone)))
    with pytest.raises(OSError, match="disk"):
        found(("tcp://b", _Done(OSError("disk"))))
