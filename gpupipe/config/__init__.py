"""A run is a value: a preset, changed by a gpupipe.toml and by --set, checked as a whole."""

from gpupipe.config.names import (
    BOOSTERS,
    BY_SECTOR,
    FAMILIES,
    OPTIONAL_FAMILIES,
    RULES,
    SAMPLING,
    TURBOMODE,
    TURBOMODE_FAMILIES,
    WINDOWS,
    ConfigError,
)
from gpupipe.config.presets import PRESETS
from gpupipe.config.reading import make, with_table
from gpupipe.config.sections import (
    Booster,
    CatBoost,
    Config,
    FeatureSet,
    Forest,
    Labels,
    LightGBM,
    Linear,
    Meta,
    Ml,
    Split,
    Training,
    Tuned,
    cut,
)

__all__ = [
    "BOOSTERS", "BY_SECTOR", "FAMILIES", "OPTIONAL_FAMILIES", "PRESETS", "RULES", "SAMPLING", "TURBOMODE",
    "TURBOMODE_FAMILIES", "WINDOWS", "Booster", "CatBoost", "Config", "ConfigError", "FeatureSet", "Forest", "Labels",
    "LightGBM", "Linear", "Meta", "Ml", "Split", "Training", "Tuned", "cut", "make", "with_table",
]  # fmt: skip
