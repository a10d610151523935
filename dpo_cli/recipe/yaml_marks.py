"""YAML text to plain values, each with the line it stands on.

Does less than YAML on purpose: no tags, no anchors, one document, text keys. Types nothing beyond null, booleans and numbers;
what a value must be is `convert.py`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import yaml

from dpo_cli.errors import Problem, RecipeError

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_NODES = 10_000

Key = tuple[str | int, ...]
"""Where a value stands: ("data", "train", 0, "path")."""


@dataclass(frozen=True)
class Mark:
    """Where a value was written."""

    where: str
    """`file:line`, or `override KEY`."""
    folder: Path
    """What a relative path there is relative to."""
    text: str | None = None
    """An unquoted scalar as typed, so that a text field gets `7e5` and not 700000.0."""

    @property
    def origin(self) -> str:
        """`file:line`, or `override`."""
        return "override" if self.where.startswith("override ") else self.where


@dataclass
class Tree:
    """Plain values and the marks of all keys in them."""

    values: Any
    marks: dict[Key, Mark] = field(default_factory=dict)
    failed: set[Key] = field(default_factory=set)
    """Keys whose problem is already reported."""

    def mark(self, key: Key) -> Mark:
        """Return the mark of a key, or of the nearest group around it."""
        return next(self.marks[key[:n]] for n in range(len(key), -1, -1) if key[:n] in self.marks)


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    # Scalars are typed by `scalar`, so that YAML 1.1's octals, sexagesimals and dates stay out.
    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}


_WORDS = {
    "null": None,
    "~": None,
    "": None,
    "true": True,
    "yes": True,
    "on": True,
    "false": False,
    "no": False,
    "off": False,
}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,17})")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=e))(?:e[-+]?[0-9]+)?|[-+]?\.?inf|\.?nan",
    re.IGNORECASE,
)


def scalar(text: str) -> Any:
    """Return the value of an unquoted scalar: None, bool, int, float (`5e-7` too) or the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    return text


def parse(text: str, place: Callable[[int], str], folder: Path) -> Tree:
    """Read one YAML document; `place` names a line (counted from 1) to the user.

    Raises:
        RecipeError: broken YAML, a tag, an anchor, a second document, a repeated key, too deep, too many values.
    """
    try:
        encoded = text.encode()
        _refuse_unsafe(text, place)
        root = yaml.compose(text, Loader=_Loader)
    except UnicodeEncodeError as error:
        fix = "save it as UTF-8"
        raise RecipeError.of(place(1), f"character {error.start + 1} is no valid text", fix) from error
    except yaml.MarkedYAMLError as error:
        raise RecipeError([_syntax_problem(error, text, place)]) from error
    except yaml.reader.ReaderError as error:
        line = encoded.count(b"\n", 0, error.position) + 1
        raise RecipeError.of(
            place(line), f"not valid YAML: {error.reason}", "remove the character"
        ) from error
    tree, repeated = Tree(None, {(): Mark(place(1), folder)}), list[Problem]()
    if root is not None:
        tree.values = _plain(root, (), tree, lambda n: Mark(place(n.start_mark.line + 1), folder), repeated)
    if repeated:
        raise RecipeError(repeated)
    return tree


def _refuse_unsafe(text: str, place: Callable[[int], str]) -> None:
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        where = place(event.start_mark.line + 1)
        documents += isinstance(event, yaml.DocumentStartEvent)
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if documents > 1:
            raise RecipeError.of(where, "a second document starts", "one recipe a file: remove the '---'")
        if depth > MAX_DEPTH:
            raise RecipeError.of(where, f"nested deeper than {MAX_DEPTH} levels", "a recipe needs four")
        if nodes > MAX_NODES:
            raise RecipeError.of(
                where, f"more than {MAX_NODES} values", "list data by glob, not file by file"
            )
        if isinstance(event, yaml.AliasEvent) or (isinstance(event, yaml.NodeEvent) and event.anchor):
            raise RecipeError.of(
                where,
                "anchors and aliases are not allowed",
                "${group.key} repeats a value, `extends:` a file",
            )
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            raise RecipeError.of(where, f"the tag {event.tag!r} is not allowed", "write the plain value")


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, place: Callable[[int], str]) -> Problem:
    mark = error.problem_mark or error.context_mark
    number = mark.line if mark else 0
    line = next(iter(text.splitlines()[number : number + 1]), "")
    fix = (
        "indent with spaces, not tabs" if "\t" in line else "check the indentation, quotes and brackets there"
    )
    return Problem(place(number + 1), f"not valid YAML: {error.problem or error.context}", fix)


def _plain(
    node: yaml.Node, key: Key, tree: Tree, marked: Callable[[yaml.Node], Mark], repeated: list[Problem]
) -> Any:
    """Return the node's plain value, filling in `tree.marks`; repeated keys are added to `repeated`."""
    mark = marked(node)
    tree.marks.setdefault(key, mark)
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for name, item in _entries(node, mark, repeated):
            if name.value in values:
                repeated.append(
                    Problem(
                        marked(name).where, f"{dotted((*key, name.value))!r} is set a second time", "keep one"
                    )
                )
            tree.marks[(*key, name.value)] = marked(name)
            values[name.value] = _plain(item, (*key, name.value), tree, marked, repeated)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*key, i), tree, marked, repeated) for i, item in enumerate(node.value)]
    if node.style:
        return node.value
    tree.marks[key] = replace(tree.marks[key], text=node.value)
    return scalar(node.value)


def _entries(
    node: yaml.MappingNode, mark: Mark, repeated: list[Problem]
) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    for name, item in node.value:
        if isinstance(name, yaml.ScalarNode):
            yield name, item
        else:
            repeated.append(Problem(mark.where, "a key that is itself a list or a group", "keys are words"))


def dotted(key: Key) -> str:
    """Write a key as the user types it: `data.train[0].path`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")
