"""Results that a GPU rounds otherwise: sums in another order, transcendental functions by a unit in the last place.

CuPy adds in the order of its blocks, and CUDA's exp or log may differ from the C library's in the last place. The
stand-in makes such differences visible: what is still equal to the CPU's result bit for bit is equal by construction.
`EXACT.on` turns this off.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

REDUCTIONS = ("sum", "nansum", "mean", "nanmean", "prod", "nanprod", "var", "nanvar", "std", "nanstd")
RUNNING = ("cumsum", "cumprod", "nancumsum")
PRODUCTS = ("matmul", "dot")
# Correctly rounded by both: +, -, *, /, sqrt. Of the others, CUDA states an error above half a unit.
TRANSCENDENTAL = (
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "arcsin", "arccos", "arctan",
    "arctan2", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "power", "float_power", "cbrt", "hypot",
    "logaddexp", "logaddexp2",
)  # fmt: skip
LIKE_THEM = ("average", "inner", "vdot", "tensordot", "einsum", "convolve", "interp")
NAMES = frozenset((*REDUCTIONS, *RUNNING, *PRODUCTS, *TRANSCENDENTAL, *LIKE_THEM))


class Exact:
    """Whether results are numpy's to the last bit."""

    on = False


EXACT = Exact()


def function(name: str) -> Callable[..., Any]:
    """numpy's function of a name, rounded as a GPU may round it."""
    plain: Callable[..., Any] = getattr(np, name)
    if name in REDUCTIONS:
        return _unless_exact(
            plain, lambda a, axis=None, *more, **named: plain(_reordered(a, axis), axis, *more, **named)
        )
    if name in RUNNING:
        return _unless_exact(plain, lambda a, axis=None, **named: _in_halves(plain, a, axis, named))
    if name in PRODUCTS:
        return _unless_exact(plain, lambda a, b, *rest, **named: plain(*_reordered_pair(a, b), *rest, **named))
    if name == "bincount":
        return _unless_exact(plain, _shares)
    if name in TRANSCENDENTAL or name in LIKE_THEM:
        return _unless_exact(plain, lambda *args, **named: moved(plain(*args, **named)))
    return plain


def _unless_exact(plain: Callable[..., Any], rounded: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **named: (plain if EXACT.on else rounded)(*args, **named)


@functools.lru_cache(maxsize=32)
def _order(n: int) -> np.ndarray:
    """A permutation of n places in which a sum of three or more is another one."""
    return np.argsort(np.arange(n) * 0.6180339887498949 % 1, kind="stable")


def _reordered(a: Any, axis: Any) -> Any:
    """The array with the values along the axes that are reduced in another order."""
    if not (isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.ndim):
        return a
    axes = range(a.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for k in axes:
        a = np.take(a, _order(a.shape[k]), axis=k)
    return a


def _reordered_pair(a: Any, b: Any) -> tuple[Any, Any]:
    """Both factors with the values along the axis that is summed in another order."""
    if not all(isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.ndim for x in (a, b)):
        return a, b
    return _reordered(a, -1), _reordered(b, -2 if b.ndim > 1 else 0)


def _shares(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """`bincount`, whose weights a GPU adds in any order."""
    if weights is not None:
        x, weights = x[_order(len(x))], weights[_order(len(x))]
    return np.bincount(x, weights, 0 if minlength is None else minlength)


def _in_halves(plain: Callable[..., Any], a: Any, axis: int | None, named: dict[str, Any]) -> Any:
    """A running sum or product as two blocks compute it: the second from its first value, then joined to the first."""
    values = np.ravel(a) if axis is None else np.asarray(a)
    along = 0 if axis is None else axis
    if values.dtype.kind != "f" or values.shape[along] < 4 or "out" in named:
        return plain(a, axis=axis, **named)
    join = np.multiply if plain is np.cumprod else np.add
    first, second = (plain(part, axis=along, **named) for part in np.array_split(values, 2, axis=along))
    total = np.take(first, [-1], axis=along)
    return np.concatenate([first, join(second, total)], axis=along)


def moved(result: Any) -> Any:
    """Floats moved by one unit in the last place, away from zero, on a pattern of their bits; 0 and 1 stay exact."""
    if not (isinstance(result, np.ndarray | np.floating) and result.dtype in (np.float32, np.float64)):
        return result
    values = np.asarray(result)
    bits = values.view(np.int32 if values.dtype == np.float32 else np.int64)
    hit = ((bits ^ (bits >> 5)) % 3 == 1) & np.isfinite(values) & (values != 0) & (np.abs(values) != 1)
    if isinstance(result, np.ndarray) and result.flags.writeable:  # may be `out` of the caller
        bits[...] += hit
        return result
    return (bits + hit).astype(bits.dtype).view(values.dtype)
