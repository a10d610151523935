"""Recipes: one schema, a strict loader that reports everything at once, and descriptions of both."""
