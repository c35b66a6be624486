"""Content-addressed results: cache keys, code fingerprints, atomic files, the lock of OUT."""
