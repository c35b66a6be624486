"""Rules that decide which rows are called BUY or SELL; one file each, listed in registry.py."""
