"""Whatever a file or --set says, it is a configuration or a ConfigError of one line, and never anything else."""

from __future__ import annotations

import pathlib
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpupipe import config
from gpupipe.config import reading
from gpupipe.workloads import equity
from tests.data.test_fuzz import SLOW

READER = reading.Reader(equity.catalogue())
KEYS = [*READER.known_keys, *READER.section_names, "tuned", "tuned.energy.hist.depth", "preset", "nothing.there"]
keys = st.sampled_from(KEYS) | st.text(max_size=8)
values = st.one_of(
    st.sampled_from(
        [
            "nan",
            "inf",
            "-inf",
            "-1",
            "0",
            "1e400",
            "true",
            "[]",
            "{}",
            "[[1]]",
            "{a = 1}",
            "[nan]",
            "2020-01-01",
            "99999999999999999999999",
            "1,2,x",
            "[1, 'a', true]",
            "turbomode",
            "['turbomode']",
            "default,none",
            "''",
            '"\\u0000"',
            "-0.0",
            "0.5",
            "[0.05, 0.05]",
            "[2, 1]",
            "07:32:00",
            "1\nseed = 2",
        ]
    ),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=10),
)
presets = st.sampled_from([None, "fast", "balanced", "quality", "none"])


def make(preset=None, **given):
    try:
        settings = equity.make(preset, **given)
    except config.ConfigError as error:
        assert str(error)
    else:
        assert isinstance(settings, config.Config) and settings.digest() and settings.as_dict()


def of_toml(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "gpupipe.toml")
        path.write_bytes(content)
        make(file=path)


@SLOW
@given(presets, st.lists(st.builds("{}={}".format, keys, values), max_size=3))
def test_any_setting(preset, settings):
    make(preset, settings=settings)


@SLOW
@given(st.text(max_size=30))
def test_any_text_as_a_setting(text):
    make(settings=[text])


@SLOW
@given(st.lists(st.one_of(
    st.builds("{} = {}".format, keys, values),
    st.builds("[{}]".format, keys),
    st.builds("{} = {}".format, st.sampled_from(["depth", "rounds", "l2", "models", "horizons"]), values),
    st.sampled_from(["[tuned]", "[tuned.energy]", "[tuned.energy.hist]", "[tuned.e.label_1d_5pct.hist]", "[[hist]]"]),
), max_size=6).map("\n".join))  # fmt: skip
def test_any_lines_of_a_file(text):
    of_toml(text.encode("utf-8", "surrogatepass"))


@SLOW
@given(st.binary(max_size=60))
def test_any_bytes_of_a_file(content):
    of_toml(content)


@pytest.mark.parametrize("depth", [50, 100_000])
def test_a_file_that_goes_deep(depth):
    """tomllib calls itself for each bracket."""
    of_toml(b"seed = " + b"[" * depth + b"]" * depth)
    make(settings=["seed=" + "[" * depth])


def test_a_number_that_is_too_long():
    """Python refuses more than 4,300 digits with an error that is not tomllib's."""
    of_toml(b"seed = " + b"9" * 5000)
    make(settings=["seed=" + "9" * 5000])
