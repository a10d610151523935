"""Models on the same rows: tests and corrections; nothing that loads a model itself."""
