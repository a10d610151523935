"""How a source's rows become what its format reads: under the format's names, in its words, higher numbers better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dpo_cli.data import formats
from dpo_cli.data.detect.fields import Field, field_of
from dpo_cli.data.detect.label_words import Words
from dpo_cli.data.formats._base import SIDE_COLUMNS, Format, Row
from dpo_cli.errors import RecipeError

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source

ROOTS = ("prompt", "root", "tree", "thread", "conversation", "message")
"""Columns that may hold the first message of a tree, where the row itself is not one."""
GATHERED = {
    "prompt": ("prompt", "completion", "rating", "system", "history"),
    "tree": ("text", "role", "replies", "rating", *ROOTS),
    "parent": ("id", "parent", "text", "role", "rating"),
}
"""How rows are gathered -> names that are read without being stated."""
_RATINGS = ("rating_a", "rating_b", "score_chosen", "score_rejected")


@dataclass(frozen=True)
class Reading:
    """How a source's rows become what its format reads."""

    format: Format
    is_certain: bool
    """Whether the recipe names the format, or rows fit it."""
    columns: Mapping[str, Field]
    """What the format calls it -> where the file has it."""
    words: Words
    lower_is_better: bool = False
    unread: frozenset[str] = field(default_factory=frozenset)
    """Names of the format whose columns mean something else in this file."""

    def read(self, row: Row) -> Row:
        """Return a row in the format's own column names and words.

        Raises:
            UnknownWord: `labels` do not name its word.
            SkipRow: its word means that it states nothing.
        """
        named = self.words.read(with_names(row, self.columns, self.unread))
        return _turned(named) if self.lower_is_better else named

    def name_of(self, column: str) -> str:
        """Return what the file calls a column of the format, for messages."""
        base, bracket, rest = column.partition("[")
        return self.columns[base].text + bracket + rest if base in self.columns else column


def used_columns(source: Source, layout: Format, present: frozenset[str]) -> set[str]:
    """Return the columns of a file that a source reads.

    Args:
        source: what it says.
        layout: its format.
        present: all columns of the file.
    """
    named = named_fields(source, present)[0].values()
    own = GATHERED.get(source.gather, (*layout.columns, *layout.optional, *SIDE_COLUMNS))
    return {column for each in named for column in each.columns} | (set(own) - set(source.columns)) & present


def used_paths(source: Source, present: frozenset[str]) -> frozenset[str]:
    """Return the paths that a source reads inside of columns that hold objects."""
    paths = [path for each in named_fields(source, present)[0].values() for path in each.paths]
    return frozenset(
        ".".join([path.column, *(step for step in path.steps if isinstance(step, str))])
        for path in paths
        if path.steps and isinstance(path.steps[0], str)
    )


def ignored(source: Source) -> list[str]:
    """Return the columns of which a source says that they do not matter: by name, or by leaving them unread (`prompt: ''`)."""
    return [*source.ignore, *(name for name, text in source.columns.items() if not text)]


def named_fields(
    source: Source, present: frozenset[str] = frozenset()
) -> tuple[dict[str, Field], frozenset[str]]:
    """Return the fields that a source's `columns` name, and the names that it leaves unread: `prompt: ''`, or a `history` that is its prompt.

    Raises:
        RecipeError: a text that is not a path.
    """
    named = {name: field_of(text, present) for name, text in source.columns.items() if text}
    elsewhere = {column for each in named.values() for column in each.columns}
    twice = {name for name in SIDE_COLUMNS if name in elsewhere and name not in source.columns}
    return named, frozenset({name for name, text in source.columns.items() if not text} | twice)


def with_names(row: Row, columns: Mapping[str, Field], unread: frozenset[str] = frozenset()) -> Row:
    """Return a row with the names of `columns` beside its own, without those that are to be left unread."""
    if not columns and not unread:
        return row
    kept = {name: value for name, value in row.items() if name not in unread}
    found = {name: each.read(row) for name, each in columns.items() if any(c in row for c in each.columns)}
    return {**kept, **found}


def check_names(columns: Mapping[str, str], key: str) -> None:
    """Check that formats know every name that `columns` maps.

    Raises:
        RecipeError: an unknown name.
    """
    known = set(SIDE_COLUMNS) | {"rating", "id", "parent", "role", "replies"}
    for name in formats.names():
        layout = formats.get(name)
        known |= {*layout.columns, *layout.optional}
    if unknown := sorted(set(columns) - known):
        raise RecipeError.of(
            f"{key}.columns", f"unknown name '{unknown[0]}'", f"one of: {', '.join(sorted(known))}"
        )


def _turned(row: Row) -> Row:
    """Return the row with the sign of its ratings changed, so that the lowest is the highest."""
    turned = {name: _negative(row[name]) for name in _RATINGS if name in row}
    if isinstance(row.get("ratings"), list):
        turned["ratings"] = [_negative(each) for each in row["ratings"]]
    return {**row, **turned}


def _negative(value: object) -> object:
    if value is None or value == "" or isinstance(value, bool):
        return value
    try:
        return -float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value  # what is no number is named where it is read
