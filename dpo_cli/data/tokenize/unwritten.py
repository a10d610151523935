"""What a chat template leaves out: tools, calls and messages without a trace in the text that the model reads."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dpo_cli.data.tokenize.template import Renderer
from dpo_cli.data.tokenize.thinking import marks_of, without_blocks
from dpo_cli.errors import ModelError
from dpo_cli.types import Example, Message

CONTENT, CALLS, TOOLS = "content", "tool_calls", "tools"
"""Parts of a conversation that a template may leave out."""


class Part(NamedTuple):
    """A part of a conversation: a field of one message, or the tools."""

    at: int
    """Index of the message; -1 for the tools."""
    name: str


class Unwritten:
    """Finds what a template leaves out, by rendering with and without it.

    What was written once is taken as written in every conversation of the same shape where its texts are found; all else is rendered again. Think
    blocks are no part of this: `data.thinking` is about them.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._marks = marks_of(renderer.tokenizer)
        self._written: set[Hashable] = set()

    def parts(self, example: Example, turns: Sequence[Message], text: str, start: int = 0) -> list[Part]:
        """Return what of a conversation the template leaves out, in whole or in part.

        Args:
            example: whose tools and arguments go to the template.
            turns: a whole conversation.
            text: what the template writes for it.
            start: the first message to look at; the tools are looked at where it is the first of all.
        """
        asked = [Part(-1, TOOLS)] if example.tools and not start else []
        asked += [Part(at, name) for at in range(start, len(turns)) for name in (CONTENT, CALLS)]
        last = max((at for at, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
        return [part for part in asked if self._is_lost(example, turns, text, part, last)]

    def _is_lost(
        self, example: Example, turns: Sequence[Message], text: str, part: Part, last_user: int
    ) -> bool:
        said = self._said(example, turns, part)
        if not said:
            return False
        near = tuple(
            _shape(turns[at]) if 0 <= at < len(turns) else None for at in range(part.at - 1, part.at + 2)
        )
        is_late = part.at > last_user
        key = (part.name, near, is_late, bool(example.tools), repr(example.template_kwargs))
        if key in self._written and all(_is_in(each, text) for each in said):
            return False
        if any(self._is_same(*without, text) for without in _without(example, turns, part)):
            return True
        self._written.add(key)
        return False

    def _said(self, example: Example, turns: Sequence[Message], part: Part) -> list[str]:
        """Return the texts of a part; none where it says nothing."""
        if part.name == TOOLS:
            return [name for tool in example.tools or () if (name := str(_function(tool).get("name", "")))]
        turn = turns[part.at]
        if part.name == CONTENT and turn["role"] == "assistant":
            return _texts(without_blocks(turn[CONTENT], self._marks))
        return _texts(turn.get(part.name))

    def _is_same(self, example: Example, turns: Sequence[Message], text: str) -> bool:
        try:
            return self._renderer.render(example, turns, is_open=False) == text
        except ModelError:
            return False  # a template that misses a part reads it


def _without(
    example: Example, turns: Sequence[Message], part: Part
) -> Iterator[tuple[Example, Sequence[Message]]]:
    """Yield the conversation without a part, then without each piece of it."""
    if part.name == TOOLS:
        yield replace(example, tools=None), turns
        return
    turn = turns[part.at]
    rest = {key: value for key, value in turn.items() if key != part.name}
    changed = [{**rest, CONTENT: ""} if part.name == CONTENT else rest]
    calls = turn[CALLS] if part.name == CALLS else []
    for k, call in enumerate(calls):
        others = [*calls[:k], *calls[k + 1 :]]
        changed += [{**rest, CALLS: others}] if others else []
        bare = _without_arguments(call)
        changed += [{**rest, CALLS: [*calls[:k], bare, *calls[k + 1 :]]}] if bare else []
    for each in changed:
        yield example, [*turns[: part.at], each, *turns[part.at + 1 :]]


def _shape(turn: Message) -> Hashable:
    """Return what a template may decide by: who speaks, whether words are said, and how many calls are made."""
    return turn["role"], bool(turn[CONTENT].strip()), len(turn.get(CALLS) or ())


def _without_arguments(call: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a call with empty arguments; None where they are empty already."""
    function = _function(call)
    given = function.get("arguments")
    empty: Any = "{}" if isinstance(given, str) else {}
    if not given or given == empty:
        return None
    bare = {**function, "arguments": empty}
    return {**call, "function": bare} if "function" in call else bare


def _function(tool: Any) -> Mapping[str, Any]:
    """Return the function of a tool or of a call, which may state it itself."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    return function if isinstance(function, Mapping) else {}


def _texts(value: object) -> list[str]:
    """Return all texts of a value, without those that every call has."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, Mapping):
        return [text for key, item in value.items() if key not in ("type", "id") for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return []


def _is_in(said: str, text: str) -> bool:
    """Return whether a text holds another, as it is or as JSON spells it."""
    return said in text or any(json.dumps(said, ensure_ascii=ascii)[1:-1] in text for ascii in (False, True))
