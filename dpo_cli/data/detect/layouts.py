"""Layouts of public data sets and tools, described in `layouts.yaml`: recognised by their columns, read by what they are documented to mean."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.data import formats
from dpo_cli.data.detect.fields import field_of
from dpo_cli.data.detect.label_words import UnknownWord, read_labels
from dpo_cli.data.detect.reading import Reading, named_fields
from dpo_cli.data.formats._base import SkipRow
from dpo_cli.data.sources.placed_rows import PlacedRow
from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source


LOOKED_AT = 32
"""Rows of which one must be readable in a layout for it to be taken."""


@dataclass(frozen=True)
class Layout:
    """One layout."""

    name: str
    sets: list[str]
    """Data sets and tools that have it."""
    has: list[str]
    """Columns, or paths, that a row of it has."""
    source: Mapping[str, Any]
    """What a source of a recipe says to read it."""
    sample: Any
    """A row, or a few."""
    means: str = ""
    """What is chosen, where the same columns are read in another way too."""
    holds: Mapping[str, Any] = field(default_factory=dict)
    """Path -> a value that some row has there; without it the columns may mean something else."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The sample as rows."""
        return self.sample if isinstance(self.sample, list) else [self.sample]

    def applied(self, source: Source) -> Source:
        """Return a source that reads this layout."""
        ignored = [*source.ignore, *self.source.get("ignore", [])]
        columns = {**self.source.get("columns", {}), **source.columns}
        labels = source.labels or self.source.get("labels", {})
        return replace(source, **{**self.source, "columns": columns, "labels": labels, "ignore": ignored})

    def is_held_by(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether some of a file's rows have the values that the layout is known by."""
        return all(
            any(value in _listed(field_of(path).read(row)) for row in rows)
            for path, value in self.holds.items()
        )

    def is_of(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row has all that a row of this layout has."""
        return all(_leads_somewhere(name, row) for name in self.has)


def _listed(found: Any) -> Sequence[Any]:
    return found if isinstance(found, list) else [found]


def _leads_somewhere(name: str, row: Mapping[str, Any]) -> bool:
    if name in row:
        return True
    if "." not in name and "[" not in name:
        return False
    found = field_of(name).read(row)
    return any(each is not None for each in found) if isinstance(found, list) else found is not None


@functools.cache
def known() -> tuple[Layout, ...]:
    """Return all layouts."""
    import yaml

    text = (Path(__file__).parent / "layouts.yaml").read_text(encoding="utf-8")
    return tuple(Layout(**fields) for fields in yaml.safe_load(text))


def by_name(name: str) -> Layout | None:
    """Return the layout of that name; None where there is none."""
    return next((layout for layout in known() if layout.name == name), None)


def matching(row: Mapping[str, Any]) -> list[Layout]:
    """Return the layouts that a row has most of; several where the same columns can be read in more than one way."""
    fitting = [layout for layout in known() if layout.is_of(row)]
    most = max((len(layout.has) for layout in fitting), default=0)
    return [layout for layout in fitting if len(layout.has) == most]


def reads(layout: Layout, source: Source, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a row's values are what the layout says, and no row has a word that the layout does not name."""
    if layout.source.get("gather", "rows") != "rows":
        return True
    stated = layout.applied(source)
    columns, unread = named_fields(stated)
    words = read_labels(stated.labels, "layouts.yaml")
    kind = formats.get(stated.format)
    reading = Reading(kind, True, columns, words, stated.better == "lower", unread)
    found = False
    for row in rows:
        try:
            found = kind.matches(reading.read(row)) or found
        except UnknownWord:
            return False
        except SkipRow:
            continue
    return found


def resolved(source: Source, rows: Iterable[PlacedRow]) -> tuple[Source, str]:
    """Return a source with what its layout says, and the layout's name: the one that `format` names, or that of the rows where nothing is said.

    Raises:
        DataError: rows that can be read in two ways.
    """
    if (stated := by_name(source.format)) is not None:
        return stated.applied(source), stated.name
    if source.format != "auto" or source.columns or source.labels or source.gather != "rows":
        return source, ""
    sample = list(islice(rows, LOOKED_AT))
    first = sample[0] if sample else None
    found = matching(first.values) if first is not None else []
    values = [row.values for row in sample]
    found = [layout for layout in found if layout.is_held_by(values) and reads(layout, source, values)]
    if not found:
        return source, ""
    if len(found) > 1:
        assert first is not None
        what = " or ".join(f"{layout.name} ({layout.means})" for layout in found)
        raise DataError.of(
            first.place,
            f"the rows can be read as {what}",
            "`dpo init` shows both and writes the one you choose",
        )
    return found[0].applied(source), found[0].name
