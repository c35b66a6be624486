"""Families of models: forest, boosting, network, ridge regression, stacks; each a file and a line of the registry."""
