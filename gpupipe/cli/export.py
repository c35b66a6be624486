"""The command `gpupipe export`."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpupipe.cli.options import (
    ALL,
    DataRequest,
    add_data_arguments,
    add_output,
    data_request,
    numbers,
    words,
)
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.artifacts.onnx.export import Exported

REAL_ROWS = 2000  # of each sector, spread over its time


@dataclass(frozen=True)
class ExportRequest:
    """An export. out: a finished run.  to: the folder of the files.  The others: which models, all where None.

    data: rows to check on beside made-up ones; none where its source is None.

        >>> ExportRequest("OUT", "onnx", horizons=(1, 5)).folder
        'onnx'
    """

    out: str
    to: str
    data: DataRequest = field(default_factory=DataRequest)
    sectors: tuple[str, ...] | None = None
    horizons: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None
    models: tuple[str, ...] | None = None
    quiet: bool = False
    json: bool = False

    @property
    def folder(self) -> str:
        """Where it writes."""
        return self.to


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe export`."""
    parser.add_argument("out", metavar="OUT", help="the --out of a finished run")
    parser.add_argument("--to", required=True, metavar="DIR", help="where the .onnx files and their manifest go")
    parser.add_argument("--sectors", default=ALL, help="all, or names separated by commas")
    parser.add_argument("--horizons", help="bars, as 1,2,5 (default: all)")
    parser.add_argument("--thresholds", help="fractions, as 0.05,0.10 (default: all)")
    parser.add_argument("--models", help="families, separated by commas (default: all)")
    add_data_arguments(parser, "as for gpupipe run: check on rows of these data too, beside made-up ones")
    add_output(parser, "print what was written as JSON, and nothing else")


def request_of(chosen: argparse.Namespace) -> ExportRequest:
    """What the options ask for; UserError for options that mean nothing."""
    if chosen.data is None:
        for option, value in (("--sector-map", chosen.sector_map), ("--timeframe", chosen.timeframe)):
            if value is not None:
                raise UserError(f"{option} is for --data, which was not given")
    return ExportRequest(
        out=chosen.out,
        to=chosen.to,
        data=data_request(chosen),
        sectors=None if chosen.sectors == ALL else words(chosen.sectors),
        horizons=numbers(chosen.horizons, int, "--horizons"),
        thresholds=numbers(chosen.thresholds, float, "--thresholds"),
        models=words(chosen.models),
        quiet=chosen.quiet,
        json=chosen.json,
    )


def run(request: ExportRequest) -> int:
    """Export and say so; 1 where a file did not pass its check. UserError for what the user must mend."""
    from gpupipe.artifacts.load import load
    from gpupipe.artifacts.onnx import export
    from gpupipe.cli.console import console, live
    from gpupipe.runtime.device import pick

    export.require()
    wanted = export.Wanted(
        request.sectors, {"horizon": request.horizons, "threshold": request.thresholds}, request.models
    )
    into = pathlib.Path(request.to)
    if into.exists() and not into.is_dir():
        raise UserError(f"--to {into} is a file, expected a folder")
    models = load(request.out)
    labels = export.choose(models, wanted)
    to = console(request.quiet or request.json)
    rows = _real_rows(request.data, models, set(labels), to)
    totals = _totals(labels, rows)
    with live(to, pick("cpu")) as listener:
        listener.stage("exporting")
        listener.started(totals)
        exported = export.export(models, into, wanted, rows, listener.advanced)
    if request.json:
        print(json.dumps({"files": exported.files, "failed": exported.failed}, indent=1))
    _show(to, into, exported, totals["models"], bool(rows))
    return int(bool(exported.failed))


def _totals(labels: dict[str, dict[Any, Any]], rows: dict[str, Any]) -> dict[str, int]:
    """The counts of `Listener.started`."""
    from gpupipe.artifacts.onnx.checking import CHECK_ROWS

    n_models = sum(len(families) for by_label in labels.values() for families in by_label.values())
    n_rows = sum(
        (CHECK_ROWS + len(rows.get(sector, ()))) * len(families)
        for sector, by_label in labels.items()
        for families in by_label.values()
    )
    n_labels = len({label for by_label in labels.values() for label in by_label})
    return {"units": n_models, "rows": n_rows, "sectors": len(labels), "labels": n_labels, "models": n_models}


def _show(to: Console, into: pathlib.Path, exported: Exported, n_models: int, real: bool) -> None:
    """What was written, and on standard error what was not."""
    from gpupipe.artifacts.onnx.export import TOLERANCE

    size = sum(file["bytes"] for file in exported.files.values())
    to.print(
        f"{len(exported.files)} of {n_models} models in {into}, {size / 2**20:,.1f} MiB. onnxruntime predicts "
        f"what they predict, to {exported.largest_difference:.1e}, on {'real and ' if real else ''}made-up rows."
    )
    for path, difference in exported.failed.items():
        print(
            f"gpupipe: {path} differs from its model by {difference:.2g} (at most {TOLERANCE:g} is allowed), "
            "and was not written",
            file=sys.stderr,
        )


def _real_rows(data: DataRequest, models: Any, sectors: set[str], to: Console) -> dict[str, Any]:
    """Rows of the data by sector; none without data. UserError where no sector of theirs is exported."""
    import numpy as np

    from gpupipe.cli.console import show_data
    from gpupipe.runtime.device import pick

    if data.source is None:
        return {}
    panel, report = data.of_run(models.manifest).load(pick("cpu"))
    show_data(to, report)
    rows = {}
    for sector in sorted(sectors & set(panel.groups)):
        warm = models.warm_rows(panel.of_group(sector))
        spread = np.unique(np.linspace(0, warm.n - 1, min(REAL_ROWS, warm.n)).astype(int))
        if len(spread):
            rows[sector] = models.inputs(warm.take(spread))
    if not rows:
        raise UserError(f"--data {data.source}: no row to check on, of {', '.join(sorted(sectors))}")
    return rows
