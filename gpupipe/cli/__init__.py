"""The command line: one file for each verb, and the console tables."""
