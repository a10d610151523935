"""Commands that fetch, convert and export models."""
