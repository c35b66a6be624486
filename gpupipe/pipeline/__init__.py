"""The job from a Panel to a finished OUT, the tuning job, and upkeep of an OUT."""
