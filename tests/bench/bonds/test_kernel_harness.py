"""The benchmark of bonds on few bonds: numpy agrees with the kernels, and the lines say what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.bonds import __main__ as bench
from bench.bonds import kernel
from bench.bonds.peers import InNumpy
from gpupipe import bonds


def test_unknown_steps_are_refused():
    with pytest.raises(SystemExit, match="no step other; there are kernel"):
        bench.main(["--steps", "other"])


def test_numpy_has_the_prices_of_the_kernels():
    table = kernel.treasuries(3_000)
    rate = np.linspace(0.1, 9, 3_000)
    clean = bonds.value({**table, "yield": rate}, given="yield")["clean"]
    side = InNumpy(table)
    np.testing.assert_allclose(side.price(rate), clean, rtol=0, atol=1e-10)
    np.testing.assert_allclose(side.rate(clean), rate, rtol=0, atol=1e-7)


def test_made_bonds_can_be_valued():
    for make, convention in kernel.SETS.values():
        table = make(2_000)
        assert not bonds.prepare(table, convention).status.any()
    assert set(table["day_count"]) == set(kernel.DAY_COUNTS) and set(table["frequency"]) == {1, 2, 4, 12}


def test_lines_without_peers(tmp_path):
    out = tmp_path / "lines.jsonl"
    few = ["--steps", "kernel", "--bonds", "3000", "--looped", "20", "--times", "1", "--peers", "financepy"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kernel.LOOPS, "financepy", missing)
        assert bench.main([*few, "--out", str(out)]) == 0
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert [(line["set"], line["kind"].removeprefix("kernel ")) for line in lines] == [
        (name, kind) for name in ("treasury", "mixed") for kind in ("equality", "pace", "whole call")
    ]
    assert lines[0]["numpy_price"] < 1e-10 and lines[1]["risk_over_price"] > 0


def missing(table):
    from bench.runs import SkippedError

    raise SkippedError("financepy is not installed")


def test_quantlib_and_financepy_agree(tmp_path):
    pytest.importorskip("QuantLib", reason="QuantLib is not installed (the extra bench)")
    pytest.importorskip("financepy", reason="financepy is not installed (the extra bench)")
    out = tmp_path / "lines.jsonl"
    few = ["--steps", "kernel", "--bonds", "3000", "--looped", "100", "--times", "1", "--peers", "quantlib,financepy"]
    assert bench.main([*few, "--out", str(out)]) == 0
    first = json.loads(out.read_text().splitlines()[0])
    assert first["quantlib_price"] < 1e-10 and first["financepy_price"] < 1e-6
