"""Purged and embargoed splits in time, and their diagram."""
