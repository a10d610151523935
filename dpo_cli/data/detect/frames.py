"""Conversations that are written as one text: which frames are known, and the turns of such a text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dpo_cli.types import Message


class Frame:
    """A way to write a conversation as one text."""

    def __init__(
        self, turn: re.Pattern[str], opening: re.Pattern[str], roles: Mapping[str, str], end: str = ""
    ) -> None:
        """Take what a turn starts with, what stands where the assistant would speak, and what ends a turn."""
        self._turn, self._opening, self._roles, self._end = turn, opening, roles, end

    def starts(self, text: str) -> bool:
        """Return whether a text starts with a turn."""
        return self._turn.match(text) is not None

    def is_open(self, text: str) -> bool:
        """Return whether a text ends where the assistant would speak."""
        return self.starts(text) and self._opening.search(text) is not None

    def turns(self, text: str) -> tuple[Message, ...]:
        """Return the turns of a text, those of one speaker in a row joined, without the open one at its end."""
        text = self._opening.sub("", text)
        marks = list(self._turn.finditer(text))
        found: list[dict[str, str]] = []
        for mark, following in zip(marks, [*marks[1:], None], strict=True):
            role = self._roles[mark[1].casefold()]
            said = text[mark.end() : following.start() if following else len(text)].strip()
            said = said.removesuffix(self._end).strip() if self._end else said
            if found and found[-1]["role"] == role:
                found[-1]["content"] += "\n\n" + said
            else:
                found.append({"role": role, "content": said})
        return tuple(found)

    def answer(self, text: str) -> str:
        """Return an answer without the mark that ends its turn."""
        return text.strip().removesuffix(self._end).strip() if self._end else text


HH = Frame(
    re.compile(r"\n\n(Human|Assistant):"),
    re.compile(r"\n\nAssistant:\s*$"),
    {"human": "user", "assistant": "assistant"},
)
"""Anthropic's transcripts: two line breaks, `Human:` or `Assistant:`."""
CHATML = Frame(
    re.compile(r"\s*<\|im_start\|>(system|user|assistant|tool)\n"),
    re.compile(r"<\|im_start\|>assistant\n?$"),
    {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"},
    "<|im_end|>",
)
"""What a ChatML template writes: a conversation to which it was applied too early."""
FRAMES = (HH, CHATML)


def frame_of(texts: Sequence[str]) -> Frame | None:
    """Return the frame in which all of some texts are written; None where they are plain."""
    return next((frame for frame in FRAMES if texts and all(map(frame.starts, texts))), None)
