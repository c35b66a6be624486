"""Fuzz the readers and the configuration for some time: `python -m tests.support.fuzz --minutes 10 [--atheris]`.

Whatever comes must be a Panel or a DataError, a Config or a ConfigError; files stay unchanged. The properties are those
of TESTS, which try some dozens of examples in each run of the tests:
here hypothesis draws other ones, round after round. With --atheris the second half of the time goes to bytes that are
changed by the code that they reach (`pip install atheris`, which nothing else needs), a process for each of TARGETS.
Measured is correctness, not speed. The last line is JSON; the exit code is 1 if anything failed, which stands above it,
with how to see it again.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from bench import runs

TESTS = ("tests/data/test_fuzz.py", "tests/data/test_number_times.py", "tests/config/test_fuzz.py")
EXAMPLES = 400  # of each property in a round
SUFFIXES = {"csv": ".csv", "parquet": ".parquet", "arrow": ".feather", "sqlite": ".db"}
TARGETS = ("toml", "set", *SUFFIXES)


def rounds(until: float, seed: int) -> tuple[int, list[str]]:
    """Run the properties with other examples until the time is up; the rounds, and what to give again if one fails."""
    done, failed = 0, []
    while not done or time.monotonic() < until:
        number = seed + done
        environment = {**os.environ, "GPUPIPE_FUZZ": str(EXAMPLES)}
        options = ["-q", "-p", "no:cacheprovider", f"--hypothesis-seed={number}", *TESTS]
        command = [sys.executable, "-m", "pytest", *options]
        ran = subprocess.run(command, cwd=runs.ROOT, env=environment, capture_output=True, text=True)
        print(f"round {number}: {ran.stdout.strip().splitlines()[-1]}", flush=True)
        done += 1
        if ran.returncode:
            print(ran.stdout + ran.stderr)
            failed.append(f"GPUPIPE_FUZZ={EXAMPLES} python -m pytest {' '.join(options)}")
    return done, failed


def target(name: str, folder: pathlib.Path) -> Callable[[bytes], None]:
    """What is done with some bytes; it raises what should not be."""
    from gpupipe import config
    from gpupipe.data import DataError, load
    from gpupipe.workloads import equity

    def of_config(content: bytes) -> None:
        with contextlib.suppress(config.ConfigError):
            if name == "toml":
                path = folder / "gpupipe.toml"
                path.write_bytes(content)
                equity.make(file=path)
            else:
                equity.make(settings=content.decode("utf-8", "surrogateescape").split("\n"))

    def of_data(content: bytes) -> None:
        path = folder / f"bars{SUFFIXES[name]}"
        path.write_bytes(content)
        with contextlib.suppress(DataError):
            load(path, {"A": "energy", "SIM0000": "energy"}, device="cpu")

    return of_data if name in SUFFIXES else of_config


def seeds(folder: pathlib.Path) -> None:
    """A small true file of each kind, which is where changes begin."""
    import sqlite3

    import pyarrow.csv
    import pyarrow.feather
    import pyarrow.parquet

    from gpupipe.data import simulate

    table = simulate(2, 5).to_arrow()
    plain = table.set_column(0, "symbol", table["symbol"].cast("string"))
    plain = plain.set_column(2, "sector", plain["sector"].cast("string"))
    for name in TARGETS:
        (folder / name).mkdir()
    toml = 'preset = "fast"\n[training]\nmodels = ["linear"]\n[tuned.energy.hist]\ndepth = 3\n'
    (folder / "toml" / "seed").write_text(toml)
    (folder / "set" / "seed").write_text("training.max_bin=32\nlabels.horizons=1,2\nfeatures.names=default")
    pyarrow.csv.write_csv(plain, folder / "csv" / "seed")
    pyarrow.parquet.write_table(table, folder / "parquet" / "seed")
    pyarrow.feather.write_feather(table, folder / "arrow" / "seed", compression="uncompressed")
    with contextlib.closing(sqlite3.connect(folder / "sqlite" / "seed")) as connection, connection:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("CREATE TABLE candles (symbol, date, open, high, low, close, volume)")
        connection.execute("INSERT INTO candles VALUES ('A', '2020-01-02', 1.5, 2, '1', 1.5, 7)")


def guided(minutes: float, seed: int) -> list[str]:
    """Every target in a process of its own under atheris; the input that broke each, kept in the folder it names."""
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit("atheris is not installed: pip install atheris, or leave --atheris out")
    place, failed = pathlib.Path(tempfile.mkdtemp(prefix="gpupipe-fuzz-")), []
    seeds(place)
    for name in TARGETS:
        command = [sys.executable, "-m", "tests.support.fuzz", "--target", name, "--place", str(place),
                   "--seed", str(seed), "--minutes", str(minutes / len(TARGETS))]  # fmt: skip
        ran = subprocess.run(command, cwd=runs.ROOT, capture_output=True, text=True)
        text = (ran.stderr + ran.stdout).strip().splitlines()
        last = next((line for line in reversed(text) if line.startswith(("Done", "stat::"))), (text or [""])[-1])
        print(f"atheris {name}: {'nothing found' if ran.returncode == 0 else 'FAILED'}; {last}", flush=True)
        if ran.returncode:
            print("\n".join(text[-40:]))
            failed.append(f"{place}/{name}-*")
    return failed


def fuzz(name: str, place: pathlib.Path, minutes: float, seed: int) -> None:
    """Never returns: atheris ends the process."""
    import atheris

    with atheris.instrument_imports(include=["gpupipe.data", "gpupipe.config", "tomllib", "csv"]):
        import gpupipe.config
        import gpupipe.data
        import gpupipe.workloads.equity  # noqa: F401
    options = [f"-max_total_time={max(1, int(60 * minutes))}", f"-seed={seed + 1}", "-rss_limit_mb=4096", "-timeout=60",
               f"-artifact_prefix={place}/{name}-", str(place / name)]  # fmt: skip
    folder = pathlib.Path(tempfile.mkdtemp())
    atheris.Setup([sys.argv[0], *options], target(name, folder))
    atheris.Fuzz()


def main(arguments: list[str] | None = None) -> int:
    parser = runs.options(__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true", help="guided by coverage in the second half of the time")
    parser.add_argument("--target", choices=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=pathlib.Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.target:
        fuzz(chosen.target, chosen.place, chosen.minutes, chosen.seed)
    share = 0.5 if chosen.atheris else 1.0
    done, failed = rounds(time.monotonic() + 60 * share * chosen.minutes, chosen.seed)
    if chosen.atheris:
        failed += guided(chosen.minutes * (1 - share), chosen.seed)
    for command in failed:
        print(f"see it again: {command}")
    print(json.dumps(runs.record(
        "fuzz", minutes=chosen.minutes, rounds=done, examples_of_a_property=EXAMPLES, atheris=chosen.atheris,
        failed=failed, seed=chosen.seed,
    )))  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
