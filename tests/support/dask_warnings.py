"""Warnings of Dask that say nothing about gpupipe: pytest makes errors of all others."""

OF_DASK = (
    "ignore::DeprecationWarning",  # of its own code
    "ignore:Creating scratch directories:UserWarning",  # a busy disk
)
