"""Models that are altered, foreign, or of another version: refused in one line, on loading and when run again."""

from __future__ import annotations

import io
import json
import shutil
import zipfile

import numpy as np
import pytest

from gpupipe import load
from gpupipe.artifacts.manifest import entry_of
from gpupipe.cli import run
from gpupipe.estimators import registry
from gpupipe.runtime import run_log
from gpupipe.store.content_store import StoreError, dump_json, sha256
from tests.support import kill
from tests.support.tiny import JOB

OPTIONS = [*JOB, "--models", "xgb_joint,linear,lightgbm,catboost", "--set=lightgbm.rounds=3", "--set=catboost.rounds=3",
           "--quiet"]  # fmt: skip
FOLDER = "trained_2pct/energy/1d"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    for name in ("lightgbm", "catboost"):
        pytest.importorskip(name)
    out = tmp_path_factory.mktemp("finished") / "OUT"
    assert run.main([*OPTIONS, "--out", str(out)]) == 0
    return out


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "OUT")


def put(out, name, content):
    """Put another content there, and let the manifest call it good, as somebody might who wants it loaded."""
    path = out / name
    path.unlink()
    path.write_bytes(content)
    manifest = json.loads((out / "manifest.json").read_bytes())
    manifest["files"][name] = entry_of(content)
    (out / "manifest.json").write_bytes(dump_json(manifest))


def with_object(content):
    """The .npz with one of its arrays an array of objects, which numpy pickles."""
    buffer = io.BytesIO()
    with np.load(io.BytesIO(content)) as saved:
        np.savez(buffer, **{**saved, "coefficients": np.array([print], dtype=object)})
    return buffer.getvalue()


def other(out, name):
    return (out / FOLDER / name).read_bytes()


@pytest.mark.parametrize("name", ["xgb_joint.ubj", "linear.npz", "lightgbm.txt", "catboost.cbm"])
@pytest.mark.parametrize("content", ["nothing", "text", "half", "begins right", "another library's"])
def test_a_file_that_is_not_the_librarys_own(out, name, content):
    path = f"{FOLDER}/{name}"
    whole = other(out, name)
    foreign = other(out, "linear.npz" if name != "linear.npz" else "catboost.cbm")
    put(out, path, {"nothing": b"", "text": b"not a model\n", "half": whole[: len(whole) // 2],
                    "begins right": whole[:12], "another library's": foreign}[content])  # fmt: skip
    with pytest.raises(StoreError, match=rf"{name}.* cannot be read as a model of .*run again with --out") as caught:
        load(out)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["xgb_joint.ubj", "lightgbm.txt", "catboost.cbm"])
def test_no_part_of_a_file_is_given_to_its_library(out, name):
    """They would read on behind it, and end the process when there is nothing: mostly, not always."""
    family, whole, cut = name.partition(".")[0], other(out, name), name[name.index(".") :]
    about = json.loads(other(out, "metadata.json"))["models"][family]
    files = {suffix: other(out, family + suffix) for suffix in about["files"]}
    registry.load_model(files, about, {})
    for n_bytes in {*range(0, len(whole), max(1, len(whole) // 200)), *range(len(whole) - 40, len(whole))}:
        with pytest.raises(ValueError, match="bytes"):
            registry.load_model({**files, cut: whole[:n_bytes]}, about, {})


def test_no_object_is_ever_unpickled(out):
    put(out, f"{FOLDER}/linear.npz", with_object(other(out, "linear.npz")))
    with pytest.raises(StoreError, match=r"linear.npz cannot be read as a model of linear .*allow_pickle=False"):
        load(out)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mean", b"cos\nsystem\n(S'touch /tmp/never'\ntR.")  # a bare pickle as a member
    put(out, f"{FOLDER}/linear.npz", buffer.getvalue())
    with pytest.raises(StoreError, match=r"linear.npz cannot be read as a model of linear"):
        load(out)


@pytest.mark.parametrize(("change", "words"), [
    (lambda about: about.update(format=2), "has format 2, this gpupipe reads 1: use the gpupipe that wrote it"),
    (lambda about: about.pop("format"), "is no metadata of models .KeyError: 'format'.: run again"),
    (lambda about: about.update(models=[]), "is no metadata of models"),
    (lambda about: about["models"]["linear"].update(kind="transformer"), "unknown kind of model 'transformer'"),
    (lambda about: about["models"]["linear"].update(files={".pt": {}}), "is no metadata of models .KeyError"),
    (lambda about: about["models"]["linear"].pop("scope"), "cannot be read as a model of linear .KeyError: 'scope'"),
])  # fmt: skip
def test_metadata_of_another_version(out, change, words):
    about = json.loads(other(out, "metadata.json"))
    change(about)
    put(out, f"{FOLDER}/metadata.json", dump_json(about))
    with pytest.raises(StoreError, match=words):
        load(out)


@pytest.mark.parametrize("change", [
    lambda manifest: manifest.pop("files"), lambda manifest: manifest.update(files=[]),
    lambda manifest: manifest["files"].update(x="y"), lambda manifest: manifest.update(run_key=3),
    lambda manifest: manifest["files"].update(x={"bytes": 3}), lambda manifest: manifest.pop("settings"),
])  # fmt: skip
def test_a_manifest_that_is_none(out, change):
    manifest = json.loads((out / "manifest.json").read_bytes())
    change(manifest)
    (out / "manifest.json").write_bytes(dump_json(manifest))
    with pytest.raises(StoreError, match=r"manifest.json is no manifest of a run: delete it and run again"):
        load(out)


def test_run_again_over_what_was_altered(out, capsys):
    """An altered model is said and made again, to the same bytes; another version's folder is left as it is."""
    before = kill.contents(out)
    path = out / FOLDER / "linear.npz"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.unlink()
    path.write_bytes(bytes(content))
    assert kill.broken_promises(out) == [f"{FOLDER}/linear.npz"]
    assert run.main([*OPTIONS, "--out", str(out)]) == 0
    warned = [one["text"] for one in run_log.read(out / run_log.FILE) if one["event"] == "warning"]
    assert warned == [f"{out} was altered since it was written ({FOLDER}/linear.npz): this run makes it again"]
    assert kill.contents(out) == before and kill.broken_promises(out) == [] and kill.unaccounted(out) == []

    manifest = json.loads((out / "manifest.json").read_bytes())
    (out / "manifest.json").write_bytes(dump_json({**manifest, "format": 2}))
    state = {path: sha256(path.read_bytes()) for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run.main([*OPTIONS, "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert "has format 2, this gpupipe reads 1: use the gpupipe that wrote it" in printed.err
    assert {path: sha256(path.read_bytes()) for path in out.rglob("*") if path.is_file()} == state
