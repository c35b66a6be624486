"""What a run and its tuning are asked for in common: data, settings, device, output."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpupipe.cli.options import (
    ALL,
    DataRequest,
    add_device,
    add_max_quarantined,
    add_no_sector,
    add_output,
    add_wait,
    data_request,
    numbers,
    words,
)
from gpupipe.config import PRESETS
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from gpupipe.config import Config, FeatureSet
    from gpupipe.data import DataReport
    from gpupipe.data.panel import Panel
    from gpupipe.runtime.memory import Limits

ALL_WORKERS = -1  # of --spread without a number
OUT = "OUT"
EQUITY = "gpupipe.workloads.equity:EQUITY"


@dataclass(frozen=True)
class SettingsRequest:
    """Which settings a job has; None where an option is left out.

    files: of --config.  assignments: of --set, "section.field=value".
    implied: assignments that files and --set override.  values: by "section__field", which override all others.
    workload: where the workload is, as `pipeline.workload.load` reads it. The others are the options of these names.

        >>> SettingsRequest("fast", assignments=("hist.rounds=40",), horizons=(1, 5)).settings().labels.horizons
        (1, 5)
    """

    preset: str | None = None
    files: tuple[str, ...] = ()
    assignments: tuple[str, ...] = ()
    seed: int | None = None
    horizons: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None
    pool: str | None = None
    models: tuple[str, ...] | None = None
    walk_forward: int | None = None
    cpcv: tuple[int, ...] | None = None
    spread: int | None = None
    place: tuple[str, ...] | None = None
    implied: tuple[str, ...] = ()
    values: tuple[tuple[str, Any], ...] = ()
    workload: str = EQUITY

    def settings(self) -> Config:
        """The settings of the job. ConfigError for what they cannot be."""
        from gpupipe.config import make
        from gpupipe.pipeline import workload

        catalogue = workload.load(self.workload).catalogue()
        options = {
            "seed": self.seed,
            "labels__horizons": self.horizons,
            "labels__thresholds": self.thresholds,
            "training__pool": self.pool,
            "training__models": self.models,
            "split__walk_forward": self.walk_forward,
            "split__cpcv": self.cpcv,
            "training__spread": self.spread,
            "training__place": self.place,
        }
        return make(
            catalogue, self.preset, self.files, self.assignments, self.implied, **{**options, **dict(self.values)}
        )


@dataclass(frozen=True)
class JobRequest:
    """What a run and its tuning have in common.

    jobs: trainings at the same time; the cores if None.  memory, device_memory: sizes, as "8GiB".
    wait_s: how long to wait where another run holds `out`.  quiet, json: what is printed.

        >>> JobRequest(memory="8GiB").limits().host == 8 << 30
        True
    """

    data: DataRequest = field(default_factory=DataRequest)
    asked: SettingsRequest = field(default_factory=SettingsRequest)
    out: str = OUT
    device: str = "auto"
    jobs: int | None = None
    memory: str | None = None
    device_memory: str | None = None
    wait_s: float = 0.0
    quiet: bool = False
    json: bool = False

    @property
    def silent(self) -> bool:
        """Whether nothing is shown to a person."""
        return self.quiet or self.json

    def settings(self) -> Config:
        """The settings; UserError early for what could not be done at the end."""
        from gpupipe.config import ConfigError

        settings = self.asked.settings()
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs {self.jobs}: expected 1 or more")
        out = pathlib.Path(self.out)
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out} is a file, expected a folder")
        _check_features(settings.features)
        if settings.training.place:
            from gpupipe.runtime.device import pick
            from gpupipe.training import placement

            placement.check(settings, pick(self.device, settings.ml.use_rmm, self.limits().device))
        return settings

    def limits(self) -> Limits:
        """What --memory and --device-memory allow."""
        from gpupipe.runtime import memory

        host, device = (
            None if text is None else memory.size(text, option)
            for text, option in ((self.memory, "--memory"), (self.device_memory, "--device-memory"))
        )
        return memory.Limits(host, device)

    def read(self, settings: Config, to: Console, kernels: Sequence[str] = ()) -> tuple[Panel, DataReport]:
        """The Panel and its report, shown to the user with the device that the Panel is on.

        kernels: names of those that other processes compile meanwhile, where they are not on disk.
        """
        from gpupipe.cli import console
        from gpupipe.runtime.device import pick

        device = pick(self.device, settings.ml.use_rmm, self.limits().device)
        if kernels:
            from gpupipe.kernels import ahead

            ahead.begin(kernels, architecture=device.architecture)
        with to.status("reading") if to.is_terminal and not to.quiet else contextlib.nullcontext():
            panel, report = self.data.load(device)
        console.show_data(to, report)
        console.show_device(to, device)
        return panel, report


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser what a run and its tuning have in common: data, settings, device, output."""
    parser.add_argument("--sector-map", help="CSV with columns symbol and sector")
    add_no_sector(parser, "symbols without a sector: an error (default), left out, or a sector of their own, other")
    parser.add_argument("--sectors", default=ALL, help="all, or names separated by commas")
    parser.add_argument(
        "--place", action="append", metavar="STAGE=DEVICE",
        help="fit a stage on cpu or cuda: random_forest=cpu, xgb_joint.pool=cuda (default: where it takes less time)",
    )  # fmt: skip
    add_arguments_of_any(parser, "sectors", PRESETS)


def add_arguments_of_any(parser: argparse.ArgumentParser, groups: str, presets: Sequence[str]) -> None:
    """Give a parser the options that jobs of all workloads have.

    groups: what models are trained for, in the plural.  presets: names of the workload's.
    """
    parser.add_argument(
        "--data", help="Parquet, CSV(.gz), Arrow, SQLite file or folder; 'demo'; 'simulated[:symbols=..,bars=..]'"
    )
    parser.add_argument("--timeframe", help="which bars, where the data hold several")
    parser.add_argument("--adjusted", action="store_true", help="scale by adj_close / close; volumes by its splits")
    parser.add_argument("--strict", action="store_true", help="whatever validation finds is an error")
    add_max_quarantined(parser)
    parser.add_argument("--horizons", help="bars, as 1,2,5")
    parser.add_argument("--thresholds", help="fractions, as 0.05,0.10")
    parser.add_argument("--pool", choices=("all", "none"), help=f"train over all {groups} first, or each alone")
    named = f"{', '.join(presets[:-1])} or {presets[-1]}"
    parser.add_argument("--preset", help=f"{named} (default: balanced, or the one in --config)")
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="a gpupipe.toml; later ones win")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="change one setting")
    add_device(parser)
    parser.add_argument("--out", default=OUT, help="folder for all results (default: OUT)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--jobs", type=int, help="trainings at the same time (default: the cores)")
    parser.add_argument("--memory", metavar="SIZE", help="as 8GiB: hold no more than that, by the plans of --dry-run")
    parser.add_argument("--device-memory", metavar="SIZE", help="the same of a GPU; caps its memory pool too")
    add_wait(parser, "another run holds --out")
    add_output(parser, "print the summary as JSON, and nothing else")


def job_request(chosen: argparse.Namespace) -> JobRequest:
    """What the options of `add_job_arguments`, and those of a run where there are such, ask for.

    Options that only some workloads have, such as --sector-map, are left as in `DataRequest` where there are none.
    """
    cpcv = getattr(chosen, "cpcv", None)
    asked = SettingsRequest(
        preset=chosen.preset,
        files=tuple(chosen.config),
        assignments=tuple(chosen.set),
        seed=chosen.seed,
        horizons=numbers(chosen.horizons, int, "--horizons"),
        thresholds=numbers(chosen.thresholds, float, "--thresholds"),
        pool=chosen.pool,
        models=words(getattr(chosen, "models", None)),
        walk_forward=getattr(chosen, "walk_forward", None),
        cpcv=numbers(cpcv, int, "--cpcv"),
        spread=_spread(chosen),
        place=None if (place := getattr(chosen, "place", None)) is None else tuple(place),
    )
    return JobRequest(
        data=data_request(chosen, getattr(chosen, "sectors", ALL), chosen.strict),
        asked=asked,
        out=chosen.out,
        device=chosen.device,
        jobs=chosen.jobs,
        memory=chosen.memory,
        device_memory=chosen.device_memory,
        wait_s=chosen.wait,
        quiet=chosen.quiet,
        json=chosen.json,
    )


def _spread(chosen: argparse.Namespace) -> int | None:
    spread: int | None = getattr(chosen, "spread", None)
    if spread != ALL_WORKERS:
        return spread
    if not chosen.workers:
        raise UserError("--spread: say over how many workers, as --spread 3, or start them by --workers")
    return int(chosen.workers)


def _check_features(features: FeatureSet) -> None:
    """Register the user's own features and columns from outside, and refuse names that stand for nothing."""
    from gpupipe.features import outside
    from gpupipe.features.formulas.registry import FeatureError, load_modules
    from gpupipe.features.matrix import feature_names

    try:
        modules = load_modules(features.modules)
    except FeatureError as error:
        raise UserError(f"features.modules: {error}") from None
    outside.register(features.names)
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
