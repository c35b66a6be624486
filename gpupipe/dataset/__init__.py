"""Dataset: features and labels of one group, row-aligned; the look-ahead audit."""
