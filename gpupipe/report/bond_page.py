"""All sections of a run of bonds, in their order."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from gpupipe.report import bond_words
from gpupipe.report.bond_curves import curve_fit, key_rate_risk
from gpupipe.report.bond_dates import regimes
from gpupipe.report.bond_fair_values import fair_values, rich_and_cheap, sealed_predictions
from gpupipe.report.bond_models import drift, models_and_baselines, searches
from gpupipe.report.bond_steps import steps
from gpupipe.report.bond_tail import tail_risk
from gpupipe.report.page import Section
from gpupipe.runtime import timeline


def bond_sections(out: pathlib.Path, whole: Mapping[str, Any], log: timeline.Log | None) -> list[Section | None]:
    """Sections of a run of bonds; None in the place of those for which OUT holds no data. Other runs have none.

    Without models their sections are left out.  whole: the summary.  log: of the run.
    """
    if not whole.get("bonds"):
        return []
    has_models = bond_words.has_models(whole["bonds"])
    return [
        rich_and_cheap(out, whole),
        fair_values(out, whole),
        *((models_and_baselines(whole), sealed_predictions(out, whole)) if has_models else ()),
        curve_fit(out, whole),
        key_rate_risk(out, whole),
        regimes(out, whole),
        tail_risk(out, whole),
        *((drift(whole), searches(whole)) if has_models else ()),
        steps(whole, log),
    ]
