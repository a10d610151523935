"""Values as text or as chat messages, in whatever words a file has them: roles, fields, single turns, exchanges, calls.

Does not know columns or layouts.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from dpo_cli.types import Message

ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "customer": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "agent": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "ipython": "tool",
    "environment": "tool",
}
"""A file's word for who speaks, without case -> the role that chat templates know."""
ASKING = ("system", "developer", "user")
"""Roles with which a conversation starts; an answer alone starts with another one."""
_KNOWN = (
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "human",
    "gpt",
    "bot",
    "model",
    "function",
    "...",
)
SPEAKER_FIELDS = ("role", "from", "speaker", "sender")
CONTENT_FIELDS = ("content", "value", "text", "message", "parts")
EXCHANGES = (
    ("user", "assistant"),
    ("human", "assistant"),
    ("human", "gpt"),
    ("user", "bot"),
    ("input", "output"),
    ("question", "answer"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("query", "response"),
)
"""Fields of an object that is a question with its answer: two turns."""
UNSCORED = "unscored"
"""Key of a message that is read and not trained on; no template sees it."""
_TRAINED = ("weight", "loss", "train", "training", "trainable", "loss_weight")
"""Fields of a message that say whether it is trained on: 0 or false says that it is not."""


class NotMessages(Exception):
    """A value that is neither text nor messages."""

    def __init__(self, place: str, what: str) -> None:
        """Take where in the value it is, as in `[2].content`, and what is wrong, after the name of that place (`" is null"`)."""
        super().__init__(place + what)
        self.place, self.what = place, what


def is_turn(value: object) -> bool:
    """Return whether a value is one chat message, in any of the known words."""
    if not isinstance(value, dict | Mapping):
        return False
    if isinstance(value.get("role"), str) and "content" in value:
        return True  # nearly all are so: the rest below takes four times as long
    if not any(isinstance(value.get(name), str) for name in SPEAKER_FIELDS):
        return False
    return any(name in value for name in CONTENT_FIELDS) or bool(value.get("tool_calls"))


def role_of(turn: object) -> str:
    """Return the role of a message as templates know it, as the file has it where that is unknown; empty where there is none."""
    named = (turn.get(name) for name in SPEAKER_FIELDS) if isinstance(turn, Mapping) else iter(())
    spoken = next((name for name in named if isinstance(name, str)), "")
    return ROLES.get(spoken.strip().casefold(), spoken)


def is_turns(value: object) -> bool:
    """Return whether a value is a list of chat messages."""
    return isinstance(value, list) and bool(value) and all(map(is_turn, value))


def is_exchanges(value: object) -> bool:
    """Return whether a value is a list of questions with their answers."""
    return isinstance(value, list) and bool(value) and all(_exchange(item) is not None for item in value)


def is_conversation(value: object) -> bool:
    """Return whether a value is messages in any form: a list of them, one alone, or exchanges."""
    return is_turn(value) or is_turns(value) or is_exchanges(value)


def messages_of(value: object) -> tuple[Message, ...]:
    """Return a value as chat messages with the roles that templates know, null fields removed.

    Raises:
        NotMessages: not messages, an unknown role, content that is not text, a weight that is neither 0 nor 1.
    """
    if is_exchanges(value):
        assert isinstance(value, list)
        pairs = [pair for item in value if (pair := _exchange(item)) is not None]
        return tuple(
            {"role": role, "content": text}
            for pair in pairs
            for role, text in zip(("user", "assistant"), pair, strict=True)
            if text
        )
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, list) or not turns:
        raise NotMessages("", f" is {kind_of(value)}, not a list of messages")
    return tuple(_message(turn, f"[{i}]" if isinstance(value, list) else "") for i, turn in enumerate(turns))


def _exchange(item: object) -> tuple[str, str] | None:
    """Return the question and the answer of an exchange; None for anything else."""
    if isinstance(item, list) and len(item) == 2 and all(isinstance(text, str | None) for text in item):
        return item[0] or "", item[1] or ""
    if not isinstance(item, Mapping) or any(name in item for name in ("role", "from")):
        return None
    for asked, answered in EXCHANGES:
        if isinstance(item.get(asked), str) and isinstance(item.get(answered), str):
            return item[asked], item[answered]
    return None


def _message(turn: object, place: str) -> Message:
    if isinstance(turn, dict) and len(turn) == 2 and isinstance(turn.get("content"), str):
        role = turn.get("role")
        if isinstance(role, str) and role in ROLES:
            return {"role": ROLES[role], "content": turn["content"]}  # nearly all messages are so
    if not isinstance(turn, Mapping):
        raise NotMessages(place, f' is {kind_of(turn)}, not a message with "role" and "content"')
    # Parquet gives every message the union of all fields; templates test `is defined`.
    given = {key: value for key, value in turn.items() if value is not None}
    speaker = next((name for name in SPEAKER_FIELDS if isinstance(given.get(name), str)), None)
    if speaker is None:
        raise NotMessages(place, f' has no "role"; found {sorted(given)}')
    role = ROLES.get(str(given[speaker]).strip().casefold())
    if role is None:
        raise NotMessages(place, f" has role {given[speaker]!r}; known roles: {', '.join(_KNOWN)}")
    content = next((name for name in CONTENT_FIELDS if name in given), "content")
    rest = {k: v for k, v in given.items() if k not in (speaker, content, *_TRAINED)}
    rest = _with_calls(rest, place)
    message = {"role": role, "content": _content({**given, **rest}, content, role, place), **rest}
    is_context = role == "assistant" and _is_unscored(given, place)
    return {**message, UNSCORED: True} if is_context else message


def _content(turn: Mapping[str, Any], name: str, role: str, place: str) -> str:
    content = turn.get(name)
    if content is None and role == "assistant" and turn.get("tool_calls"):
        return ""
    if isinstance(content, list):
        texts = [part if isinstance(part, str) else _part(part) for part in content]
        if not all(isinstance(text, str) for text in texts):
            raise NotMessages(f"{place}.{name}", " holds a part that is not text")
        return "".join(str(text) for text in texts)
    if not isinstance(content, str):
        raise NotMessages(f"{place}.{name}", f" is {kind_of(content)}, not text")
    return content


def _with_calls(fields: dict[str, Any], place: str) -> dict[str, Any]:
    """Return a message's fields with its calls as templates and servers read them: a list, the arguments an object.

    Files also have the list as text, the arguments as text (OpenAI's), or one call in `function_call` (its older name).
    """
    calls = decoded(fields.get("tool_calls"))
    if isinstance(alone := decoded(fields.get("function_call")), Mapping) and not calls:
        calls = [{"type": "function", "function": alone}]
    if not calls:
        return fields
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise NotMessages(f"{place}.tool_calls", f" is {kind_of(calls)}, not a list of calls")
    rest = {key: value for key, value in fields.items() if key not in ("tool_calls", "function_call")}
    return {**rest, "tool_calls": [_call(call) for call in calls]}


def _call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping):
        return call
    return {**call, "function": {**function, "arguments": decoded(function.get("arguments", {}))}}


def _part(part: object) -> object:
    return part.get("text") if isinstance(part, Mapping) else None


def _is_unscored(turn: Mapping[str, Any], place: str) -> bool:
    for name in _TRAINED:
        if name in turn:
            if turn[name] not in (0, 1):
                raise NotMessages(f"{place}.{name}", f" is {turn[name]!r}, neither 0 nor 1 (true and false)")
            return not turn[name]
    return False


def spelled_roles(value: object) -> set[str]:
    """Return the words for roles in a conversation that are not the templates' own."""
    turns = [value] if isinstance(value, Mapping) else value if isinstance(value, list) else []
    words = {
        str(turn[name])
        for turn in turns
        if is_turn(turn)
        for name in SPEAKER_FIELDS
        if isinstance(turn.get(name), str)
    }
    return {word for word in words if ROLES.get(word.strip().casefold(), word) != word}


def kind_of(value: object) -> str:
    """Return what a value is, in words."""
    if value is None:
        return "absent or null"
    if value == []:
        return "an empty list"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    words = {"str": "text", "list": "a list", "dict": "an object"}
    return words.get(type(value).__name__, type(value).__name__)


SPELLED = re.compile(r"""\[?\{\s*["'](role|content|from|value)["']\s*:""")
"""How a message, or a list of them, starts where somebody wrote it as text."""


def decoded(value: Any) -> Any:
    """Return the list or object that a text spells, as JSON or as Python prints it (what pandas writes into a CSV), or the value itself."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return found if isinstance(found, list | dict) else value
    return value


def is_spelled(text: str) -> bool:
    """Return whether a text is a list or object that somebody wrote as text."""
    return decoded(text) is not text
