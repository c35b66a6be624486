"""The tuning job from a Panel to OUT/tuned.toml and OUT/tuning.json: prepare, run the studies, write."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import pathlib
import shutil
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpupipe.artifacts.summary import Skipped
from gpupipe.config import Config, ConfigError, with_table
from gpupipe.data import DataReport, data_hash
from gpupipe.data.panel import Panel
from gpupipe.estimators.training_set import TrainingSet
from gpupipe.features.formulas.registry import load_modules
from gpupipe.kernels.cores import available_cores
from gpupipe.pipeline import job
from gpupipe.pipeline.kernels_ready import ready
from gpupipe.pipeline.listener import Listener, logging_too
from gpupipe.runtime import libraries, memory, run_log
from gpupipe.runtime.device import Device
from gpupipe.runtime.task_graph import in_parallel
from gpupipe.store import fingerprint
from gpupipe.store.content_store import FORMAT, Store, dump_json, sha256_of, write_atomic
from gpupipe.training import placement, planning, prepare, search
from gpupipe.training.context import TrainingContext
from gpupipe.training.groups import final_training_set, groups_with_enough, pools
from gpupipe.training.recipe import Recipe
from gpupipe.training.search import Search, Study

log = logging.getLogger("gpupipe")

STUDIES, TUNED, JSON = "studies.sqlite", "tuned.toml", "tuning.json"
PER = ("sector", "label")
ABOUT = ("trials", "per", "pruner", "accept", "studies_file", "data_hash")  # of tuning.json, for tuned.toml and summary
MAY_BE_UNKNOWN = (
    "deflated_gain", "preset_gain_by_period", "overfitting", "deflated_sharpe", "deflated_sharpe_over_preset",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """The options of a tuning job.

    trials: number of trials of each study.
    per: "sector" has a study for each sector, whose values all its labels share; "label" has a study for each label of
        a sector. Estimators with pooled studies have one study over all sectors and labels.
    families: names of the tuned families; None for the families of the settings that can be tuned.
    accept: "deflated" or "best", the rule that chooses between the best trial and the preset (`search.chosen`).

        >>> Wanted(trials=30).per
        'sector'
    """

    trials: int
    per: str = "sector"
    families: tuple[str, ...] | None = None
    pruner: str = "median"
    accept: str = "deflated"

    def __post_init__(self) -> None:
        def require(met: bool, name: str, value: Any, expected: str) -> None:
            if not met:
                raise ConfigError(f"{name} {value}: expected {expected}")

        require(self.trials >= 1, "trials", self.trials, "1 or more")
        require(self.per in PER, "per", self.per, " or ".join(PER))
        require(self.pruner in search.PRUNERS, "pruner", self.pruner, " or ".join(search.PRUNERS))
        require(self.accept in search.ACCEPT, "accept", self.accept, " or ".join(search.ACCEPT))
        for family in self.families or ():
            require(family in search.searched(), "family", family, f"one of {', '.join(search.searched())}")

    def families_of(self, settings: Config) -> tuple[str, ...]:
        """The families to tune. Raises ConfigError without any, or where the settings do not train a pooled stage."""
        if settings.split.cpcv:
            raise ConfigError("split.cpcv tests rows that tuning has seen: leave it out, or use --walk-forward")
        alone = settings.training.pool == "none"
        families = self.families or tuple(
            name
            for name in settings.training.models
            if name in search.searched() and not (alone and name in search.pooled_only())
        )
        if alone and set(families) & set(search.pooled_only()):
            pooled = " and ".join(sorted(set(families) & set(search.pooled_only())))
            raise ConfigError(
                f"{pooled}: tuned over all sectors at once, which training.pool = none does not train; leave them out "
                "of --family"
            )
        if not families:
            raise ConfigError(
                f"nothing to tune in {', '.join(settings.training.models)}: give one of {', '.join(search.searched())}"
            )
        return families


def tune(
    workload: Recipe,
    panel: Panel,
    report: DataReport | None,
    settings: Config,
    wanted: Wanted,
    out: str | os.PathLike[str],
    options: job.JobOptions | None = None,
    listener: Listener | None = None,
) -> tuple[dict[str, Any], Config]:
    """Run every study up to its number of trials; returns the content of OUT/tuning.json, and the tuned settings.

    Only training and validation rows of the single split are read, also where walk_forward moves its origin: all rows
    that a run tests are later. Unfinished studies are resumed, and finished studies are read again.
    options: jobs, limits and wait_s are used.
    Raises UserError with the fix.
    """
    options, listener = options or job.JobOptions(), listener or Listener()
    placement.check(settings, panel.device)
    families = wanted.families_of(settings)
    single = settings.replace(split=dataclasses.replace(settings.split, walk_forward=0, cpcv=()))
    store, modules = Store(out), load_modules(single.features.modules)
    digest = report.data_hash if report else data_hash(panel)
    plain = single.as_dict()
    rows_key = sha256_of([digest, *(plain[name] for name in ("labels", "split") if name in plain)])
    roots = ("gpupipe.pipeline.tune_job", workload.place.partition(":")[0])
    key = job.run_key(digest, _deciding(workload, single), panel.device, modules, roots)
    jobs = options.jobs or available_cores()
    plan, reason = planning.memory_plan(workload, panel, single, jobs, options.limits)
    jobs = plan.jobs or jobs
    tuning = _Tuning(workload, panel, single, wanted, families, store, rows_key, key, jobs, plan)
    with (
        store.lock("--out", options.wait_s, job.waiting(listener, store)),
        run_log.opened(store.out, **job.first_event(panel, report, single, key, jobs), tuning=True),
    ):
        if reason:
            log.warning("%s", reason)
        logged = logging_too(listener)
        with ready(workload.kernels_of(single), panel.device, logged):
            results, skipped = tuning.run(logged)
        tuned = with_results(workload, settings, results)
        whole = {
            "format": FORMAT, "studies": results, "trials": wanted.trials, "per": wanted.per, "pruner": wanted.pruner,
            "accept": wanted.accept, "studies_file": STUDIES, "skipped": [dataclasses.asdict(skip) for skip in skipped],
            "settings": single.as_dict(), "data_hash": digest, "versions": fingerprint.versions(),
        }  # fmt: skip
        write_atomic(store.out / TUNED, _toml(single.preset, whole).encode())
        write_atomic(store.out / JSON, dump_json(whole))
        shutil.rmtree(store.cache, ignore_errors=True)
    return json.loads(dump_json(whole)), tuned


@dataclass(frozen=True)
class _Tuning:
    """The inputs of a tuning job, with its keys and its memory plan; see `Search`."""

    workload: Recipe
    panel: Panel
    settings: Config
    wanted: Wanted
    families: tuple[str, ...]
    store: Store
    rows_key: str
    key: str
    jobs: int
    plan: memory.Plan

    def run(self, listener: Listener) -> tuple[list[dict[str, Any]], list[Skipped]]:
        """Prepare the training sets and run their studies; returns results with choices, and skipped labels."""
        listener.stage("features and labels")
        sets, skipped, device_of = self._training_sets()
        settings, wanted, minimum = self.settings, self.wanted, self.settings.training.min_positives
        studies = [search.studies_of(item, self.families, wanted.per, minimum) if item else [] for item in sets]
        target = self.workload.target(settings)
        listener.started(
            {
                "units": sum(map(len, studies)) * wanted.trials,
                "rows": self.panel.n_rows,
                "sectors": len(self.panel.groups),
                "labels": len(target.names),
                "models": 0,
            }
        )
        listener.stage("tuning")
        period = max(search.PERIOD_DATES, *target.horizon_rows)
        results: list[dict[str, Any]] = []
        with search.storage_in(self.store.out / STUDIES) as storage:
            for training_set, set_studies in zip(sets, studies, strict=True):
                if training_set is not None:
                    searcher = Search(
                        training_set, settings, storage, self.rows_key, self.key, wanted.trials, wanted.pruner, period,
                        listener.advanced, device_of,
                    )  # fmt: skip
                    results += _search(searcher, set_studies, self.jobs)
        return [search.chosen(result, wanted.accept) for result in results], skipped

    def _training_sets(self) -> tuple[list[TrainingSet | None], list[Skipped], Callable[[str], Device]]:
        """The training set of each pool, None where it has too few positives; skipped groups and labels; devices."""
        settings, cache = self.settings, self.store.cache if self.plan.files else None
        prepared = prepare.prepare(self.workload, self.panel, settings, cache)
        context = TrainingContext(
            prepared.datasets, prepared.splits, prepared.folds.published, settings, self.store, self.key,
            self.panel.device, self.jobs, cache, self.plan,
        )  # fmt: skip
        context.placement = placement.of_run(context)
        enough, skipped = groups_with_enough(context)
        sets = [final_training_set(context, groups) for groups in pools(settings, enough)]
        skipped += [skip for _, _, set_skipped in sets for skip in set_skipped]
        return [item for item, _, _ in sets], skipped, context.device_of


def _deciding(workload: Recipe, settings: Config) -> Config:
    """The settings without values that no trial depends on: the list of models, and values of an earlier tuning."""
    training = dataclasses.replace(settings.training, models=workload.catalogue().default_models)
    return settings.replace(training=training, tuned=())


def _search(searcher: Search, studies: Sequence[Study], jobs: int) -> list[dict[str, Any]]:
    """Run the studies over all groups in turn, because each uses all cores; then the groups' studies in parallel."""
    from threadpoolctl import threadpool_limits

    libraries.load()

    def search_group(group: str) -> list[dict[str, Any]]:
        return [searcher.run(study) for study in studies if study.sector == group]

    with threadpool_limits(1, "blas"):
        results = [searcher.run(study) for study in studies if not study.sector]
        groups = list(dict.fromkeys(study.sector for study in studies if study.sector))
        for group_results in in_parallel([functools.partial(search_group, group) for group in groups], jobs):
            results += group_results
    return results


def with_results(workload: Recipe, settings: Config, results: Sequence[dict[str, Any]]) -> Config:
    """The settings with the values of each accepted study, and without earlier tuned values of the other studies."""
    kept = {(result["sector"], result["label"], result["section"]) for result in results if not result["accepted"]}
    tuned = tuple(item for item in settings.tuned if (item.sector, item.label, item.section) not in kept)
    return with_table(workload.catalogue(), settings.replace(tuned=tuned), _table(results))


def _table(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Values of the accepted studies, nested like the tables of a gpupipe.toml."""
    table: dict[str, Any] = {}
    for result in results:
        if not result["accepted"]:
            continue
        node = table
        for name in ("tuned", result["sector"], result["label"]) if result["sector"] else ():
            node = node.setdefault(name, {}) if name else node
        node[result["section"]] = result["best"]
    return table


def section(tuning: dict[str, Any], settings: Config, data_hash: str) -> dict[str, Any]:
    """The section "tuning" of a run's summary: the result of `tune` or `provenance`, compared with the run.

    same_data: whether the run has the data of the tuning. Otherwise trials may have seen rows that the run tests.
    in_use, of each study: whether the run's settings have its chosen values; later settings may override them.
    """
    studies = []
    for study in tuning["studies"]:
        stage = settings.for_label(study["section"], study["sector"], study["label"])
        in_use = all(getattr(stage, name) == value for name, value in study["chosen"].items())
        studies.append({**study, "in_use": in_use})
    about = {name: tuning[name] for name in ABOUT}
    whole = {**about, "same_data": tuning["data_hash"] == data_hash, "studies": studies,
             "trials_tried": sum(study["trials"]["tried"] for study in studies)}  # fmt: skip
    return json.loads(dump_json(whole))


def provenance(files: Sequence[str | os.PathLike[str]]) -> dict[str, Any] | None:
    """The tables [tuning] of configuration files, which describe the studies behind their values; None without one.

    A study in a later file replaces the same study in an earlier file.
    """
    tables = [tomllib.loads(pathlib.Path(file).read_text(encoding="utf-8")).get("tuning") for file in files]
    given = [table for table in tables if table]
    if not given:
        return None
    for table in given:
        if not isinstance(table, dict) or not {*ABOUT, "studies"} <= set(table):
            names = ", ".join(map(str, files))
            raise ConfigError(f"[tuning] of {names} is not what gpupipe tune wrote: delete it")
    studies = {
        (study["section"], study["sector"], study["label"]): study for table in given for study in table["studies"]
    }
    return {**given[-1], "studies": [{**dict.fromkeys(MAY_BE_UNKNOWN), **study} for study in studies.values()]}


def _toml(preset: str, whole: dict[str, Any]) -> str:
    """The text of tuned.toml: tables of values with their gains, and a table [tuning] for the summary of a run."""
    lines = [
        "# Written by gpupipe tune, for gpupipe run --config. Gains are of validation log-loss over the class prior's.",
        "",
        f"preset = {json.dumps(preset)}",
    ]
    for study in whole["studies"]:
        names = ("tuned", study["sector"], study["label"], study["section"]) if study["sector"] else (study["section"],)
        deflated = f", deflated {100 * study['deflated_gain']:.2f} %" if study["deflated_gain"] is not None else ""
        table = f"[{'.'.join(_quoted(name) for name in names if name)}]"
        lines += [
            "",
            f"# best of {study['trials']['tried']} trials: {100 * study['best_gain']:.2f} %{deflated}, "
            f"preset {100 * study['preset_gain']:.2f} %",
        ]
        if study["accepted"]:
            lines += [table, *(f"{name} = {value!r}" for name, value in sorted(study["best"].items()))]
        else:
            lines.append(f"# {table} keeps the preset's values, which are not worse on dates that did not choose")
    lines += ["", "[tuning]  # where the values come from, for summary.json; it changes nothing"]
    lines += [f"{name} = {_value(whole[name])}" for name in ABOUT]
    for study in whole["studies"]:
        lines += ["", "[[tuning.studies]]"]
        lines += [f"{name} = {_value(value)}" for name, value in study.items() if value is not None]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """A string, number, bool, or dict of these, in TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(name)} = {_value(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value) if isinstance(value, (str, bool)) else repr(value)


def _quoted(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def read(out: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The content of OUT/tuning.json; None without one."""
    path = pathlib.Path(out) / JSON
    return json.loads(path.read_bytes()) if path.exists() else None
