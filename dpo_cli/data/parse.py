"""Turn a source's rows into examples, what is dropped counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dpo_cli.data.detect import Reading, detect
from dpo_cli.data.formats._base import (
    SIDE_COLUMNS,
    BadRow,
    Format,
    Row,
    SkipRow,
    stated_numbers,
    text,
)
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


def parse_rows(
    rows: Iterable[PlacedRow],
    source: Source,
    key: str,
    has_template: bool,
    problems: Problems,
    keep: int | None = None,
) -> Parsed | None:
    """Parse rows in the source's format, or in the one format that fits them; bad rows go to `problems`.

    Reads them twice, first to see that all fit one format: what is wrong with the last row of a large file is told without
    holding the others.

    Args:
        rows: rows as the files hold them, the same in every pass.
        source: its `format`, `columns`, `labels`, `min_gap` and `chat` are honoured.
        key: the source's place in the recipe, for messages.
        has_template: whether the tokenizer has a chat template; text goes through it unless `chat` says otherwise.
        problems: collects rows that break the format.
        keep: hold no more examples than this, for a look at rows of any number.

    Returns:
        What became of the rows; None where there are none.

    Raises:
        DataError: see `detect`; no row fits a format, or most pairs are identical.
        RecipeError: see `detect`; or `chat: false` for messages.
    """
    found = detect(rows, source, key)
    if found is None:
        return None
    scan, reading = found
    layout = reading.format
    if source.chat is False and not layout.is_text:
        raise RecipeError.of(f"{key}.chat", f"false needs text rows; found {layout.name}", "drop the key")
    used = {*layout.columns, *SIDE_COLUMNS, "prompt", *source.columns.values()}
    parsed = Parsed(layout, scan.n, [], Counter(), {}, sorted(scan.columns - used))
    is_chat = has_template if source.chat is None else source.chat
    for row in rows:
        _take(row, parsed, reading, source, is_chat, problems)
        # What nothing will be trained on need not be held.
        if problems.count:
            parsed.examples.clear()
        elif keep is not None:
            del parsed.examples[keep:]
    if not reading.is_certain and not problems.count:
        what = f"no format fits the rows, {layout.name} comes nearest; found {sorted(scan.columns)}"
        raise DataError.of(scan.first, what, f"{key}.format={layout.name} if that is what they are")
    if parsed.dropped[Reason.IDENTICAL] > scan.n / 2:
        what = f"{parsed.dropped[Reason.IDENTICAL]} of {scan.n} rows have identical completions"
        raise DataError.of(f"{key}.path", what, f"check the columns: {key}.columns.rejected=<name>")
    return parsed


def _take(
    row: PlacedRow, parsed: Parsed, reading: Reading, source: Source, is_chat: bool, problems: Problems
) -> None:
    """Add a row's example to `parsed`, or count why there is none."""
    try:
        values = reading.read(row.values)
        example = replace(parsed.format.parse(values, row.place, is_chat), **stated_numbers(values))
        example = _with_system(example, values)
        _check_completions(example)
        _check_gap(example, source.min_gap)
    except BadRow as error:
        problems.add(row.place, str(error))
    except SkipRow as skip:
        parsed.dropped[skip.reason] += 1
        parsed.first_dropped.setdefault(skip.reason, row.place)
    else:
        parsed.examples.append(example)


def _with_system(example: Example, row: Row) -> Example:
    """Give the example with the row's `system` text in front, as a message or, of raw text, as a paragraph."""
    if row.get("system") in (None, ""):
        return example
    system = text(row, "system")
    if isinstance(example.prompt, str):
        return replace(example, prompt=f"{system}\n\n{example.prompt}")
    if example.prompt[0]["role"] in ("system", "developer"):
        return example
    return replace(example, prompt=({"role": "system", "content": system}, *example.prompt))


def _check_completions(example: Example) -> None:
    if any(is_blank(completion) for completion in example.completions):
        raise SkipRow(Reason.EMPTY)
    if len(example.completions) > 1 and all(text == example.completions[0] for text in example.completions):
        raise SkipRow(Reason.IDENTICAL)


def _check_gap(example: Example, least: float | None) -> None:
    """Check a pair's margin; that of a ranking's pairs is known once they are made."""
    if least is None or example.ratings is not None:
        return
    if example.margin is None:
        raise BadRow("no margin and no scores, which min_gap compares")
    if example.margin < least:
        raise SkipRow(Reason.SMALL_GAP)


def is_blank(completion: Text) -> bool:
    """Say whether a completion says nothing: no text in its last turn, and no call of a tool."""
    if isinstance(completion, str):
        return not completion.strip()
    return not completion[-1]["content"].strip() and not completion[-1].get("tool_calls")
