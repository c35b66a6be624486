"""The command line: `gpupipe run` and all other commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gpupipe.runtime.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console command `gpupipe`; returns the exit code."""
    from gpupipe.cli import run

    return run.guarded(*command(arguments))


def command(arguments: Sequence[str] | None) -> tuple[Callable[[argparse.Namespace], int], argparse.Namespace]:
    """What does a command, and what it was asked for; it returns an exit code, or raises UserError or OSError."""
    from gpupipe import __version__
    from gpupipe.cli import backtest, doctor, export, ingest, nightly, run, scan

    parser = argparse.ArgumentParser(prog="gpupipe", description="From OHLCV bars to trained, verified models.")
    parser.add_argument("--version", action="version", version=f"gpupipe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    run.add_arguments(commands.add_parser("run", help="read, label, compute features, train, evaluate, publish"))
    tuned = commands.add_parser("tune", help="search settings by validation log-loss, and say what the best is worth")
    run.add_tune_arguments(tuned)
    backtest.add_arguments(commands.add_parser("backtest", help="act on a run's calls in its sealed test, after costs"))
    scan.add_arguments(commands.add_parser("scan", help="what a run's models say of every symbol's latest bar"))
    exported = commands.add_parser("export", help="a run's models as ONNX files, each checked in onnxruntime")
    export.add_arguments(exported)
    check = commands.add_parser("doctor", help="what is installed, which device would be used and why, what is missing")
    check.add_argument("--json", action="store_true", help="print JSON")
    features = commands.add_parser("features", help="list every feature with its formula, source and warm-up")
    features.add_argument("names", nargs="*", help="default, all, core, a family, a glob, a name")
    features.add_argument("--module", action="append", default=[], metavar="FILE", help="Python code with features")
    audit = commands.add_parser("audit", help="change the future, and see whether a feature or label before it moves")
    audit.add_argument("--features", nargs="+", default=[], metavar="NAME", help="as for gpupipe features")
    audit.add_argument("--module", action="append", default=[], metavar="FILE", help="Python code with your features")
    audit.add_argument("--data", default="demo", help="as for gpupipe run")
    audit.add_argument("--sector-map", help="as for gpupipe run")
    audit.add_argument("--symbols", type=int, default=60, help="how many symbols, spread over the data (default 60)")
    audit.add_argument("--json", action="store_true", help="print JSON")
    _add_upkeep(commands)
    shown = commands.add_parser("report", help="a finished run as one HTML file, OUT/report.html; or two side by side")
    shown.add_argument("out", metavar="OUT", help="the --out of a finished run")
    shown.add_argument("--compare", metavar="OUT2", help="another run, beside the first: OUT/compared.html")
    shown.add_argument("--to", metavar="FILE", help="with --compare: write the page there")
    ingest.add_arguments(commands.add_parser("ingest", help="append new bars to a local store of Parquet"))
    nightly.add_arguments(commands.add_parser("nightly", help="ingest, train what is stale, backtest, scan, report"))
    chosen = parser.parse_args(arguments)
    work: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": run.do_run, "tune": run.do_tune, "backtest": backtest.run, "scan": scan.run, "report": _report,
        "export": export.run,
        "doctor": lambda chosen: doctor.run(as_json=chosen.json), "ingest": ingest.run, "audit": _audit,
        "features": _features, "status": run.status, "verify": _upkeep, "clean": _upkeep, "nightly": nightly.run,
    }  # fmt: skip
    return work[chosen.command], chosen


def _add_upkeep(commands: Any) -> None:
    """Give a parser the commands that look after an OUT."""
    from gpupipe.cli import run

    asked = commands.add_parser("status", help="which units of a run are done, stale and missing in an OUT")
    run.add_status_arguments(asked)
    verified = commands.add_parser("verify", help="recompute every checksum of an OUT, and name what was altered")
    cleaned = commands.add_parser("clean", help="remove from an OUT what nothing refers to")
    cleaned.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    for one in (verified, cleaned):
        one.add_argument("out", metavar="OUT", help="the --out of a run")
        one.add_argument("--json", action="store_true", help="print JSON")


def _report(chosen: argparse.Namespace) -> int:
    from gpupipe import report

    if chosen.to is not None and chosen.compare is None:
        raise UserError("--to is for --compare: the report of one run is OUT/report.html")
    compared = chosen.compare is not None
    print(report.compare(chosen.out, chosen.compare, chosen.to) if compared else report.write(chosen.out))
    return 0


def _upkeep(chosen: argparse.Namespace) -> int:
    """`gpupipe verify`, with exit code 1 if something is not as it was written, and `gpupipe clean`."""
    from gpupipe.pipeline import upkeep

    found: upkeep.Verified | upkeep.Removed
    if chosen.command == "verify":
        found = upkeep.verify(chosen.out)
    else:
        found = upkeep.clean(chosen.out, chosen.dry_run)
        if not chosen.json:
            print("would remove" if chosen.dry_run else "removed", end=" ")
    print(upkeep.as_json(found) if chosen.json else upkeep.text_of(found))
    return int(isinstance(found, upkeep.Verified) and bool(found.wrong))


def _columns(names: list[str], modules: list[str]) -> tuple[str, ...]:
    """The features asked for and those of the user's files; the default set where neither is named."""
    from gpupipe.features.formulas.registry import load_modules
    from gpupipe.features.matrix import feature_names

    own = [name for module in load_modules(modules) for name in module.features]
    try:
        return feature_names([*names, *own] or "default")
    except ValueError as error:
        raise UserError(str(error)) from None


def _features(chosen: argparse.Namespace) -> int:
    from rich.table import Table

    from gpupipe.cli.console import console
    from gpupipe.features.matrix import feature_table

    columns = set(_columns(chosen.names, chosen.module))
    table = Table("name", "family", "formula", "source", "warm-up", box=None, header_style="dim")
    for info in feature_table():
        if info.name in columns:
            table.add_row(info.name, info.family, info.formula, info.source, str(info.warm_up_bars))
    console(quiet=False).print(table)
    return 0


def _audit(chosen: argparse.Namespace) -> int:
    """Exit code 0 if nothing looks ahead, 1 if something does; UserError if it cannot be looked at."""
    import json

    import numpy as np
    from rich.table import Table

    from gpupipe.cli.console import console
    from gpupipe.data import load
    from gpupipe.data.report import counted
    from gpupipe.dataset.audit import audit
    from gpupipe.runtime.device import pick

    if chosen.symbols < 1:
        raise UserError(f"--symbols {chosen.symbols}: expected 1 or more")
    columns = _columns(chosen.features, chosen.module)
    panel, _ = load(chosen.data, chosen.sector_map, "all", pick("cpu"))
    some = np.unique(np.linspace(0, panel.n_symbols - 1, min(chosen.symbols, panel.n_symbols)).astype(int))
    panel = panel.where([k in set(some) for k in range(panel.n_symbols)])
    found = audit(panel, columns)
    leaks = [one.name for one in found if one.n_changed]
    unseen = [one.name for one in found if not one.n_compared]
    if chosen.json:
        print(json.dumps([{**one.__dict__, "clean": one.clean} for one in found], indent=1))
    else:
        to = console(quiet=False)
        table = Table("column", "kind", "values compared", "changed", "", box=None, header_style="dim")
        for one in sorted(found, key=lambda one: one.clean):
            note = one.where or ("" if one.n_compared else "nothing to compare")
            table.add_row(one.name, one.kind, f"{one.n_compared:,}", f"{one.n_changed:,}", note)
        to.print(table)
        if leaks:
            to.print(f"{len(leaks)} of {len(found)} columns LOOK AHEAD: {', '.join(leaks)}")
        elif not unseen:
            where = f"{counted(panel.n_rows, 'row')} of {counted(len(some), 'symbol')}"
            to.print(f"None of {len(found)} columns looks ahead, on {where}.")
    if unseen and not leaks:
        raise UserError(f"nothing to compare for {', '.join(unseen)}: audit them on data with more bars")
    return int(bool(leaks))


if __name__ == "__main__":
    sys.exit(main())
