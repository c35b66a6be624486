"""Feature files of the user: loaded, reloaded, refused, and stored with the models trained on them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import gpupipe
from gpupipe import load
from gpupipe.cli import main
from gpupipe.features.formulas import FEATURES
from gpupipe.features.formulas.registry import FeatureError, load_modules
from gpupipe.features.matrix import compute_features
from gpupipe.store.content_store import StoreError
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.panels import random_panel
from tests.support.tiny import QUICK, SECTORS, SOURCE, tiny_market

pytestmark = pytest.mark.usefixtures("clean_registry")

ROOT = pathlib.Path(__file__).parents[2]
CALM = """from gpupipe import feature

@feature("momentum", "own", [2, 3])
def calm(bar, n):
    \"\"\"{n} * close / open\"\"\"
    return bar.close / bar.open * float(n)
"""
OTHER = CALM.replace("float(n)", "(float(n) + 1.0)")


def n_registered():
    """Number of features, without the columns from outside that other tests have joined."""
    return sum(item.family != "outside" for item in FEATURES.values())


BUILT_IN = n_registered()


@pytest.fixture
def feature_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CALM)
    return path


def column(name):
    return compute_features(random_panel((40,)), name).values[:, 0]


def test_the_features_of_a_file_replace_those_of_earlier_files(feature_file, tmp_path):
    (module,) = load_modules([str(feature_file)])
    assert list(module.features) == ["calm_2", "calm_3"] and FEATURES["calm_2"] is module.features["calm_2"]
    assert load_modules([str(feature_file)]) == (module,)
    second = tmp_path / "second.py"
    second.write_text(CALM.replace("calm", "calmer"))
    assert [len(module.features) for module in load_modules([str(feature_file), str(second)])] == [2, 2]
    assert n_registered() == BUILT_IN + 4
    load_modules([str(second)])
    assert "calm_2" not in FEATURES and "calmer_2" in FEATURES
    load_modules([])
    assert n_registered() == BUILT_IN


def test_a_changed_file_replaces_its_features(feature_file):
    load_modules([str(feature_file)])
    before = column("calm_2")
    feature_file.write_text(OTHER.replace("[2, 3]", "[2]"))
    load_modules([str(feature_file)])
    assert "calm_3" not in FEATURES
    np.testing.assert_allclose(column("calm_2"), before * 1.5, rtol=1e-6)
    feature_file.write_text(CALM)
    load_modules([str(feature_file)])
    np.testing.assert_array_equal(column("calm_2"), before)


def test_a_file_runs_once_for_each_content(feature_file, tmp_path):
    feature_file.write_text(CALM + "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch(exist_ok=False)\n")
    for paths in ([feature_file], [], [feature_file], [feature_file]):
        load_modules(map(str, paths))
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py", "mine.ran"}  # no bytecode cache next to it


def test_dataclasses_and_later_annotations_work_in_a_file(feature_file):
    text = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    n: int = 1\n"
    feature_file.write_text(text + CALM)
    assert len(load_modules([str(feature_file)])) == 1


FEATURE = "from gpupipe import feature\n@feature('momentum', 's')\n"


@pytest.mark.parametrize(
    "text, message",
    [
        (None, r"mine.py cannot be read: No such file"),
        ("x = 1", "mine.py registers no feature"),
        ("def f(:", "mine.py cannot be run: SyntaxError: .*line 1"),
        ("import there_is_no_such_module", r"mine.py cannot be run: ModuleNotFoundError: .* \(line 1\)"),
        ("raise SystemExit(3)", "mine.py cannot be run: SystemExit: 3"),
        (f"{FEATURE}def bar_range(bar):\n    return bar.low", "mine.py: there is a feature 'bar_range' already"),
        (f"{FEATURE.replace('momentum', 'nothing')}def f(bar):\n    return bar.close", "mine.py: no family"),
        (f"{FEATURE}def f(bar):\n    return bar.clsoe", r"f cannot be built: AttributeError: .*\(line 4\)"),
        (f"{FEATURE}def f(bar):\n    return 2.0", "mine.py: feature f returned float, expected a formula: return"),
        (f"{FEATURE}def f(bar, n):\n    return bar.low", r"takes the bar and n, but the periods given are \(\)"),
        (CALM.replace("(bar, n)", "(bar)"), r"calm takes the bar alone, but the periods given are \(2,\)"),
        (f"{CALM}\nraise ValueError('in the\\\\n middle')", r"mine.py cannot be run: ValueError: .* \(line 8\)"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused_and_nothing_changes(feature_file, tmp_path, text, message):
    load_modules([str(feature_file)])
    before = dict(FEATURES)
    if text is None:
        feature_file.unlink()
    else:
        feature_file.write_text(text)
    second = tmp_path / "second.py"
    second.write_text(CALM.replace("calm", "calmer"))
    with pytest.raises(FeatureError, match=f"(?s){message}"):
        load_modules([str(second), str(feature_file)])
    assert before == FEATURES


def test_two_files_with_the_same_feature_are_refused(feature_file, tmp_path):
    second = tmp_path / "second.py"
    second.write_text(OTHER)
    with pytest.raises(FeatureError, match=r"second.py: there is a feature 'calm_2' already; rename"):
        load_modules([str(feature_file), str(second)])


@pytest.mark.parametrize("command", [["features"], ["audit"], ["run", "--data", SOURCE, "--out", "OUT"]])
def test_every_command_refuses_a_broken_file_in_one_line(feature_file, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    feature_file.write_text(CALM.replace("bar.open", "bar.oepn"))
    option = ["--set", "features.modules=mine.py"] if command[0] == "run" else ["--module", "mine.py"]
    assert main.main([*command, *option]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("gpupipe: ") and errors.count("\n") == 1
    assert "mine.py: feature calm_2 cannot be built: AttributeError" in errors and "(line 6)" in errors
    assert not (tmp_path / "OUT").exists()


def test_the_list_of_features_includes_those_of_a_file(feature_file, capsys):
    assert main.main(["features", "--module", str(feature_file)]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["calm_2", "calm_3"] and "2 * close / open" in lines[0]
    assert main.main(["features", "rsi_14", "--module", str(feature_file)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


WITH_MINE = (
    "training.models=linear", "labels.horizons=1", "labels.thresholds=0.02", "features.names=roc_*,calm_*,volatile",
)  # fmt: skip
VOLATILE = """
import numpy as np
from gpupipe import panel_feature
FACTOR = 2

@panel_feature("volatility", "own")
def volatile(panel):
    return (panel.high - panel.low) / panel.close * np.float32(FACTOR)
"""


def train(out, *, changed=False):
    """(predictions by the process that trained, summary)."""
    panel = tiny_market()
    settings = ("features.modules=mine.py", *QUICK, *WITH_MINE)
    whole, worked = tiny.execute(panel, None, equity.make("fast", settings=settings), out, 1)
    assert worked is changed
    return load(out).predict(panel).values, whole


def test_models_keep_the_files_they_were_trained_with(feature_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    feature_file.write_text(CALM + VOLATILE)
    predictions, _ = train("OUT", changed=True)
    assert np.isfinite(predictions).any()
    out = tmp_path / "OUT"
    names = load(out).feature_names
    assert {"calm_2", "calm_3", "volatile"} < set(names)
    assert [path.name for path in (out / "features").iterdir()] == ["00_mine.py"]
    train("OUT", changed=False)
    # In another folder and process, after the file has been deleted.
    feature_file.unlink()
    away = tmp_path / "away"
    away.mkdir()
    code = (
        "import sys, numpy as np\nfrom tests.support.tiny import tiny_market\nfrom gpupipe import load\n"
        "np.save('predictions.npy', load(sys.argv[1]).predict(tiny_market()).values)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=away, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(away / "predictions.npy"), predictions)
    # In this process, after other features have taken the names.
    feature_file.write_text(OTHER)
    load_modules([str(feature_file)])
    np.testing.assert_array_equal(load(out).predict(tiny_market()).values, predictions)


def test_a_file_that_imports_modules_of_an_earlier_gpupipe_is_loaded(feature_file):
    formula = "def former(bar):\n    'Close over its mean.'\n    return bar.close / mean(bar.close, 5)\n"
    feature_file.write_text("from gpupipe.expressions import mean\n" + FEATURE + formula)
    (module,) = load_modules([str(feature_file)])
    assert set(module.features) == {"former"}


def test_a_changed_file_trains_again_and_replaces_the_run(feature_file, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    feature_file.write_text(CALM + VOLATILE)
    predictions, before = train("OUT", changed=True)
    assert "this run replaces it" not in caplog.text
    feature_file.write_text(CALM + VOLATILE.replace("FACTOR = 2", "FACTOR = -3"))
    new_predictions, after = train("OUT", changed=True)
    assert before["run_key"] != after["run_key"]
    assert "OUT holds a finished run of other data, settings or code: this run replaces it" in caplog.text
    assert (new_predictions[np.isfinite(new_predictions)] != predictions[np.isfinite(predictions)]).any()
    feature_file.rename(tmp_path / "other.py")
    settings = ("features.modules=other.py", *QUICK, *WITH_MINE)
    gpupipe.train(tiny_market(), "fast", "OUT", settings=settings, jobs=1)
    assert [path.name for path in (tmp_path / "OUT/features").iterdir()] == ["00_other.py"]
    gpupipe.train(tiny_market(), "fast", "OUT", settings=(*QUICK, *WITH_MINE[:3], "features.names=rsi_14"), jobs=1)
    assert not (tmp_path / "OUT/features").exists()


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_a_stored_file_that_is_missing_or_altered_is_refused(feature_file, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    feature_file.write_text(CALM + VOLATILE)
    train("OUT", changed=True)
    stored = tmp_path / "OUT/features/00_mine.py"
    stored.unlink()
    if how == "changed":
        stored.write_text(OTHER + VOLATILE)
    with pytest.raises(StoreError, match=r"00_mine.py is gone or was altered since it was written: run again with"):
        load("OUT")


def test_models_name_the_features_that_are_not_registered(feature_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    @gpupipe.feature("momentum", "own")
    def registered_here_only(bar):
        """close / open"""
        return bar.close / bar.open

    settings = (*QUICK, *WITH_MINE[:3], "features.names=rsi_14,registered_here_only")
    gpupipe.train(tiny_market(), "fast", "OUT", settings=settings, jobs=1)
    models = load("OUT")
    assert models.modules == {} and np.isfinite(models.predict(tiny_market()).values).any()
    del FEATURES["registered_here_only"]
    with pytest.raises(
        StoreError, match=r"not registered here \(registered_here_only\): import the code that registers"
    ):
        models.predict(tiny_market())


def test_the_command_trains_with_a_file(feature_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sets = [f"--set={setting}" for setting in (*QUICK, *WITH_MINE[:3], "features.names=roc_*,calm_*")]
    arguments = ["run", "--data", SOURCE, "--sectors", ",".join(SECTORS), "--preset", "fast", "--jobs", "1", *sets]
    assert main.main([*arguments, "--set", "features.modules=mine.py", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_models"] == 3
    manifest = json.loads((tmp_path / "OUT/manifest.json").read_text())
    assert "features/00_mine.py" in manifest["files"]
