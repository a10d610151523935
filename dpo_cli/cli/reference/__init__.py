"""Commands of the reference store."""
