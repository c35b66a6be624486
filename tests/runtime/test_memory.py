"""Memory: sizes, the estimate, and runs whose columns and bins lie in files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpupipe.cli import run
from gpupipe.estimators.boosting.binned_matrix import binned
from gpupipe.estimators.contract import Shape
from gpupipe.runtime import memory
from gpupipe.runtime.errors import UserError
from gpupipe.training import memory_estimate, planning, prepare
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, SOURCE, fold_of, planted, tiny_market


def test_sizes():
    assert memory.size("8GiB") == memory.size("8 g") == memory.size("8GB") == 8 * 2**30
    assert memory.size("1.5M") == 1.5 * 2**20 and memory.size("1000") == 1000 and memory.size(".5T") == 2**39
    for wrong in ("", "8 gallons", "-1G", "0", "G"):
        with pytest.raises(UserError, match=r"expected a size such as 8GiB or 900M"):
            memory.size(wrong)


def shape(n_rows, n_features=89, largest=0.2):
    return Shape(n_rows, 0.6 * n_rows, 0.2 * n_rows, 0.2 * n_rows, 0.4 * n_rows, largest, n_features, 20, 6)


@pytest.mark.parametrize("preset", ["fast", "balanced"])
@pytest.mark.parametrize("n_rows", [10_000, 1_000_000, 10_000_000])
def test_every_plan_holds_less_than_the_one_before(preset, n_rows):
    settings = equity.make(preset)
    held = [memory_estimate.estimate_plan(shape(n_rows), settings, 2, plan, "cpu").host for plan in memory.LADDER]
    assert held == sorted(held, reverse=True) and held[-1] > memory_estimate.PROGRAM_BYTES
    larger = memory_estimate.estimate_plan(shape(2 * n_rows), settings, 2, memory.AS_IT_IS, "cpu").host
    assert larger > held[0]
    alone = equity.make(preset, training__pool="none")
    assert memory_estimate.estimate_plan(shape(n_rows), alone, 2, memory.AS_IT_IS, "cpu").host < held[0]
    if n_rows == 10_000_000:  # 89 float32 columns are 3.6 GB by themselves
        assert held[0] > 1.8 * 3.56e9


def test_the_first_plan_below_the_limit_is_taken():
    gib = 2**30
    ladder = [memory.Estimate(plan, (5 - k) * gib, (4 - k) * gib) for k, plan in enumerate(memory.LADDER)]
    names = [memory.choose(ladder, memory.Limits(one.asked_of_host)).name for one in ladder]
    assert names == [plan.name for plan in memory.LADDER]
    assert memory.choose(ladder, memory.NO_LIMITS) == memory.AS_IT_IS
    assert memory.choose(ladder, memory.Limits(6 * gib, ladder[2].asked_of_device)).name == "uint8 bins"
    # An estimate is off by some per cent: what is foretold is not all that a limit has to allow.
    assert memory.choose(ladder, memory.Limits(5 * gib)).name == "fewer at once"
    assert ladder[0].asked_of_host == pytest.approx((1 + memory.ROOM) * 5 * gib)
    with pytest.raises(UserError, match=r"--memory 1.00 GiB is too little: about 5.50 GiB are needed, and 2.20 GiB"):
        memory.choose(ladder, memory.Limits(gib))
    with pytest.raises(UserError, match=r"--device-memory 0.50 GiB is too little: about 4.40 GiB"):
        memory.choose(ladder, memory.Limits(6 * gib, gib // 2))
    said = memory.plan_sentence(ladder, memory.LADDER[1], memory.Limits(4 * gib))
    assert "'fewer at once'" in said and "--memory 4.00 GiB" in said and "about 5.00 GiB" in said


def test_device_memory_has_no_meaning_on_a_cpu():
    with pytest.raises(UserError, match="--device-memory limits a GPU's memory"):
        planning.memory_plan(equity.EQUITY, tiny_market(), equity.make("fast"), 1, memory.Limits(None, 2**30))


def test_the_plan_knows_the_rows_without_any_features():
    settings = equity.make("fast", [], list(QUICK))
    told, made = prepare.outline(equity.EQUITY, tiny_market(), settings), tiny.prepare(tiny_market(), settings)
    for sector, cut in made.splits.items():
        for part in ("train", "validation", "test"):
            np.testing.assert_array_equal(getattr(told.splits[sector], part), getattr(cut, part))
        assert told.datasets[sector].X.shape[1] == 0


class OutOfMemoryError(RuntimeError):
    """As Torch's."""


class XGBoostError(ValueError):
    """As XGBoost's."""


NO_MEMORY = (
    MemoryError("std::bad_alloc: out_of_memory: RMM failure at: Exceeded memory limit"),
    OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    XGBoostError("Memory allocation error on worker 0: std::bad_alloc: cudaErrorMemoryAllocation: out of memory"),
)


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_a_task_without_memory_is_done_once_more_alone(error, caplog):
    done, let_go = [], []

    def task():
        done.append(1)
        if len(done) == 1:
            raise error
        return "made"

    turns = memory.Turns()
    assert turns.run(task, lambda: let_go.append(1), "energy/xgb_joint") == "made"
    assert len(done) == 2 and let_go == [1]
    assert "energy/xgb_joint ran out of memory" in caplog.text and "once more" in caplog.text

    def always():
        done.append(1)
        raise error

    done.clear()
    with pytest.raises(type(error)):
        turns.run(always, lambda: None, "again")
    assert len(done) == 2
    assert turns.run(lambda: 3, lambda: None, "after") == 3


def test_other_errors_are_not_tried_again():
    done = []

    def task():
        done.append(1)
        raise XGBoostError("label must not be empty")

    with pytest.raises(XGBoostError):
        memory.Turns().run(task, lambda: None, "one")
    assert len(done) == 1


def test_a_training_set_that_releases_its_bins_makes_the_same_ones_again():
    training_set = fold_of({group: planted(1500, k)[0] for k, group in enumerate("abc")}, {})
    bins = binned(training_set)
    before = bins.samples(0.5)
    codes = [sample.bins.get_data().toarray() for sample in before]
    assert bins.samples(0.5) is before and not training_set.saves_memory
    training_set.release()
    after = bins.samples(0.5)
    assert after is not before and training_set.saves_memory
    for one, again in zip(codes, after, strict=True):
        np.testing.assert_array_equal(one, again.bins.get_data().toarray())
    bins.samples(0.25)
    assert bins.samples(0.5) is not after  # one set at a time


def test_a_matrix_in_a_file_leaves_nothing_behind(tmp_path):
    made = memory.matrix((100, 7), tmp_path / "cache")
    made[:] = 3
    assert made.dtype == np.float32 and made.sum() == 2100 and type(made) is np.ndarray
    assert list((tmp_path / "cache").iterdir()) == []
    assert memory.matrix((0, 7), tmp_path / "cache").shape == (0, 7)


def test_every_plan_gives_the_same_models(tmp_path, capsys, caplog):
    job = ["--data", SOURCE, "--sectors", ",".join(SECTORS), "--preset", "fast", "--quiet", "--horizons", "1",
           "--models", "xgb_joint,linear,random_forest,meta_learner", *(f"--set={one}" for one in QUICK)]  # fmt: skip
    assert run.main([*job[:6], *job[7:], "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.split("\n}\n")[0] + "\n}")
    assert run.main([*job, "--out", str(tmp_path / "as it is")]) == 0
    plain = json.loads((tmp_path / "as it is" / "manifest.json").read_text())["files"]
    models = [name for name in plain if name.endswith((".ubj", ".npz"))]
    for one in told["memory_plans"][1:]:
        out = tmp_path / one["plan"]
        assert run.main([*job, "--out", str(out), "--memory", str(one["memory"])]) == 0
        assert f"memory plan '{one['plan']}'" in caplog.text
        files = json.loads((out / "manifest.json").read_text())["files"]
        assert models and all(plain[name] == files[name] for name in models)
        about = json.loads((out / "summary.json").read_text())["memory"]
        assert about["plan"] == one["plan"] and about["peak_bytes_by_stage"]["training"] > 0
        assert not (out / ".gpupipe" / "cache").exists()
    assert run.main([*job, "--out", str(tmp_path / "none"), "--memory", "1K"]) == 2
    assert "is too little" in capsys.readouterr().err and not (tmp_path / "none").exists()
