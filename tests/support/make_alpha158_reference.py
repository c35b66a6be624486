"""Qlib's own values of Alpha158 on some stocks of the demo: `python -m tests.support.make_alpha158_reference`.

Writes alpha158_reference.npz beside this file: names, symbols, and values float32 (n_rows, 158). The bars go to Qlib
through a folder in its own format; $vwap, which a Panel does not have, is the typical price.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
SYMBOLS = ("AMD", "BA", "C")  # of those that have every day


def write_provider(folder: pathlib.Path, panel) -> None:
    """Qlib's storage: calendars/day.txt, instruments/all.txt, features/SYMBOL/FIELD.day.bin (start, then float32)."""
    days = np.unique(panel.time_ns)
    text = [str(np.datetime64(int(day), "ns").astype("datetime64[D]")) for day in days]
    for name in ("calendars", "instruments", "features"):
        (folder / name).mkdir(parents=True)
    (folder / "calendars" / "day.txt").write_text("\n".join(text) + "\n")
    lines = []
    for k, symbol in enumerate(panel.symbols):
        rows = slice(int(panel.offsets[k]), int(panel.offsets[k + 1]))
        place = np.searchsorted(days, panel.time_ns[rows])
        assert (np.diff(place) == 1).all(), f"{symbol} lacks days that others have"
        lines.append(f"{symbol}\t{text[place[0]]}\t{text[place[-1]]}")
        columns = {name: getattr(panel, name)[rows] for name in ("open", "high", "low", "close", "volume")}
        columns["vwap"] = (columns["high"] + columns["low"] + columns["close"]) / np.float32(3)
        own = folder / "features" / symbol.lower()
        own.mkdir()
        for name, values in columns.items():
            np.concatenate([[place[0]], values]).astype("<f4").tofile(own / f"{name}.day.bin")
    (folder / "instruments" / "all.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    import qlib
    from qlib.contrib.data.handler import Alpha158
    from qlib.data import D

    sys.path[:0] = [str(ROOT)]
    from tests.support.market import demo_panel

    whole = demo_panel()
    panel = whole.where([name in SYMBOLS for name in whole.symbols])
    fields, names = Alpha158.get_feature_config(object.__new__(Alpha158))
    assert len(names) == 158
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place, "provider")
        write_provider(folder, panel)
        qlib.init(provider_uri=str(folder), region="us", kernels=1, expression_cache=None, dataset_cache=None)
        frame = D.features(list(panel.symbols), fields, freq="day")
    frame = frame.sort_index()
    values = np.concatenate([frame.loc[symbol].to_numpy(np.float32) for symbol in panel.symbols])
    assert values.shape == (panel.n_rows, 158)
    target = pathlib.Path(__file__).with_name("alpha158_reference.npz")
    np.savez_compressed(target, names=np.array(names), symbols=np.array(panel.symbols), values=values)
    print(f"{target.name}: {values.shape}, pyqlib {qlib.__version__}")


if __name__ == "__main__":
    main()
