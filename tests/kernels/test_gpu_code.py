"""GPU code of kernels: where it is found and kept, who compiles it, what it is named after, and what a wheel ships."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import threading
import types
import zipfile

import numpy as np
import pytest

from gpupipe.kernels import gpu_code, gpu_ship, notice
from gpupipe.kernels.compile import Kernel, inline, kernel
from gpupipe.kernels.gpu_code import GpuCode, MissingCodeError

pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install -e '.[kernels]'")
HOPPER, ADA = (9, 0), (8, 9)
HOLDS_A_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@inline
def scaled(value, factor):
    """value * factor + factor."""
    return value * factor + factor


@kernel(types=("f4", "f4[:,:]", "i8[:]", "f4[:]"))
def weighted(i, factor, x, column, y):
    """y = x[column] * factor + factor."""
    y[i] = scaled(x[i, column[0]], factor)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache, and nothing that is shipped."""
    monkeypatch.setattr(gpu_code, "_folders", lambda: iter([tmp_path]))
    monkeypatch.setattr(gpu_code, "SHIPPED", tmp_path / "gpu_code.zip")
    monkeypatch.setattr(notice, "made", [])
    return tmp_path


@pytest.fixture(scope="module")
def compiled():
    from gpupipe.kernels.gpu_compile import compile_for

    return compile_for(weighted, HOPPER)


@pytest.fixture
def compiling(monkeypatch):
    """The kernels that were compiled, by a compiler that takes no time."""
    from gpupipe.kernels import gpu_compile

    asked = []

    def compile_for(kernel, architecture):
        asked.append((kernel.full_name, architecture))
        return GpuCode(f".visible .entry {kernel.__name__}(.param .u64 n_items)\n{{}}", b"cubin")

    monkeypatch.setattr(gpu_compile, "compile_for", compile_for)
    return asked


def test_parameters_are_named_after_arguments_and_those_that_are_not_read_are_gone(compiled):
    assert compiled.entry == "weighted"
    # Lengths of dimensions are read where an index may be negative.
    assert compiled.parameters == (
        "n_items", "factor", "x$data", "x$shape0", "x$shape1", "column$data", "y$data", "y$shape0"
    )  # fmt: skip
    assert ".target sm_75" in compiled.ptx and ".version 6.3" in compiled.ptx  # which all drivers of today read
    assert "Numba" not in compiled.ptx


def test_products_and_sums_stay_apart(compiled):
    """Neither NVVM nor the assembler may fuse them: a fused one is rounded once, and a CPU loop rounds twice."""
    assert "fma" not in compiled.ptx
    assert compiled.ptx.count("mul.rn.f32") == compiled.ptx.count("add.rn.f32") == 1


def test_the_cubin_is_machine_code_of_the_architecture(compiled):
    assert compiled.cubin[:4] == b"\x7fELF" and b"sm_90" in compiled.cubin


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), (7, 5)), ((8, 7), (8, 6)), ((9, 0), (9, 0)), ((10, 3), (10, 0)), ((13, 0), (12, 0))],
)
def test_a_device_runs_code_of_the_newest_architecture_that_is_not_newer(capability, expected):
    assert gpu_code.architecture_of(capability) == expected


def test_a_device_that_is_too_old_is_refused():
    with pytest.raises(MissingCodeError, match=r"7\.0; 7\.5 is needed"):
        gpu_code.architecture_of((7, 0))


def test_code_is_compiled_once_kept_and_loaded(folder, compiling):
    first = gpu_code.code_of(weighted, HOPPER)
    again = gpu_code.code_of(weighted, HOPPER)
    assert again == first and compiling == [("test_gpu_code.weighted", HOPPER)]
    assert [(item.name, item.loaded) for item in notice.made] == [
        ("test_gpu_code.weighted sm_90", False), ("test_gpu_code.weighted sm_90", True)
    ]  # fmt: skip
    assert gpu_code.available(weighted, HOPPER) and not gpu_code.available(weighted, ADA)


def test_threads_that_ask_at_once_compile_once(folder, compiling):
    threads = [threading.Thread(target=gpu_code.code_of, args=(weighted, HOPPER)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiling == [("test_gpu_code.weighted", HOPPER)]


def test_a_process_waits_for_the_one_that_compiles(folder, compiling):
    lock = folder / "test_gpu_code.weighted.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS_A_LOCK, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline()
    thread = threading.Thread(target=gpu_code.code_of, args=(weighted, HOPPER))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive() and compiling == []
    # What the other process has compiled meanwhile is taken.
    gpu_code._keep(folder, weighted, HOPPER, GpuCode(".visible .entry theirs()\n{}", b"cubin"))
    holder.communicate()
    thread.join(60)
    assert compiling == [] and gpu_code.code_of(weighted, HOPPER).entry == "theirs"


def test_another_definition_or_another_compiler_is_other_code(folder, compiling, monkeypatch):
    names = {gpu_code.file_name(weighted, HOPPER), gpu_code.file_name(weighted, ADA)}
    other = Kernel(weighted.body, types=("f4", "f4[:,:]", "i8[:]", "f4[:]"))
    other.definition = f"{weighted.definition}\nFACTOR = 2"
    names.add(gpu_code.file_name(other, HOPPER))
    monkeypatch.setattr(gpu_code, "_compiler_source", lambda: "another compiler")
    names.add(gpu_code.file_name(weighted, HOPPER))
    assert len(names) == 4


def test_code_is_returned_where_no_folder_can_hold_it(compiling, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_code, "_folders", lambda: iter([tmp_path / "file" / "below"]))
    (tmp_path / "file").touch()
    monkeypatch.setattr(gpu_code, "SHIPPED", tmp_path / "none.zip")
    assert gpu_code.code_of(weighted, HOPPER).entry == "weighted"


def test_without_a_compiler_the_error_names_the_fix(folder, monkeypatch):
    monkeypatch.setattr(gpu_code, "can_compile", lambda: False)
    with pytest.raises(
        MissingCodeError, match=r"capability 9\.0 here \(test_gpu_code\.weighted\).*pip install 'gpupipe\[kernels\]'"
    ):
        gpu_code.code_of(weighted, HOPPER)


def test_what_is_shipped_is_taken_without_a_compiler(folder, compiling, monkeypatch):
    monkeypatch.setattr(gpu_ship, "all_kernels", lambda: [weighted])
    monkeypatch.setattr(gpu_ship, "compile_all", lambda *arguments: None)
    assert gpu_ship.ship(gpu_code.SHIPPED, [HOPPER, ADA]) == 3  # two cubins of one PTX
    first = gpu_code.SHIPPED.read_bytes()
    assert gpu_ship.ship(gpu_code.SHIPPED, [HOPPER, ADA]) == 3 and gpu_code.SHIPPED.read_bytes() == first
    for file in folder.glob("*.ptx"):
        file.unlink()
    monkeypatch.setattr(gpu_code, "can_compile", lambda: False)
    assert gpu_code.code_of(weighted, ADA).cubin == b"cubin" and len(compiling) == 2
    with zipfile.ZipFile(gpu_code.SHIPPED) as file:
        assert all(info.date_time == (1980, 1, 1, 0, 0, 0) for info in file.infolist())


def test_the_cache_is_where_numba_keeps_its_own(monkeypatch, tmp_path):
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "chosen"))
    assert gpu_code.cache_folder() == tmp_path / "chosen" / "gpu" / importlib.metadata.version("numba-cuda")


def test_code_is_read_where_nothing_can_be_written_or_locked(folder, compiling, monkeypatch):
    """A cache that is part of an image, and file systems without locks."""

    def refused(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(gpu_code.fcntl, "flock", refused)
    first = gpu_code.code_of(weighted, HOPPER)
    assert len(compiling) == 1
    monkeypatch.setattr(gpu_code.os, "access", lambda path, mode: False)
    assert gpu_code.cache_folder() is None and gpu_code.code_of(weighted, HOPPER) == first and len(compiling) == 1


def test_files_have_the_permissions_of_others_and_nothing_else_is_left(folder, compiling):
    umask = os.umask(0o022)
    try:
        gpu_code.code_of(weighted, HOPPER)
    finally:
        os.umask(umask)
    kept = [file for file in folder.iterdir() if file.suffix in (".ptx", ".cubin")]
    assert {file.stat().st_mode & 0o777 for file in kept} == {0o644}
    assert {file.suffix for file in folder.iterdir()} == {".ptx", ".cubin", ".lock"}


def test_a_shipped_file_that_is_cut_short_is_none(folder, compiling):
    gpu_code.SHIPPED.write_bytes(b"PK half of it")
    assert gpu_code.code_of(weighted, HOPPER).entry == "weighted" and len(compiling) == 1


@pytest.mark.parametrize(
    "content", [b"", b"\0\0", b"\xff\xfe", b".visible .entry weighted(", b".visible .entry a()\n{ ret;"]
)
@pytest.mark.parametrize("suffix", [".ptx", ".cubin"])
def test_a_kept_file_that_is_damaged_is_none(folder, compiling, suffix, content):
    gpu_code.code_of(weighted, HOPPER)
    (file,) = folder.glob(f"*{suffix}")
    whole = file.read_bytes()
    file.write_bytes(content if suffix == ".ptx" else b"")
    assert gpu_code.code_of(weighted, HOPPER).entry == "weighted" and len(compiling) == 2
    assert file.read_bytes() == whole


def test_a_shipped_file_with_damaged_contents_is_none(folder, compiling, monkeypatch):
    monkeypatch.setattr(gpu_ship, "all_kernels", lambda: [weighted])
    monkeypatch.setattr(gpu_ship, "compile_all", lambda *arguments: None)
    gpu_ship.ship(gpu_code.SHIPPED, [HOPPER])
    whole = gpu_code.SHIPPED.read_bytes()
    for file in (*folder.glob("*.ptx"), *folder.glob("*.cubin")):
        file.unlink()
    for at in range(len(whole)):
        gpu_code.SHIPPED.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        found = gpu_code._found(weighted, HOPPER)
        assert found is None or found.entry == "weighted"


def test_a_driver_that_refuses_all_code_is_an_error_that_names_the_fix(compiled, monkeypatch):
    from gpupipe.kernels import gpu_launch

    class CUDADriverError(RuntimeError):
        pass

    class Module:
        def load(self, code):
            raise CUDADriverError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION")

    cuda = types.SimpleNamespace(
        driver=types.SimpleNamespace(CUDADriverError=CUDADriverError), function=types.SimpleNamespace(Module=Module)
    )
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda))
    with pytest.raises(MissingCodeError, match=r"PTX of test_gpu_code\.weighted .*install a newer driver"):
        gpu_launch.Launcher(weighted, compiled)


def test_parameters_reach_the_function_in_order_and_as_typed(compiled):
    from gpupipe.kernels import gpu_launch

    class Array:
        """What a launch asks of an array of CuPy."""

        def __init__(self, address, shape):
            self.shape, self.data = shape, type("Pointer", (), {"ptr": address})

    arrays = Array(64, (7, 3)), Array(128, (1,)), Array(192, (7,))
    values = gpu_launch.Parameters(weighted, compiled.parameters).of(7, (0.5, *arrays))
    assert values == (7, np.float32(0.5), 64, 7, 3, 128, 192, 7)
    assert type(values[1]) is np.float32
