"""Device, memory, log, interrupts and the task graph; this package knows no data."""
