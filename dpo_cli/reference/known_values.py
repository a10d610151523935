"""What is known of a run's reference log-probs before any forward: the run's own pin, and the store."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpo_cli.reference import spot_checks
from dpo_cli.reference.permissions import open_store
from dpo_cli.reference.segments import Values
from dpo_cli.reference.store import VERSION, Store
from dpo_cli.types import TokenGroup

PIN = "reference"
"""Folder in a run's folder."""


@dataclass
class Ledger:
    """Where a rank finds and puts values: the main rank has store and pin, the others an empty ledger."""

    folder: Path = Path()
    namespace: str = ""
    known: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Values that need no forward."""
    store: Store | None = None
    """None where the pin holds everything: a store that grows, is cleaned or poisoned never changes a run."""
    pin: Store | None = None
    _pinned: dict[str, tuple[float, int]] = field(default_factory=dict)

    def to_check(self, groups: Sequence[TokenGroup], max_tokens: int) -> list[int]:
        """Choose groups whose stored values are scored again before they are used: places in `groups`."""
        if self.store is None:
            return []
        stored = self.known.keys() - self._pinned.keys()
        usable = [
            i
            for i, group in enumerate(groups)
            if all(key in self.known for key in group.keys) and not stored.isdisjoint(group.keys)
        ]
        return spot_checks.choose(usable, groups, self.store.unproven, max_tokens, random.Random())

    def keep(self, values: Values, run_dir: Path) -> None:
        """Pin the values that a run uses, and note in the store who uses them."""
        assert self.pin is not None, "a run has a pin"
        if new := {key: value for key, value in values.items() if key not in self._pinned}:
            self.pin.write(new)
        if self.store is not None:
            self.store.note_use(run_dir)


def open_ledger(
    groups: Sequence[TokenGroup],
    name: str,
    about: Mapping[str, Any],
    root: str | None,
    run_dir: Path | None,
) -> Ledger:
    """Read what the run's pin and, where that is not all, the store know.

    Args:
        groups: what needs a value.
        name: the namespace.
        about: what it is, in words; see `Store`.
        root: `reference.store` of the recipe.
        run_dir: the run that pins its values; None: no run.

    Raises:
        StorageError: the store cannot be trusted, read or made.
    """
    wanted = {key for group in groups for key in group.keys}
    pin = Store(run_dir / PIN, name, about) if run_dir else None
    pinned = pin.read(wanted) if pin else {}
    if pin is not None and wanted <= pinned.keys():
        return Ledger(pin.folder, name, pinned, None, pin, pinned)
    store = open_store(root, name, about)
    return Ledger(store.folder, name, store.read(wanted) | pinned, store, pin, pinned)


def pinned_values(groups: Sequence[TokenGroup], run_dir: Path) -> Values | None:
    """Return what a run pinned for these groups, which needs no reference model; None where that is not all, or not of one reference."""
    found = [path.name for path in (run_dir / PIN / f"v{VERSION}").glob("*") if path.is_dir()]
    if len(found) != 1:
        return None
    wanted = {key for group in groups for key in group.keys}
    pinned = Store(run_dir / PIN, found[0], {}).read(wanted)
    return pinned if wanted <= pinned.keys() else None
