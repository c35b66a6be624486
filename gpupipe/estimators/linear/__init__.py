"""Softmax regression, pooled and per group."""
