"""Files that are written whole or not at all, and folders for this user alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

TEMPORARY = ".tmp-"


def commit(folder: Path, name: str, payload: bytes) -> Path:
    """Write a file whole or not at all, and make its name durable; return its path.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / name)
    except OSError:
        os.unlink(temporary)
        raise
    parent = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
    return folder / name


def make_private(folder: Path) -> None:
    """Make a folder and what is missing above it, for this user alone: the umask would let a group in."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
