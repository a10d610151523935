"""Reference log-probs on disk, shared by all runs: a completion is scored once, ever.

A namespace folder stands for reference weights and arithmetic; in it lie immutable segments. So there are no locks: any number of
writers, safe to kill anywhere. What is damaged is set aside and scored again. Nothing of the loss, the seed or the data set's order is
in a key.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from dpo_cli.errors import Problem, StorageError
from dpo_cli.files import commit, make_private
from dpo_cli.reference.segments import Values, read_segment, rows_of, write_segment

log = logging.getLogger("dpo_cli")

VERSION = 1
"""Raise it when the same weights and ids give other values."""

NATS_APART = {"fp32": 1e-3, "bf16": 2e-2}
"""Two writers may differ by this much per token (other batches, other machines); more means that one of them is wrong."""

OWN, IMPORTED = "seg", "imported"
BAD = "bad"


def default_root() -> Path:
    """Return the user's cache folder for reference log-probs."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "dpo-cli" / "reference"


class Store:
    """One namespace of the store, as one process sees it: it remembers which segments it has read."""

    def __init__(self, root: Path, name: str, about: Mapping[str, Any], shared: Path | None = None) -> None:
        """Open or make the namespace.

        Args:
            root: folder of the store that this user owns.
            name: digest of reference and arithmetic.
            about: what that is, in words, for people; `precision` sets the tolerance.
            shared: the root of a store that others own: read, never written.

        Raises:
            StorageError: the folder cannot be made.
        """
        self.name = name
        self.folder = root / f"v{VERSION}" / name
        self.damaged: list[Path] = []
        """Segments that were not used, where they lie now."""
        self.unproven: set[str] = set()
        """Keys whose value another user or tool computed."""
        self._limit = NATS_APART[about.get("precision", "fp32")]
        self._seen: set[Path] = set()
        self._written: list[Path] = []
        self._tiers = [self.folder / OWN, self.folder / IMPORTED]
        if shared is not None:
            self._tiers += [shared / f"v{VERSION}" / name / kind for kind in (OWN, IMPORTED)]
        self._about = json.dumps(dict(about), indent=1).encode()
        try:
            self._make(OWN)
        except OSError as error:
            raise self._cannot("cannot be written", error) from None

    @property
    def set_aside(self) -> int:
        """Completions whose segment was damaged."""
        return sum(map(rows_of, self.damaged))

    def read(self, wanted: Set[str] | None = None) -> dict[str, tuple[float, int]]:
        """Return what is new since the last call, own values before imported and shared ones.

        A damaged segment is moved to `bad/` with a warning; one that another process has merged meanwhile is found in its new place.

        Args:
            wanted: keys to give; None: all.

        Raises:
            StorageError: two segments hold different values of one completion.
        """
        values: dict[str, tuple[float, int]] = {}
        while fresh := [path for path in self._segments() if path not in self._seen]:
            for path in fresh:
                self._seen.add(path)
                found = self._parse(path, wanted)
                for key in self._agreeing(values, found, path):
                    del found[key]
                if path.parent != self.folder / OWN:
                    self.unproven |= found.keys()
                values |= found
        return values

    def write(self, values: Values) -> Path:
        """Commit values as one new segment; return its path.

        Raises:
            StorageError: the disk is full or cannot be written; earlier segments are untouched.
        """
        return self._write(OWN, values)

    def take_in(self, values: Values) -> Path:
        """Commit values that another tool computed; they are marked as such from then on.

        Raises:
            StorageError: the disk is full or cannot be written.
        """
        return self._write(IMPORTED, values)

    def merge(self) -> None:
        """Put the segments that this process wrote into one: thousands of small files are slow to list and to copy.

        The large one is committed before the small ones go, so a kill in between only leaves some values twice.
        """
        written, self._written = [path for path in self._written if path.parent.name == OWN], []
        if len(written) < 2:
            return
        together: dict[str, tuple[float, int]] = {}
        for path in written:
            together |= self._parse(path, None)
        kept = self.write(together)
        for path in written:
            if path != kept:
                path.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Check that values can be committed, before hours are spent on them.

        Raises:
            StorageError: they cannot.
        """
        try:
            self._make(OWN)
            commit(self.folder, ".probe", b"")
            (self.folder / ".probe").unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot("values are missing and cannot be written", error) from None

    def note_use(self, run: Path) -> None:
        """Remember which run used this namespace, and when; where that cannot be written, nothing is lost."""
        name = hashlib.blake2b(str(run).encode(), digest_size=8).hexdigest()
        try:
            self._make("runs")
            text = json.dumps({"run": str(run), "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
            commit(self.folder / "runs", f"{name}.json", text.encode())
        except OSError as error:
            log.debug("use of %s not noted: %s", self.folder, error)

    def _make(self, kind: str) -> None:
        """Make a folder of the namespace, and the namespace where there is none, or none any more: `dpo cache gc` may run beside."""
        make_private(self.folder / kind)
        if not (self.folder / "meta.json").exists():
            commit(self.folder, "meta.json", self._about)

    def _segments(self) -> Sequence[Path]:
        return [path for tier in self._tiers for path in sorted(tier.glob("*.parquet"))]

    def _write(self, kind: str, values: Values) -> Path:
        try:
            self._make(kind)
            path = write_segment(self.folder / kind, values)
        except OSError as error:
            raise StorageError.of(
                str(self.folder / kind),
                f"reference log-probs not written: {error.strerror}",
                "free some space; what is committed is kept",
            ) from None
        self._seen.add(path)
        self._written.append(path)
        return path

    def _parse(self, path: Path, wanted: Set[str] | None) -> dict[str, tuple[float, int]]:
        try:
            return read_segment(path, wanted)
        except FileNotFoundError:  # merged by its writer since it was listed
            return {}
        except (ValueError, OSError) as error:
            self._set_aside(path, str(error))
            return {}

    def _set_aside(self, path: Path, reason: str) -> None:
        if self.folder not in path.parents:  # a lab's: not ours to change
            self.damaged.append(path)
            log.warning("damaged reference segment of a shared store not used: %s (%s)", path, reason)
            return
        aside = self.folder / BAD / path.name
        try:
            make_private(aside.parent)
            path.rename(aside)
        except OSError:  # another process was faster, or the folder cannot be written
            aside = path
        self.damaged.append(aside)
        log.warning("damaged reference segment set aside, its rows are scored again: %s (%s)", aside, reason)

    def _agreeing(self, known: Values, found: Values, path: Path) -> set[str]:
        """Return the keys that both hold.

        Raises:
            StorageError: with different values.
        """
        both = known.keys() & found.keys()
        for key in both:
            (ours, n), (theirs, n_theirs) = known[key], found[key]
            if n == n_theirs and abs(ours - theirs) <= self._limit * n:
                continue
            what = f"{key} has two values: {theirs:.4f} nats over {n_theirs} tokens here, {ours:.4f} over {n} in another segment"
            fix = f"remove the segment you do not trust, or `dpo cache gc {self.name}`"
            raise StorageError.of(str(path), what, fix)
        return both

    def _cannot(self, what: str, error: OSError) -> StorageError:
        return StorageError(
            [
                Problem(
                    str(self.folder),
                    f"{what}: {error.strerror}",
                    "reference.store=<a folder you can write to>",
                )
            ]
        )
