"""A prompt with its answers, whatever each is written as: text, messages, whole conversations, transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_cli.data.detect.frames import HH, Frame, frame_of
from dpo_cli.data.formats._base import (
    BadRow,
    Row,
    SkipRow,
    check_turns,
    messages,
    split_last_answer,
    template_fields,
    text,
)
from dpo_cli.data.row_notes import Reason
from dpo_cli.data.settings import Setting
from dpo_cli.data.tokenize.turns import ASKING, is_conversation, kind_of, role_of
from dpo_cli.types import Example, Message, Text

Turns = tuple[Message, ...]


def example_of(row: Row, answers: Mapping[str, Any], source: str, chat: bool, **fields: Any) -> Example:
    """Return a row's prompt with its answers.

    Args:
        row: its `prompt`, `history` and what the template reads; no prompt where the answers are whole conversations.
        answers: column -> value, best first: text that answers the prompt, the assistant's messages, or conversations that hold it.
        source: the row's place.
        chat: text becomes messages.
        fields: other fields of the Example.

    Raises:
        BadRow: an answer or the prompt is something else, they do not belong together, or messages where raw text is asked for.
        SkipRow: conversations that differ before the assistant speaks, or not at all.
    """
    row, answers = _spoken(row, answers)
    if not any(is_conversation(value) for value in answers.values()):
        texts = {name: text({name: value}, name) for name, value in answers.items()}
        prompt, completions = _of_texts(row, texts, chat)
    else:
        prompt, completions = _of_turns(row, answers)
    template = {} if isinstance(prompt, str) else template_fields(row)
    return Example(prompt, completions, source, **template, **fields)


def _spoken(row: Row, answers: Mapping[str, Any]) -> tuple[Row, Mapping[str, Any]]:
    """Return lists of questions and of answers, turn by turn, as whole conversations."""
    asked: Any = row.get("prompt")
    if not is_texts(asked) or not all(
        is_texts(value) and len(value) == len(asked) for value in answers.values()
    ):
        return row, answers
    talks = {
        name: [
            {"role": role, "content": said or ""}
            for pair in zip(asked, value, strict=True)
            for role, said in zip(("user", "assistant"), pair, strict=True)
        ]
        for name, value in answers.items()
    }
    return {**row, "prompt": None}, talks


def is_texts(value: object) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, str | None) for each in value)


def asks(row: Row) -> bool:
    """Return whether a row has a prompt of a known kind."""
    prompt = row.get("prompt")
    return isinstance(prompt, str) or is_conversation(prompt)


def are_answers(row: Row, answers: Sequence[Any]) -> bool:
    """Return whether values answer a row's prompt, or hold one of their own: what decides a layout, before anything is checked."""
    if not answers:
        return False
    if is_texts(row.get("prompt")):
        return all(is_texts(value) and len(value) == len(row["prompt"]) for value in answers)
    if all(isinstance(value, str) for value in answers):
        return asks(row) or (row.get("prompt") is None and all(map(_is_transcript, answers)))
    if not all(isinstance(value, str) or is_conversation(value) for value in answers):
        return False
    return asks(row) or any(_is_whole(value) for value in answers)


def _of_texts(row: Row, answers: Mapping[str, str], chat: bool) -> tuple[Text, tuple[Text, ...]]:
    values = list(answers.values())
    if row.get("prompt") is None and values and all(map(_is_transcript, values)):
        return _of_transcripts(row, values, chat)
    if row.get("prompt") is None and any(map(HH.starts, values)):
        name = next(name for name, value in answers.items() if not _is_transcript(value))
        what = ' is not a transcript: it starts with "\\n\\nHuman:" and holds "\\n\\nAssistant:"'
        raise BadRow(what, name)
    before = messages(row, "history") if row.get("history") else ()
    if not isinstance(row.get("prompt"), str):
        prompt = before + messages(row, "prompt")
        answered = tuple(_said(value) for value in values)
        for name, turns in zip(answers, answered, strict=True):
            check_turns(prompt, turns, name)
        return prompt, answered
    question = text(row, "prompt")
    if not chat:
        if before:
            raise BadRow(" is turns, which raw text (chat: false) cannot hold", "history")
        return question, tuple(values)
    frame = frame_of([question])
    if frame is not None and frame.is_open(question):
        asked = before + _waiting(frame, question)
        return asked, tuple(_said(frame.answer(value)) for value in values)
    return (*before, {"role": "user", "content": question}), tuple(_said(value) for value in values)


def _waiting(frame: Frame, question: str) -> Turns:
    turns = frame.turns(question)
    if not turns or turns[-1]["role"] == "assistant":
        raise SkipRow(Reason.PROMPT_ENDS_WITH_ANSWER)
    return turns


def _said(answer: str) -> Turns:
    return ({"role": "assistant", "content": answer},)


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and HH.starts(value) and "\n\nAssistant:" in value


def _of_transcripts(row: Row, values: Sequence[str], chat: bool) -> tuple[Text, tuple[Text, ...]]:
    """Split transcripts at their last answer."""
    if row.get("history"):
        raise BadRow(" stands beside whole transcripts", "history")
    split = [value.rpartition("\n\nAssistant:") for value in values]
    prompt = split[0][0]
    if any(other != prompt for other, _, _ in split):
        raise SkipRow(Reason.PROMPTS_DIFFER)
    if not chat:
        return prompt + "\n\nAssistant:", tuple(answer for _, _, answer in split)
    return _waiting(HH, prompt), tuple(_said(answer.strip()) for _, _, answer in split)


def _of_turns(row: Row, answers: Mapping[str, Any]) -> tuple[Turns, tuple[Turns, ...]]:
    turns: dict[str, Turns] = {}
    for name, value in answers.items():
        if isinstance(value, str):
            turns[name] = _said(text({name: value}, name))
        else:
            turns[name] = messages({name: value}, name)
    whole = [name for name, each in turns.items() if each[0]["role"] in ASKING]
    if not whole:
        return _explicit(_asked(row), turns)
    if len(whole) < len(turns):
        # One conversation, and answers that stand in place of its last one.
        (first, *others) = whole
        if others:
            raise BadRow(f" is a whole conversation, other answers are not: {', '.join(turns)}", first)
        prompt, answer = split_last_answer(_behind_history(row, turns[first]), first)
        _check_held(row, prompt)
        return _explicit(prompt, {**turns, first: answer})
    return _implicit(row, {name: _behind_history(row, each) for name, each in turns.items()})


def _asked(row: Row) -> Turns:
    """Return a row's prompt as messages, its history in front."""
    before = messages(row, "history") if row.get("history") else ()
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        frame = frame_of([prompt])
        if frame is not None and frame.is_open(prompt):
            return (*before, *_waiting(frame, prompt))
        return (*before, {"role": "user", "content": text(row, "prompt")})
    return (*before, *messages(row, "prompt"))


def _explicit(prompt: Turns, answers: Mapping[str, Turns]) -> tuple[Turns, tuple[Turns, ...]]:
    for name, turns in answers.items():
        check_turns(prompt, turns, name)
    return prompt, tuple(answers.values())


def _behind_history(row: Row, turns: Turns) -> Turns:
    before = messages(row, "history") if row.get("history") else ()
    return turns if turns[: len(before)] == before else before + turns


def _implicit(row: Row, answers: Mapping[str, Turns]) -> tuple[Turns, tuple[Turns, ...]]:
    """Split whole conversations at the first turn that differs: a shared history is prompt, and every completion keeps a turn."""
    conversations = list(answers.values())
    for turns in conversations:
        _check_held(row, turns)
    if all(turns == conversations[0] for turns in conversations):
        raise SkipRow(Reason.IDENTICAL)
    shared, shortest = 0, min(map(len, conversations))
    while shared < shortest - 1 and all(turns[shared] == conversations[0][shared] for turns in conversations):
        shared += 1
    if all(turns[shared]["role"] != "assistant" for turns in conversations):
        raise SkipRow(Reason.PROMPTS_DIFFER)
    return _explicit(conversations[0][:shared], {name: turns[shared:] for name, turns in answers.items()})


def _check_held(row: Row, turns: Turns) -> None:
    """Check that conversations hold the prompt that stands in a column of its own.

    Raises:
        BadRow: they do not: the prompt would be lost.
    """
    prompt = row.get("prompt")
    if prompt in (None, "", []):
        return
    if isinstance(prompt, str):
        frame = frame_of([prompt])
        wanted = [turn["content"] for turn in frame.turns(prompt)] if frame else [prompt]
        said = [turn["content"].strip() for turn in turns]
        is_held = all(each.strip() in said for each in wanted) or prompt.strip() in "\n".join(said)
    elif is_conversation(prompt):
        asked = messages(row, "prompt")
        is_held = turns[: len(asked)] == asked or all(turn in turns for turn in asked)
    else:
        raise BadRow(f" is {kind_of(prompt)}, neither text nor messages", "prompt")
    if not is_held:
        raise BadRow(" is not in the conversations beside it", "prompt", [Setting("columns.prompt", "")])


def _is_whole(value: object) -> bool:
    """Return whether messages hold their own prompt."""
    if not isinstance(value, list) or not is_conversation(value):
        return False
    return not isinstance(value[0], Mapping) or role_of(value[0]) in ASKING
