"""What lies in a store: its namespaces in words, their sizes, and what can go. Never runs by itself."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_cli.files import TEMPORARY
from dpo_cli.reference.segments import rows_of
from dpo_cli.reference.store import BAD, IMPORTED, OWN, VERSION, Store

_DAY_S = 86_400
TRASH = ".trash-"


@dataclass(frozen=True)
class Namespace:
    """One reference's values."""

    folder: Path
    about: dict[str, Any]
    """`model`, `precision`, `layout`, `made`, as the first writer stated them."""
    completions: int
    """By the segments' names; what two processes wrote counts twice until it is merged."""
    imported: int
    segments: int
    damaged: int
    """Segments that were set aside."""
    n_bytes: int
    used: float
    """When a value was last written or a run last noted its use, seconds since 1970."""
    runs: list[str]
    """Folders of the runs that used it, the last one first."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "namespace": self.folder.name,
            **self.about,
            "completions": self.completions,
            "imported": self.imported,
            "segments": self.segments,
            "damaged": self.damaged,
            "bytes": self.n_bytes,
            "used": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.used)),
            "runs": self.runs,
            "folder": str(self.folder),
        }


def namespaces(root: Path) -> list[Namespace]:
    """List the namespaces of a store, the last used first; an empty or missing store has none."""
    folders = [path.parent for path in (root / f"v{VERSION}").glob("*/meta.json")]
    return sorted((_namespace(folder) for folder in folders), key=lambda found: -found.used)


def _namespace(folder: Path) -> Namespace:
    own, imported = (list((folder / kind).glob("*.parquet")) for kind in (OWN, IMPORTED))
    notes = sorted((folder / "runs").glob("*.json"), key=lambda path: -path.stat().st_mtime)
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return Namespace(
        folder,
        _json(folder / "meta.json"),
        sum(map(rows_of, own)),
        sum(map(rows_of, imported)),
        len(own) + len(imported),
        len(list((folder / BAD).glob("*"))),
        sum(status.st_size for status in files),
        max((status.st_mtime for status in files), default=0.0),
        [run for run in (_json(note).get("run") for note in notes) if run],
    )


def verify(found: Namespace) -> tuple[int, list[Path]]:
    """Read everything in a namespace; return the completions that are whole, and the segments set aside."""
    store = Store(found.folder.parents[1], found.folder.name, found.about)
    return len(store.read()), store.damaged


def clean(root: Path, unused_days: float | None, chosen: list[str], dry: bool) -> list[tuple[Path, int]]:
    """Remove what is of no use; return what went and its bytes.

    Always: segments that were set aside, and what writers that were killed over a day ago left behind.

    Args:
        root: the store.
        unused_days: also namespaces that nobody wrote to or used for so long.
        chosen: also namespaces whose digest starts so.
        dry: remove nothing, only tell.
    """
    doomed = [found.folder for found in namespaces(root) if _is_doomed(found, unused_days, chosen)]
    doomed += [path for path in _leftovers(root) if not any(folder in path.parents for folder in doomed)]
    gone = [(path, _size(path)) for path in doomed]
    for path in () if dry else doomed:
        _remove(path)
    return gone


def _is_doomed(found: Namespace, unused_days: float | None, chosen: list[str]) -> bool:
    if any(
        name and found.folder.name.startswith(name) for name in chosen
    ):  # an empty one is an unset shell variable
        return True
    return unused_days is not None and time.time() - found.used > unused_days * _DAY_S


def _leftovers(root: Path) -> Iterator[Path]:
    version = root / f"v{VERSION}"
    yield from (path for path in version.glob(f"*/{BAD}") if path.is_dir())
    patterns = (f"*/*/{TEMPORARY}*", f"*/{TEMPORARY}*", f"*/{TRASH}*", f"{TRASH}*")
    for path in (path for pattern in patterns for path in version.glob(pattern)):
        if time.time() - path.stat().st_mtime > _DAY_S:
            yield path


def _remove(path: Path) -> None:
    """Remove a file, or a folder under another name first: a kill in between leaves no half namespace."""
    if path.is_file():
        path.unlink()
        return
    trash = path if path.name.startswith(TRASH) else path.with_name(f"{TRASH}{path.name}-{os.getpid()}")
    path.rename(trash)
    shutil.rmtree(trash)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
