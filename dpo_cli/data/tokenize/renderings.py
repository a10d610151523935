"""What must be tokenised for one example: its prompt, its whole conversations, and where each answer starts and ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from dpo_cli.data.row_notes import Note, Reason
from dpo_cli.data.tokenize.template import Renderer
from dpo_cli.data.tokenize.turns import UNSCORED
from dpo_cli.data.tokenize.unwritten import CALLS, CONTENT, TOOLS, Unwritten
from dpo_cli.types import Example, Message

LOST = {
    TOOLS: Note.TOOLS_UNWRITTEN,
    CALLS: Note.CALLS_UNWRITTEN,
    CONTENT: Note.TURN_UNWRITTEN,
}
"""What is noted of a part that the template leaves out."""
Show = Callable[[Sequence[Message], bool], "View"]
"""(turns, is_open) -> the conversation so far; `is_open`: up to where the assistant would speak."""


class View(NamedTuple):
    """A conversation from its start: its text, and its ids where tokenising the text would not give them."""

    text: str
    ids: list[int] | None = None


class Answer(NamedTuple):
    """One assistant turn, by the views (indices) that end where it starts and where it ends."""

    start: int
    end: int


class Sheet(NamedTuple):
    """The views of one example, the prompt first; per completion its whole view and the answers in it."""

    views: list[View]
    completions: list[tuple[int, list[Answer]]]
    notes: Note = Note(0)
    """What of the conversation around the answers is not in the views."""


class Unfit(Exception):
    """An example that its views cannot describe."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def text_sheet(example: Example) -> Sheet:
    """Return the sheet of raw text: the prompt and each continuation."""
    texts = [str(example.prompt), *(f"{example.prompt}{completion}" for completion in example.completions)]
    return Sheet([View(text) for text in texts], [(k, [Answer(0, k)]) for k in range(1, len(texts))])


def chat_sheet(example: Example, renderer: Renderer, has_control_text: bool, unwritten: Unwritten) -> Sheet:
    """Return the sheet of a conversation, every assistant turn of a completion an answer, but those that the data mark as not to be trained on.

    Args:
        example: messages.
        renderer: the template.
        has_control_text: whether the messages spell control tokens, so that their text alone would be misread.
        unwritten: finds what the template leaves out.

    Raises:
        Unfit: the template rewrites the conversation before an answer or leaves out some of an answer, or control text cannot be kept as text.
        ModelError: the template fails on this row.
    """

    def show(turns: Sequence[Message], is_open: bool) -> View:
        text = renderer.render(example, turns, is_open)
        if not has_control_text:
            return View(text)
        ids = renderer.plain_ids(example, turns, is_open)
        if ids is None:
            raise Unfit(Reason.CONTROL_TEXT)
        return View(text, ids)

    prompt = renderer.prompt(example)
    views = [show(prompt, True)]
    completions, notes = list[tuple[int, list[Answer]]](), Note(0)
    for completion in example.completions:
        turns = [*prompt, *(turn for turn in completion if not isinstance(turn, str))]
        whole = len(views)
        views.append(show(turns, False))
        lost = unwritten.parts(example, turns, views[whole].text, len(prompt) if completions else 0)
        if any(part.at >= len(prompt) and _is_answer(turns[part.at]) for part in lost):
            raise Unfit(Reason.UNWRITTEN)
        for part in lost:
            notes |= LOST[part.name]
        completions.append((whole, _answers(turns, len(prompt), whole, views, show)))
    return Sheet(views, completions, notes)


def _answers(
    turns: Sequence[Message], n_prompt: int, whole: int, views: list[View], show: Show
) -> list[Answer]:
    """Find the answers after the prompt, and add the views that bound them."""
    answers = []
    for at in range(n_prompt, len(turns)):
        if not _is_answer(turns[at]):
            continue
        start, end = 0, whole
        if at > n_prompt:
            start = len(views)
            views.append(show(turns[:at], True))
        if not _continues(views[whole].text, views[start].text, partial(_closed, show, turns[:at])):
            raise Unfit(Reason.PROMPT_REWRITTEN)
        if at < len(turns) - 1:
            end = len(views)
            views.append(show(turns[: at + 1], False))
        answers.append(Answer(start, end))
    return answers


def _is_answer(turn: Message) -> bool:
    return turn["role"] == "assistant" and not turn.get(UNSCORED)


def _closed(show: Show, turns: Sequence[Message]) -> str:
    return show(turns, False).text


def _continues(whole: str, opened: str, closed: Callable[[], str]) -> bool:
    """Return whether a conversation keeps everything before an answer; the opening of the answer itself may differ.

    Thinking templates open with a tag that a finished answer does not have. Were anything earlier to differ, the
    tokens behind it would count as the answer's.
    """
    if whole.startswith(opened):
        return True
    return _shared_chars(whole, opened) >= _shared_chars(closed(), opened)


def _shared_chars(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
