"""Held-out pairs: log-probs to figures with intervals; nothing that samples."""
