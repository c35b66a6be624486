"""Run the PTX of a CUDA kernel on the CPU, over numpy arrays, without a GPU.

PTX is the assembly language that NVVM writes and NVIDIA's driver reads. `Program` translates one kernel to C,
instruction by instruction, and gcc compiles that; floats keep the bits that each instruction rounds to. A checked
program reports what compute-sanitizer would: accesses outside of all arrays, races, stores to inputs, barriers that not
all threads reach, and loads of memory that nothing has written.

>>> import numpy as np
>>> from tests.support.ptx import Program
>>> ptx = '''
... .visible .entry add_one(.param .u64 at)
... {
... .reg .b32 %r<2>;
... .reg .b64 %rd<3>;
... .reg .f32 %f<3>;
... ld.param.u64 %rd1, [at];
... mov.u32 %r1, %tid.x;
... mul.wide.u32 %rd2, %r1, 4;
... add.s64 %rd1, %rd1, %rd2;
... ld.global.f32 %f1, [%rd1];
... add.rn.f32 %f2, %f1, 0f3F800000;
... st.global.f32 [%rd1], %f2;
... ret;
... }
... '''
>>> x = np.array([1, 2, 3], np.float32)
>>> Program(ptx, checked=True).launch([x], grid=1, block=3, arrays=[x]).faults
{}
>>> x
array([2., 3., 4.], dtype=float32)
>>> report = Program(ptx, checked=True).launch([x], grid=1, block=4, arrays=[x])
>>> report.faults
{'outside': 2}
>>> print(report.messages[0])
line 11: block 0 thread 3: load outside of every array

What the parameters of a kernel of this project are follows from their names (`gpu_launch.Parameters`).

Limits: one kernel in a text; no shared, local or constant memory, calls, atomics and warp instructions. An instruction
that is not known is an `UnknownInstructionError`, never a guess. Approximate instructions (`ex2.approx`,
`rcp.approx`) are correctly rounded here, while a GPU may return a neighbour. What ptxas may still fuse is not
seen here: see `may_be_contracted`. Signs and payloads of NaNs are not those of a GPU; a checked program has others in
launches of even and of odd order, so that a result that depends on them differs from the CPU loop's in one.
"""

from tests.support.ptx.contraction import may_be_contracted
from tests.support.ptx.program import Program, Report, guarded, program, why_not
from tests.support.ptx.syntax import UnknownInstructionError

__all__ = ["Program", "Report", "UnknownInstructionError", "guarded", "may_be_contracted", "program", "why_not"]
