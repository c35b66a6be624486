"""Catalogue: the sections, presets and model names that a workload's settings may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpupipe.config.sections import Config

PRESETS = ("fast", "balanced", "quality")


@dataclass(frozen=True)
class Section:
    """One section of the settings.

    kind: its type, a frozen dataclass of numbers, texts and flags. It may have a method `problem()` that returns
        (field, what is expected) for values that do not go together, and a class attribute `MAY_BE_ZERO`, names of
        fields that may be 0 where a share or a count is expected.
    presets: the values that a preset starts from, by its name; `kind()` for the others.
    by_group: whether a table [tuned.GROUP.SECTION] may give it values of a group's or a label's own.

        >>> from gpupipe.config.sections import FeatureSet
        >>> Section(FeatureSet).start("fast").names
        ('core',)
    """

    kind: type
    presets: Mapping[str, Any] = field(default_factory=dict)
    by_group: bool = False

    def start(self, preset: str) -> Any:
        """The values that a preset starts from."""
        return self.presets[preset] if preset in self.presets else self.kind()


@dataclass(frozen=True)
class Alias:
    """A name that stands for several models, and what it implies for their settings."""

    models: tuple[str, ...]
    apply: Callable[[Config], Config]


@dataclass(frozen=True)
class Catalogue:
    """What the settings of a workload may hold.

    sections: by name.  models: names of all estimators that it can train.  default_models: those of a plain run.
    common: by preset, the values of the common sections that differ from their defaults: {"split": {"parts": 5}}.
    aliases: by name, as `training.models` may hold them.
    checks: called with the finished settings; each raises ConfigError for what does not go together.
    """

    sections: Mapping[str, Section]
    models: tuple[str, ...]
    default_models: tuple[str, ...]
    common: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    checks: tuple[Callable[[Config], None], ...] = ()
