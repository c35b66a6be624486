"""A part of the settings: the sections and fields that something depends on, and no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpupipe.config.sections import Config

_COMMON = ("features", "split", "training", "ml")  # sections that all workloads have


def values_of(settings: Config, names: Iterable[str]) -> dict[str, Any]:
    """Values by "section.field", in the order of the names.

    names: of sections, each with all of its fields, or of single fields: "linear", "linear.l2".
    Raises KeyError for a name that the settings do not have.

        >>> from gpupipe.workloads import equity
        >>> values_of(equity.make("fast"), ["training.pool", "labels.horizons"])
        {'training.pool': 'all', 'labels.horizons': (1, 2, 5)}
    """
    found: dict[str, Any] = {}
    for name in names:
        section, _, field = name.partition(".")
        values = dataclasses.asdict(_section(settings, section))
        if field:
            values = {field: values[field]}
        found |= {f"{section}.{key}": value for key, value in values.items()}
    return found


def part_of(settings: Config, names: Iterable[str]) -> Config:
    """The settings with the named sections and fields alone, and the seed.

    names: as in `values_of`.  Any other section or field raises AttributeError where it is read.

        >>> from gpupipe.workloads import equity
        >>> part = part_of(equity.make("fast"), ["labels.horizons"])
        >>> part.labels.horizons, part.seed
        ((1, 2, 5), 42)
        >>> part.labels.rule
        Traceback (most recent call last):
        AttributeError: labels.rule is read, but not declared; declared are labels.horizons
    """
    names = tuple(names)
    read = values_of(settings, names)

    def part(section: str) -> Any:
        if section in names:
            return _section(settings, section)
        fields = {key.partition(".")[2]: value for key, value in read.items() if key.startswith(f"{section}.")}
        return _Fields(section, fields, names)

    sections = {name: part(name) for name in settings.sections}
    return dataclasses.replace(
        settings, preset="", tuned=(), sections=sections, **{name: part(name) for name in _COMMON}
    )  # fmt: skip


def _section(settings: Config, name: str) -> Any:
    if name in _COMMON:
        return getattr(settings, name)
    return settings.sections[name]


class _Fields:
    """The declared fields of a section."""

    def __init__(self, section: str, values: Mapping[str, Any], declared: Sequence[str]) -> None:
        self.__dict__.update(values)
        self._section, self._declared = section, declared

    def __getattr__(self, field: str) -> Any:
        if field.startswith("_"):  # Python asks for __deepcopy__ and others
            raise AttributeError(field)
        declared = ", ".join(self._declared) or "none"
        raise AttributeError(f"{self._section}.{field} is read, but not declared; declared are {declared}")
