"""Rows that say something only together: answers to one prompt on lines of their own, and trees of messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dpo_cli.data.detect.reading import named_fields
from dpo_cli.data.formats._base import SIDE_COLUMNS
from dpo_cli.data.sources.placed_rows import PlacedRow
from dpo_cli.data.tokenize.turns import ROLES

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source

OPTIONAL = ("history", "system")


class Gathered:
    """Rankings made of a source's rows, which are held while they are gathered; can be read again."""

    def __init__(self, rows: Iterable[PlacedRow], source: Source) -> None:
        """Take the rows and the source that says where each has what."""
        self._rows, self._how = rows, source.gather
        self._columns, self._unread = named_fields(source)

    def __iter__(self) -> Iterator[PlacedRow]:
        """Start a pass: rows with `prompt`, `completions` and `ratings`."""
        found = {"prompt": self._by_prompt, "tree": self._of_trees, "parent": self._by_parent}
        return found[self._how]()

    def _read(self, row: Mapping[str, Any], name: str) -> Any:
        if name in self._unread:
            return None
        return self._columns[name].read(row) if name in self._columns else row.get(name)

    def _by_prompt(self) -> Iterator[PlacedRow]:
        """Gather the answers to one prompt, wherever they are in the file."""
        groups: dict[str, PlacedRow] = {}
        for row, place in self._rows:
            asked = {name: self._read(row, name) for name in ("prompt", *OPTIONAL)}
            key = json.dumps(asked, sort_keys=True, default=str)
            if key not in groups:
                side = {name: self._read(row, name) for name in SIDE_COLUMNS}
                side = {name: value for name, value in side.items() if value is not None}
                stated = {name: value for name, value in asked.items() if value is not None}
                groups[key] = PlacedRow({**side, **stated, "completions": [], "ratings": []}, place)
            values = groups[key].values
            values["completions"].append(self._read(row, "completion"))
            values["ratings"].append(self._read(row, "rating"))
        yield from groups.values()

    def _of_trees(self) -> Iterator[PlacedRow]:
        for row, place in self._rows:
            # The row is the first message, or holds it.
            roots = [row, *(value for value in row.values() if isinstance(value, Mapping))]
            root = next((each for each in roots if isinstance(self._read(each, "replies"), list)), None)
            if root is not None:
                yield from self._below(root, (), place)
            else:
                yield PlacedRow({"prompt": None, "completions": [], "ratings": []}, place)

    def _below(
        self, node: Mapping[str, Any], before: tuple[dict[str, str], ...], place: str
    ) -> Iterator[PlacedRow]:
        """Yield a message's answers as a ranking, and then those of each of them."""
        path = (*before, self._turn(node))
        replies = [each for each in self._read(node, "replies") or [] if isinstance(each, Mapping)]
        if path[-1]["role"] == "user" and replies:
            yield self._ranking(path, replies, place)
        for reply in replies:
            yield from self._below(reply, path, place)

    def _by_parent(self) -> Iterator[PlacedRow]:
        """Gather messages that name the one they answer."""
        nodes = {self._read(row, "id"): (row, place) for row, place in self._rows}
        children: dict[Any, list[Any]] = {}
        for node, (row, _) in nodes.items():
            children.setdefault(self._read(row, "parent"), []).append(node)
        for node, (row, place) in nodes.items():
            if self._turn(row)["role"] == "user" and node in children:
                path, at, seen = [self._turn(row)], self._read(row, "parent"), {node}
                while at in nodes and at not in seen:
                    seen.add(at)
                    path.append(self._turn(nodes[at][0]))
                    at = self._read(nodes[at][0], "parent")
                yield self._ranking(
                    tuple(reversed(path)), [nodes[child][0] for child in children[node]], place
                )

    def _turn(self, node: Mapping[str, Any]) -> dict[str, str]:
        role = str(self._read(node, "role") or "")
        return {"role": ROLES.get(role.casefold(), role), "content": str(self._read(node, "text") or "")}

    def _ranking(self, path: tuple[dict[str, str], ...], replies: list[Any], place: str) -> PlacedRow:
        texts = [self._read(each, "text") for each in replies]
        ratings = [self._read(each, "rating") for each in replies]
        return PlacedRow({"prompt": list(path), "completions": texts, "ratings": ratings}, place)
