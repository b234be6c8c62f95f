"""Scripts that measure; tests use parts of some."""
