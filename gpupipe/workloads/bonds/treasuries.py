"""The default market: US Treasury notes and bonds at their auctions, with the Treasury's par curve."""

from __future__ import annotations

from gpupipe.data.panel import Panel
from gpupipe.data.report import DataReport


def treasury_market() -> tuple[Panel, DataReport]:
    """The panel of US Treasury notes and bonds, quoted at their auctions, and the report on it."""
    raise NotImplementedError
