"""XGBoost's CPU build, answering as its CUDA build does: arrays of the device, device names, and F1's refusal.

`GPUHistMaker` reads the rows and bins of the first matrix that it meets and keeps them until a parameter is set
(InitData in src/tree/updater_gpu_hist.cu, 3.2 and later). A round on another matrix would be fitted, without a word, on
those of the first: here it is refused.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.stand_in import counting
from tests.support.stand_in.counting import COUNTS
from tests.support.stand_in.device_array import ndarray
from tests.support.stand_in.recorded import RefusedError

_thread = threading.local()  # sketched: whether the matrix that is being made has rows on the device


def install() -> None:
    """Change XGBoost's classes and functions in this process."""
    import xgboost

    _take_arrays()
    _matrices(xgboost.QuantileDMatrix)
    _devices(xgboost.Booster)
    _rounds(xgboost.Booster)
    _predictions(xgboost.Booster)
    _readings(xgboost.Booster)
    _build(xgboost)


def _bare(array: Any) -> Any:
    """The numpy array of a device array; rows are float32, as XGBoost reads CuPy's without a copy."""
    if not isinstance(array, ndarray):
        return array
    if array.dtype != np.float32:
        raise RefusedError(f"XGBoost: expected float32 on the device, got {array.dtype} {array.shape}")
    return array.host


def _replace(holder: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put make(what stands there) in the place of an attribute."""
    setattr(holder, name, make(getattr(holder, name)))


def _take_arrays() -> None:
    from xgboost import data

    def proxy(real: Callable[..., Any]) -> Callable[..., Any]:
        def transform(rows: Any, *rest: Any, **named: Any) -> Any:
            _thread.sketched = isinstance(rows, ndarray) or getattr(_thread, "sketched", False)
            return real(_bare(rows), *rest, **named)

        return transform

    _replace(data, "_proxy_transform", proxy)
    _replace(data, "dispatch_data_backend", lambda real: lambda *, data, **named: real(data=_bare(data), **named))
    _replace(
        data, "dispatch_meta_backend", lambda real: lambda m, rows, *rest, **named: real(m, _bare(rows), *rest, **named)
    )


def _matrices(kind: Any) -> None:
    def init(real: Callable[..., None]) -> Callable[..., None]:
        def new(self: Any, data: Any, *rest: Any, **named: Any) -> None:
            _thread.sketched = isinstance(data, ndarray)
            real(self, data, *rest, **named)
            if _thread.sketched and named.get("ref") is None:
                COUNTS.add(counting.NOTES, "cut points found on the device, which are others than the host's")

        return new

    _replace(kind, "__init__", init)


def _on_cuda(booster: Any) -> bool:
    return booster.__dict__.get("_device_of_stand_in", "cpu").startswith("cuda")


def _devices(kind: Any) -> None:
    """Boosters remember the device that they were given; XGBoost itself is told of the CPU."""

    def on_cpu(params: Any) -> tuple[Any, str]:
        """Parameters with the CPU for device, and the device that they name; "" if none."""
        pairs = dict(params or {})
        device = str(pairs.get("device", ""))
        return (pairs | {"device": "cpu"} if device else pairs), device

    def init(real: Callable[..., None]) -> Callable[..., None]:
        def new(self: Any, params: Any = None, *rest: Any, **named: Any) -> None:
            pairs, device = on_cpu(params)
            real(self, pairs, *rest, **named)
            self._device_of_stand_in = device or "cpu"

        return new

    def set_param(real: Callable[..., None]) -> Callable[..., None]:
        def new(self: Any, params: Any, value: Any = None) -> None:
            pairs, device = on_cpu({params: value} if isinstance(params, str) else params)
            real(self, pairs)
            self._device_of_stand_in = device or self.__dict__.get("_device_of_stand_in", "cpu")
            self._matrix_of_stand_in = None  # the updater is configured anew

        return new

    def save_config(real: Callable[..., str]) -> Callable[..., str]:
        def new(self: Any) -> str:
            config = json.loads(real(self))
            if _on_cuda(self):
                config["learner"]["generic_param"]["device"] = "cuda:0"
            return json.dumps(config)

        return new

    _replace(kind, "__init__", init)
    _replace(kind, "set_param", set_param)
    _replace(kind, "save_config", save_config)


def _rounds(kind: Any) -> None:
    def same_matrix(booster: Any, matrix: Any) -> None:
        last = booster.__dict__.get("_matrix_of_stand_in")
        if _on_cuda(booster) and last is not None and last() is not matrix:
            raise RefusedError(
                "XGBoost's CUDA updater keeps the rows and bins of the matrix of the round before: set a parameter, or "
                "boost on that matrix"
            )
        booster._matrix_of_stand_in = weakref.ref(matrix)
        COUNTS.add(counting.BOOSTS, "cuda" if _on_cuda(booster) else "cpu")

    def boost(real: Callable[..., None]) -> Callable[..., None]:
        def new(self: Any, dtrain: Any, iteration: int, *, grad: Any = None, hess: Any = None, **named: Any) -> None:
            same_matrix(self, dtrain)
            if _on_cuda(self):
                for derivative in (grad, hess):
                    if isinstance(derivative, np.ndarray):
                        COUNTS.add(counting.UNCOUNTED, "derivatives from the host", derivative.nbytes)
            elif isinstance(grad, ndarray):
                raise RefusedError("XGBoost on the CPU cannot read derivatives on the device")
            real(self, dtrain, iteration, grad=_bare(grad), hess=_bare(hess), **named)

        return new

    def update(real: Callable[..., None]) -> Callable[..., None]:
        def new(self: Any, dtrain: Any, iteration: int, fobj: Any = None) -> None:
            if fobj is None:
                same_matrix(self, dtrain)
            real(self, dtrain, iteration, fobj)

        return new

    _replace(kind, "boost", boost)
    _replace(kind, "update", update)


def _predictions(kind: Any) -> None:
    def inplace(real: Callable[..., Any]) -> Callable[..., Any]:
        def new(self: Any, data: Any, *rest: Any, base_margin: Any = None, **named: Any) -> Any:
            on_device = isinstance(data, ndarray)
            COUNTS.add(counting.PREDICTS, "inplace_predict")
            if on_device != _on_cuda(self):
                COUNTS.add(counting.NOTES, "inplace_predict: rows and booster are on different devices")
            result = real(self, _bare(data), *rest, base_margin=_bare(base_margin), **named)
            return ndarray(result) if on_device else result

        return new

    def predict(real: Callable[..., Any]) -> Callable[..., Any]:
        def new(self: Any, data: Any, *rest: Any, **named: Any) -> Any:
            result = real(self, data, *rest, **named)
            COUNTS.add(counting.PREDICTS, "predict")
            if _on_cuda(self):
                COUNTS.add(counting.WAITS, "predictions of a matrix")
                COUNTS.add(counting.UNCOUNTED, "predictions of a matrix", result.nbytes)
            return result

        return new

    _replace(kind, "inplace_predict", inplace)
    _replace(kind, "predict", predict)


def _readings(kind: Any) -> None:
    """Slices and JSON of a booster: both are of the host, and long for a large one."""

    def getitem(real: Callable[..., Any]) -> Callable[..., Any]:
        def new(self: Any, rounds: Any) -> Any:
            part = real(self, rounds)
            if _on_cuda(self):
                COUNTS.add(counting.NOTES, "a slice of a booster on cuda")
                part._device_of_stand_in = self._device_of_stand_in
            return part

        return new

    def save_raw(real: Callable[..., Any]) -> Callable[..., Any]:
        def new(self: Any, raw_format: str = "ubj") -> Any:
            if _on_cuda(self):
                COUNTS.add(counting.NOTES, f"save_raw {raw_format} of a booster on cuda")
            return real(self, raw_format)

        return new

    _replace(kind, "__getitem__", getitem)
    _replace(kind, "save_raw", save_raw)


def _build(xgboost: Any) -> None:
    """What the build says of itself, and the settings that a CUDA build alone has."""
    _replace(xgboost, "build_info", lambda real: lambda: {**real(), "USE_CUDA": True, "USE_RMM": False})

    def without_pool(real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda **settings: real(**{name: settings[name] for name in settings if name != "use_cuda_async_pool"})

    _replace(xgboost, "config_context", without_pool)
    _replace(xgboost, "set_config", without_pool)
