"""Turn a source's rows into examples, what is dropped counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dpo_cli.data.detect import layouts
from dpo_cli.data.detect.columns.profile import look_at
from dpo_cli.data.detect.columns.unread import Unread, unread
from dpo_cli.data.detect.detect import Scan, detect
from dpo_cli.data.detect.gather import Gathered
from dpo_cli.data.detect.reading import Reading, ignored, used_columns, used_paths
from dpo_cli.data.formats._base import (
    BadRow,
    Format,
    NullField,
    Row,
    SkipRow,
    stated_numbers,
    text,
)
from dpo_cli.data.row_notes import Reason
from dpo_cli.data.settings import Setting, Speller, as_keys
from dpo_cli.data.sources.placed_rows import PlacedRow, Problems
from dpo_cli.data.tokenize.turns import UNSCORED
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
    layout: str = ""
    """Name of the published layout that the rows were read by; empty where the recipe or the rows themselves say how."""


def parse_rows(
    rows: Iterable[PlacedRow],
    source: Source,
    key: str,
    has_template: bool,
    problems: Problems,
    keep: int | None = None,
    spell: Speller | None = None,
) -> Parsed | None:
    """Parse rows in the source's format, or in the one format that fits them; bad rows go to `problems`.

    Reads them twice, first to see that all fit one format: what is wrong with the last row of a large file is found without
    holding the others.

    Args:
        rows: rows as the files hold them, the same in every pass.
        source: all of it but where it is.
        key: the source's place in the recipe, for messages.
        has_template: whether the tokenizer has a chat template; text goes through it unless `chat` says otherwise.
        problems: collects rows that break the format.
        keep: hold no more examples than this, for a look at rows of any number.
        spell: writes the settings of a fix; None: as keys of the recipe.

    Returns:
        What became of the rows; None where there are none.

    Raises:
        DataError: see `detect`; no row fits a format, or most pairs are identical.
        RecipeError: see `detect`; or `chat: false` for messages.
    """
    spell = spell or as_keys(key)
    source, layout = layouts.resolved(source, rows)
    given = rows
    if source.gather != "rows":
        rows = Gathered(rows, source)
    found = detect(rows, source, key)
    if found is None:
        return None
    scan, reading = found
    if source.chat is False and not reading.format.is_text:
        what = f"false needs text rows; found {reading.format.name}"
        raise RecipeError.of(f"{key}.chat", what, "drop the key")
    profile = scan.look.profile() if source.gather == "rows" else look_at(given)
    used = used_columns(source, reading.format, frozenset(profile.words))
    paths = used_paths(source, frozenset(profile.words))
    unused = unread(profile, used, ignored(source), reading.format.name, paths)
    names = sorted(each.column for each in unused)
    parsed = Parsed(reading.format, scan.n, [], Counter(), {}, names, layout)
    is_chat = has_template if source.chat is None else source.chat
    for row in rows:
        _take(row, parsed, reading, source, is_chat, problems, spell)
        # What nothing will be trained on need not be held.
        if problems.count:
            parsed.examples.clear()
        elif keep is not None:
            del parsed.examples[keep:]
    if not problems.count:
        _check_parsed(parsed, reading, scan, key, spell)
        _check_unread(unused, reading.format, source, spell)
    return parsed


def _check_parsed(parsed: Parsed, reading: Reading, scan: Scan, key: str, spell: Speller) -> None:
    """Check that rows which can be read were meant to be read so.

    Raises:
        DataError: no row fits a format, or most pairs are identical.
    """
    if not reading.is_certain:
        what = f"no format fits the rows, {reading.format.name} comes nearest; found {sorted(scan.columns)}"
        fix = f"{spell([Setting('format', reading.format.name)])} if that is what they are"
        raise DataError.of(scan.first, what, fix)
    if parsed.dropped[Reason.IDENTICAL] > scan.n / 2:
        what = f"{parsed.dropped[Reason.IDENTICAL]} of {scan.n} rows have identical completions"
        fix = f"check the columns: {spell([Setting('columns.rejected', '<name>')])}"
        raise DataError.of(f"{key}.path", what, fix)


def _check_unread(unused: Sequence[Unread], layout: Format, source: Source, spell: Speller) -> None:
    """Check that no column that may be a preference or context is left out unless the recipe says that it does not matter.

    Raises:
        DataError: one is.
    """
    doubtful = [each for each in unused if each.is_doubtful]
    if doubtful:
        what = "; ".join(f"{each.column!r} {each.why}" for each in doubtful)
        names = [*source.ignore, *(each.column for each in doubtful)]
        fix = f"`dpo init` shows how to read it; if it does not matter, {spell([Setting('ignore', name) for name in names])}"
        raise DataError.of(source.path, f"{what}, and {layout.name} leaves it out", fix)


def _take(
    row: PlacedRow,
    parsed: Parsed,
    reading: Reading,
    source: Source,
    is_chat: bool,
    problems: Problems,
    spell: Speller,
) -> None:
    """Add a row's example to `parsed`, or count why there is none."""
    try:
        values = reading.read(row.values)
        example = reading.format.parse(values, row.place, is_chat)
        if source.chat is False and not isinstance(example.prompt, str):
            raise BadRow(
                "the row holds messages, and chat: false asks for raw text", fix=[Setting("chat", "null")]
            )
        example = replace(example, **stated_numbers(values))
        example = _with_system(_unmarked(example), values)
        _check_completions(example)
        _check_gap(example, source.min_gap)
    except BadRow as error:
        if isinstance(error, NullField) and source.skip_null:
            parsed.dropped[Reason.NULL] += 1
            parsed.first_dropped.setdefault(Reason.NULL, row.place)
            return
        fix = [Setting(name, _in_file(value, reading)) for name, value in error.fix]
        problems.add(row.place, error.text(reading.name_of), spell(fix) if fix else "")
    except SkipRow as skip:
        parsed.dropped[skip.reason] += 1
        parsed.first_dropped.setdefault(skip.reason, row.place)
    else:
        parsed.examples.append(example)


def _in_file(value: str, reading: Reading) -> str:
    """Return a setting's value with the file's own name of the column that it reads."""
    if not value.startswith("json("):
        return value
    return f"json({reading.name_of(value.removeprefix('json(').removesuffix(')'))})"


def _unmarked(example: Example) -> Example:
    """Return the example without marks on turns of its prompt: none of these is trained on.

    Raises:
        SkipRow: a completion of which every answer is marked as not to be trained on.
    """
    for completion in example.completions:
        answers = [turn for turn in completion if not isinstance(turn, str) and turn["role"] == "assistant"]
        if answers and all(turn.get(UNSCORED) for turn in answers):
            raise SkipRow(Reason.NOTHING_SCORED)
    if isinstance(example.prompt, str) or not any(UNSCORED in turn for turn in example.prompt):
        return example
    turns = ({key: value for key, value in turn.items() if key != UNSCORED} for turn in example.prompt)
    return replace(example, prompt=tuple(turns))


def _with_system(example: Example, row: Row) -> Example:
    """Return the example with the row's `system` text in front, as a message or, of raw text, as a paragraph."""
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
    """Return whether a completion says nothing: no text in its last turn, and no call of a tool."""
    if isinstance(completion, str):
        return not completion.strip()
    return not completion[-1]["content"].strip() and not completion[-1].get("tool_calls")
