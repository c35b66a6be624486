"""Catalogue: the sections, presets and model names of a workload's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpupipe.config.sections import Config

PRESETS = ("fast", "balanced", "quality")  # of a workload that names no others


@dataclass(frozen=True)
class Section:
    """A section of the settings.

    kind: its type, a frozen dataclass of numbers, texts and flags. A method `problem()` may return (field, expected
        value) for values that exclude each other. A class attribute `MAY_BE_ZERO` may name shares and counts that may
        be 0.
    presets: values by preset; `kind()` for presets without an entry.
    by_group: whether tables [tuned.GROUP.SECTION] may set values for a group or a label.

        >>> from gpupipe.config.sections import FeatureSet
        >>> Section(FeatureSet).start("fast").names
        ('core',)
    """

    kind: type
    presets: Mapping[str, Any] = field(default_factory=dict)
    by_group: bool = False

    def start(self, preset: str) -> Any:
        """The values of a preset."""
        return self.presets[preset] if preset in self.presets else self.kind()


@dataclass(frozen=True)
class Alias:
    """A name for several models, with the settings that it implies.

    >>> from gpupipe.workloads import equity
    >>> alias = equity.catalogue().aliases["turbomode"]
    >>> len(alias.models), alias.apply(equity.make("fast")).training.pool
    (6, 'none')
    """

    models: tuple[str, ...]
    apply: Callable[[Config], Config]


@dataclass(frozen=True)
class Catalogue:
    """The catalogue of a workload's settings.

    sections: by name.  models: names of all estimators that it can train.  default_models: the models of a plain run.
    common: values of the common sections that differ from their defaults, by preset: {"split": {"parts": 5}}.
    aliases: by name in `training.models`.
    presets: names of the presets; a configuration without one is balanced, which must be among them.
    checks: called with the finished settings; each raises ConfigError for settings that exclude each other.

        >>> from gpupipe.workloads.equity import EQUITY
        >>> "linear" in EQUITY.catalogue().models, EQUITY.catalogue().sections["linear"].by_group
        (True, False)
    """

    sections: Mapping[str, Section]
    models: tuple[str, ...]
    default_models: tuple[str, ...]
    common: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    checks: tuple[Callable[[Config], None], ...] = ()
    presets: tuple[str, ...] = PRESETS
