"""A cluster trains what this process would: the same bytes, also when a worker is killed in the middle."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import signal
import threading
import time
import types
import urllib.request
from concurrent.futures import CancelledError

import numpy as np
import pytest

from gpupipe.cli import main
from gpupipe.runtime import memory, run_log
from gpupipe.runtime.device import pick
from gpupipe.store.content_store import Store
from gpupipe.training.context import TrainingContext
from gpupipe.training.distributed import worker_run
from gpupipe.training.distributed.cluster import Cluster, ClusterError, ClusterRun, _require_gpus, cluster
from gpupipe.training.fold_data import FoldId, make_training_set
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.dask_warnings import OF_DASK
from tests.support.tiny import QUICK, SOURCE, contents_of_models, tiny_market, units_of

pytestmark = pytest.mark.filterwarnings(*OF_DASK)


@pytest.fixture(scope="module")
def settings():
    return equity.make("fast", settings=QUICK)


@pytest.fixture(scope="module")
def three():
    with cluster(pick("cpu"), workers=3, jobs=3) as workers:
        yield workers


@pytest.fixture(scope="module")
def alone(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    tiny.execute(tiny_market(), None, settings, out, 2)
    return contents_of_models(out)


def test_three_workers_make_the_same_models(alone, three, settings, tmp_path):
    tiny.execute(tiny_market(), None, settings, tmp_path, workers=three)
    assert contents_of_models(tmp_path) == alone
    workers = {line.get("worker") for line in units_of(tmp_path) if line["stage"] != "meta_learner"}
    assert workers == {0, 1, 2}
    assert not any(three.client.run(lambda: dict(worker_run._runs)).values()), "workers keep nothing of a finished run"


def test_sectors_alone_are_spread_over_workers(three, tmp_path):
    settings = equity.make("fast", settings=[*QUICK, "training.pool=none", "training.models=xgb_hist,linear"])
    tiny.execute(tiny_market(), None, settings, tmp_path / "one", 1)
    tiny.execute(tiny_market(), None, settings, tmp_path / "three", workers=three)
    names = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").glob("trained_*/**/*.[un][bp]*")]
    assert len(names) == 24
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def test_a_worker_killed_in_the_middle_changes_nothing(alone, three, settings, tmp_path):
    pids = three.client.run(os.getpid)
    killed = []

    def kill():
        while not killed:
            done = units_of(tmp_path) if (tmp_path / run_log.FILE).exists() else []
            if len(done) >= 6:
                victim = next(iter(pids.values()))
                os.kill(victim, signal.SIGKILL)
                killed.append((victim, len(done)))
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        _, worked = tiny.execute(tiny_market(), None, settings, tmp_path, workers=three)
    finally:
        killed = killed or [None]
        thread.join()
    assert worked and killed[0]
    done = [line["unit"] for line in units_of(tmp_path)]
    assert killed[0][1] < len(done), "it was killed before the end"
    assert len(done) == len(set(done)), "no unit is done twice"
    assert contents_of_models(tmp_path) == alone
    assert set(three.client.run(os.getpid).values()) != set(pids.values())  # another has taken its place


def dies_at_first(panel, settings, place, numbers):
    """Kill the worker that runs it, the first time; then the sum."""
    if not place.exists():
        place.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return numbers.sum()


def test_a_step_whose_arguments_are_lost_with_their_worker_is_run_on_another(three, settings, tmp_path, monkeypatch):
    there = tuple(three.client.scheduler_info(n_workers=-1)["workers"])
    workers, scatter, sent = dataclasses.replace(three, addresses=there), three.client.scatter, []
    arguments = [tmp_path / "died", np.arange(5)]
    with workers.running(equity.EQUITY, tiny_market(), settings, "ab12", memory.AS_IT_IS, ()) as run:

        def to_the_first(data, **options):
            sent.append(data)
            return scatter(data, **options, **({"workers": [there[0]]} if len(sent) == 1 else {}))

        monkeypatch.setattr(three.client, "scatter", to_the_first)
        assert run.call("a step", dies_at_first, arguments, 0) == 10
    assert len(sent) == 3 and (tmp_path / "died").exists()  # the arguments, and with the rows once more


def test_dask_does_not_give_up_copies_of_the_rows(three):
    assert not three.client.amm.running()


def test_a_call_is_not_repeated_without_end_nor_without_a_scheduler():
    class Client:
        status, sent = "running", 0

        def scatter(self, data, hash):
            self.sent += 1
            raise OSError("closed")

    for status, attempts in (("running", 3), ("closed", 1)):
        client = Client()
        client.status = status
        with pytest.raises(ClusterError, match=r"a step: no worker takes its arguments \(closed\)"):
            ClusterRun(Cluster(client, ("tcp://a",), 1, ""), None, None).call("a step", sum, [], 0)
        assert client.sent == attempts


def test_a_cluster_that_is_not_there_or_not_the_same_is_refused(monkeypatch):
    monkeypatch.setattr("gpupipe.training.distributed.cluster.CONNECT_S", 0.3)
    with pytest.raises(ClusterError, match=r"no scheduler answers .*`dask scheduler`"), cluster(
        pick("cpu"), "tcp://127.0.0.1:9"
    ):  # fmt: skip
        pass
    with pytest.raises(ClusterError, match="leave --workers out"), cluster(pick("cpu"), "tcp://127.0.0.1:9", 2):
        pass


def test_more_workers_than_gpus_are_refused():
    _require_gpus(2, 2)
    with pytest.raises(ClusterError, match="this machine has 1 GPU: give --workers 1, or leave it out"):
        _require_gpus(3, 1)


def test_workers_on_gpus_need_dask_cuda():
    if importlib.util.find_spec("dask_cuda"):
        pytest.skip("dask-cuda is installed")
    driver = types.SimpleNamespace(getDeviceCount=lambda: 2)
    xp = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=driver))
    with pytest.raises(ClusterError, match=r"needs the package dask-cuda: pip install -e '\.\[cuda13\]'"), cluster(
        types.SimpleNamespace(kind="cuda", xp=xp), workers=2
    ):  # fmt: skip
        pass


def test_workers_take_no_more_of_a_gpu_than_the_run_may(settings, monkeypatch):
    asked = []

    def pick_of_worker(*arguments):
        asked.append(arguments)
        return pick("cpu")

    monkeypatch.setattr(worker_run.device, "pick", pick_of_worker)
    worker_run.WorkerRun(worker_run.rows_of(tiny_market()), a_job(settings, device="cuda", device_bytes=2**30))
    assert asked[0] == ("cuda", settings.ml.use_rmm, 2**30)


def test_a_worker_with_other_versions_is_refused(three, monkeypatch):
    own = worker_run.about()
    monkeypatch.setattr(worker_run, "about", lambda: {**own, "versions": {**own["versions"], "xgboost": "0.1"}})
    from gpupipe.training.distributed.cluster import _require_the_same

    with pytest.raises(ClusterError, match=r"tcp://a has xgboost .*, and 0.1 is here"):
        _require_the_same({"tcp://a": own})
    monkeypatch.setattr(worker_run, "about", lambda: {**own, "code": "other"})
    with pytest.raises(ClusterError, match="tcp://a has other code of gpupipe"):
        _require_the_same({"tcp://a": own})


def test_an_address_is_enough(three, tmp_path):
    """As --scheduler gives it: the workers are asked for what they are."""
    three.client.wait_for_workers(3)  # the one that was killed comes again
    settings = equity.make("fast", settings=[*QUICK, "training.models=linear"])
    with cluster(pick("cpu"), three.client.scheduler.address) as workers:
        assert len(workers.addresses) == workers.jobs == 3
        _, worked = tiny.execute(tiny_market(), None, settings, tmp_path, workers=workers)
        assert worked and {line["worker"] for line in units_of(tmp_path)} <= {0, 1, 2}
        # Other bars on the same workers, one run after the other.
        other = tiny_market().until(int(np.sort(tiny_market().time_ns)[-100]))
        tiny.execute(other, None, settings, tmp_path / "other", workers=workers)
    tiny.execute(other, None, settings, tmp_path / "alone", 1)
    found = sorted(path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").glob("trained_*/**/*.npz"))
    assert len(found) == 12
    for name in found:
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
        assert (tmp_path / "alone" / name).read_bytes() != (tmp_path / name).read_bytes()


def a_job(settings, **changed):
    about = {
        "key": "of a test", "workload": equity.EQUITY.place, "device": "cpu", "plan": memory.AS_IT_IS, "threads": 1,
        "folds_at_once": 2, "modules": (),
    }  # fmt: skip
    return worker_run.Job(settings=settings, **{**about, **changed})


def test_a_site_keeps_as_many_folds_as_it_may_and_the_rows_of_the_client(settings, tmp_path):
    panel = tiny_market()
    prepared = tiny.prepare(panel, settings)
    place = worker_run.WorkerRun(worker_run.rows_of(panel), a_job(settings))
    folds = [FoldId(prepared.folds.published, panel.groups, part, (0, 1)) for part in (None, 0, 1)]
    for fold in folds:
        training_set = place.training_set(fold)
        assert place.training_set(fold) is training_set
        context = TrainingContext(
            prepared.datasets, prepared.splits, fold.times, settings, Store(tmp_path), "", panel.device, 1
        )
        for group, rows in make_training_set(context, fold).fit.items():
            for name in ("X", "y", "time_ns"):
                np.testing.assert_array_equal(getattr(training_set.fit[group], name), getattr(rows, name))
    assert list(place._training_sets) == folds[1:]
    files = worker_run.WorkerRun(worker_run.rows_of(panel), a_job(settings, plan=memory.LADDER[-1]))
    files.training_set(folds[0])
    assert files._cache.exists()
    files.close()
    assert not files._cache.exists()


def test_modules_that_differ_are_refused(settings, tmp_path):
    path = tmp_path / "own.py"
    path.write_text("from gpupipe import feature\n\n\n@feature('candle', source='a test')\ndef own(bars):\n"
                    "    return bars.close / bars.open\n")  # fmt: skip
    from gpupipe.runtime.errors import UserError

    chosen = equity.make("fast", settings=[*QUICK, f"features.modules={path}"])
    with pytest.raises(UserError, match="differs between the client and a worker"):
        worker_run.WorkerRun(worker_run.rows_of(tiny_market()), a_job(chosen, modules=((str(path), "0" * 64),)))


def test_warnings_of_a_worker_are_the_clients(caplog):
    log = logging.getLogger("gpupipe")
    with caplog.at_level(logging.WARNING), worker_run.logged_warnings() as said:
        log.warning("of this thread %d", 1)
        other = threading.Thread(target=log.warning, args=("of another",))
        other.start()
        other.join()
    assert said == ["of this thread 1"]
    assert [record.getMessage() for record in caplog.records] == ["of another"]


def test_the_dashboard_is_served_to_this_machine_alone(settings, monkeypatch, tmp_path):
    """By a worker within this process, which computes as ever."""
    pytest.importorskip("bokeh")
    monkeypatch.setattr("gpupipe.training.distributed.cluster.DASHBOARD", "127.0.0.1:0")  # a port that nobody has
    few = equity.make("fast", settings=[*QUICK, "training.models=linear"])
    with cluster(pick("cpu"), dashboard=True, jobs=2) as workers:
        assert workers.jobs == 2 and workers.addresses[0].startswith("inproc://")
        assert workers.dashboard.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(workers.dashboard, timeout=20) as answer:
            assert answer.status == 200 and b"bokeh" in answer.read().lower()
        local = workers.client.cluster
        served = [server.http_server for server in (local.scheduler, *local.workers.values())]
        addresses = {s.getsockname()[0] for one in served for s in one._sockets.values()}
        assert addresses == {"127.0.0.1"}
        tiny.execute(tiny_market(), None, few, tmp_path / "there", workers=workers)
    tiny.execute(tiny_market(), None, few, tmp_path / "here", 1)
    found = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").glob("trained_*/**/*.npz"))
    assert len(found) == 12
    assert all((tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes() for name in found)


def test_without_bokeh_there_is_no_dashboard(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"bokeh: pip install -e '.\[dashboard\]'"), cluster(
        pick("cpu"), dashboard=True
    ):  # fmt: skip
        pass


def test_a_scheduler_that_goes_away_is_told_in_a_line(three):
    class Gone:
        def result(self):
            raise CancelledError("of Dask")

    run = ClusterRun(three, None, None)
    with pytest.raises(ClusterError, match=r"final/linear/pool: the scheduler .* the same command resumes"):
        run._result("final/linear/pool", Gone())


def test_jobs_are_the_clusters_where_there_is_one(capsys, tmp_path):
    there = ["--scheduler", "tcp://127.0.0.1:9", "--jobs", "2", "--out", str(tmp_path / "OUT")]
    assert main.main(["run", "--data", SOURCE, *there]) == 2
    assert "leave one out" in capsys.readouterr().err and not (tmp_path / "OUT").exists()
