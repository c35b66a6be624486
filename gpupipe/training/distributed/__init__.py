"""The same tasks on the workers of a Dask cluster."""
