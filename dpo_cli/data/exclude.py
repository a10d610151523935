"""Training rows that a file names by key are left out and counted; a file that names none of them is a mistake."""

from __future__ import annotations

import json
from pathlib import Path

from dpo_cli.errors import DataError, Problem

_SHOWN = 20


class Drop:
    """The rows to leave out, and which of them were met."""

    def __init__(self, path: str | None) -> None:
        """Read a JSONL file of objects with a `key`, what `pair_key` gives; None names no row.

        Raises:
            DataError: it cannot be read, or a line holds no key.
        """
        self._path = path
        self._wanted = _keys(Path(path)) if path else set[str]()
        self._met: set[str] = set()
        self._n = 0

    def keeps(self, key: str) -> bool:
        """Return whether a training row stays, and count it if not."""
        if key not in self._wanted:
            return True
        self._met.add(key)
        self._n += 1
        return False

    def check(self) -> None:
        """See that the file speaks of these rows.

        Raises:
            DataError: it names rows, and none is a training row.
        """
        if self._wanted and not self._met:
            what = f"'{self._path}' names {len(self._wanted):,} rows, and none of them is a training row"
            raise DataError.of(
                "data.drop", what, "the file that was made from these data, or data.drop: null"
            )

    def line(self) -> str:
        """Return how many rows were left out."""
        missing = len(self._wanted) - len(self._met)
        rest = f"; {missing:,} of its keys are no training row" if missing else ""
        return f"{self._n:,} training rows left out: data.drop names them{rest}"


def _keys(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError.of("data.drop", f"'{path}' cannot be read: {reason}", "check the path") from None
    keys, problems = set[str](), list[Problem]()
    for number, line in enumerate(lines, start=1):
        try:
            keys.add(str(json.loads(line)["key"]))
        except (ValueError, KeyError, TypeError):
            problems.append(
                Problem(f"{path}:{number}", "no JSON object with a `key`", "a row of suspects.jsonl")
            )
    if problems:
        raise DataError(problems[:_SHOWN])
    return keys
