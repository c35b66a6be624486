"""Stages go where the run ends earlier; what the user names comes first."""

from __future__ import annotations

import pytest

from gpupipe.runtime.errors import UserError
from gpupipe.runtime.placement import CPU, CUDA, Placement, Rate, Rates, Stage, Work, place, wishes_of

# A second for each step on one thread of the CPU; on the GPU a tenth, or ten for a "regression".
RATES = Rates(
    {
        CPU: dict.fromkeys(("boosting", "forest", "regression"), Rate(1.0, 0.0)),
        CUDA: {"boosting": Rate(0.1, 0.0), "forest": Rate(0.1, 0.0), "regression": Rate(10.0, 0.0)},
    },
    measured=(CPU, CUDA),
)


def stage(name, *steps, kind="boosting", **more):
    return Stage(name, tuple(Work(kind, n, 1.0) for n in steps), **more)


def devices(stages, cores=2, wishes=None, rates=RATES):
    placement = place(stages, CUDA, cores, rates, wishes)
    return {name: placed.device for name, placed in placement.stages.items()}


def test_a_run_on_a_cpu_has_every_stage_there_and_nothing_is_said():
    placement = place([stage("a.pool", 10)], CPU, 2, RATES, {})
    assert placement == Placement(CPU) and placement.device("a.pool") == CPU


def test_what_the_gpu_speeds_up_most_goes_there_until_the_end_does_not_come_earlier():
    many = [stage(f"{letter}.group", 40) for letter in "abc"]  # 20 s each on two threads, 4 s on the GPU
    assert devices(many) == {"a.group": CUDA, "b.group": CUDA, "c.group": CUDA}
    # On 5 threads 8 s each: with two on the GPU both sides end after 8 s, with three the GPU after 12 s.
    assert devices(many, cores=5) == {"a.group": CUDA, "b.group": CUDA, "c.group": CPU}
    assert devices(many[:2], cores=10) == {"a.group": CUDA, "b.group": CPU}
    slow = stage("d.group", 40, kind="regression")
    assert devices([*many, slow])["d.group"] == CPU


def test_the_order_of_the_stages_changes_nothing():
    stages = [stage("a.pool", 30, 30), stage("b.group", 7), stage("c.group", 20, kind="forest")]
    forwards, backwards = place(stages, CUDA, 4, RATES), place(stages[::-1], CUDA, 4, RATES)
    assert dict(forwards.stages) == dict(backwards.stages)


def test_small_fits_stay_on_the_threads_and_pools_go_to_the_gpu_by_the_estimates():
    pool = Stage("xgb_joint.pool", (Work("boosting", 80, 270e6),) * 4)
    sectors = Stage("xgb_hist.group", (Work("boosting", 360, 1.8e6),) * 44)
    placement = place([pool, sectors], CUDA, 16, Rates())
    assert [placement.device(name) for name in ("xgb_joint.pool", "xgb_hist.group")] == [CUDA, CPU]
    reason = placement.stages["xgb_hist.group"].reason
    assert "on the GPU" in reason and "16 CPU threads" in reason and reason.endswith("; estimated")


def test_stages_that_belong_on_the_host_and_those_that_are_not_known():
    stages = [stage("linear.pool", 5, on_host="the same bits"), Stage("sequence.pool")]
    placement = place(stages, CUDA, 2, RATES)
    assert (placement.device("linear.pool"), placement.device("sequence.pool")) == (CPU, CUDA)
    assert placement.stages["linear.pool"].reason == "the same bits"
    assert placement.stages["sequence.pool"].expected_s == {}


def test_what_the_user_names_comes_first_and_the_rest_is_placed_around_it():
    stages = [stage("a.pool", 100), stage("b.pool", 100), stage("linear.pool", 5, on_host="the same bits")]
    placed = place(stages, CUDA, 100, RATES, {"a.pool": CUDA, "linear.pool": CUDA})
    assert {name: one.device for name, one in placed.stages.items()} == {
        "a.pool": CUDA, "b.pool": CPU, "linear.pool": CUDA
    }  # fmt: skip
    assert placed.stages["a.pool"].reason == "--place"


def test_a_placement_is_read_as_it_was_written():
    placement = place([stage("a.pool", 100), Stage("b.pool", on_host="x")], CUDA, 3, RATES)
    assert Placement.of_dict(placement.as_dict()) == placement


def test_wishes_are_whole_stages_or_parts_and_later_ones_win():
    names = ["xgb_joint.pool", "xgb_joint.group", "meta_learner"]
    assert wishes_of([], names, CPU) == {}
    assert wishes_of(["xgb_joint=cpu", "meta_learner=cpu"], names, CPU) == dict.fromkeys(names, CPU)
    last = wishes_of(["xgb_joint.pool=cuda", "xgb_joint=cpu"], names, CUDA)
    assert last == {"xgb_joint.pool": CPU, "xgb_joint.group": CPU}


@pytest.mark.parametrize(
    "text, home, words",
    [
        ("xgb_jiont=cpu", CUDA, "--place xgb_jiont=cpu: expected one of xgb_joint, meta_learner, or a part of one"),
        ("xgb_joint.pools=cpu", CUDA, "expected one of xgb_joint, meta_learner"),
        ("xgb_joint", CUDA, "expected xgb_joint=cpu or xgb_joint=cuda"),
        ("xgb_joint=gpu", CUDA, "expected xgb_joint=cpu or xgb_joint=cuda"),
        ("=cpu", CUDA, "expected one of"),
        ("xgb_joint=cuda", CPU, "the run is on the CPU (no GPU), where xgb_joint=cpu alone is possible"),
    ],
)
def test_other_wishes_are_one_line_that_names_what_is_possible(text, home, words):
    with pytest.raises(UserError) as refused:
        wishes_of([text], ["xgb_joint.pool", "xgb_joint.group", "meta_learner"], home, "no GPU")
    assert words in str(refused.value) and "\n" not in str(refused.value)
