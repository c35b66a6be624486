"""Settings of a run as a value: a preset, a gpupipe.toml and --set, checked as a whole."""

from gpupipe.config.catalogue import PRESETS, Alias, Catalogue, Section
from gpupipe.config.errors import ConfigError
from gpupipe.config.part import part_of, values_of
from gpupipe.config.reading import make, with_table
from gpupipe.config.sections import Config, FeatureSet, Ml, Split, Training, Tuned

__all__ = [
    "PRESETS", "Alias", "Catalogue", "Config", "ConfigError", "FeatureSet", "Ml", "Section", "Split", "Training",
    "Tuned", "make", "part_of", "values_of", "with_table",
]  # fmt: skip
