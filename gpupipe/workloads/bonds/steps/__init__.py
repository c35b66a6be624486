"""The eleven steps of a run of bonds, one file each, and what they share."""
