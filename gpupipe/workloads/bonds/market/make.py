"""Make the Parquet files of this folder from the Treasury's data: python -m gpupipe.workloads.bonds.market.make FOLDER

FOLDER holds ust_auctions.parquet and ust_par_curve.parquet: auction results and daily par curve of the US Treasury,
works of the US government and in the public domain. Kept are the auctions of nominal notes and bonds; bills,
inflation-indexed and floating-rate securities are left out.
"""

from __future__ import annotations

import argparse
import pathlib

AUCTIONS, PAR_CURVE = "ust_auctions.parquet", "ust_par_curve.parquet"
COLUMNS = (
    "cusip", "type", "term", "auction_date", "issue_date", "dated_date", "maturity_date", "coupon", "high_yield",
    "price_per_100", "accrued_per_1000", "reopening",
)  # fmt: skip


def make(source: pathlib.Path, target: pathlib.Path) -> None:
    """Write the two files to `target`; equal sources give equal tables."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    auctions = pq.read_table(source / AUCTIONS)
    others = pc.or_(auctions["tips"], auctions["floating_rate"])
    nominal = pc.and_(pc.is_in(auctions["type"], value_set=_notes_and_bonds()), pc.invert(others))
    auctions = auctions.filter(nominal).select(list(COLUMNS))
    auctions = auctions.sort_by([("issue_date", "ascending"), ("cusip", "ascending")])
    curve = pq.read_table(source / PAR_CURVE).sort_by("date")
    for name, table in ((AUCTIONS, auctions), (PAR_CURVE, curve)):
        pq.write_table(table.replace_schema_metadata(None), target / name, compression="zstd", compression_level=19)


def _notes_and_bonds() -> object:
    import pyarrow as pa

    return pa.array(["Note", "Bond"], pa.large_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, metavar="FOLDER")
    make(parser.parse_args().folder, pathlib.Path(__file__).parent)
