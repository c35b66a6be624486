"""Workloads: recipes that say what is predicted, from which data, by which estimators."""
