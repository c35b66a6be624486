"""The job: `python -m gpupipe.run --sectors all`, which is `gpupipe run --sectors all`."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpupipe.config import FeatureSet
from gpupipe.runtime.errors import UserError

USER_ERROR = 2
ALL_WORKERS = -1  # of --spread without a number
TUNABLE = ("xgb_joint", "xgb_hist", "xgb_leafwise", "linear")  # of tuning.py


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the job."""
    add_shared_arguments(parser)
    parser.add_argument("--models", help="families, separated by commas; turbomode: the predecessor's six")
    parser.add_argument(
        "--walk-forward", nargs="?", type=int, const=4, metavar="N",
        help="train at N successive origins (default 4), test each on the time behind it; keep the last one's models",
    )  # fmt: skip
    parser.add_argument("--cpcv", metavar="N,K", help="combinatorial purged cross-validation, as 6,2: 15 trainings")
    parser.add_argument(
        "--warm-start", metavar="DIR", help="go on from the models of a finished run in DIR (may be --out) where it can"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="train in N processes; on CUDA a GPU each")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="train on this Dask cluster, as tcp://host:8786")
    parser.add_argument(
        "--spread", nargs="?", type=int, const=ALL_WORKERS, metavar="N",
        help="let each of N workers (default: --workers) hold the rows of some sectors only, and fit together",
    )  # fmt: skip
    parser.add_argument("--dashboard", action="store_true", help="serve Dask's dashboard, to this machine alone")
    parser.add_argument("--no-keep", action="store_true", help="keep nothing in --out that only a later run could use")
    parser.add_argument("--report", action="store_true", help="write OUT/report.html at the end, as gpupipe report")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop; nothing is written")
    parser.add_argument("--tune", type=int, metavar="N", help="first tune with N trials a study, as gpupipe tune does")
    parser.add_argument("--tune-per", default="sector", metavar="WHAT", help="a study for each sector or each label")
    parser.add_argument("--pruner", default="median", help="of --tune: median or hyperband")
    _add_accept(parser)
    parser.add_argument(
        "--mlflow", nargs="?", const="sqlite:///mlflow.db", metavar="URI",
        help="tell MLflow of the finished run: sqlite:///mlflow.db (default), file:FOLDER or http://HOST:PORT",
    )  # fmt: skip


def add_tune_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe tune`."""
    add_shared_arguments(parser)
    parser.add_argument("--trials", type=int, default=30, help="of each study, earlier sessions' too (default 30)")
    parser.add_argument("--per", default="sector", help="a study for each sector, or for each label of it")
    parser.add_argument("--family", help=f"families, separated by commas (default: {','.join(TUNABLE)})")
    parser.add_argument("--pruner", default="median", help="median or hyperband")
    _add_accept(parser)


def _add_accept(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accept", default="deflated", help="best: use a study's best trial whatever its deflated figure; deflated: "
        "keep the preset where that is not better (default)",
    )  # fmt: skip


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser what the job and its tuning have in common: data, settings, device, output."""
    parser.add_argument(
        "--data", help="Parquet, CSV(.gz), Arrow, SQLite file or folder; 'demo'; 'simulated[:symbols=..,bars=..]'"
    )
    parser.add_argument("--sector-map", help="CSV with columns symbol and sector")
    parser.add_argument("--timeframe", help="which bars, where the data hold several")
    parser.add_argument("--adjusted", action="store_true", help="scale prices by adj_close / close")
    parser.add_argument("--strict", action="store_true", help="whatever validation finds is an error")
    parser.add_argument("--sectors", default="all", help="all, or names separated by commas")
    parser.add_argument("--horizons", help="bars, as 1,2,5")
    parser.add_argument("--thresholds", help="fractions, as 0.05,0.10")
    parser.add_argument("--pool", choices=("all", "none"), help="train over all sectors first, or each alone")
    parser.add_argument("--preset", help="fast, balanced or quality (default: balanced, or the one in --config)")
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="a gpupipe.toml; later ones win")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="change one setting")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out", default="OUT", help="folder for everything that is made (default: OUT)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--jobs", type=int, help="trainings at the same time (default: the cores)")
    parser.add_argument("--memory", metavar="SIZE", help="as 8GiB: hold no more than that, by the plans of --dry-run")
    parser.add_argument("--device-memory", metavar="SIZE", help="the same of a GPU; caps its memory pool too")
    parser.add_argument(
        "--wait", nargs="?", type=float, const=float("inf"), default=0.0, metavar="SECONDS",
        help="where another run holds --out, wait for it (so long at most) instead of refusing",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, and nothing else")


def run(chosen: argparse.Namespace) -> int:
    """Do the job; 0, or 2 with one line on standard error for what the user must mend."""
    return guarded(do_run, chosen)


def tune(chosen: argparse.Namespace) -> int:
    """Tune alone: `gpupipe tune`; exit codes as of `run`."""
    return guarded(do_tune, chosen)


def guarded(job: Callable[[argparse.Namespace], int], chosen: argparse.Namespace) -> int:
    """Do a command; 2 with one line on standard error for what the user must mend."""
    from gpupipe.runtime import interrupts, run_log

    place = _place(chosen)
    line = "gpupipe: stopped" + (f"; the same command goes on where this one was ({place})" if place else "")
    with interrupts.stoppable(line):
        try:
            with run_log.recording():  # what was read and warned of before there is an OUT to log to
                return job(chosen)
        except UserError as error:
            return refuse(error)
        except OSError as error:  # anything else is our mistake: a traceback
            return refuse(UserError(_of_system(error, place)))
        except interrupts.Stopped as stopped:
            interrupts.flush()
            interrupts.end(stopped, line)  # threads are still at work, and what they would finish is not waited for
            raise
        except KeyboardInterrupt:
            print(f"\n{line}", file=sys.stderr)
            return 130


def _place(chosen: argparse.Namespace) -> str:
    """The folder that a command writes to; "" for one that only looks."""
    names = {"backtest": "models", "scan": "models", "ingest": "store", "export": "to"}
    return str(getattr(chosen, names.get(getattr(chosen, "command", "run"), "out"), None) or "")


def _of_system(error: OSError, out: str) -> str:
    """What the operating system refused, and what mends it."""
    reason = error.strerror or str(error)
    where = error.filename or out
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{out}: {reason}: make room on that disk and give the same command again, which goes on where this one "
            "was; or choose another --out"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{where}: {reason}: make it writable, or choose another --out"
    return str(error)


def refuse(error: Exception) -> int:
    """Say what the user must mend in one line on standard error; returns the exit code for it."""
    print(f"gpupipe: {' '.join(str(error).split())}", file=sys.stderr)
    return USER_ERROR


def do_run(chosen: argparse.Namespace) -> int:
    """The job itself; UserError for what the user must mend."""
    from gpupipe.artifacts import mlflow_tracking, summary
    from gpupipe.cli import console
    from gpupipe.pipeline import job
    from gpupipe.pipeline import tune_job as tuning_job
    from gpupipe.training import planning
    from gpupipe.workloads.equity import EQUITY

    settings = _settings_of_run(chosen)
    limits = _limits(chosen)
    wanted = None
    if chosen.tune is not None:
        if settings.training.spread:
            raise UserError("--tune and --spread: tuning needs all rows in one process; leave one of them out")
        wanted = tuning_job.Wanted(chosen.tune, chosen.tune_per, None, chosen.pruner, chosen.accept)
        wanted.families_of(settings)
    if chosen.mlflow is not None:
        mlflow_tracking.require(chosen.mlflow)
    if chosen.report:  # imported only then: it would cost every other run its import
        from gpupipe import report as report_page

        report_page.require()
    to = console.console(chosen.quiet or chosen.json)
    panel, report = _read(chosen, settings, to)
    if chosen.dry_run:
        planned = planning.plan(EQUITY, panel, settings, chosen.jobs, limits)
        if chosen.json:
            print(json.dumps(planned, indent=1))
        console.show_plan(to, planned)
        return 0
    tuning = tuning_job.provenance(chosen.config)
    if wanted:
        tuning, settings = _tuned(chosen, settings, wanted, panel, report, to)
    if tuning:
        tuning = tuning_job.section(tuning, settings, report.data_hash)
    with _workers(chosen, panel.device, to) as workers, console.live(to, panel.device) as listener:
        options = job.JobOptions(
            chosen.jobs, limits, tuning, chosen.warm_start, chosen.wait, not chosen.no_keep, workers
        )
        whole, worked = job.execute(EQUITY, panel, report, settings, chosen.out, options, listener)
    told = mlflow_tracking.track(chosen.mlflow, chosen.out, whole) if chosen.mlflow is not None else None
    if chosen.json:
        print((pathlib.Path(chosen.out) / summary.JSON).read_text(), end="")
    console.show_summary(to, whole, chosen.out)
    if chosen.report:
        to.print(f"Report: {report_page.write(chosen.out)}")
    if told:
        to.print(f"MLflow has it as run {told} of the experiment {mlflow_tracking.EXPERIMENT}, at {chosen.mlflow}.")
    if not worked:
        to.print(
            f"Nothing to do: {chosen.out} holds this run (same data, settings, code and versions); every file checked."
        )
    return 0


@contextlib.contextmanager
def _workers(chosen: argparse.Namespace, device: Any, to: Any) -> Iterator[Any]:
    """The cluster that is asked for, told to the user; None without one."""
    if not (chosen.workers or chosen.scheduler or chosen.dashboard):
        yield None
        return
    if chosen.workers < 0:
        raise UserError(f"--workers {chosen.workers}: expected 1 or more")
    if chosen.scheduler and chosen.jobs is not None:
        raise UserError("--scheduler and --jobs: workers of a cluster have threads of their own; leave one out")
    from gpupipe.runtime.task_graph import available_cores
    from gpupipe.training.distributed.cluster import cluster

    with cluster(
        device, chosen.scheduler, chosen.workers, chosen.jobs or available_cores(), chosen.dashboard
    ) as workers:
        to.print(f"Cluster: {len(workers.addresses)} workers of {workers.threads} threads", highlight=False)
        if workers.dashboard:
            to.print(f"Dashboard: {workers.dashboard}", highlight=False)
        yield workers


def _settings_of_run(chosen: argparse.Namespace) -> Any:
    return _settings(
        chosen, training__models=_words(chosen.models), split__walk_forward=chosen.walk_forward,
        split__cpcv=_numbers(chosen.cpcv, int, "--cpcv"), training__spread=_spread(chosen),
    )  # fmt: skip


def _spread(chosen: argparse.Namespace) -> int | None:
    if chosen.spread != ALL_WORKERS:
        return chosen.spread
    if not chosen.workers:
        raise UserError("--spread: say over how many workers, as --spread 3, or start them by --workers")
    return chosen.workers


def add_status_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe status`: OUT, and those of a run."""
    add_arguments(parser)
    parser.add_argument("of", metavar="OUT", help="the --out of a run; with --data and others: what that run would do")


def status(chosen: argparse.Namespace) -> int:
    """Say which units of OUT are done: `gpupipe status`."""
    from gpupipe.pipeline import upkeep

    panel, settings = None, None
    if chosen.data is not None:
        from gpupipe.cli import console

        chosen.out = chosen.of
        settings = _settings_of_run(chosen)
        panel, _ = _read(chosen, settings, console.console(quiet=True))
    from gpupipe.workloads.equity import EQUITY

    found = upkeep.status(chosen.of, EQUITY, panel, settings)
    print(upkeep.as_json(found) if chosen.json else upkeep.text_of(found))
    return 0


def do_tune(chosen: argparse.Namespace) -> int:
    """Tuning itself; UserError for what the user must mend."""
    from gpupipe.cli import console
    from gpupipe.pipeline import tune_job as tuning_job

    settings = _settings(chosen)
    families = _words(chosen.family)
    wanted = tuning_job.Wanted(
        chosen.trials, chosen.per, None if families is None else tuple(families), chosen.pruner, chosen.accept
    )  # fmt: skip
    wanted.families_of(settings)
    to = console.console(chosen.quiet or chosen.json)
    panel, report = _read(chosen, settings, to)
    _tuned(chosen, settings, wanted, panel, report, to)
    if chosen.json:
        print((pathlib.Path(chosen.out) / tuning_job.JSON).read_text(), end="")
    return 0


def _tuned(chosen: argparse.Namespace, settings: Any, wanted: Any, panel: Any, report: Any, to: Any) -> Any:
    """What was tuned, shown, and the settings with it."""
    from gpupipe.cli import console
    from gpupipe.pipeline.job import JobOptions
    from gpupipe.pipeline.tune_job import tune
    from gpupipe.workloads.equity import EQUITY

    with console.live(to, panel.device) as listener:
        options = JobOptions(jobs=chosen.jobs, limits=_limits(chosen), wait_s=chosen.wait)
        found, settings = tune(EQUITY, panel, report, settings, wanted, chosen.out, options, listener)
    console.show_tuning(to, found, chosen.out)
    return found, settings


def _settings(chosen: argparse.Namespace, **overrides: Any) -> Any:
    """The settings that the options ask for; refuses early what could not be done at the end."""
    from gpupipe.config import ConfigError
    from gpupipe.workloads import equity

    settings = equity.make(
        chosen.preset, chosen.config, chosen.set, seed=chosen.seed,
        labels__horizons=_numbers(chosen.horizons, int, "--horizons"),
        labels__thresholds=_numbers(chosen.thresholds, float, "--thresholds"),
        training__pool=chosen.pool, **overrides,
    )  # fmt: skip
    if chosen.jobs is not None and chosen.jobs < 1:
        raise ConfigError(f"--jobs {chosen.jobs}: expected 1 or more")
    _check_out(pathlib.Path(chosen.out))
    _check_features(settings.features)
    return settings


def _limits(chosen: argparse.Namespace) -> Any:
    """What --memory and --device-memory allow."""
    from gpupipe.runtime import memory

    host, device = (
        None if text is None else memory.size(text, option)
        for text, option in ((chosen.memory, "--memory"), (chosen.device_memory, "--device-memory"))
    )
    return memory.Limits(host, device)


def _read(chosen: argparse.Namespace, settings: Any, to: Any) -> Any:
    """The Panel and its report, told to the user with the device that it lies on."""
    from gpupipe.cli import console
    from gpupipe.data import load
    from gpupipe.runtime.device import pick

    device = pick(chosen.device, settings.ml.use_rmm, _limits(chosen).device)
    with to.status("reading") if to.is_terminal and not to.quiet else _nothing():
        panel, report = load(
            chosen.data, chosen.sector_map, chosen.sectors, device, strict=chosen.strict, timeframe=chosen.timeframe,
            adjusted=chosen.adjusted,
        )  # fmt: skip
    console.show_data(to, report)
    console.show_device(to, device)
    return panel, report


def _nothing() -> Any:
    return contextlib.nullcontext()


def _check_out(out: pathlib.Path) -> None:
    """Refuse early what could not be written at the end."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file, expected a folder")


def _check_features(features: FeatureSet) -> None:
    """Register the user's own features, and refuse names that stand for nothing."""
    from gpupipe.features.formulas.registry import FeatureError, load_modules
    from gpupipe.features.matrix import feature_names

    try:
        modules = load_modules(features.modules)
    except FeatureError as error:
        raise UserError(f"features.modules: {error}") from None
    try:
        chosen = feature_names(features.names)
    except ValueError as error:
        raise UserError(f"features.names: {error}") from None
    for module in modules:
        if not set(module.features) & set(chosen):
            raise UserError(
                f"features.modules: none of the features of {module.path} is among features.names; add them, as in "
                f'--set "features.names={",".join((*features.names, next(iter(module.features))))}"'
            )


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str | None, kind: type, option: str) -> list[Any] | None:
    try:
        return None if text is None else [kind(word) for word in text.split(",")]
    except ValueError:
        example = {"--cpcv": "6,2", "--horizons": "1,2,5"}.get(option, "0.05,0.10")
        raise UserError(f"{option} {text}: expected numbers separated by commas, as {example}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m gpupipe.run`."""
    parser = argparse.ArgumentParser(prog="python -m gpupipe.run", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
