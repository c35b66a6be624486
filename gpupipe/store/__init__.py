"""Content-addressed results: keys, fingerprints of code, atomic files, the lock of OUT."""
