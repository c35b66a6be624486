"""A page of the lines that `python -m bench.gpu` has added: `python -m bench.gpu.page LINES.jsonl --out PAGE.html`."""

from __future__ import annotations

import argparse
import html
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from bench.runs import Line

STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; } td, th { padding: 0.2rem 0.7rem; text-align: left; }
th { border-bottom: 1px solid #8c9196; font-weight: 600; } td { border-bottom: 1px solid #dfe3e8; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } .wrong { color: #b3261e; font-weight: 600; }
.bar { display: inline-block; height: 0.7rem; background: #0b62a4; vertical-align: middle; }
div.table { overflow-x: auto; }
"""
HIDDEN = ("kind", "device", "cupy", "time")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu.html"))
    chosen = parser.parse_args(arguments)
    lines = [json.loads(text) for text in chosen.lines.read_text(encoding="utf-8").splitlines() if text.strip()]
    if not lines:
        raise SystemExit(f"{chosen.lines} has no lines")
    chosen.out.write_text(page(lines), encoding="utf-8")
    print(chosen.out)
    return 0


def page(lines: Sequence[Line]) -> str:
    """The page: what stands where the machine is, what is wrong, then a table for each kind of line."""
    kinds = list(dict.fromkeys(line["kind"] for line in lines))
    first, last = lines[0], lines[-1]
    wrong = [line for line in lines if is_wrong(line)]
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>gpupipe on {text(first['device'])}</title><style>{STYLE}</style>",
        f"<h1>gpupipe on {text(first['device'])}</h1>",
        f"<p>CuPy {text(first.get('cupy', ''))}; {text(first['time'])} to {text(last['time'])}; {len(lines)} lines. ",
        f"{len(wrong)} of them are wrong or failed.</p>" if wrong else "None of them is wrong or failed.</p>",
    ]
    if wrong:
        parts.append(table("Wrong or failed", [{"step of the script": line["kind"], **line} for line in wrong]))
    parts += [table(kind, [line for line in lines if line["kind"] == kind]) for kind in kinds]
    return "\n".join([*parts, "</html>\n"])


def is_wrong(line: Line) -> bool:
    """Whether a line says that something differs, failed or ended early."""
    case = str(line.get("case", "")).split()
    if case[:1] == ["turns"] and case[-1] in ("plain", "predict"):
        return False  # XGBoost is known to get these wrong, or to abort: they are there to see whether it still does
    # A tensor of Torch's that is not in the pool.
    apart = "with_tensor" in line and line["with_array"] - line["before"] < line["bytes"]
    named = ("differ", "error", "failures", "rounds_unlike_a_fresh_booster")
    return apart or line.get("equal") is False or any(line.get(name) for name in named)


def table(title: str, lines: Sequence[Line]) -> str:
    """Lines as a table, a column for each name."""
    names = list(dict.fromkeys(name for line in lines for name in line if name not in HIDDEN))
    rows = ["".join(cell(name, line.get(name)) for name in names) for line in lines]
    marked = [
        f"<tr{' class=wrong' if is_wrong(line) else ''}>{row}</tr>" for line, row in zip(lines, rows, strict=True)
    ]
    heads = "".join(f"<th>{text(name.replace('_', ' '))}</th>" for name in names)
    return f"<h2>{text(title)}</h2><div class='table'><table><tr>{heads}</tr>{''.join(marked)}</table></div>"


def cell(name: str, value: Any) -> str:
    """A value; a share also as a bar."""
    if value is None or value == "":
        return "<td></td>"
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = json.dumps(value) if isinstance(value, list | dict) else str(value)
        return f"<td>{text(shown)}</td>"
    if name == "share":
        return f"<td><span class='bar' style='width:{80 * min(1.0, value):.0f}px'></span> {value:.0%}</td>"
    shown = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"<td class='number'>{shown}</td>"


def text(value: Any) -> str:
    """A value as HTML."""
    return html.escape(str(value))


if __name__ == "__main__":
    sys.exit(main())
