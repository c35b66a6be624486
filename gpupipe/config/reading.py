"""A configuration from a preset, gpupipe.toml files and --set."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import pathlib
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpupipe.config.catalogue import Catalogue
from gpupipe.config.checks import check
from gpupipe.config.errors import ConfigError, nearest
from gpupipe.config.sections import Config, Tuned

COMMON = tuple(item.name for item in dataclasses.fields(Config) if item.name not in ("tuned", "sections"))


def make(
    catalogue: Catalogue,
    preset: str | None = None,
    file: str | pathlib.Path | Sequence[str | pathlib.Path] | None = None,
    settings: Iterable[str] = (),
    implied: Iterable[str] = (),
    **overrides: Any,
) -> Config:
    """The configuration of a run.

    catalogue: the sections and models that the workload has.
    preset: one of the catalogue's presets; else the file's key `preset`; else balanced.
    file: a gpupipe.toml with a table for each section, or several files; a later file overrides an earlier file.
    settings: "section.field=value" strings; they override the files, and later strings override earlier ones. An alias
        in training.models stands for several models and sets their sections like a preset.
    implied: strings like those of `settings`, which override the preset alone: what another choice implies.
    overrides: values by "section__field" or top-level field; they override the rest. None is ignored.

    Raises ConfigError for an unknown key (naming the nearest key), a value of the wrong type, or a value out of range.
    """
    tables = [_read_toml(path) for path in ([file] if isinstance(file, (str, pathlib.Path)) else file or [])]
    for table in tables:
        table.pop("tuning", None)  # the origin of tuned values, which only the summary reads
    named = [table.pop("preset") for table in tables if "preset" in table][-1:]
    preset = preset or (named or ["balanced"])[0]
    if not isinstance(preset, str) or preset not in catalogue.presets:
        raise ConfigError(f"unknown preset {preset!r}{nearest(str(preset), catalogue.presets)}")
    reader = Reader(catalogue)
    changes = [_assignment(text) for text in implied]
    changes += [change for table in tables for change in reader.changes_of(table)]
    changes += [_assignment(text) for text in settings]
    changes += [(key.replace("__", "."), value) for key, value in overrides.items() if value is not None]
    config = start(catalogue, preset)
    chosen = [_as_list(value) for key, value in changes if key == "training.models"]
    for name, alias in catalogue.aliases.items():
        if chosen and name in chosen[-1]:
            config = alias.apply(config)  # first, because explicit settings override it
    for table in tables:
        config = reader.with_tuned(config, table.get("tuned", {}))
    for key, value in changes:
        config = reader.replace(config, key, reader.expand(value) if key == "training.models" else value)
    config = _subsampled(config)
    check(config, catalogue)
    return config


def start(catalogue: Catalogue, preset: str) -> Config:
    """The values of a preset."""
    sections = {name: section.start(preset) for name, section in catalogue.sections.items()}
    config = Config(preset=preset, sections=sections)
    common = {"training": {"models": catalogue.default_models}}
    for name, values in (*common.items(), *catalogue.common.get(preset, {}).items()):
        config = dataclasses.replace(config, **{name: dataclasses.replace(getattr(config, name), **values)})
    return config


def with_table(catalogue: Catalogue, config: Config, table: dict[str, Any]) -> Config:
    """The configuration with the tables of a gpupipe.toml (without its key preset); raises ConfigError like `make`."""
    reader = Reader(catalogue)
    config = reader.with_tuned(config, table.get("tuned", {}))
    for key, value in reader.changes_of(table):
        config = reader.replace(config, key, value)
    check(config, catalogue)
    return config


def _subsampled(config: Config) -> Config:
    """The configuration with ml.subsample, if it is set, in every section that samples rows."""
    share = config.ml.subsample
    if not share:
        return config
    sampled = {
        name: dataclasses.replace(section, subsample=share)
        for name, section in config.sections.items()
        if hasattr(section, "subsample")
    }
    return config.unchecked(**sampled)


class Reader:
    """Reads keys and values of a workload's settings.

    >>> from gpupipe.workloads.equity import EQUITY
    >>> "training.max_bin" in Reader(EQUITY.catalogue()).known_keys
    True
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    @functools.cached_property
    def known_keys(self) -> list[str]:
        """All keys that --set may name."""
        keys: list[str] = []
        for name, hint in typing.get_type_hints(Config).items():
            if name in COMMON:
                keys += _fields_of(hint, f"{name}.") if dataclasses.is_dataclass(hint) else [name]
        for name, section in self.catalogue.sections.items():
            keys += _fields_of(section.kind, f"{name}.")
        return keys

    @property
    def section_names(self) -> tuple[str, ...]:
        """Names of all tables and of the fields beside them."""
        return (*COMMON, *self.catalogue.sections)

    @property
    def by_group(self) -> tuple[str, ...]:
        """Sections that may have tuned values for a group."""
        return tuple(name for name, section in self.catalogue.sections.items() if section.by_group)

    def expand(self, value: Any) -> list[Any]:
        """Models with every alias replaced by its models, without repetition."""
        aliases = self.catalogue.aliases
        names = _as_list(value)
        if not all(isinstance(name, str) for name in names):
            return names  # what is wrong with them is said where they are converted
        named = [aliases[name].models if name in aliases else (name,) for name in names]
        return list(dict.fromkeys(name for models in named for name in models))

    def changes_of(self, table: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Keys and values of all tables but [tuned]."""
        return self._flatten({name: inner for name, inner in table.items() if name != "tuned"})

    def _flatten(self, table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in table.items():
            if isinstance(value, dict) and (value or f"{prefix}{key}" in self.section_names):
                yield from self._flatten(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    def replace(self, config: Config, key: str, value: Any) -> Config:
        """The configuration with a new value of a key; ranges are checked later."""
        if key == "preset":  # a preset sets all values, and cannot be set later
            raise ConfigError("preset is chosen with --preset, or by the key preset of a gpupipe.toml, not by --set")
        if key.partition(".")[0] == "tuned":
            raise ConfigError("tuned values are tables [tuned.SECTOR.SECTION] of a gpupipe.toml: give them by --config")
        if isinstance(value, dict):
            raise ConfigError(f"unknown configuration key {key!r}{nearest(key, self.section_names)}")
        if key not in self.known_keys:
            raise ConfigError(f"unknown configuration key {key!r}{nearest(key, self.known_keys)}")
        section, _, name = key.rpartition(".")
        node: Any = getattr(config, section) if section else config
        value = _convert(key, value, typing.get_type_hints(type(node))[name])
        changed = dataclasses.replace(node, **{name: value})
        return config.unchecked(**{section: changed}) if section else changed

    def with_tuned(self, config: Config, table: Any) -> Config:
        """The configuration with the values of a table [tuned], which override its tuned values."""
        by_group = self.by_group
        tuned = {(item.sector, item.label, item.section): dict(item.values) for item in config.tuned}
        for group, inner in table.items() if isinstance(table, dict) else [(str(table), None)]:
            if not isinstance(inner, dict):
                raise ConfigError(f"tuned.{group}: expected tables like [tuned.{group}.hist]")
            for name, values in inner.items():
                by_section = {name: values} if name in by_group else values
                for section, given in by_section.items() if isinstance(by_section, dict) else [(str(name), None)]:
                    key = f"tuned.{group}.{section}" if name in by_group else f"tuned.{group}.{name}.{section}"
                    if section not in by_group or not isinstance(given, dict):
                        raise ConfigError(
                            f"{key}: expected a table [tuned.{group}.SECTION] or [tuned.{group}.LABEL.SECTION], "
                            f"SECTION being {' or '.join(by_group)}"
                        )
                    values_of_label = tuned.setdefault((group, "" if name in by_group else name, section), {})
                    for field_name, value in given.items():
                        values_of_label[field_name] = self._tuned_value(section, key, field_name, value)
        return dataclasses.replace(
            config, tuned=tuple(Tuned(*key, tuple(sorted(tuned[key].items()))) for key in sorted(tuned))
        )

    def _tuned_value(self, section: str, key: str, field_name: str, value: Any) -> Any:
        hints = typing.get_type_hints(self.catalogue.sections[section].kind)
        if field_name not in hints:
            raise ConfigError(f"unknown configuration key {f'{key}.{field_name}'!r}{nearest(field_name, hints)}")
        return _convert(f"{key}.{field_name}", value, hints[field_name])


def _fields_of(kind: Any, prefix: str) -> list[str]:
    return [f"{prefix}{item.name}" for item in dataclasses.fields(kind)]


def _assignment(setting: str) -> tuple[str, Any]:
    """The key and the value of a text "section.field=value"."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting!r}: expected section.field=value, for example training.max_bin=128")
    return key.strip(), _parse(text.strip())


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _read_toml(file: str | pathlib.Path) -> dict[str, Any]:
    try:
        return tomllib.loads(pathlib.Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration file {str(file)!r} does not exist") from None
    except (ValueError, RecursionError, OSError) as error:  # a number of too many digits is a plain ValueError
        raise ConfigError(f"configuration file {str(file)!r} cannot be read as TOML: {error}") from None


def _parse(text: str) -> Any:
    """A value as TOML reads it; bare words are strings, and "1,2,5" is a list."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return [_parse(part.strip()) for part in text.split(",")] if "," in text else text


def _convert(key: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`: int, float, str, or a tuple of these; raises ConfigError instead of truncating."""
    if isinstance(kind, types.GenericAlias):
        element = typing.get_args(kind)[0]
        values = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_convert(key, item, element) for item in values)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, datetime.date):  # as TOML reads 2014-12-31 without quotes
        return value.isoformat()
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kind):
        raise ConfigError(f"{key} = {value!r} is a {type(value).__name__}, expected {kind.__name__}")
    return value
