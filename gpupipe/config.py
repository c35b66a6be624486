"""A run is a value: a preset, changed by a gpupipe.toml and by --set, checked as a whole."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import pathlib
import tomllib
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from gpupipe.errors import UserError

RULES, WINDOWS = ("take_profit_first", "first_touch"), ("bars", "calendar")  # of labels.py
BOOSTERS = ("joint", "joint_sector", "hist", "leafwise")  # fields of Config that are a Booster
FAMILIES = ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest", "linear", "meta_learner")
LARGEST_CPCV = 500  # folds of a combinatorial cross-validation
OPTIONAL_FAMILIES = ("lightgbm", "catboost")  # named as their packages, which the extra boosters brings
SAMPLING = (*BOOSTERS, *OPTIONAL_FAMILIES, "forest")  # fields of Config with a subsample
TURBOMODE = "turbomode"  # among the models: the predecessor's six, with its parameters


@dataclass(frozen=True)
class Labels:
    """What is predicted: horizons in bars, thresholds as fractions of the close (0.05 is 5 %)."""

    horizons: tuple[int, ...] = (1, 2, 5)
    thresholds: tuple[float, ...] = (0.05, 0.10)
    rule: str = "take_profit_first"
    window: str = "bars"


@dataclass(frozen=True)
class FeatureSet:
    """Which columns are computed: "core" (89 columns), "default" (195), a family, a glob, a name, or several of these.

    modules: Python files of your own features, which `names` may then hold; OUT keeps a copy of each.
    """

    names: tuple[str, ...] = ("core",)
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """One split in time; shares are of the distinct usable times, oldest first; what goes with it beside that."""

    train: float = 0.6
    validation: float = 0.2
    embargo_bars: int = 5  # times left out before validation and test, beside the purge by the label's end
    parts: int = 3  # the training part is cut into this many for out-of-fold predictions
    stacking: str = "kfold"  # kfold: a part is predicted by models of all others, purged; forward: of those before it
    walk_forward: int = 0  # origins whose windows tile the test part; the last one's models are kept; 0: one split
    window: str = "expanding"  # an origin trains on all before it; rolling: on as many times as the first one
    cpcv: tuple[int, ...] = ()  # N,K: cross-validate what lies before the test part, K of N groups tested at a time


@dataclass(frozen=True)
class Training:
    """What all families share."""

    models: tuple[str, ...] = FAMILIES
    pool: str = "all"  # all: a pooled stage over all sectors, then each sector's own; none: every sector alone
    sample_weight: str = "none"  # none, or uniqueness (rows whose label windows overlap others count less)
    class_weight: str = "none"  # none, or balanced (inverse class shares; probabilities are corrected back)
    min_positives: int = 20  # BUY and SELL rows, each, that a sector's training part must hold (see README)
    min_rows: int = 50  # rows of validation and of test, and a quarter of those of training, that a sector must have
    max_bin: int = 64
    early_stopping: int = 20  # rounds without a better validation log-loss; 0: all rounds are grown and kept


@dataclass(frozen=True)
class Ml:
    """Options of training under the names that users of XGBoost know."""

    feature_selection_top_n: int = 0  # train on this many columns, chosen inside each training part; 0: on all
    gradient_sampling: bool = False  # rows with large derivatives are drawn more often (where subsample is below 1)
    subsample: float = 0.0  # share of the rows that a tree sees, in place of every stage's own; 0: as each stage says
    use_quantile_dmatrix: bool = True  # false: xgboost.DMatrix, which holds floats and is binned by each booster
    use_rmm: bool = True  # CUDA: one RMM pool for cupy, numba and torch; false: each library's own


@dataclass(frozen=True)
class Booster:
    """A boosted-tree stage; depth 0 grows leaf-wise up to `leaves`."""

    rounds: int = 200
    learning_rate: float = 0.1
    depth: int = 3
    leaves: int = 0
    min_child_weight: float = 5.0
    l2: float = 5.0
    subsample: float = 0.5
    column_share: float = 0.5  # of the columns, drawn for each node


def _joint(rounds: int, learning_rate: float) -> Booster:
    # Many rows in every leaf: on short histories whole days are alike, and small leaves learn the day.
    return Booster(rounds, learning_rate, depth=4, min_child_weight=50.0, l2=50.0)


def _joint_sector(rounds: int, learning_rate: float) -> Booster:
    return Booster(rounds, learning_rate, depth=3, min_child_weight=20.0, l2=50.0)


@dataclass(frozen=True)
class LightGBM:
    """Leaf-wise trees up to `leaves` and `depth` (0: any); with min_rows in each leaf."""

    rounds: int = 200
    learning_rate: float = 0.05
    depth: int = 0
    leaves: int = 8
    min_rows: int = 40
    l2: float = 10.0
    subsample: float = 0.5
    column_share: float = 0.5  # of the columns, drawn for each node


@dataclass(frozen=True)
class CatBoost:
    """Symmetric trees: all nodes of a level ask the same."""

    rounds: int = 200
    learning_rate: float = 0.05
    depth: int = 4
    l2: float = 5.0
    subsample: float = 0.5  # 1: all rows, with weights that CatBoost draws for each tree
    column_share: float = 0.5  # of the columns, drawn for each level


@dataclass(frozen=True)
class Forest:
    """A random forest; the sector's own trees are fitted to what the pooled forest leaves."""

    trees: int = 100
    sector_trees: int = 50
    depth: int = 7
    subsample: float = 0.5
    column_share: float = 0.25  # of the columns, drawn for each node; 0: the square root of their number
    min_rows: float = 50.0
    shrink_rows: float = 50.0  # pseudo-rows of the class prior (pooled) or of no change (sector) in every leaf
    sector_shrink_rows: float = 500.0


@dataclass(frozen=True)
class Linear:
    """Softmax regression; penalties are in rows of pseudo-evidence on standardised columns."""

    l2: float = 5000.0
    sector_l2: float = 1000.0  # pulls a sector's weights to the pooled ones
    max_iterations: int = 30
    clip: float = 4.0  # standardised columns are clipped at this many standard deviations


@dataclass(frozen=True)
class Meta:
    """Softmax regression on out-of-fold log-odds, pulled to the families' plain average.

    inputs "probabilities": multinomial logistic regression on the three probabilities of each family, pulled to 0.
    """

    inputs: str = "log_odds"
    l2: float = 200.0
    sector_l2: float = 2000.0
    max_iterations: int = 100


BY_SECTOR = ("hist", "leafwise")  # sections that may have values of their own for a sector, or a label of it


@dataclass(frozen=True)
class Tuned:
    """Values for one sector that win over those of a section, as a table [tuned.SECTOR.SECTION] gives them.

    label: "" for all labels of the sector, or the one of [tuned.SECTOR.LABEL.SECTION], which wins over both.
    values: (name, value) pairs, sorted.
    """

    sector: str
    label: str
    section: str
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes. `preset` names where the values started.

    tuned: sorted by sector, label and section; `gpupipe tune` writes them to a file.
    """

    preset: str = "balanced"
    seed: int = 42
    labels: Labels = field(default_factory=Labels)
    features: FeatureSet = field(default_factory=FeatureSet)
    split: Split = field(default_factory=Split)
    training: Training = field(default_factory=Training)
    ml: Ml = field(default_factory=Ml)
    joint: Booster = field(default_factory=lambda: _joint(300, 0.05))
    joint_sector: Booster = field(default_factory=lambda: _joint_sector(60, 0.05))
    hist: Booster = field(default_factory=lambda: Booster(rounds=200, learning_rate=0.05))
    leafwise: Booster = field(default_factory=lambda: Booster(rounds=200, learning_rate=0.05, depth=0, leaves=8))
    lightgbm: LightGBM = field(default_factory=LightGBM)
    catboost: CatBoost = field(default_factory=CatBoost)
    forest: Forest = field(default_factory=Forest)
    linear: Linear = field(default_factory=Linear)
    meta: Meta = field(default_factory=Meta)
    tuned: tuple[Tuned, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    def stage(self, section: str, sector: str, label: str) -> Booster:
        """How a sector's label is boosted: the section's values, its sector's tuned ones, and its own."""
        stage: Booster = getattr(self, section)
        for own in self.tuned:
            if (own.section, own.sector) == (section, sector) and own.label in ("", label):
                stage = dataclasses.replace(stage, **dict(own.values))  # type: ignore[arg-type]
        return stage

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, as JSON and TOML can hold it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def digest(self) -> str:
        """SHA-256 of the values (the preset's name is not a value)."""
        values = {key: value for key, value in self.as_dict().items() if key != "preset"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _fast() -> Config:
    return Config(
        preset="fast",
        training=Training(max_bin=32, early_stopping=8),
        joint=_joint(80, 0.15),
        joint_sector=_joint_sector(20, 0.1),
        hist=Booster(rounds=60, learning_rate=0.1),
        leafwise=Booster(rounds=60, learning_rate=0.1, depth=0, leaves=8),
        lightgbm=LightGBM(rounds=60, learning_rate=0.1),
        catboost=CatBoost(rounds=60, learning_rate=0.1),
        forest=Forest(trees=30, sector_trees=15, depth=6),
        linear=Linear(max_iterations=12),
    )


def _quality() -> Config:
    return Config(
        preset="quality",
        split=Split(parts=5),
        training=Training(max_bin=128, early_stopping=50),
        joint=_joint(800, 0.025),
        joint_sector=_joint_sector(150, 0.025),
        hist=Booster(rounds=600, learning_rate=0.025),
        leafwise=Booster(rounds=600, learning_rate=0.025, depth=0, leaves=8),
        lightgbm=LightGBM(rounds=600, learning_rate=0.025),
        catboost=CatBoost(rounds=600, learning_rate=0.025),
        forest=Forest(trees=300, sector_trees=150, depth=8),
        linear=Linear(max_iterations=100),
    )


PRESETS: dict[str, typing.Callable[[], Config]] = {"fast": _fast, "balanced": Config, "quality": _quality}


def _turbomode(config: Config) -> Config:
    """The predecessor's parameters for its six families, and what they imply, whatever the preset says of them.

    What it did not state are its libraries' defaults. Of the forest's, a split of 20 rows follows from leaves of 10,
    a bootstrap sample holds 63.2 % of the rows, and shares are not shrunk. (XGBoost's trees take samples of all, a
    half, a third of the rows: see Fold.samples.) It trained each sector alone, all rounds.
    Its linear booster is gone upstream: `linear` takes its place, with the preset's penalties.
    """
    return dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, pool="none", early_stopping=0),
        hist=Booster(200, 0.05, depth=8, min_child_weight=1.0, l2=1.0, subsample=0.8, column_share=1.0),
        lightgbm=LightGBM(200, 0.05, depth=8, leaves=63, min_rows=20, l2=0.0, subsample=1.0, column_share=1.0),
        catboost=CatBoost(200, 0.05, depth=8, l2=3.0, subsample=1.0, column_share=1.0),
        forest=dataclasses.replace(
            config.forest, trees=200, depth=12, min_rows=10.0, subsample=0.632, column_share=0.0, shrink_rows=0.0
        ),
        meta=Meta(inputs="probabilities", l2=1.0, max_iterations=config.meta.max_iterations),
    )


TURBOMODE_FAMILIES = ("lightgbm", "catboost", "xgb_hist", "linear", "random_forest", "meta_learner")


class ConfigError(UserError):
    """A configuration that cannot be used; the message names the key, what came, and the fix."""


def make(
    preset: str | None = None,
    file: str | pathlib.Path | typing.Sequence[str | pathlib.Path] | None = None,
    settings: typing.Iterable[str] = (),
    **overrides: Any,
) -> Config:
    """The configuration of a run.

    preset: fast, balanced or quality; else the file's key `preset`; else balanced.
    file: a gpupipe.toml with tables named as the fields of Config, or several, of which later ones win.
    settings: "section.field=value" strings, later ones win over the file. "turbomode" among training.models stands
    for six families and sets their sections, as a preset does.
    overrides: "section__field" or top-level field names with values; they win over all. None is ignored.

    Raises ConfigError for an unknown key (naming the nearest one), a value of the wrong type or out of range.
    """
    tables = [_read_toml(one) for one in ([file] if isinstance(file, (str, pathlib.Path)) else file or [])]
    named = [table.pop("preset") for table in tables if "preset" in table][-1:]
    preset = preset or (named or ["balanced"])[0]
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}{_nearest(str(preset), PRESETS)}")
    changes = [change for table in tables for change in _settings_of(table)]
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r}: expected section.field=value, for example training.max_bin=128")
        changes.append((key.strip(), _parse(text.strip())))
    changes += [(key.replace("__", "."), value) for key, value in overrides.items() if value is not None]
    config = PRESETS[preset]()
    chosen = [_families(value) for key, value in changes if key == "training.models"]
    if chosen and TURBOMODE in chosen[-1]:
        config = _turbomode(config)  # before all that was asked for by name, which wins
    for table in tables:
        config = _with_tuned(config, table.get("tuned", {}))
    for key, value in changes:
        config = _replace(config, key, _expand(value) if key == "training.models" else value)
    return _subsampled(config)


def _subsampled(config: Config) -> Config:
    """With ml.subsample, if there is one, in every stage that samples rows."""
    share = config.ml.subsample
    if not share:
        return config
    stages = {name: dataclasses.replace(getattr(config, name), subsample=share) for name in SAMPLING}
    return dataclasses.replace(config, **stages)


def _families(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _expand(value: Any) -> list[Any]:
    """Families with "turbomode" replaced by those that it stands for, each once."""
    named = [TURBOMODE_FAMILIES if name == TURBOMODE else (name,) for name in _families(value)]
    return list(dict.fromkeys(name for part in named for name in part))


def _read_toml(file: str | pathlib.Path) -> dict[str, Any]:
    try:
        return tomllib.loads(pathlib.Path(file).read_text())
    except FileNotFoundError:
        raise ConfigError(f"configuration file {str(file)!r} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"configuration file {str(file)!r} cannot be read as TOML: {error}") from None


def with_table(config: Config, table: dict[str, Any]) -> Config:
    """The configuration changed by the tables of a gpupipe.toml (without its key preset); ConfigError as `make`."""
    config = _with_tuned(config, table.get("tuned", {}))
    for key, value in _settings_of(table):
        config = _replace(config, key, value)
    return config


def _settings_of(table: dict[str, Any]) -> typing.Iterator[tuple[str, Any]]:
    """Keys and values of all tables but [tuned]."""
    return _flatten({name: inner for name, inner in table.items() if name != "tuned"})


def _with_tuned(config: Config, table: Any) -> Config:
    """The configuration with the values of a table [tuned], which win over those that it has."""
    found = {(own.sector, own.label, own.section): dict(own.values) for own in config.tuned}
    for sector, inner in table.items() if isinstance(table, dict) else [(str(table), None)]:
        if not isinstance(inner, dict):
            raise ConfigError(f"tuned.{sector}: expected tables like [tuned.{sector}.hist]")
        for name, values in inner.items():
            by_section = {name: values} if name in BY_SECTOR else values
            for section, given in by_section.items() if isinstance(by_section, dict) else [(str(name), None)]:
                key = f"tuned.{sector}.{section}" if name in BY_SECTOR else f"tuned.{sector}.{name}.{section}"
                if section not in BY_SECTOR or not isinstance(given, dict):
                    raise ConfigError(
                        f"{key}: expected a table [tuned.{sector}.SECTION] or [tuned.{sector}.LABEL.SECTION], SECTION "
                        f"being {' or '.join(BY_SECTOR)}"
                    )
                own = found.setdefault((sector, "" if name in BY_SECTOR else name, section), {})
                own |= {field_name: _tuned_value(key, field_name, value) for field_name, value in given.items()}
    return dataclasses.replace(
        config, tuned=tuple(Tuned(*key, tuple(sorted(found[key].items()))) for key in sorted(found))
    )


def _tuned_value(key: str, field_name: str, value: Any) -> Any:
    hints = typing.get_type_hints(Booster)
    if field_name not in hints:
        raise ConfigError(f"unknown configuration key {f'{key}.{field_name}'!r}{_nearest(field_name, hints)}")
    return _convert(f"{key}.{field_name}", value, hints[field_name])


def _flatten(table: dict[str, Any], prefix: str = "") -> typing.Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and (value or f"{prefix}{key}" in _SECTIONS):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parse(text: str) -> Any:
    """A value as TOML would read it; bare words are strings, and "1,2,5" is a list."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return [_parse(part.strip()) for part in text.split(",")] if "," in text else text


def _known_keys(node: Any = Config, prefix: str = "") -> list[str]:
    hints = typing.get_type_hints(node)
    keys: list[str] = []
    for item in dataclasses.fields(node):
        if item.name == "tuned":  # tables of a file alone
            continue
        kind = hints[item.name]
        keys += _known_keys(kind, f"{prefix}{item.name}.") if dataclasses.is_dataclass(kind) else [prefix + item.name]
    return keys


_SECTIONS = tuple(item.name for item in dataclasses.fields(Config) if item.name != "tuned")


def _replace(config: Config, key: str, value: Any) -> Config:
    if key == "preset":  # only a name once the values are there
        raise ConfigError("preset is chosen with --preset, or by the key preset of a gpupipe.toml, not by --set")
    if key.partition(".")[0] == "tuned":
        raise ConfigError("tuned values are tables [tuned.SECTOR.SECTION] of a gpupipe.toml: give them by --config")
    if isinstance(value, dict):
        raise ConfigError(f"unknown configuration key {key!r}{_nearest(key, _SECTIONS)}")
    if key not in _known_keys():
        raise ConfigError(f"unknown configuration key {key!r}{_nearest(key, _known_keys())}")
    section, _, name = key.rpartition(".")
    node: Any = getattr(config, section) if section else config
    value = _convert(key, value, typing.get_type_hints(type(node))[name])
    changed = dataclasses.replace(node, **{name: value})
    return dataclasses.replace(config, **{section: changed}) if section else changed


def _convert(key: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`: int, float, str or a tuple of one of them; never a silent truncation."""
    if isinstance(kind, types.GenericAlias):
        element = typing.get_args(kind)[0]
        values = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_convert(key, one, element) for one in values)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kind):
        raise ConfigError(f"{key} = {value!r} is a {type(value).__name__}, expected {kind.__name__}")
    return value


def _nearest(word: str, known: typing.Iterable[str]) -> str:
    """ "; did you mean ...?", or the list of what is known where it is short."""
    known = list(known)
    by_field = {name.rpartition(".")[2]: name for name in known}
    close = difflib.get_close_matches(word, known, 1, 0.5)
    close = close or [by_field[m] for m in difflib.get_close_matches(word.rpartition(".")[2], by_field, 1, 0.5)]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if len(known) <= 12 else ""


def _check(config: Config) -> None:
    """Raise ConfigError for a value out of range."""

    def require(condition: bool, key: str, value: Any, expected: str) -> None:
        if not condition:
            raise ConfigError(f"{key} = {value!r}: expected {expected}")

    labels, split, training = config.labels, config.split, config.training
    require(
        bool(labels.horizons) and min(labels.horizons) >= 1 and _rising(labels.horizons),
        "labels.horizons", labels.horizons, "whole bars >= 1 that rise, like 1,2,5",
    )  # fmt: skip
    require(
        bool(labels.thresholds) and all(0 < t < 1 for t in labels.thresholds) and _rising(labels.thresholds),
        "labels.thresholds", labels.thresholds, "fractions between 0 and 1 that rise, like 0.05,0.10 (0.05 is 5 %)",
    )  # fmt: skip
    require(labels.rule in RULES, "labels.rule", labels.rule, "take_profit_first or first_touch")
    require(labels.window in WINDOWS, "labels.window", labels.window, "bars or calendar")
    require(0 < split.train < 1, "split.train", split.train, "a share between 0 and 1")
    require(0 < split.validation < 1 - split.train, "split.validation", split.validation, "to leave a test part")
    require(split.embargo_bars >= 0, "split.embargo_bars", split.embargo_bars, "0 or more")
    require(2 <= split.parts <= 20, "split.parts", split.parts, "2 to 20")
    require(split.stacking in ("kfold", "forward"), "split.stacking", split.stacking, "kfold or forward")
    require(0 <= split.walk_forward <= 100 and split.walk_forward != 1, "split.walk_forward", split.walk_forward,
            "2 to 100 origins, or 0 for the single split")  # fmt: skip
    require(split.window in ("expanding", "rolling"), "split.window", split.window, "expanding or rolling")
    _check_cpcv(split.cpcv)
    for family in training.models:
        if family not in FAMILIES + OPTIONAL_FAMILIES:
            known = (*FAMILIES, *OPTIONAL_FAMILIES, TURBOMODE)
            raise ConfigError(f"unknown model family {family!r}{_nearest(family, known)}")
    if not training.models or set(training.models) == {"meta_learner"}:
        raise ConfigError("training.models: the meta_learner needs at least one other family to learn from")
    require(training.pool in ("all", "none"), "training.pool", training.pool, "all or none")
    require(training.class_weight in ("none", "balanced"), "training.class_weight", training.class_weight,
            "none or balanced")  # fmt: skip
    require(training.sample_weight in ("none", "uniqueness"), "training.sample_weight", training.sample_weight,
            "none or uniqueness")  # fmt: skip
    require(training.min_positives >= 1, "training.min_positives", training.min_positives, "1 or more")
    require(training.min_rows >= 1, "training.min_rows", training.min_rows, "1 or more")
    require(2 <= training.max_bin <= 256, "training.max_bin", training.max_bin, "2 to 256")
    require(training.early_stopping >= 0, "training.early_stopping", training.early_stopping, "0 or more")
    require(config.seed >= 0, "seed", config.seed, "0 or more")
    inputs = config.meta.inputs
    require(inputs in ("log_odds", "probabilities"), "meta.inputs", inputs, "log_odds or probabilities")
    sections = {name: getattr(config, name) for name in BOOSTERS}
    for own in config.tuned:
        name = ".".join(filter(None, ("tuned", own.sector, own.label, own.section)))
        sections[name] = config.stage(own.section, own.sector, own.label)
    for name, stage in sections.items():
        require(stage.depth >= 1 or stage.leaves >= 2, f"{name}.depth", stage.depth, "1 or more, or leaves >= 2")
    others = {name: getattr(config, name) for name in (*SAMPLING, "linear", "meta") if name not in sections}
    for name, section in {**sections, **others}.items():
        for item in dataclasses.fields(section):
            value = getattr(section, item.name)
            if isinstance(value, str) or (name, item.name, value) == ("forest", "column_share", 0):
                continue
            met, expected = _in_range(item.name, value)
            require(met, f"{name}.{item.name}", value, expected)
    ml = config.ml
    require(ml.feature_selection_top_n >= 0, "ml.feature_selection_top_n", ml.feature_selection_top_n,
            "a number of columns, or 0 for all")  # fmt: skip
    require(ml.subsample == 0 or 0.1 <= ml.subsample <= 1, "ml.subsample", ml.subsample,
            "0.1 to 1, or 0 for what each stage says")  # fmt: skip
    require(config.forest.depth >= 1, "forest.depth", config.forest.depth, "1 or more")
    require(config.lightgbm.leaves >= 2, "lightgbm.leaves", config.lightgbm.leaves, "2 or more")
    require(1 <= config.catboost.depth <= 16, "catboost.depth", config.catboost.depth, "1 to 16")


def _check_cpcv(cpcv: tuple[int, ...]) -> None:
    if not cpcv:
        return
    if len(cpcv) != 2 or not 1 <= cpcv[1] <= cpcv[0] - 2:
        raise ConfigError(f"split.cpcv = {cpcv!r}: expected N,K with 1 <= K <= N - 2, like 6,2 (2 of 6 groups tested)")
    if math.comb(*cpcv) > LARGEST_CPCV:
        raise ConfigError(
            f"split.cpcv = {cpcv!r}: {math.comb(*cpcv):,} trainings of everything, expected {LARGEST_CPCV} or fewer; "
            "6,2 has 15 and 10,2 has 45"
        )


def _rising(values: tuple[int, ...] | tuple[float, ...]) -> bool:
    """Also as they stand in the names of labels, which tell 0.05 and 0.0500000001 not apart."""
    return list(values) == sorted(set(values)) and len({f"{v * 100:g}" for v in values}) == len(values)


def _in_range(field_name: str, value: float) -> tuple[bool, str]:
    """Whether a field of a model's section has a value that can be used, and which have."""
    if field_name in ("learning_rate", "subsample", "column_share"):
        return 0 < value <= 1, "more than 0, up to 1"
    if field_name in ("rounds", "trees", "sector_trees", "max_iterations"):
        return value >= 1, "1 or more"
    if field_name == "clip":
        return 0 < value < float("inf"), "more than 0"
    return 0 <= value < float("inf"), "0 or more"
