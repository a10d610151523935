"""Whose reference log-probs are used: a value that somebody else can write decides what a model learns."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dpo_cli.errors import StorageError
from dpo_cli.recipe.settings import load_settings, settings_path
from dpo_cli.reference.store import VERSION, Store, default_root


def open_store(wanted: str | None, name: str, about: Mapping[str, Any]) -> Store:
    """Open a namespace for a run: the user's own store, or a lab's to read from and the user's own to write to.

    A store that others own or can write to is read only where the user's own configuration says `trust: group`, never because a
    recipe says so; its values then count as unproven until some of them were scored again.

    Args:
        wanted: `reference.store` of the recipe; None: the user's cache folder.
        name: the namespace.
        about: what it is, in words.

    Raises:
        StorageError: others could have written to it, or it cannot be written.
        RecipeError: the user's configuration is wrong.
    """
    root = Path(wanted).expanduser() if wanted else default_root()
    exposed = next(_open_to_others(root, name), None)
    if exposed is None:
        return Store(root, name, about)
    if load_settings().trust == "group" and root != default_root():
        own = next(_open_to_others(default_root(), name), None)
        if own is None:
            return Store(default_root(), name, about, shared=root)
        root, exposed = default_root(), own
    path, what = exposed
    fix = f"`chmod go-w {path}` if it is yours; a lab's store needs `trust: group` in {settings_path()}"
    raise StorageError.of(str(path), f"the reference store is not yours alone: {what}", fix)


def _open_to_others(root: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Yield the folders on the way to the values that somebody else can write to."""
    version = root / f"v{VERSION}"
    for path in (root, version, version / name, *(version / name / kind for kind in ("seg", "imported"))):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if status.st_uid != os.getuid():
            yield path, f"user {status.st_uid} owns it"
        elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield path, "others can write to it"
