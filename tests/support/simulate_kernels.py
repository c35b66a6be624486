"""Run recorded kernel calls in numba's CUDA simulator: `NUMBA_ENABLE_CUDASIM=1 python simulate_kernels.py IN OUT`.

IN and OUT are folders of npz files, one a call. An input file is called NUMBER.MODULE.KERNEL.npz and holds n and the
arguments a0, a1, ...; the output file of the same name holds the arguments after the call.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
from numba import config

ROOT = pathlib.Path(__file__).parents[2]


def main(inputs: pathlib.Path, outputs: pathlib.Path) -> None:
    assert config.ENABLE_CUDASIM, "set NUMBA_ENABLE_CUDASIM=1"
    from gpupipe.kernels.compile import all_kernels

    kernels = {f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}": kernel for kernel in all_kernels()}
    for file in sorted(inputs.glob("*.npz")):
        with np.load(file) as stored:
            n, arguments = int(stored["n"]), [stored[f"a{k}"] for k in range(len(stored.files) - 1)]
        arguments = [a[()] if a.ndim == 0 else a for a in arguments]
        kernel = kernels[file.stem.partition(".")[2]]
        threads = 3  # fewer than n, so that there are several blocks and a last one that is not full
        with np.errstate(all="ignore"):
            blocks = len(arguments[0]) if kernel.cooperative else (n + threads - 1) // threads
            kernel.cuda[blocks, threads](np.int64(n), *arguments)
        np.savez(outputs / file.name, **{f"a{k}": a for k, a in enumerate(arguments)})


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
