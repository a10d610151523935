"""`dpo formats`: the formats that rows are read in, and the layouts of public sets and tools, each with a row and the recipe lines for it."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from dpo_cli.cli.arguments import JsonOption
from dpo_cli.errors import RecipeError

PAGE = """\
# Formats and layouts

`dpo init FILE --model M` recognises all of these, and other files by the names and values of their columns; where two readings fit, it asks.
This page is what `dpo formats --page` prints. Sample rows are made up; where answers are compared, the better one is "Mostly, yes.".
"""
FORMATS = """\
A format is how rows become examples. `columns` of a source maps its names to those of a file, `labels` its words, so most files need no
more than that. What a method takes is made from what rows hold: pairs also teach KTO and SFT, rankings make pairs.
"""
LAYOUTS = """\
A layout is a known set of columns together with what they are documented to mean. It is recognised by its columns, or named in `format`;
the lines below each say the same in full. Another layout is another entry in `dpo_cli/data/layouts.yaml`.
"""


@dataclass(frozen=True)
class Entry:
    """A format or a layout."""

    name: str
    is_layout: bool
    format: str
    """The format that reads it."""
    what: str
    """What its rows hold."""
    sets: Sequence[str]
    """Public sets and tools that have it."""
    columns: Sequence[str]
    """What a row of it has, as columns or paths."""
    rows: Sequence[dict[str, Any]]
    source: dict[str, Any]
    """What a source of a recipe says to read it."""

    @property
    def recipe(self) -> str:
        """The lines of a recipe that read it."""
        lines = [f"{key}: {_flow(value)}" for key, value in {"path": "FILE", **self.source}.items()]
        return "\n".join(["data:", "  train:", f"    - {lines[0]}", *(f"      {line}" for line in lines[1:])])

    @property
    def sample(self) -> str:
        """Its sample rows as JSON lines."""
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "name": self.name,
            "is_layout": self.is_layout,
            "format": self.format,
            "what": self.what,
            "sets": list(self.sets),
            "columns": list(self.columns),
            "rows": list(self.rows),
            "source": self.source,
        }


def _flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf)
    return str(text).removesuffix("...\n").rstrip()


def formats(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A format, a layout, or a set that has it; all where left out."),
    ] = None,
    as_json: JsonOption = False,
    page: Annotated[bool, typer.Option("--page", help="Print all as a Markdown page.")] = False,
) -> None:
    """List the formats of rows and the layouts of public sets; with NAME show one, with a row and recipe lines."""
    entries = [*known_formats(), *known_layouts()]
    if name is not None:
        entries = named(name, entries)
    if as_json:
        print(json.dumps({"formats": [entry.as_dict() for entry in entries]}, ensure_ascii=False))
    elif page:
        print(page_of(entries), end="")
    elif name is not None:
        print("\n\n".join("\n".join(described(entry)) for entry in entries))
    else:
        print("\n".join(listed(entries)))


def known_formats() -> Iterator[Entry]:
    """Yield every format."""
    from dpo_cli.data import formats as registry

    for name in registry.names():
        each = registry.get(name)
        yield Entry(
            name, False, name, each.fits, each.sets, each.columns, [dict(each.sample)], {"format": name}
        )


def known_layouts() -> Iterator[Entry]:
    """Yield every layout that is described."""
    from dpo_cli.data import formats as registry
    from dpo_cli.data.detect import layouts

    for each in layouts.known():
        kind = registry.get(each.source["format"])
        what = f"{kind.name}{'; ' + each.means if each.means else ''}"
        yield Entry(
            each.name, True, kind.name, f"read as {what}", each.sets, each.has, each.rows, dict(each.source)
        )


def named(name: str, entries: Sequence[Entry]) -> list[Entry]:
    """Return the entry of that name, or those that a set of that name has.

    Raises:
        RecipeError: there is none.
    """
    wanted = name.casefold()
    found = [entry for entry in entries if entry.name == wanted] or [
        entry for entry in entries if wanted in map(str.casefold, entry.sets)
    ]
    if not found:
        names = {each.casefold(): each for entry in entries for each in (entry.name, *entry.sets)}
        near = difflib.get_close_matches(wanted, names, 1)
        fix = f"did you mean '{names[near[0]]}'?" if near else "`dpo formats` lists all"
        raise RecipeError.of("NAME", f"no format, layout or set {name!r}", fix)
    return found


def listed(entries: Sequence[Entry]) -> list[str]:
    """Return the lines of two tables: the formats, and the layouts with their sets."""
    from dpo_cli.cli.data.columns import table, width

    lines: list[str] = []
    for is_layout, heads in ((False, ("format",)), (True, ("layout", "read as"))):
        kept = [entry for entry in entries if entry.is_layout is is_layout]
        cells = [(entry.name, entry.format)[: len(heads)] for entry in kept]
        notes = [", ".join(entry.sets) if is_layout else _with_sets(entry) for entry in kept]
        lines += [*table(heads, cells, notes, width()), ""]
    return [*lines, "dpo formats NAME: a row, and the recipe lines that read it"]


def _with_sets(entry: Entry) -> str:
    return f"{entry.what}{'; as in ' + ', '.join(entry.sets) if entry.sets else ''}"


def described(entry: Entry) -> list[str]:
    """Return all that is known of an entry, in lines."""
    kind = "layout" if entry.is_layout else "format"
    sets = [f"sets: {', '.join(entry.sets)}"] if entry.sets else []
    head = [f"{entry.name} ({kind}): {entry.what}", *sets, f"columns: {', '.join(entry.columns)}"]
    rows = "rows:" if len(entry.rows) > 1 else "row:"
    return [*head, "", rows, entry.sample, "", "recipe:", entry.recipe]


def page_of(entries: Sequence[Entry]) -> str:
    """Return a Markdown page of entries."""
    parts = [PAGE]
    for title, intro, is_layout in (("Formats", FORMATS, False), ("Layouts", LAYOUTS, True)):
        kept = [entry for entry in entries if entry.is_layout is is_layout]
        if kept:
            parts += [f"## {title}\n\n{intro}", *map(_section, kept)]
    return "\n".join(parts)


def _section(entry: Entry) -> str:
    sets = f"Sets: {', '.join(entry.sets)}.\n\n" if entry.sets else ""
    columns = ", ".join(f"`{column}`" for column in entry.columns)
    what = f"R{entry.what[1:]}" if entry.is_layout else f"Holds {entry.what}"
    return (
        f"### {entry.name}\n\n{what}.\n\n{sets}Columns: {columns}\n\n"
        f"```json\n{entry.sample}\n```\n\n```yaml\n{entry.recipe}\n```\n"
    )
