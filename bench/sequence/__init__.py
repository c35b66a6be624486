"""Sequence networks: the usual way, stage by stage, against ours; their quality, time, memory; the family in a run."""
