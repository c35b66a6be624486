"""A workload in one folder: quotes of two columns, the next price as target, one estimator, three cached steps."""

from tests.support.toy_workload.estimator import Line
from tests.support.toy_workload.steps import LINE_PLACE, TOY, toy_panel

__all__ = ["LINE_PLACE", "TOY", "Line", "toy_panel"]
