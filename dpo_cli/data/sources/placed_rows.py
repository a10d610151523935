"""Rows with their places, and a list for what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from dpo_cli.errors import DataError, Problem

SHOWN = 20
"""Kinds of problems that are spelled out."""
PLACES = 3
"""Places that are named of each."""


class PlacedRow(NamedTuple):
    """One row and where it stands: `file:line`, or `name[index]` where there are no lines."""

    values: Mapping[str, Any]
    place: str


class Problems:
    """Collects what is wrong with rows: equal problems are one, with a count and the first places, so that one error names it all."""

    def __init__(self) -> None:
        self.count = 0
        self._found: dict[tuple[str, str], list[str]] = {}
        """(what, fix) -> the first places."""
        self._counts: Counter[tuple[str, str]] = Counter()
        self._others = 0
        """Problems of more kinds than are kept."""

    def add(self, where: str, what: str, fix: str = "") -> None:
        """Note one problem."""
        self.count += 1
        kind = (what, fix)
        if kind not in self._found and len(self._found) >= SHOWN:
            self._others += 1
            return
        self._counts[kind] += 1
        places = self._found.setdefault(kind, [])
        if len(places) < PLACES:
            places.append(where)

    def raise_any(self) -> None:
        """Raise what was noted; do nothing if that is nothing.

        Raises:
            DataError: there are problems; the first 20 kinds are spelled out.
        """
        if not self.count:
            return
        problems = [self._told(kind, places) for kind, places in self._found.items()]
        more = [Problem("", f"and {self._others} more problems of other kinds")] if self._others else []
        raise DataError(problems + more)

    def _told(self, kind: tuple[str, str], places: Sequence[str]) -> Problem:
        (what, fix), n = kind, self._counts[kind]
        if n == 1:
            return Problem(places[0], what, fix)
        file = places[0]
        while file and not all(place.startswith(f"{file}:") for place in places):
            file = file.rpartition(":")[0]
        others = [place.removeprefix(file) for place in places[1:]] + (["..."] if n > len(places) else [])
        return Problem(places[0], f"{what}; {n:,} rows in all (also {', '.join(others)})", fix)


class Rows:
    """A source's rows, read from disk in every pass: to look at all of them, none need be held in memory."""

    def __init__(
        self, read: Callable[[Problems], Iterator[PlacedRow]], problems: Problems, limit: int | None = None
    ) -> None:
        self._read, self._limit = read, limit
        self._problems = problems

    def __iter__(self) -> Iterator[PlacedRow]:
        """Start a pass; what is wrong with lines is noted in the first one."""
        problems, self._problems = self._problems, Problems()
        return islice(self._read(problems), self._limit)
