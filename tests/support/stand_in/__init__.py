"""A stand-in for the CUDA libraries: gpupipe with `--device cuda` on a machine without a GPU.

CuPy, RMM and cuML are replaced by modules that keep arrays in host memory and refuse what the real ones refuse;
the CPU builds of XGBoost and Torch answer as their CUDA builds do; kernels run by their own PTX (tests.support.ptx).
The names and signatures of the CUDA libraries are those of rapids_signatures.json, so none of them has to be installed.

    python -m tests.support.stand_in run --device cuda --data bars.parquet --out OUT     any command of gpupipe
    python -m tests.support.stand_in pytest -m gpu tests                                 the GPU tests

It has to be installed before gpupipe is used, in a process of its own: see __main__.py.
"""
