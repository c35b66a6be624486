"""A configuration from a preset, gpupipe.toml files and --set."""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import tomllib
import types
import typing
from typing import Any

from gpupipe.config.names import BY_SECTOR, SAMPLING, TURBOMODE, TURBOMODE_FAMILIES, ConfigError, nearest
from gpupipe.config.presets import PRESETS, turbomode
from gpupipe.config.sections import Booster, Config, Tuned


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
    for table in tables:
        table.pop("tuning", None)  # where tuned values come from: for the summary
    named = [table.pop("preset") for table in tables if "preset" in table][-1:]
    preset = preset or (named or ["balanced"])[0]
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}{nearest(str(preset), PRESETS)}")
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
        config = turbomode(config)  # before all that was asked for by name, which wins
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
    except (ValueError, RecursionError, OSError) as error:  # a number of too many digits is a plain ValueError
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
        raise ConfigError(f"unknown configuration key {f'{key}.{field_name}'!r}{nearest(field_name, hints)}")
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
    except (ValueError, RecursionError):
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
        raise ConfigError(f"unknown configuration key {key!r}{nearest(key, _SECTIONS)}")
    if key not in _known_keys():
        raise ConfigError(f"unknown configuration key {key!r}{nearest(key, _known_keys())}")
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
    if kind is str and isinstance(value, datetime.date):  # as TOML reads 2014-12-31 without quotes
        return value.isoformat()
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kind):
        raise ConfigError(f"{key} = {value!r} is a {type(value).__name__}, expected {kind.__name__}")
    return value
