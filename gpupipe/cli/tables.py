"""Tables of a plan and of a tuning job, and what all tables have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gpupipe.estimators.baselines.contract import Baseline


@dataclass(frozen=True)
class ModelNames:
    """Headings of models and baselines in tables.

    headings: by name, in the order of the columns.  baselines: the names of the baselines.
    weak: those baselines that the verdict does not ask about; they give way where a table has no room.

        >>> names = ModelNames({"linear": "linear", "prior_all": "prior all"}, ("prior_all",), weak=("prior_all",))
        >>> names["prior_all"], names.order({"mine", "prior_all", "linear"})
        ('prior all', ['linear', 'prior_all', 'mine'])
    """

    headings: Mapping[str, str]
    baselines: tuple[str, ...]
    weak: tuple[str, ...]

    def __getitem__(self, name: str) -> str:
        return self.headings.get(name, name)

    def order(self, names: set[str]) -> list[str]:
        """These names in the order of the columns; names that there are no headings for come last."""
        return [*(name for name in self.headings if name in names), *sorted(names - set(self.headings))]


def names_of(baselines: Sequence[Baseline] = ()) -> ModelNames:
    """The headings of a workload's baselines and of all estimators; a stacking estimator is the last."""
    from gpupipe.estimators import registry

    items: list[Any] = [*baselines, *sorted(registry.estimators(), key=lambda item: item.stacks)]
    headings = {item.name: (item.short_name or item.name).replace(" ", "\n") for item in items}
    weak = tuple(baseline.name for baseline in baselines if not baseline.reference_table)
    return ModelNames(headings, tuple(baseline.name for baseline in baselines), weak)


def short_name(model: str) -> str:
    """The short name of an estimator; any other name as it is."""
    from gpupipe.estimators import registry

    return (registry.estimator(model).short_name or model) if model in registry.ESTIMATORS else model


def print_whole(to: Console, table: Table) -> None:
    """Print a table of figures at its full width: a narrower window wraps it, as figures cut short would be wrong."""
    from rich.measure import Measurement

    class Whole:
        def __rich_console__(self, console: Console, options: Any) -> Any:
            width = Measurement.get(console, options.update(max_width=10_000), table).maximum
            yield from console.render(table, options.update(width=max(width, options.max_width)))

    to.print(Whole(), crop=False)


def figures_table(left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    """A table whose columns are never cut short: names on the left, figures on the right."""
    from rich.table import Table

    table = Table(header_style="dim", box=None, padding=(0, 1))
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def show_plan(to: Console, planned: dict[str, Any]) -> None:
    """What a run would do."""
    from rich.table import Table

    from gpupipe.data.report import counted

    table = Table(title="Plan", title_justify="left", header_style="dim", box=None, padding=(0, 2))
    for name in ("sector", "symbols", "rows", "train", "validation", "test"):
        table.add_column(name, justify="left" if name == "sector" else "right")
    for row in planned["sectors"]:
        table.add_row(row["sector"], *(f"{row[name]:,}" for name in ("symbols", "rows", "train", "validation", "test")))
    to.print(table)
    cut = planned["split"]
    to.print(
        f"{counted(planned['models'], 'model')}: {counted(len(planned['sectors']), 'sector')} x "
        f"{counted(planned['labels'], 'label')} x {_families(planned['families'])}, in "
        f"{counted(planned['units'], 'unit')} of work; {counted(planned['features'], 'feature')}"
    )
    for name, noun in (("walk_forward", "walk-forward"), ("cpcv", "combinatorial purged cross-validation")):
        if name in planned:
            _folds_table(to, noun, planned[name])
    to.print(
        f"train from {cut['train_from']}, validation from {cut['validation_from']}, "
        f"sealed test {cut['test_from']} to {cut['test_to']}"
    )
    if "placement" in planned:
        _placement_table(to, planned["placement"])
    _memory_table(to, planned)


def _placement_table(to: Console, stages: dict[str, Any]) -> None:
    """The device of each stage, and why."""
    from rich.table import Table

    table = Table(title="Where stages are fitted", title_justify="left", header_style="dim", box=None, padding=(0, 2))
    for name in ("stage", "device", "why"):
        table.add_column(name)
    for name, stage in stages.items():
        table.add_row(name, stage["device"], stage["reason"])
    to.print(table)


def _memory_table(to: Console, planned: dict[str, Any]) -> None:
    """What every plan of memory would hold, and which is taken."""
    from rich.table import Table

    on_device = any(memory_plan["device_bytes"] for memory_plan in planned["memory_plans"])
    table = Table(title="Peak memory, about", title_justify="left", header_style="dim", box=None, padding=(0, 2))
    of_device = ["GiB on the device", "--device-memory from"] if on_device else []
    for name in ("", "plan", "GiB", "--memory from", *of_device, "what it does"):
        table.add_column(name, justify="right" if "GiB" in name or "from" in name else "left")
    for memory_plan in planned["memory_plans"]:
        mark = "->" if memory_plan["plan"] == planned["memory_plan"] else ""
        names = ("bytes", "memory", *(("device_bytes", "device_memory") if on_device else ()))
        table.add_row(
            mark, memory_plan["plan"], *(f"{memory_plan[name] / 2**30:.2f}" for name in names), memory_plan["about"]
        )
    to.print(table)


def _folds_table(to: Console, noun: str, folds: list[dict[str, Any]]) -> None:
    """Rows and dates of every fold of a plan."""
    from rich.table import Table

    table = Table(title=f"Folds, {noun}", title_justify="left", header_style="dim", box=None, padding=(0, 2))
    table.add_column("fold", no_wrap=True)
    for name in ("train", "validation", "test"):
        table.add_column(name, justify="right")
    table.add_column("tested dates")
    for fold in folds:
        dates = ", ".join(" to ".join(ends) for ends in fold["test"] if ends)
        table.add_row(fold["name"], *(f"{fold['rows'][part]:,}" for part in ("train", "validation", "test")), dates)
    to.print(table)


def _families(names: list[str]) -> str:
    return f"{len(names)} {'family' if len(names) == 1 else 'families'} ({', '.join(names)})"
