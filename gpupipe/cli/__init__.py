"""The command line: one file for each command, requests as values, console tables."""
