"""Every kernel's PTX gives the bits of the CPU loop, in any order of blocks and threads, and breaks no rule."""

from __future__ import annotations

import pytest

from gpupipe.kernels.compile import all_kernels
from gpupipe.kernels.gpu_launch import THREADS_PER_BLOCK
from tests.support.kernel_calls import calls_in_parts, copies, recorded_calls
from tests.support.kernel_resources import arch_of, ptx_of
from tests.support.ptx import guarded, may_be_contracted, program, why_not
from tests.support.ptx.comparison import STATE, Comparison, in_few_blocks, launch, run

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

KERNELS = {kernel.full_name: kernel for kernel in all_kernels()}
COOPERATIVE = [name for name, kernel in KERNELS.items() if kernel.cooperative]
ARCHITECTURES = ((8, 6), (9, 0), (12, 0))
# Order of blocks and threads (as numbered, backwards, at random), and threads of a block: results depend on neither.
LAUNCHES = ((0, THREADS_PER_BLOCK), (1, 32), (7, 96))
FEW_BLOCKS = ((1, 0), (2, 1), (3, 9))  # blocks, and their order
COMPARED: dict[tuple[str, str], Comparison] = {}  # by the key of a program, and what it ran


def compared(name, ptx, kind, use):
    """The comparison that `use` fills for a kernel's PTX. Architectures often have the same program: it runs once."""
    checked = program(ptx, checked=True)
    if (checked.key, kind) not in COMPARED:
        found = COMPARED[checked.key, kind] = Comparison()
        use(name, checked, found)
    return COMPARED[checked.key, kind]


def run_small_calls(name, checked, found):
    for k, call in enumerate(call for call in recorded_calls() if call.kernel.full_name == name):
        for order, threads in LAUNCHES:
            run(checked, call, order, threads, 1000 * k + 100 * order, found)


def run_few_blocks(name, checked, found):
    for call in (call for call in calls_in_parts() if call.kernel.full_name == name):
        for workers, order in FEW_BLOCKS:
            run(checked, in_few_blocks(call, workers), order, THREADS_PER_BLOCK, workers, found)


@pytest.mark.parametrize("name", STATE)
def test_a_kernel_reads_its_state_before_it_writes_it(name, monkeypatch):
    """A name in the table of states that is none would keep its array from holding garbage in the other tests."""
    checked, state = program(ptx_of(KERNELS[name], (9, 0)), checked=True), STATE[name]
    calls = [call for call in recorded_calls() if call.kernel.full_name == name]
    for argument in state:
        monkeypatch.setitem(STATE, name, tuple(other for other in state if other != argument))
        reports = (launch(checked, call, copies(call.before, guarded), THREADS_PER_BLOCK) for call in calls)
        assert any("not written" in report.faults for report in reports), argument


def assert_equal(found):
    assert not found.faults, "\n".join(found.messages)
    assert found.values, "a kernel without an output is not tested"
    assert not found.differ, found.where


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("cc", ARCHITECTURES, ids=arch_of)
def test_ptx_equals_the_cpu_loop(cc, name):
    ptx = ptx_of(KERNELS[name], cc)
    assert may_be_contracted(ptx) == []
    assert_equal(compared(name, ptx, "small calls", run_small_calls))


@pytest.mark.parametrize("name", COOPERATIVE)
@pytest.mark.parametrize("cc", ARCHITECTURES, ids=arch_of)
def test_blocks_that_take_several_items_in_turn_equal_the_cpu_loop(cc, name):
    assert_equal(compared(name, ptx_of(KERNELS[name], cc), "few blocks", run_few_blocks))
