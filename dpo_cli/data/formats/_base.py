"""What a data format declares, and the field checks that all formats share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpo_cli.data.row_notes import Reason
from dpo_cli.data.settings import Setting
from dpo_cli.data.tokenize.turns import SPELLED, NotMessages, decoded, kind_of, messages_of
from dpo_cli.types import DataKind, Example, Message

TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")
"""Columns that every format may carry for the chat template."""

NUMBER_COLUMNS = ("margin", "score_chosen", "score_rejected", "weight")
"""Columns of numbers that every format may carry; the first three say how clear a preference is."""

SIDE_COLUMNS = (*TEMPLATE_COLUMNS, *NUMBER_COLUMNS, "system", "history")
"""All columns that every format may carry. `system`: text for rows whose messages bring no system prompt. `history`: turns before the prompt."""

Row = Mapping[str, Any]


class BadRow(Exception):
    """A row that breaks its format: the run stops and names its line."""

    def __init__(self, what: str, column: str = "", fix: Sequence[Setting] = ()) -> None:
        """Take what is wrong, after the name of the column where there is one (`" is null"`), and the settings that would help."""
        super().__init__(f'"{column}"{what}' if column else what)
        self.what, self.column, self.fix = what, column, fix

    def text(self, name: Callable[[str], str]) -> str:
        """Return the message with the column under the file's own name."""
        return f'"{name(self.column)}"{self.what}' if self.column else self.what


class NullField(BadRow):
    """A column that a row needs is null in it."""

    def __init__(self, column: str) -> None:
        super().__init__(" is null", column, [Setting("skip_null", "true")])


class SkipRow(Exception):
    """A row that is well formed and states no usable preference: dropped and counted."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Format:
    """A declaration: how rows of one layout become examples."""

    name: str
    fits: str
    """What its rows hold, in one line."""
    columns: tuple[str, ...]
    """Columns that a row must have; a source's `columns` maps these names to the file's own."""
    matches: Callable[[Row], bool]
    """Whether a row has this layout; no row fits two formats."""
    parse: Callable[[Row, str, bool], Example]
    """(row, source, chat) -> Example. `chat`: text becomes messages. Raises BadRow, SkipRow."""
    sample: Row
    """A row of this layout, for tests and the documentation."""
    is_text: bool
    """Whether completions may be plain text, so that a source's `chat` can choose between raw text and messages."""
    kind: DataKind = "pairs"
    """What a row holds."""
    optional: tuple[str, ...] = ()
    """Columns that are read where a row has them, beside those that every format may carry."""
    sets: tuple[str, ...] = ()
    """Public sets whose columns have these very names."""


def present(row: Row, column: str) -> Any:
    """Return a field.

    Raises:
        BadRow: absent or null.
    """
    if column not in row:
        raise BadRow(" is absent", column)
    if row[column] is None:
        raise NullField(column)
    return row[column]


def text(row: Row, column: str) -> str:
    """Return a text field.

    Raises:
        BadRow: absent, null or not text.
    """
    value = present(row, column)
    if not isinstance(value, str):
        raise BadRow(f" is {kind_of(value)}, not text", column)
    if SPELLED.match(value):
        fix = [Setting(f"columns.{column}", f"json({column})")] if decoded(value) is not value else []
        raise BadRow(" is messages spelled as text", column, fix)
    return value


def messages(row: Row, column: str) -> tuple[Message, ...]:
    """Return a field that holds chat messages, in the roles that templates know.

    Raises:
        BadRow: absent, null, empty, not messages, an unknown role, content that is not text.
    """
    try:
        return messages_of(present(row, column))
    except NotMessages as error:
        raise BadRow(error.what, column + error.place) from None


def number(row: Row, column: str) -> float | None:
    """Return a field that holds a number, or text that spells one; None where it is absent, null or empty.

    Raises:
        BadRow: anything else, or not finite.
    """
    value = row.get(column)
    if value is None or value == "":
        return None
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise BadRow(f" is {value!r}, not a number", column)
    return found


def stated_numbers(row: Row) -> dict[str, Any]:
    """Return the `margin` and `weight` arguments of an Example that a row's optional columns state.

    Raises:
        BadRow: a column holds no number, or a weight that is not 0 to 1000.
    """
    margin, weight = number(row, "margin"), number(row, "weight")
    chosen, rejected = number(row, "score_chosen"), number(row, "score_rejected")
    if margin is None and chosen is not None and rejected is not None:
        margin = chosen - rejected
    if weight is not None and not 0 <= weight <= 1000:
        raise BadRow(f" is {weight:g}, not 0 to 1000", "weight")
    stated = {"margin": margin, "weight": weight}
    return {name: value for name, value in stated.items() if value is not None}


def label(row: Row, column: str) -> bool:
    """Return a field that says whether a completion is wanted: true or false, 1 or 0.

    Raises:
        BadRow: absent, null or anything else; words such as "good" are not guessed at.
    """
    value = present(row, column)
    if value not in (True, False):
        raise BadRow(f" is {value!r}, not true or false (nor 1 or 0)", column)
    return bool(value)


def is_label(value: object) -> bool:
    """Return whether a value is a label."""
    return isinstance(value, bool | int) and value in (0, 1)


def check_turns(prompt: Sequence[Message], completion: Sequence[Message], column: str) -> None:
    """Check that the prompt waits for an answer and that the completion starts and ends with the assistant.

    Raises:
        BadRow: it does not.
    """
    if not prompt or prompt[-1]["role"] == "assistant":
        raise BadRow("the prompt is empty" if not prompt else "the prompt ends with the assistant")
    for end, turn in (("starts", completion[0]), ("ends", completion[-1])):
        if turn["role"] != "assistant":
            what = f" {end} with role {turn['role']!r}; a completion starts and ends with the assistant"
            raise BadRow(what, column)


def split_first_answer(
    turns: Sequence[Message], column: str
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Return what comes before a conversation's first answer, and all that follows.

    Raises:
        BadRow: no answer, or none at the end.
    """
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), len(turns) - 1)
    check_turns(turns[:first], turns[first:], column)
    return tuple(turns[:first]), tuple(turns[first:])


def split_last_answer(
    turns: Sequence[Message], column: str
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Return a conversation up to its last user turn, and what answers that; calls of tools are part of the answer.

    Raises:
        BadRow: no answer, or none at the end.
    """
    asked = [i for i, turn in enumerate(turns) if turn["role"] == "user"]
    cut = asked[-1] + 1 if asked else 0
    check_turns(turns[:cut], turns[cut:] or turns[-1:], column)
    return tuple(turns[:cut]), tuple(turns[cut:])


def template_fields(row: Row) -> dict[str, Any]:
    """Return the `tools` and `template_kwargs` arguments of an Example from a row's optional columns.

    Raises:
        BadRow: tools are not a list of objects (or JSON text of one), template arguments not an object.
    """
    tools, kwargs = row.get("tools"), row.get("chat_template_kwargs")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except json.JSONDecodeError as error:
            raise BadRow(f" is text that is not JSON: {error}", "tools") from error
    if tools is not None and not (
        isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)
    ):
        raise BadRow(f" is {kind_of(tools)}, not a list of objects", "tools")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise BadRow(f" is {kind_of(kwargs)}, not an object", "chat_template_kwargs")
    return {"tools": tools or None, "template_kwargs": dict(kwargs or {})}
