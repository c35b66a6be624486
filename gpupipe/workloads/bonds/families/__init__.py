"""Families of models of a value: forest, boosting, network and stacks; each a file and a line of the registry."""
