"""Steps of a StepsWorkload: what they read decides whether they are computed again; their progress outlives a kill."""

from __future__ import annotations

import dataclasses

import pytest

from gpupipe import config
from gpupipe.config import Catalogue, Section
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


@dataclasses.dataclass(frozen=True)
class Line:
    slope: float = 2.0
    width: int = 5


def with_line(make, *sections):
    """A workload of one step, whose settings have the section [line]."""
    wanted = workload(lambda panel, settings: [step("line", make, sections=sections)])
    catalogue = Catalogue({"line": Section(Line)}, models=(), default_models=())
    return dataclasses.replace(wanted, catalogue=lambda: catalogue)


def made(wanted, out, *settings):
    """(number of steps computed, value) of a run."""
    given = config.make(wanted.catalogue(), settings=settings)
    summary = job.execute(wanted, toy_panel(), None, given, out)[0]
    return summary["units"]["step"]["made"], summary["values"]["line"]


@pytest.mark.parametrize("declared", ["line", "line.slope", "training.max_bin"])
def test_a_step_is_computed_again_only_for_the_settings_that_it_declares(tmp_path, declared):
    wanted = with_line(lambda context, values: context.settings.seed, declared)
    assert made(wanted, tmp_path) == (1, 42)
    for setting, again in {
        "line.slope=3.0": declared.startswith("line"),
        "line.width=6": declared == "line",
        "training.max_bin=32": declared == "training.max_bin",
        "split.parts=4": False,
        "seed=7": True,
    }.items():
        assert made(wanted, tmp_path, setting)[0] == again, setting
        made(wanted, tmp_path)


@pytest.mark.parametrize(
    ("read", "declared"),
    [
        (lambda settings: settings.line.width, ("line.slope",)),
        (lambda settings: settings.line.slope, ()),
        (lambda settings: settings.sections["line"].slope, ()),
        (lambda settings: settings.training.max_bin, ("line",)),
        (lambda settings: settings.split.parts, ("line", "training.max_bin")),
        (lambda settings: settings.for_label("line", "", "").slope, ()),
    ],
)
def test_a_step_cannot_read_a_setting_that_it_does_not_declare(tmp_path, read, declared):
    with pytest.raises(AttributeError, match="is read, but not declared"):
        made(with_line(lambda context, values: read(context.settings), *declared), tmp_path)


def test_a_step_reads_what_it_declares(tmp_path):
    wanted = with_line(lambda context, values: context.settings.line.slope, "line.slope")
    assert made(wanted, tmp_path / "field", "line.slope=4.0")[1] == 4
    whole = with_line(lambda context, values: dataclasses.astuple(context.settings.line)[1], "line")
    assert made(whole, tmp_path / "section")[1] == 5


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
