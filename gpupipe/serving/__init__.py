"""Signals of the latest bar from a run's models."""
