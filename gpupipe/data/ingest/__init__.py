"""Ingest: merge new bars into a local store of Parquet files that the job reads."""

from gpupipe.data.ingest.incoming import SourceOptions
from gpupipe.data.ingest.job import ingest
from gpupipe.data.ingest.report import IngestReport
from gpupipe.data.ingest.upkeep import Cleaned, clean_store, restore_store, verify_store

__all__ = ["Cleaned", "IngestReport", "SourceOptions", "clean_store", "ingest", "restore_store", "verify_store"]
