"""Steps of a StepsWorkload: what they read decides whether they are computed again; their progress outlives a kill."""

from __future__ import annotations

import pytest

from gpupipe import config
from gpupipe.config import Catalogue
from gpupipe.pipeline import job
from gpupipe.pipeline.steps import Outcome, Step, StepsWorkload
from gpupipe.runtime.errors import UserError
from tests.support.toy_workload import toy_panel

N_BARS = 100


def workload(steps, **more):
    def conclude(context, values):
        return Outcome(None, extra={"values": dict(values)})

    catalogue = Catalogue({}, models=(), default_models=())
    return StepsWorkload(
        "steps", "tests.pipeline.test_steps:workload", lambda: catalogue, steps, conclude=conclude, **more
    )


def step(name, make, **more):
    return Step(name, make, lambda store, value: {"value": value}, lambda store, record: record["value"], **more)


def run(wanted, panel, out):
    return job.execute(wanted, panel, None, config.make(wanted.catalogue()), out)[0]


def first_bars(context, values):
    """The sum of the first bars of the first instrument, which later bars do not change."""
    return float(context.panel.columns["price"][:N_BARS].sum())


def test_a_step_is_computed_again_only_where_what_it_reads_has_changed(tmp_path):
    def steps(panel, settings):
        whole = step("whole", lambda context, values: context.panel.n_rows, reads_panel=True)
        first = step("first", first_bars, needs=("whole",), reads=first_bars)
        return whole, first

    panel = toy_panel()
    summary = run(workload(steps), panel, tmp_path)
    assert summary["units"]["step"] == {"made": 2, "reused": 0}
    last, early = (panel.columns["price"].copy() for _ in range(2))
    last[-1] += 1
    early[0] += 1
    later = run(workload(steps), panel.replace(price=last), tmp_path)
    assert later["units"]["step"] == {"made": 1, "reused": 1}
    assert later["values"]["first"] == summary["values"]["first"]
    changed = run(workload(steps), panel.replace(price=early), tmp_path)
    assert changed["units"]["step"] == {"made": 2, "reused": 0}
    assert changed["values"]["first"] == pytest.approx(summary["values"]["first"] + 1)


def test_the_number_of_steps_follows_the_panel(tmp_path):
    def steps(panel, settings):
        return [step(f"symbol_{k}", lambda context, values: 1) for k in range(panel.n_symbols)]

    assert run(workload(steps), toy_panel(), tmp_path)["units"]["step"]["made"] == 2


def test_a_step_finds_its_progress_after_it_was_stopped(tmp_path):
    seen = []

    def make(context, values):
        folder = context.fit.checkpoints
        done = folder / "half"
        seen.append(done.exists())
        if not done.exists():
            folder.mkdir(parents=True)
            done.write_text("1")
            raise KeyboardInterrupt
        context.fit.detail("the other half")
        return 2

    wanted = workload(lambda panel, settings: [step("long", make)])
    with pytest.raises(KeyboardInterrupt):
        run(wanted, toy_panel(), tmp_path)
    summary = run(wanted, toy_panel(), tmp_path)
    assert seen == [False, True] and summary["values"] == {"long": 2}
    assert not list((tmp_path / ".gpupipe").glob("checkpoints/*"))


def test_what_its_check_refuses_is_refused_before_anything_is_written(tmp_path):
    def check(settings):
        raise UserError("no such market")

    with pytest.raises(UserError, match="no such market"):
        run(workload(lambda panel, settings: [], check=check), toy_panel(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
