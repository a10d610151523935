"""Align language models from preference data, driven by YAML recipes."""

__version__ = "0.1.0"
