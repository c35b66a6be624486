"""The command `gpupipe export`."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import Any

from gpupipe.runtime.errors import UserError

REAL_ROWS = 2000  # of each sector, spread over its time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe export`."""
    parser.add_argument("out", metavar="OUT", help="the --out of a finished run")
    parser.add_argument("--to", required=True, metavar="DIR", help="where the .onnx files and their manifest go")
    parser.add_argument("--sectors", default="all", help="all, or names separated by commas")
    parser.add_argument("--horizons", help="bars, as 1,2,5 (default: all)")
    parser.add_argument("--thresholds", help="fractions, as 0.05,0.10 (default: all)")
    parser.add_argument("--models", help="families, separated by commas (default: all)")
    parser.add_argument("--data", help="as for gpupipe run: check on rows of these data too, beside made-up ones")
    parser.add_argument("--sector-map", help="as for gpupipe run")
    parser.add_argument("--timeframe", help="as for gpupipe run")
    parser.add_argument("--adjusted", action="store_true", help="as for gpupipe run")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON, and nothing else")


def run(chosen: argparse.Namespace) -> int:
    """Export and say so; 1 where a file did not pass its check. UserError for what the user must mend."""
    from gpupipe.artifacts.load import load
    from gpupipe.artifacts.onnx import export
    from gpupipe.artifacts.onnx.checking import CHECK_ROWS
    from gpupipe.cli.console import console, live
    from gpupipe.cli.run import _numbers, _words
    from gpupipe.runtime.device import pick

    export.require()
    wanted = export.Wanted(
        None if chosen.sectors == "all" else _words(chosen.sectors),
        {
            "horizon": _numbers(chosen.horizons, int, "--horizons"),
            "threshold": _numbers(chosen.thresholds, float, "--thresholds"),
        },
        _words(chosen.models),
    )  # fmt: skip
    into = pathlib.Path(chosen.to)
    if into.exists() and not into.is_dir():
        raise UserError(f"--to {into} is a file, expected a folder")
    models = load(chosen.out)
    labels = export.choose(models, wanted)
    n = sum(len(families) for by in labels.values() for families in by.values())
    to = console(chosen.quiet or chosen.json)
    rows = _real_rows(chosen, models, set(labels), to)
    with live(to, pick("cpu")) as listener:
        listener.stage("exporting")
        n_labels = len({key for by in labels.values() for key in by})
        n_rows = sum(
            (CHECK_ROWS + len(rows.get(sector, ()))) * len(families)
            for sector, by in labels.items() for families in by.values()
        )  # fmt: skip
        listener.started({"units": n, "rows": n_rows, "sectors": len(labels), "labels": n_labels, "models": n})
        done = export.export(models, into, wanted, rows, listener.advanced)
    if chosen.json:
        print(json.dumps({"files": done.files, "failed": done.failed}, indent=1))
    size = sum(one["bytes"] for one in done.files.values())
    to.print(
        f"{len(done.files)} of {n} models in {into}, {size / 2**20:,.1f} MiB. onnxruntime says what they say, to "
        f"{done.largest_difference:.1e} of a probability, on {'real and ' if rows else ''}made-up rows."
    )
    for path, difference in done.failed.items():
        print(
            f"gpupipe: {path} differs from its model by {difference:.2g} (at most {export.TOLERANCE:g} is allowed), "
            "and was not written", file=sys.stderr,
        )  # fmt: skip
    return int(bool(done.failed))


def _real_rows(chosen: argparse.Namespace, models: Any, sectors: set[str], to: Any) -> dict[str, Any]:
    """Rows of --data by sector; none without it. UserError where no sector of theirs is exported."""
    import numpy as np

    from gpupipe.cli.console import show_data
    from gpupipe.data import load
    from gpupipe.runtime.device import pick

    if chosen.data is None:
        for option, value in (("--sector-map", chosen.sector_map), ("--timeframe", chosen.timeframe)):
            if value is not None:
                raise UserError(f"{option} is for --data, which was not given")
        return {}
    panel, report = load(
        chosen.data, chosen.sector_map, "all", pick("cpu"), timeframe=chosen.timeframe, adjusted=chosen.adjusted
    )
    show_data(to, report)
    found = {}
    for sector in sorted(sectors & set(panel.groups)):
        X = models.warm_features(panel.of_group(sector))
        some = np.unique(np.linspace(0, len(X) - 1, min(REAL_ROWS, len(X))).astype(int))
        if len(some):
            found[sector] = X[some]
    if not found:
        raise UserError(f"--data {chosen.data}: no row to check on, of {', '.join(sorted(sectors))}")
    return found
