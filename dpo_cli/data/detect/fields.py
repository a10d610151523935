"""Columns as a recipe names them: `question`, a path such as `info.post` or `answers[].text`, `json(cell)`, or several joined by ` + `.

`text(cell)` takes text that spells JSON as the text that it is.

A column whose whole name is spelled like a path is that column. Numbers can be weighted: `0.65*helpfulness + 0.8*correctness - verbosity`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpo_cli.data.tokenize.turns import decoded, is_exchanges, messages_of
from dpo_cli.errors import RecipeError

_TERM = re.compile(r"(?:(?P<factor>-?\d+(?:\.\d+)?)\s*\*\s*)?(?P<path>\S.*)")
_CALL = re.compile(r"(?P<how>json|text)\((?P<name>.+)\)(?P<rest>.*)")
_STEP = re.compile(r"\[(?P<index>-?\d+)?\]|\.?(?P<name>[^.\[\]]+)")
BETWEEN = "\n\n"
"""What stands between texts that are joined."""

Step = str | int | None
"""A key of an object, a place in a list, or None for every item of a list."""


@dataclass(frozen=True)
class Path:
    """Where a value is found in a row."""

    column: str
    steps: tuple[Step, ...] = ()
    is_json: bool = False
    """Whether the column holds JSON spelled as text."""
    factor: float | None = None
    """What a number counts in a sum; None: as it is."""
    constant: float | None = None
    """A number that stands in a sum by itself."""

    def read(self, row: Mapping[str, Any]) -> Any:
        """Return the value; None where there is none."""
        if self.constant is not None:
            return self.constant
        value = row.get(self.column)
        return follow(decoded(value) if self.is_json else value, self.steps)


@dataclass(frozen=True)
class Field:
    """A column, a path, or a few of them together."""

    text: str
    paths: tuple[Path, ...]

    @property
    def columns(self) -> list[str]:
        """The columns that it reads."""
        return list(dict.fromkeys(path.column for path in self.paths if path.constant is None))

    def read(self, row: Mapping[str, Any]) -> Any:
        """Return the value in a row; None where there is none.

        Of several: the sum of numbers, else all of them in order, texts with an empty line between them, messages as turns.
        """
        if self.text in row:
            return row[self.text]
        if len(self.paths) == 1 and self.paths[0].factor is None:
            return self.paths[0].read(row)
        values = [path.read(row) for path in self.paths]
        if any(path.factor is not None for path in self.paths) or all(map(_is_number, values)):
            return _weighted_sum(self.paths, values)
        return _joined(values)


@functools.lru_cache(maxsize=1024)
def field_of(text: str, columns: frozenset[str] = frozenset()) -> Field:
    """Return what a recipe's text names.

    Args:
        text: as in `columns` of a source.
        columns: names in the file: one of these is that column, however it is spelled.

    Raises:
        RecipeError: brackets that do not close.
    """
    if text in columns:
        return Field(text, (Path(text),))
    return Field(text, tuple(_path(sign, term, columns) for sign, term in _terms(text)))


def _terms(text: str) -> Iterator[tuple[str, str]]:
    pieces = re.split(r"\s+([+-])\s+", text.strip())
    yield from zip(["+", *pieces[1::2]], pieces[::2], strict=True)


def _path(sign: str, term: str, columns: frozenset[str]) -> Path:
    matched = _TERM.fullmatch(term)
    name, factor = (matched["path"], matched["factor"]) if matched else (term, None)
    weight = None if factor is None else float(factor)
    if sign == "-":
        weight = -(1.0 if weight is None else weight)
    if name not in columns and re.fullmatch(r"\d+(\.\d+)?", name):
        return Path(name, (), False, weight, float(name))
    if name not in columns and (inner := _CALL.fullmatch(name)) is not None:
        return Path(inner["name"], _steps(inner["rest"], term), inner["how"] == "json", weight)
    if name in columns:
        return Path(name, (), False, weight)
    # The longest column that the text starts with, so that a dot may be part of a name.
    prefix = max((column for column in columns if _starts(name, column)), key=len, default="")
    if prefix:
        return Path(prefix, _steps(name[len(prefix) :], term), False, weight)
    column = re.split(r"[.\[]", name, maxsplit=1)[0]
    return Path(column, _steps(name[len(column) :], term), False, weight)


def _starts(name: str, column: str) -> bool:
    return bool(column) and name.startswith(column) and name[len(column) : len(column) + 1] in (".", "[")


def _steps(rest: str, text: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    at = 0
    while at < len(rest):
        matched = _STEP.match(rest, at)
        if matched is None:
            raise RecipeError.of(
                "columns", f"'{text}' is not a path", "as in info.post, answers[].text or answers[0].text"
            )
        if matched["name"] is not None:
            steps.append(matched["name"])
        else:
            steps.append(None if matched["index"] is None else int(matched["index"]))
        at = matched.end()
    return tuple(steps)


def follow(value: Any, steps: Sequence[Step]) -> Any:
    """Return what a path leads to from a value; None where it leads nowhere. `[]` gives a list, of all that it leads to."""
    for at, step in enumerate(steps):
        if step is None:
            if not isinstance(value, list):
                return None
            rest = steps[at + 1 :]
            found = [follow(item, rest) for item in value]
            return (
                [each for item in found for each in item]
                if None in rest and all(isinstance(i, list) for i in found)
                else found
            )
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _weighted_sum(paths: Sequence[Path], values: Sequence[Any]) -> Any:
    """Return the sum of numbers, one each or lists of one length; None where one is missing or is no number."""
    if any(isinstance(value, list) for value in values):
        if not all(isinstance(value, list) and len(value) == len(values[0]) for value in values):
            return None
        return [_weighted_sum(paths, each) for each in zip(*values, strict=True)]
    total = 0.0
    for path, value in zip(paths, values, strict=True):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None
        total += (1.0 if path.factor is None else path.factor) * number
    return total


def _joined(values: Sequence[Any]) -> Any:
    given = [value for value in values if value not in (None, "", [])]
    if not any(isinstance(value, list | Mapping) for value in given):
        return BETWEEN.join(str(value) for value in given) if given else None
    turns: list[Any] = []
    for value in given:
        if is_exchanges(value):
            turns += messages_of(value)
        elif isinstance(value, list):
            turns += value
        else:
            turns.append(value if isinstance(value, Mapping) else {"role": "user", "content": str(value)})
    return turns
