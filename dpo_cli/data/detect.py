"""Name the format of a source's rows and turn them into examples, what is dropped counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    examples: list[Example]
    dropped: Counter[Reason]
    first_dropped: dict[Reason, str]
    """Place of the first row dropped for a reason."""
    unused_columns: list[str]


def parse_rows(
    rows: Sequence[PlacedRow], source: Source, key: str, has_template: bool, problems: Problems
) -> Parsed:
    """Parse rows in the source's format, or in the one format that fits them; bad rows go to `problems`.

    Args:
        rows: rows as the files hold them; at least one.
        source: its `format`, `columns` and `chat` are honoured.
        key: the source's place in the recipe, for messages.
        has_template: whether the tokenizer has a chat template; text goes through it unless `chat` says otherwise.
        problems: collects rows that break the format.

    Raises:
        DataError: a column is missing everywhere, no format or several fit, or most pairs are identical.
        RecipeError: an unknown format or `columns` key, or `chat: false` for messages.
    """
    renamed = _rename(rows, source.columns, key)
    layout = (
        formats.get(source.format)
        if source.format != "auto"
        else _detect([row.values for row in renamed], key)
    )
    _check_columns(renamed, layout, key)
    if source.chat is False and not layout.is_text:
        raise RecipeError.of(f"{key}.chat", f"false needs text rows; found {layout.name}", "drop the key")
    is_chat = has_template if source.chat is None else source.chat
    dropped: Counter[Reason] = Counter()
    first: dict[Reason, str] = {}
    examples = []
    for row in renamed:
        try:
            example = layout.parse(row.values, row.place, is_chat)
            if layout.kind == "pairs":
                example = replace(example, margin=margin(row.values))
            _check_pair(example)
        except BadRow as error:
            problems.add(row.place, str(error))
        except SkipRow as skip:
            dropped[skip.reason] += 1
            first.setdefault(skip.reason, row.place)
        else:
            examples.append(example)
    if dropped[Reason.IDENTICAL] > len(rows) / 2:
        what = f"{dropped[Reason.IDENTICAL]} of {len(rows)} rows have identical completions"
        raise DataError.of(f"{key}.path", what, f"check the columns: {key}.columns.rejected=<name>")
    used = {*layout.columns, *TEMPLATE_COLUMNS, MARGIN, "prompt", *source.columns.values()}
    return Parsed(layout, examples, dropped, first, sorted(set(_columns(renamed)) - used))


def _rename(rows: Sequence[PlacedRow], columns: Mapping[str, str], key: str) -> list[PlacedRow]:
    known = {
        *TEMPLATE_COLUMNS,
        MARGIN,
        *(column for name in formats.names() for column in formats.get(name).columns),
    }
    if unknown := sorted(set(columns) - known):
        raise RecipeError.of(
            f"{key}.columns", f"unknown name '{unknown[0]}'", f"one of: {', '.join(sorted(known))}"
        )
    found = _columns(rows)
    for name, column in columns.items():
        if column not in found:
            raise DataError.of(
                rows[0].place, f'no "{column}"; found {sorted(found)}', f"{key}.columns.{name}=<name>"
            )
    return [PlacedRow(_with_names(row.values, columns), row.place) for row in rows] if columns else list(rows)


def _with_names(row: Row, columns: Mapping[str, str]) -> Row:
    return {**row, **{name: row[column] for name, column in columns.items() if column in row}}


def _columns(rows: Sequence[PlacedRow]) -> set[str]:
    return {column for row in rows for column in row.values}


def _detect(rows: Sequence[Row], key: str) -> Format:
    known = [formats.get(name) for name in formats.names()]
    counts: Counter[tuple[str, ...]] = Counter(tuple(f.name for f in known if f.matches(row)) for row in rows)
    unclear = {shape: n for shape, n in counts.items() if len(shape) > 1}
    fitting = sorted({name for shape in counts for name in shape})
    if len(fitting) == 1:
        return formats.get(fitting[0])
    if not fitting:
        present = {column for row in rows for column in row}
        # The layout that lacks the fewest columns is the one to name; one that is complete says what its rows break.
        return min(known, key=lambda f: (len(set(f.columns) - present), -len(f.columns), not f.is_text))
    told = ", ".join(f"{'/'.join(shape) or 'none'}: {n} rows" for shape, n in counts.most_common())
    what = "rows fit more than one format" if unclear else "rows of more than one layout"
    raise DataError.of(
        f"{key}.format", f"{what} ({told})", f"{key}.format={fitting[0]}, or one source a layout"
    )


def _check_columns(rows: Sequence[PlacedRow], layout: Format, key: str) -> None:
    found = _columns(rows)
    if missing := [column for column in layout.columns if column not in found]:
        names = ", ".join(f'"{column}"' for column in missing)
        fix = " ".join(f"{key}.columns.{column}=<name>" for column in missing)
        raise DataError.of(rows[0].place, f"no {names}; found {sorted(found)}", fix)


def _check_pair(example: Example) -> None:
    if any(_is_blank(completion) for completion in example.completions):
        raise SkipRow(Reason.EMPTY)
    if len(example.completions) == 2 and example.completions[0] == example.completions[1]:
        raise SkipRow(Reason.IDENTICAL)


def _is_blank(completion: Text) -> bool:
    if isinstance(completion, str):
        return not completion.strip()
    return not completion[-1]["content"].strip() and not completion[-1].get("tool_calls")
