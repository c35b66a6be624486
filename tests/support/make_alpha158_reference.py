"""Qlib's own values of Alpha158 on some stocks of the demo: `python -m tests.support.make_alpha158_reference`.

Writes alpha158_reference.npz beside this file: names, symbols, and values float32 (n_rows, 158). The bars go to Qlib
as foreign_peers.py writes them; $vwap, which a Panel does not have, is the typical price.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
SYMBOLS = ("AMD", "BA", "C")  # of those that have every day


def main() -> None:
    sys.path[:0] = [str(ROOT)]
    from tests.support.foreign_peers import qlib
    from tests.support.market import demo_panel

    whole = demo_panel()
    panel = whole.where([name in SYMBOLS for name in whole.symbols])
    values, facts = qlib(panel.to_arrow().to_pandas())
    assert values.shape == (panel.n_rows, 158)
    target = pathlib.Path(__file__).with_name("alpha158_reference.npz")
    np.savez_compressed(target, names=np.array(facts["names"]), symbols=np.array(panel.symbols), values=values)
    print(f"{target.name}: {values.shape}, {facts['library']}")


if __name__ == "__main__":
    main()
