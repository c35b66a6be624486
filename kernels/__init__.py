"""Kernel bodies, and the two compilers that turn them into CPU loops and CUDA kernels. Imports nothing of gpupipe."""
