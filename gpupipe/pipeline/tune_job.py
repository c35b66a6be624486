"""The tuning job from a Panel to OUT/tuned.toml and OUT/tuning.json: prepare, one study after the other, write."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import pathlib
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpupipe.config import Config, ConfigError, with_table
from gpupipe.data import DataReport, data_hash
from gpupipe.data.panel import Panel
from gpupipe.features.formulas.registry import load_modules
from gpupipe.pipeline import job
from gpupipe.pipeline.listener import Listener, logging_too
from gpupipe.runtime import run_log
from gpupipe.runtime.task_graph import available_cores, in_parallel
from gpupipe.store import fingerprint
from gpupipe.store.content_store import FORMAT, Store, dump_json, sha256, write_atomic
from gpupipe.training import planning, prepare, search
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
    """What is to be tuned.

    trials: for each study.  per: a study for each "sector", whose labels share what is found, or for each "label" of
    it; xgb_joint and linear have one study over all.  families: those of the settings if None.
    accept: "deflated" or "best", which trial's values are used (`search.chosen`).
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
        """The families that are tuned; ConfigError if there are none, or if they need what the settings do not do."""
        if settings.split.cpcv:
            raise ConfigError("split.cpcv tests rows that tuning has seen: leave it out, or use --walk-forward")
        alone = settings.training.pool == "none"
        found = self.families or tuple(
            name
            for name in settings.training.models
            if name in search.searched() and not (alone and name in search.pooled_only())
        )
        if alone and set(found) & set(search.pooled_only()):
            pooled = " and ".join(sorted(set(found) & set(search.pooled_only())))
            raise ConfigError(
                f"{pooled}: tuned over all sectors at once, which training.pool = none does not train; leave them out "
                "of --family"
            )
        if not found:
            raise ConfigError(f"nothing to tune in {', '.join(settings.training.models)}: give one of "
                                     f"{', '.join(search.searched())}")  # fmt: skip
        return found


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
    """Bring every study to its number of trials; the content of OUT/tuning.json, and the settings with the results.

    Only training and validation rows of the single split are read, also where walk_forward moves its origin: all rows
    that a run tests are later. Studies that are there are resumed; finished ones are read again.
    options: jobs, limits and wait_s are used.
    Raises UserError with what to mend.
    """
    options, listener = options or job.JobOptions(), listener or Listener()
    families, asked = wanted.families_of(settings), settings
    settings = dataclasses.replace(settings, split=dataclasses.replace(settings.split, walk_forward=0, cpcv=()))
    store, modules = Store(out), load_modules(settings.features.modules)
    digest = report.data_hash if report else data_hash(panel)
    plain = settings.as_dict()
    rows_key = sha256(dump_json([digest, *(plain[name] for name in ("labels", "split") if name in plain)]))
    roots = ("gpupipe.pipeline.tune_job", workload.place.partition(":")[0])
    key = job.run_key(digest, _deciding(workload, settings), panel.device, modules, roots)
    jobs = options.jobs or available_cores()
    plan, reason = planning.memory_plan(workload, panel, settings, jobs, options.limits)
    jobs, cache = plan.jobs or jobs, store.cache if plan.files else None
    target = workload.target(settings)
    with (
        store.lock("--out", options.wait_s, job.waiting(listener, store)),
        run_log.opened(store.out, **job.first_event(panel, report, settings, key, jobs), tuning=True),
    ):
        listener = logging_too(listener)
        if reason:
            log.warning("%s", reason)
        listener.stage("features and labels")
        prepared = prepare.prepare(workload, panel, settings, cache)
        context = TrainingContext(
            prepared.datasets, prepared.splits, prepared.folds.published, settings, store, key, panel.device, jobs,
            cache, plan,
        )  # fmt: skip
        enough, skipped = groups_with_enough(context)
        sets = [final_training_set(context, groups) for groups in pools(settings, enough)]
        minimum = settings.training.min_positives
        studies = [search.studies_of(ts, families, wanted.per, minimum) if ts else [] for ts, _, _ in sets]
        listener.started(
            {
                "units": sum(map(len, studies)) * wanted.trials,
                "rows": panel.n_rows,
                "sectors": len(panel.groups),
                "labels": len(target.names),
                "models": 0,
            }
        )
        listener.stage("tuning")
        results: list[dict[str, Any]] = []
        with search.storage_in(store.out / STUDIES) as storage:
            for (training_set, _, _), of_set in zip(sets, studies, strict=True):
                if training_set is None:
                    continue
                period = max(search.PERIOD_DATES, *target.horizon_rows)
                searcher = Search(
                    training_set, settings, storage, rows_key, key, wanted.trials, wanted.pruner, period,
                    listener.advanced,
                )  # fmt: skip
                results += _search(searcher, of_set, jobs)
        results = [search.chosen(result, wanted.accept) for result in results]
        tuned = with_results(workload, asked, results)
        whole = {
            "format": FORMAT, "studies": results, "trials": wanted.trials, "per": wanted.per, "pruner": wanted.pruner,
            "accept": wanted.accept, "studies_file": STUDIES,
            "skipped": [dataclasses.asdict(s) for s in [*skipped, *(s for _, _, more in sets for s in more)]],
            "settings": settings.as_dict(), "data_hash": digest, "versions": fingerprint.versions(),
        }  # fmt: skip
        write_atomic(store.out / TUNED, _toml(settings.preset, whole).encode())
        write_atomic(store.out / JSON, dump_json(whole))
        shutil.rmtree(store.cache, ignore_errors=True)
    return json.loads(dump_json(whole)), tuned


def _deciding(workload: Recipe, settings: Config) -> Config:
    """The settings without what no trial depends on: which models are trained, and what an earlier tuning found."""
    training = dataclasses.replace(settings.training, models=workload.catalogue().default_models)
    return dataclasses.replace(settings, training=training, tuned=())


def _search(searcher: Search, studies: Sequence[Study], jobs: int) -> list[dict[str, Any]]:
    """The studies over all groups in turn, as they use all cores; then those of single groups, side by side."""
    from threadpoolctl import threadpool_limits

    def of_group(group: str) -> list[dict[str, Any]]:
        return [searcher.run(study) for study in studies if study.sector == group]

    with threadpool_limits(1, "blas"):
        results = [searcher.run(study) for study in studies if not study.sector]
        groups = list(dict.fromkeys(study.sector for study in studies if study.sector))
        for of_one in in_parallel([functools.partial(of_group, group) for group in groups], jobs):
            results += of_one
    return results


def with_results(workload: Recipe, settings: Config, results: Sequence[dict[str, Any]]) -> Config:
    """The settings with the values of each accepted study; without an earlier tuning's where a study is not."""
    kept = {(result["sector"], result["label"], result["section"]) for result in results if not result["accepted"]}
    tuned = tuple(item for item in settings.tuned if (item.sector, item.label, item.section) not in kept)
    return with_table(workload.catalogue(), dataclasses.replace(settings, tuned=tuned), _table(results))


def _table(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Values of the accepted studies as a gpupipe.toml nests them."""
    table: dict[str, Any] = {}
    for one in found:
        if not one["accepted"]:
            continue
        node = table
        for name in ("tuned", one["sector"], one["label"]) if one["sector"] else ():
            node = node.setdefault(name, {}) if name else node
        node[one["section"]] = one["best"]
    return table


def section(found: dict[str, Any], settings: Config, data_hash: str) -> dict[str, Any]:
    """What a run's summary says of its tuning: what `tune` or `provenance` gave, held against the run itself.

    same_data: whether the run has the data that were tuned on. Else trials may have seen rows that it tests.
    Of each study, in_use: whether the run's settings have its chosen values; later settings may win over them.
    """
    studies = []
    for one in found["studies"]:
        stage = settings.for_label(one["section"], one["sector"], one["label"])
        in_use = all(getattr(stage, name) == value for name, value in one["chosen"].items())
        studies.append({**one, "in_use": in_use})
    about = {name: found[name] for name in ABOUT}
    whole = {**about, "same_data": found["data_hash"] == data_hash, "studies": studies,
             "trials_tried": sum(one["trials"]["tried"] for one in studies)}  # fmt: skip
    return json.loads(dump_json(whole))


def provenance(files: Sequence[str | os.PathLike[str]]) -> dict[str, Any] | None:
    """What the tables [tuning] of configuration files say of the studies behind their values; None without one.

    Of several files the later ones win, study by study.
    """
    tables = [tomllib.loads(pathlib.Path(file).read_text()).get("tuning") for file in files]
    given = [table for table in tables if table]
    if not given:
        return None
    for table in given:
        if not isinstance(table, dict) or not {*ABOUT, "studies"} <= set(table):
            names = ", ".join(map(str, files))
            raise ConfigError(f"[tuning] of {names} is not what gpupipe tune wrote: delete it")
    studies = {(one["section"], one["sector"], one["label"]): one for table in given for one in table["studies"]}
    return {**given[-1], "studies": [{**dict.fromkeys(MAY_BE_UNKNOWN), **one} for one in studies.values()]}


def _toml(preset: str, whole: dict[str, Any]) -> str:
    """What `--config` reads: each table with what was found of it, and at the end all of that for the run's summary."""
    lines = [
        "# Written by gpupipe tune, for gpupipe run --config. Gains are of validation log-loss over the class prior's.",
        "",
        f"preset = {json.dumps(preset)}",
    ]
    for one in whole["studies"]:
        names = ("tuned", one["sector"], one["label"], one["section"]) if one["sector"] else (one["section"],)
        elsewhere = f", deflated {100 * one['deflated_gain']:.2f} %" if one["deflated_gain"] is not None else ""
        table = f"[{'.'.join(_quoted(name) for name in names if name)}]"
        lines += [
            "",
            f"# best of {one['trials']['tried']} trials: {100 * one['best_gain']:.2f} %{elsewhere}, "
            f"preset {100 * one['preset_gain']:.2f} %",
        ]
        if one["accepted"]:
            lines += [table, *(f"{name} = {value!r}" for name, value in sorted(one["best"].items()))]
        else:
            lines.append(f"# {table} keeps the preset's values, which are not worse on dates that did not choose")
    lines += ["", "[tuning]  # where the values come from, for summary.json; it changes nothing"]
    lines += [f"{name} = {_value(whole[name])}" for name in ABOUT]
    for one in whole["studies"]:
        lines += ["", "[[tuning.studies]]"]
        lines += [f"{name} = {_value(value)}" for name, value in one.items() if value is not None]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """A string, a number, a bool or a dict of them, as TOML has them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(name)} = {_value(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value) if isinstance(value, (str, bool)) else repr(value)


def _quoted(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def read(out: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What OUT/tuning.json holds, or None if nothing was tuned there."""
    path = pathlib.Path(out) / JSON
    return json.loads(path.read_bytes()) if path.exists() else None
