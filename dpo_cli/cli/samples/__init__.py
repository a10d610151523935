"""Commands that sample and judge answers."""
