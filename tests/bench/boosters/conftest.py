"""A small world that boosters and forests are compared on."""

from __future__ import annotations

import pytest

from bench.boosters import world as worlds
from gpupipe.workloads.equity import make
from tests.support.tiny import QUICK, in_sectors, tiny_market


@pytest.fixture(scope="session")
def world():
    return worlds.make_world(in_sectors(tiny_market(), ["energy", "utilities"]), make("fast", settings=QUICK))


@pytest.fixture
def make_or_skip():
    """Makes a peer, or skips the test with the name of the missing library."""
    from bench.runs import SkippedError

    def make_peer(maker, *arguments):
        try:
            return maker(*arguments)
        except SkippedError as error:
            pytest.skip(str(error))

    return make_peer
