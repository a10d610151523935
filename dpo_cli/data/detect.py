"""Name the format of a source's rows and turn them into examples, what is dropped counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dpo_cli.data import formats
from dpo_cli.data.formats._base import MARGIN, TEMPLATE_COLUMNS, BadRow, Format, Row, SkipRow, margin
from dpo_cli.data.reasons import Reason
from dpo_cli.data.rows import PlacedRow, Problems
from dpo_cli.errors import DataError, RecipeError
from dpo_cli.types import Example, Text

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source


@dataclass(frozen=True)
class Parsed:
    """A source's examples and what became of its other rows."""

    format: Format
    rows: int
    examples: list[Example]
    dropped: Counter[Reason]
    first_dropped: dict[Reason, str]
    """Place of the first row dropped for a reason."""
    unused_columns: list[str]


@dataclass
class _Scan:
    """What one pass over a source's rows shows."""

    n: int = 0
    first: str = ""
    """Place of the first row."""
    columns: set[str] = field(default_factory=set)
    shapes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Rows by the formats that fit them."""


def parse_rows(
    rows: Iterable[PlacedRow], source: Source, key: str, has_template: bool, problems: Problems
) -> Parsed | None:
    """Parse rows in the source's format, or in the one format that fits them; bad rows go to `problems`.

    Reads them twice, first to see that all fit one format: what is wrong with the last row of a large file is told without
    holding the others.

    Args:
        rows: rows as the files hold them, the same in every pass.
        source: its `format`, `columns` and `chat` are honoured.
        key: the source's place in the recipe, for messages.
        has_template: whether the tokenizer has a chat template; text goes through it unless `chat` says otherwise.
        problems: collects rows that break the format.

    Returns:
        What became of the rows; None where there are none.

    Raises:
        DataError: a column is missing everywhere, no format or several fit, or most pairs are identical.
        RecipeError: an unknown format or `columns` key, or `chat: false` for messages.
    """
    _check_names(source.columns, key)
    scan = _scan(rows, source)
    if not scan.n:
        return None
    for name, column in source.columns.items():
        if column not in scan.columns:
            what = f'no "{column}"; found {sorted(scan.columns)}'
            raise DataError.of(scan.first, what, f"{key}.columns.{name}=<name>")
    present = scan.columns | set(source.columns)
    layout = formats.get(source.format) if source.format != "auto" else _detect(scan.shapes, present, key)
    if missing := [column for column in layout.columns if column not in present]:
        names = ", ".join(f'"{column}"' for column in missing)
        fix = " ".join(f"{key}.columns.{column}=<name>" for column in missing)
        raise DataError.of(scan.first, f"no {names}; found {sorted(scan.columns)}", fix)
    if source.chat is False and not layout.is_text:
        raise RecipeError.of(f"{key}.chat", f"false needs text rows; found {layout.name}", "drop the key")
    used = {*layout.columns, *TEMPLATE_COLUMNS, "prompt", *source.columns.values()}
    parsed = Parsed(layout, scan.n, [], Counter(), {}, sorted(scan.columns - used))
    is_chat = has_template if source.chat is None else source.chat
    for row in rows:
        _take(row, parsed, source, is_chat, problems)
    if parsed.dropped[Reason.IDENTICAL] > scan.n / 2:
        what = f"{parsed.dropped[Reason.IDENTICAL]} of {scan.n} rows have identical completions"
        raise DataError.of(f"{key}.path", what, f"check the columns: {key}.columns.rejected=<name>")
    return parsed


def _check_names(columns: Mapping[str, str], key: str) -> None:
    known = {*TEMPLATE_COLUMNS, *(column for name in formats.names() for column in formats.get(name).columns)}
    if unknown := sorted(set(columns) - known):
        raise RecipeError.of(
            f"{key}.columns", f"unknown name '{unknown[0]}'", f"one of: {', '.join(sorted(known))}"
        )


def _scan(rows: Iterable[PlacedRow], source: Source) -> _Scan:
    known = [formats.get(name) for name in formats.names()] if source.format == "auto" else []
    scan = _Scan()
    for values, place in rows:
        scan.first = scan.first or place
        scan.n += 1
        scan.columns |= values.keys()
        row = _with_names(values, source.columns)
        scan.shapes[tuple(layout.name for layout in known if layout.matches(row))] += 1
    return scan


def _take(row: PlacedRow, parsed: Parsed, source: Source, is_chat: bool, problems: Problems) -> None:
    """Add a row's example to `parsed`, or count why there is none."""
    try:
        example = parsed.format.parse(_with_names(row.values, source.columns), row.place, is_chat)
        _check_pair(example)
    except BadRow as error:
        problems.add(row.place, str(error))
    except SkipRow as skip:
        parsed.dropped[skip.reason] += 1
        parsed.first_dropped.setdefault(skip.reason, row.place)
    else:
        parsed.examples.append(example)
    if problems.count:
        # Nothing will be trained on: what else is wrong needs no examples.
        parsed.examples.clear()


def _with_names(row: Row, columns: Mapping[str, str]) -> Row:
    if not columns:
        return row
    return {**row, **{name: row[column] for name, column in columns.items() if column in row}}


def _detect(counts: Counter[tuple[str, ...]], present: set[str], key: str) -> Format:
    fitting = sorted({name for shape in counts for name in shape})
    if len(fitting) == 1:
        return formats.get(fitting[0])
    if not fitting:
        known = [formats.get(name) for name in formats.names()]
        # The layout that lacks the fewest columns is the one to name; one that is complete says what its rows break.
        return min(known, key=lambda f: (len(set(f.columns) - present), -len(f.columns), not f.is_text))
    told = ", ".join(f"{'/'.join(shape) or 'none'}: {n} rows" for shape, n in counts.most_common())
    is_unclear = any(len(shape) > 1 for shape in counts)
    what = "rows fit more than one format" if is_unclear else "rows of more than one layout"
    raise DataError.of(
        f"{key}.format", f"{what} ({told})", f"{key}.format={fitting[0]}, or one source a layout"
    )


def _check_pair(example: Example) -> None:
    if any(_is_blank(completion) for completion in example.completions):
        raise SkipRow(Reason.EMPTY)
    if len(example.completions) == 2 and example.completions[0] == example.completions[1]:
        raise SkipRow(Reason.IDENTICAL)


def _is_blank(completion: Text) -> bool:
    if isinstance(completion, str):
        return not completion.strip()
    return not completion[-1]["content"].strip() and not completion[-1].get("tool_calls")
