"""What a data format declares, and the field checks that all formats share."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpo_cli.data.reasons import Reason
from dpo_cli.types import DataKind, Example, Message

ROLES = ("system", "developer", "user", "assistant", "tool")

TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")
"""Columns that every format may carry for the chat template."""

NUMBER_COLUMNS = ("margin", "score_chosen", "score_rejected", "weight")
"""Columns of numbers that every format may carry; the first three say how clear a preference is."""

SIDE_COLUMNS = (*TEMPLATE_COLUMNS, *NUMBER_COLUMNS, "system")
"""All columns that every format may carry; `system` is text for rows whose messages bring no system prompt."""

SPELLED_MESSAGES = re.compile(r"""\[\{\s*["'](role|content|from|value)["']\s*:""")

Row = Mapping[str, Any]


class BadRow(Exception):
    """A row that breaks its format: the run stops and names its line. The message says what is wrong."""


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
    """Which data sets look like this, in one line."""
    columns: tuple[str, ...]
    """Columns that a row must have; a source's `columns` maps these names to the file's own."""
    matches: Callable[[Row], bool]
    """Whether a row has this layout; no row fits two formats."""
    parse: Callable[[Row, str, bool], Example]
    """(row, source, chat) -> Example. `chat`: text becomes messages. Raises BadRow, SkipRow."""
    sample: Row
    """A row of this layout, for tests and the documentation."""
    is_text: bool
    """Whether completions are plain text, so that a source's `chat` can choose between raw text and messages."""
    kind: DataKind = "pairs"
    """What a row holds."""


def text(row: Row, column: str) -> str:
    """Give a text field.

    Raises:
        BadRow: absent, null or not text.
    """
    value = _present(row, column)
    if not isinstance(value, str):
        raise BadRow(f'"{column}" is {_kind(value)}, not text')
    if SPELLED_MESSAGES.match(value):
        raise BadRow(f'"{column}" is a list of messages spelled as text; write them as JSON')
    return value


def number(row: Row, column: str) -> float | None:
    """Give a field that holds a number, or text that spells one; None where it is absent, null or empty.

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
        raise BadRow(f'"{column}" is {value!r}, not a number')
    return found


def stated_numbers(row: Row) -> dict[str, Any]:
    """Give the `margin` and `weight` arguments of an Example that a row's optional columns state.

    Raises:
        BadRow: a column holds no number, or a weight that is not 0 to 1000.
    """
    margin, weight = number(row, "margin"), number(row, "weight")
    chosen, rejected = number(row, "score_chosen"), number(row, "score_rejected")
    if margin is None and chosen is not None and rejected is not None:
        margin = chosen - rejected
    if weight is not None and not 0 <= weight <= 1000:
        raise BadRow(f'"weight" is {weight:g}, not 0 to 1000')
    stated = {"margin": margin, "weight": weight}
    return {name: value for name, value in stated.items() if value is not None}


def messages(row: Row, column: str) -> tuple[Message, ...]:
    """Give a field that lists chat messages, null fields removed.

    Raises:
        BadRow: absent, null, empty, not a list of messages, an unknown role, content that is not text.
    """
    value = _present(row, column)
    if not isinstance(value, list) or not value:
        raise BadRow(f'"{column}" is {_kind(value)}, not a list of messages')
    return tuple(_message(turn, f"{column}[{i}]") for i, turn in enumerate(value))


def _message(turn: object, place: str) -> Message:
    if not isinstance(turn, Mapping):
        raise BadRow(f'"{place}" is {_kind(turn)}, not a message with "role" and "content"')
    # Parquet gives every message the union of all fields; templates test `is defined`.
    turn = {key: value for key, value in turn.items() if value is not None}
    if turn.get("role") not in ROLES:
        raise BadRow(f'"{place}" has role {turn.get("role")!r}; known roles: {", ".join(ROLES)}')
    if "content" not in turn and turn["role"] == "assistant" and turn.get("tool_calls"):
        turn["content"] = ""
    if isinstance(turn.get("content"), list):
        turn["content"] = _joined(turn["content"], place)
    if not isinstance(turn.get("content"), str):
        raise BadRow(f'"{place}.content" is {_kind(turn.get("content"))}, not text')
    return turn


def _joined(parts: Sequence[object], place: str) -> str:
    """Give the text of a content that is written as parts."""
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise BadRow(f'"{place}.content" holds a part that is not text')
    return "".join(str(text) for text in texts)


def label(row: Row, column: str) -> bool:
    """Give a field that says whether a completion is wanted: true or false, 1 or 0.

    Raises:
        BadRow: absent, null or anything else; words such as "good" are not guessed at.
    """
    value = _present(row, column)
    if value not in (True, False):
        raise BadRow(f'"{column}" is {value!r}, not true or false (nor 1 or 0)')
    return bool(value)


def is_label(value: object) -> bool:
    """Say whether a value is a label."""
    return isinstance(value, bool | int) and value in (0, 1)


def is_messages(value: object) -> bool:
    """Say whether a value looks like a list of chat messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, Mapping) and "role" in turn for turn in value)
    )


def check_turns(prompt: Sequence[Message], completion: Sequence[Message], column: str) -> None:
    """Check that the prompt waits for an answer and that the completion starts and ends with the assistant.

    Raises:
        BadRow: it does not.
    """
    if not prompt or prompt[-1]["role"] == "assistant":
        raise BadRow("the prompt is empty" if not prompt else "the prompt ends with the assistant")
    for end, turn in (("starts", completion[0]), ("ends", completion[-1])):
        if turn["role"] != "assistant":
            raise BadRow(
                f'"{column}" {end} with role {turn["role"]!r}; a completion starts and ends with the assistant'
            )


def split_first_answer(
    turns: Sequence[Message], column: str
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Give what comes before a conversation's first answer, and all that follows.

    Raises:
        BadRow: no answer, or none at the end.
    """
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), len(turns) - 1)
    check_turns(turns[:first], turns[first:], column)
    return tuple(turns[:first]), tuple(turns[first:])


def split_last_answer(
    turns: Sequence[Message], column: str
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Give a conversation up to its last user turn, and what answers that; calls of tools are part of the answer.

    Raises:
        BadRow: no answer, or none at the end.
    """
    asked = [i for i, turn in enumerate(turns) if turn["role"] == "user"]
    cut = asked[-1] + 1 if asked else 0
    check_turns(turns[:cut], turns[cut:] or turns[-1:], column)
    return tuple(turns[:cut]), tuple(turns[cut:])


def template_fields(row: Row) -> dict[str, Any]:
    """Give the `tools` and `template_kwargs` arguments of an Example from a row's optional columns.

    Raises:
        BadRow: tools are not a list of objects (or JSON text of one), template arguments not an object.
    """
    tools, kwargs = row.get("tools"), row.get("chat_template_kwargs")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as error:
            raise BadRow(f'"tools" is text that is not JSON: {error}') from error
    if tools is not None and not (
        isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)
    ):
        raise BadRow(f'"tools" is {_kind(tools)}, not a list of objects')
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise BadRow(f'"chat_template_kwargs" is {_kind(kwargs)}, not an object')
    return {"tools": tools or None, "template_kwargs": dict(kwargs or {})}


def _present(row: Row, column: str) -> Any:
    if column not in row:
        raise BadRow(f'"{column}" is absent; found {sorted(row)}')
    if row[column] is None:
        raise BadRow(f'"{column}" is null')
    return row[column]


def _kind(value: object) -> str:
    names = {
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    if value is None:
        return "absent or null"
    empty = "an empty list" if value == [] else ""
    return empty or names.get(type(value), type(value).__name__)
