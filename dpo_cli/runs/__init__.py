"""A run folder on disk: its files, lock, status and checkpoints; nothing that trains."""
