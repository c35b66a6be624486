"""The committed table of launches, waits, bytes, boosts and predicts of small jobs, by command and stage.

`python -m tests.support.stand_in.counts` runs the jobs that can run here and writes counts.json (networks need Torch,
the others CPython 3.12: so once on each). Look at what changed before it is committed: a number that rises is work that
a GPU waits for.
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
from collections import Counter
from typing import Any

from tests.support.stand_in import jobs

TABLE = pathlib.Path(__file__).with_name("counts.json")
# Families that share matrices, each made by the stage that comes first: whichever it is, their sum is the same.
TREES = ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest")
# The numbers of a command by kind and stage, as `Counts.by_stage`.
Numbers = dict[str, dict[str, dict[str, int]]]


def grouped(numbers: Numbers) -> Numbers:
    """The numbers with the stages of all families of trees as one, "trees"."""
    result: Numbers = {}
    for command, kinds in numbers.items():
        result[command] = {}
        for kind, stages in kinds.items():
            summed = result[command][kind] = {}
            for stage, n in stages.items():
                name = "trees" if stage in TREES else stage
                summed[name] = summed.get(name, 0) + n
    return result


def committed() -> dict[str, Numbers]:
    """The table: the numbers of each job, `grouped`."""
    table: dict[str, Numbers] = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    return table


def of_all_commands(counted: dict[str, Any], kind: str) -> dict[str, int]:
    """The numbers of a kind by stage, summed over the commands of a job."""
    summed: Counter[str] = Counter()
    for kinds in counted["commands"].values():
        summed.update(kinds[kind])
    return dict(summed)


def changes(expected: Numbers, counted: Numbers) -> tuple[list[str], list[str]]:
    """Lines for the numbers that have risen, and for those that have fallen; both are `grouped`."""
    before, now = _flat(expected), _flat(counted)
    lines = {key: f"{' | '.join(key)}: {before.get(key, 0):,} -> {now.get(key, 0):,}" for key in {*before, *now}}
    risen = [lines[key] for key in sorted(lines) if now.get(key, 0) > before.get(key, 0)]
    fallen = [lines[key] for key in sorted(lines) if now.get(key, 0) < before.get(key, 0)]
    return risen, fallen


def _flat(numbers: Numbers) -> dict[tuple[str, str, str], int]:
    return {
        (command, kind, stage): n
        for command, kinds in numbers.items()
        for kind, stages in kinds.items()
        for stage, n in stages.items()
    }


def main(names: list[str]) -> int:
    """Run the jobs of these names, or all, and write the table."""
    table: dict[str, Any] = committed()
    for name in names or [name for name in jobs.JOBS if not jobs.why_not(name)]:
        with tempfile.TemporaryDirectory() as folder:
            done = jobs.run_in_process(name, "cuda", pathlib.Path(folder))
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return done.returncode
            counted = grouped(jobs.counted_by(pathlib.Path(folder))["commands"])
        risen, fallen = changes(table.get(name, {}), counted)
        print(*risen, *fallen, sep="\n")
        table[name] = counted
    TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
