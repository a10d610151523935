"""Rows with their places, and a list for what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from dpo_cli.errors import DataError, Problem

SHOWN = 20


class PlacedRow(NamedTuple):
    """One row and where it stands: `file:line`, or `name[index]` where there are no lines."""

    values: Mapping[str, Any]
    place: str


class Problems:
    """A list that keeps the first problems and counts the rest, so that one error names it all."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[Problem] = []

    def add(self, where: str, what: str, fix: str = "") -> None:
        """Note one problem."""
        self.count += 1
        if len(self._first) < SHOWN:
            self._first.append(Problem(where, what, fix))

    def raise_any(self) -> None:
        """Raise what was noted; do nothing if that is nothing.

        Raises:
            DataError: there are problems; the first 20 are spelled out.
        """
        if not self.count:
            return
        rest = self.count - len(self._first)
        more = [Problem("", f"and {rest} more like these")] if rest else []
        raise DataError(self._first + more)


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
