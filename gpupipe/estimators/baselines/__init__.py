"""Baselines that every estimator is compared with."""
