"""Recipes: one schema, a strict loader that reports everything at once, and what is told about both."""
