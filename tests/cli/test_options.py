"""Options that several commands share reach the reading of data."""

from __future__ import annotations

import argparse
import importlib
import pathlib

import pytest

from gpupipe.cli import ingest
from gpupipe.data import DataError, simulate
from gpupipe.runtime.device import pick

NEEDED = {
    "run": ["--data"], "tune": ["--data"], "backtest": ["--models", "O", "--data"], "scan": ["--models", "O", "--data"],
    "export": ["O", "--to", "D", "--data"],
}  # fmt: skip


def request(verb: str, *arguments: str):
    module = importlib.import_module(f"gpupipe.cli.{verb}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.request_of(parser.parse_args(arguments))


@pytest.fixture
def bars(tmp_path) -> tuple[str, str]:
    """A CSV file of bars of three symbols, and a map with the sector of the first."""
    bars = simulate(3, 10).to_arrow().drop_columns(["sector"]).to_pandas().astype({"symbol": str})
    bars.to_csv(tmp_path / "bars.csv", index=False)
    (tmp_path / "map.csv").write_text("symbol,sector\nSIM0000,Energy\n")
    return str(tmp_path / "bars.csv"), str(tmp_path / "map.csv")


@pytest.mark.parametrize("verb", NEEDED)
def test_no_sector_is_an_option_of_every_command_that_reads(bars, verb):
    def loaded(*more: str):
        asked = request(verb, *NEEDED[verb], bars[0], "--sector-map", bars[1], *more)
        data = asked.data if hasattr(asked, "data") else asked.job.data
        return data.load(pick("cpu"))[0].sector

    with pytest.raises(DataError, match=r"2 of 3 symbols have no sector: 'SIM0001', 'SIM0002'.*--no-sector drop"):
        loaded()
    assert loaded("--no-sector", "drop") == ("energy",)
    assert loaded("--no-sector", "other") == ("energy", "other", "other")
    with pytest.raises(SystemExit):
        loaded("--no-sector", "guess")


def test_ingest_drops_unless_it_is_told_otherwise(bars, tmp_path: pathlib.Path):
    def report(store: str, *more: str):
        asked = request("ingest", bars[0], "--store", str(tmp_path / store), "--sector-map", bars[1], *more)
        return ingest.ingested(asked)

    assert report("a").without_sector == ("SIM0001", "SIM0002")
    assert report("b", "--no-sector", "other").without_sector == ()
    with pytest.raises(DataError, match=r"the sector of 2 symbols \('SIM0001', 'SIM0002'\)"):
        report("c", "--no-sector", "error")
