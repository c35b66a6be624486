"""Estimators: the contract, the registry and one file for each model family."""
