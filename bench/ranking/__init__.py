"""Rank information coefficients of scores with forward returns, against Qlib's LightGBM and one-column peers."""
