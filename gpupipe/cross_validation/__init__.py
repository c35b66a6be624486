"""Splits in time, purged and embargoed, and their diagram."""
