"""What the user sees while a command works: progress, the data and the verdict on them, the device."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gpupipe.cli.plain_console import plain_console, styled
from gpupipe.data import HEADER, DataReport, summary, table_rows
from gpupipe.data.report import counted, counted_over
from gpupipe.kernels import notice
from gpupipe.pipeline.listener import Listener
from gpupipe.runtime.device import Device

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 110
DETAIL_S = 20.0  # seconds between lines on how far a long task is, in a pipe
INDENT = 8  # columns, of what stands under a title


def console(quiet: bool) -> Console:
    """Standard output for people; nothing at all if quiet.

    While it is in use, it also says once that this process compiles kernels.
    """
    console = plain_console(sys.stdout, quiet=quiet)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH  # a pipe has no width, and tables are there to be read

    in_use = weakref.ref(console)

    @functools.cache
    def say_once() -> None:
        if (to := in_use()) is not None:
            to.print("compiling kernels, once", style="dim")

    notice.compiling = lambda name: say_once()
    return console


@contextlib.contextmanager
def live(to: Console, device: Device) -> Iterator[Listener]:
    """A listener that draws progress where a person looks, and writes a line now and then into a pipe."""
    if to.quiet:
        yield Listener()
    elif not to.is_terminal:
        yield _lines(to)
    else:
        bar = _Bar(to, device)
        with bar.progress:
            yield Listener(bar.started, bar.advanced, bar.stage, bar.detail)


class _Bar:
    """Progress as a bar: stage and task, how many tasks are done, rows a second, and the memory that is held."""

    def __init__(self, to: Console, device: Device) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
            MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(),
            TextColumn("{task.fields[state]}", style="dim", markup=False), console=to, transient=True,
        )  # fmt: skip
        self._device, self._began, self._lock = device, time.perf_counter(), threading.Lock()
        self._totals = dict.fromkeys(("units", "rows", "sectors", "labels", "models"), 0)
        self._n_finished, self._stage = 0, "preparing"
        self._task = self.progress.add_task("preparing", total=None, state=device.name)

    def started(self, totals: dict[str, int]) -> None:
        """See Listener."""
        self._totals.update(totals)
        self.progress.update(self._task, total=totals["units"], state=self._state())

    def advanced(self, text: str) -> None:
        """See Listener."""
        with self._lock:
            self._n_finished += 1
        parts = text.split("/")
        task = f"{parts[2]} · {parts[3]} · {parts[1]}" if len(parts) == 4 else text
        self.progress.update(self._task, advance=1, description=f"{self._stage}: {task}", state=self._state())

    def stage(self, text: str) -> None:
        """See Listener."""
        self._stage = text
        self.progress.update(self._task, description=text, state=self._state())

    def detail(self, text: str) -> None:
        """See Listener."""
        self.progress.update(self._task, description=f"{self._stage}: {text}", state=self._state())

    def _state(self) -> str:
        totals = self._totals
        peak = self._device.peak_bytes()
        memory = self._device.kind if peak is None else f"{self._device.kind} · {peak / 2**30:.2f} GiB"
        if not self._n_finished or not totals["models"]:
            return memory
        share = self._n_finished / totals["units"]
        rate = totals["rows"] * share / max(1e-9, time.perf_counter() - self._began)
        extent = f"{counted(totals['sectors'], 'sector')} x {counted(totals['labels'], 'label')}"
        return f"{extent}, {totals['models'] * share:.0f}/{totals['models']} models · {rate:,.0f} rows/s · {memory}"


def _lines(to: Console) -> Listener:
    """Progress as plain lines, with the seconds since it began: each stage, and each tenth of the units of work."""
    began, lock = time.perf_counter(), threading.Lock()
    units, finished, last_shown = 0, 0, began

    def say(text: str) -> None:
        to.print(f"{time.perf_counter() - began:8.1f} s  {text}")

    def started(counts: dict[str, int]) -> None:
        nonlocal units
        units = counts["units"]

    def advanced(text: str) -> None:
        nonlocal finished
        with lock:
            finished += 1
            if finished * 10 // units > (finished - 1) * 10 // units:
                say(f"{finished} of {counted(units, 'unit')} of work, {100 * finished // units} %")

    def detail(text: str) -> None:
        nonlocal last_shown
        with lock:
            if time.perf_counter() - last_shown < DETAIL_S:
                return
            last_shown = time.perf_counter()
        say(text)

    return Listener(started, advanced, say, detail)


def paragraph(to: Console, text: str, title: str = "") -> None:
    """Print a text under its title; every further line keeps the indent."""
    lines = textwrap.wrap(text, max(20, to.width - INDENT), break_long_words=False, break_on_hyphens=False)
    for k, line in enumerate(lines):
        to.print(styled(f"{'' if k else title:<{INDENT}}", "bold"), line, sep="", soft_wrap=True)


def show_data(to: Console, report: DataReport) -> None:
    """A description of the data, and the verdict on them."""
    from rich.table import Table

    paragraph(to, report.description, "Data")
    paragraph(to, f"{summary(report)}; {report.reader}")
    for note in report.notes:
        paragraph(to, note)
    if report.clean:
        paragraph(to, "validation found nothing to report")
        return
    paragraph(to, counted_over(report))
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for position, name in enumerate(HEADER):
        table.add_column(name, justify="right" if position in (2, 3) else "left", overflow="fold")
    for row in table_rows(report):
        table.add_row(*row)
    to.print(table)


def show_device(to: Console, device: Device) -> None:
    """The device that computes, and why."""
    paragraph(to, f"{device.kind} ({device.name}): {device.reason}", "Device")
