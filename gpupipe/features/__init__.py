"""Feature columns: expressions, formulas, the matrix and its bins, incremental updates."""
