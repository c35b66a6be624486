"""Names and signatures of the CUDA libraries, as rapids_signatures.json records them."""

from __future__ import annotations

import functools
import inspect
import json
import pathlib

_FILE = pathlib.Path(__file__).parents[1] / "rapids_signatures.json"


class RefusedError(TypeError):
    """The real library would refuse the call, or would copy over the bus without saying so."""


@functools.cache
def _recorded() -> dict[str, dict[str, str | None]]:
    content: dict[str, dict[str, str | None]] = json.loads(_FILE.read_text())
    return content


def version(distribution: str) -> str:
    """The version of a distribution whose names are recorded, such as "cupy-cuda13x"."""
    return str(_recorded()["versions"][distribution])


def exists(path: str) -> bool:
    """Whether a dotted name, such as "cupy.cumsum", was there when names were recorded."""
    return path in _recorded()["signatures"]


def names_in(holder: str) -> list[str]:
    """The recorded names directly inside a module or class."""
    dotted = f"{holder}."
    names = _recorded()["signatures"]
    return [name.removeprefix(dotted) for name in names if name.startswith(dotted) and "." not in name[len(dotted) :]]


@functools.cache
def signature(path: str) -> inspect.Signature | None:
    """The recorded signature of a callable; None where it is not known. Methods are without self."""
    text = _recorded()["signatures"][path]
    if text is None:
        return None
    namespace: dict[str, object] = {}
    exec(f"def f{text}: pass", namespace)
    return inspect.signature(namespace["f"])  # type: ignore[arg-type]


def check(path: str, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """RefusedError where a call of a recorded name has arguments that the real library does not take."""
    known = signature(path)
    if known is None:
        return
    try:
        known.bind(*args, **kwargs)
    except TypeError as error:
        raise RefusedError(f"{path}{_recorded()['signatures'][path]}: {error}") from None
