"""Which texts of a recipe are places on disk, and where those are."""

from __future__ import annotations

import os
from pathlib import Path

from dpo_cli.recipe.schema import Location

_DATA_ENDINGS = (
    ".jsonl",
    ".ndjson",
    ".json",
    ".parquet",
    ".csv",
    ".tsv",
    ".txt",
    ".gz",
    ".zst",
    ".bz2",
    ".xz",
)


def resolve(text: str, location: Location, folder: Path) -> str:
    """Return the absolute path that `text` names relative to `folder`, or `text` unchanged where it names no path."""
    if location.kind == "run" and text in ("auto", "never"):
        return text
    if location.kind == "output":
        return str(Path(text).expanduser())
    path = os.path.normpath(folder / Path(text).expanduser())
    return path if location.kind == "file" or _is_path(text, location, path) else text


def _is_path(text: str, location: Location, path: str) -> bool:
    if text in (".", "..", "~") or text.startswith(("./", "../", "/", "~/")) or os.path.exists(path):
        return True
    return location.kind == "data" and (
        text.lower().endswith(_DATA_ENDINGS) or any(mark in text for mark in "*?[")
    )
