"""What a process on the stand-in did: launches, waits, bytes over the bus, boosts, by stage and by place."""

from __future__ import annotations

import json
import pathlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

ROOT = pathlib.Path(__file__).parents[3]
# Files through which everything on a device goes: the place of a call is the one that called them.
_LAYER = ("runtime/device.py", "kernels/compile.py", "kernels/gpu_launch.py")

LAUNCHES = "launches"  # of kernels
OPERATORS = "operators"  # of Torch, called one at a time: each is a launch or more on a GPU; none of a CUDA graph
WAITS = "waits"  # of the host for the device: copies to the host, scalars, synchronised streams
SIZES = "waits for a size"  # of CuPy for the number of rows of a result: boolean masks, flatnonzero, unique
TO_DEVICE, TO_HOST = "bytes to device", "bytes to host"
UNCOUNTED = "bytes that Device does not count"  # copies over the bus that gpupipe.runtime.device is not asked for
BOOSTS, PREDICTS = "boosts", "predicts"  # of XGBoost
NOTES = "notes"  # what a real GPU takes, and what may not be meant
KINDS = (LAUNCHES, OPERATORS, WAITS, SIZES, TO_DEVICE, TO_HOST, UNCOUNTED, BOOSTS, PREDICTS, NOTES)


def place() -> str:
    """Where gpupipe called from: file, line and function, the device layer left out; "" if not from gpupipe."""
    base = f"{ROOT / 'gpupipe'}/"
    frame = sys._getframe(1)
    while frame is not None:  # type: ignore[redundant-expr]
        name = frame.f_code.co_filename
        if name.startswith(base) and not name.endswith(_LAYER):
            return f"{name[len(base) :]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def stage() -> str:
    """The stage of gpupipe in force, as the ledger of its Device names it."""
    device = sys.modules.get("gpupipe.runtime.device")
    return device._stage.get() if device is not None else "other"


class Counts:
    """Numbers of a process by kind, stage, what and place.

    >>> counts = Counts()
    >>> counts.add(LAUNCHES, "labels.label_cube")
    >>> counts.by_stage()[LAUNCHES]
    {'other': 1}
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Counter[tuple[str, str, str, str]] = Counter()
        self.guards: list[Callable[[str, str], None]] = []  # of kind and what; each may refuse it

    def add(self, kind: str, what: str = "", n: int = 1) -> None:
        """Count n of a kind, in the stage in force and at the place in gpupipe that called."""
        for guard in self.guards:
            guard(kind, what)
        key = (kind, stage(), what, place())
        with self._lock:
            self._numbers[key] += n

    def clear(self) -> None:
        """Begin anew."""
        with self._lock:
            self._numbers.clear()

    def by_stage(self) -> dict[str, dict[str, int]]:
        """`{kind: {stage: number}}`; all kinds are there, and stages that have numbers."""
        table: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        with self._lock:
            for (kind, in_stage, _, _), n in sorted(self._numbers.items()):
                if n:
                    table[kind][in_stage] = table[kind].get(in_stage, 0) + n
        return table

    def records(self) -> list[tuple[str, str, str, str, int]]:
        """(kind, stage, what, place, number), the largest number of a kind first."""
        with self._lock:
            rows = [(*key, n) for key, n in self._numbers.items()]
        return sorted(rows, key=lambda row: (KINDS.index(row[0]), -row[4], row[1:4]))

    def write(self, file: pathlib.Path) -> None:
        """Write `by_stage` and `records` as JSON."""
        file.write_text(json.dumps({"by_stage": self.by_stage(), "records": self.records()}))


def report(counts: Counts, rows_of_kind: int = 30) -> Iterable[str]:
    """The lines of a report: each kind by stage, then by what and place."""
    table: Mapping[str, Mapping[str, int]] = counts.by_stage()
    for kind in KINDS:
        if not table[kind]:
            continue
        yield f"[{kind}] {sum(table[kind].values()):,}"
        yield from (f"  {n:>14,}  {name}" for name, n in sorted(table[kind].items(), key=lambda item: -item[1]))
        rows = [row for row in counts.records() if row[0] == kind]
        for _, in_stage, what, where, n in rows[:rows_of_kind]:
            yield f"    {n:>14,}  {' | '.join(filter(None, (in_stage, what, where)))}"
        if len(rows) > rows_of_kind:
            yield f"    {sum(row[4] for row in rows[rows_of_kind:]):>14,}  {len(rows) - rows_of_kind} other places"


COUNTS = Counts()  # of this process
