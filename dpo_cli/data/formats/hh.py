r"""Anthropic HH transcripts: `\n\nHuman: ..\n\nAssistant: ..`, the last answer is the completion."""

from __future__ import annotations

import re

from dpo_cli.data.formats._base import BadRow, Format, Row, SkipRow, text
from dpo_cli.data.reasons import Reason
from dpo_cli.types import Example, Message

COLUMNS = ("chosen", "rejected")
ANSWER = "\n\nAssistant:"
TURN = re.compile(r"\n\n(Human|Assistant):")
ROLE = {"Human": "user", "Assistant": "assistant"}


def matches(row: Row) -> bool:
    """Say whether both fields are transcripts and no prompt stands beside them."""
    return row.get("prompt") is None and all(_is_transcript(row.get(column)) for column in COLUMNS)


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and value.startswith("\n\nHuman:") and ANSWER in value


def parse(row: Row, source: str, chat: bool) -> Example:
    """Split each transcript at its last answer; turns of one speaker in a row are joined for the chat template.

    Raises:
        BadRow: a field is absent, not text or not a transcript.
        SkipRow: the prompts differ, or end with an answer (which no chat template can express).
    """
    for column in COLUMNS:
        if not _is_transcript(text(row, column)):
            raise BadRow(
                f'"{column}" is not a transcript: it starts with "\\n\\nHuman:" and holds "\\n\\nAssistant:"'
            )
    (prompt, chosen), (other, rejected) = (_split(row[column]) for column in COLUMNS)
    if prompt != other:
        raise SkipRow(Reason.PROMPTS_DIFFER)
    if not chat:
        return Example(prompt + ANSWER, (chosen, rejected), source)
    turns = _turns(prompt)
    if turns[-1]["role"] == "assistant":
        raise SkipRow(Reason.PROMPT_ENDS_WITH_ANSWER)
    answers = tuple(({"role": "assistant", "content": answer.strip()},) for answer in (chosen, rejected))
    return Example(turns, answers, source)


def _split(transcript: str) -> tuple[str, str]:
    prompt, _, answer = transcript.rpartition(ANSWER)
    return prompt, answer


def _turns(transcript: str) -> tuple[Message, ...]:
    _, *pieces = TURN.split(transcript)
    turns: list[dict[str, str]] = []
    for speaker, said in zip(pieces[::2], pieces[1::2], strict=True):
        if turns and turns[-1]["role"] == ROLE[speaker]:
            turns[-1]["content"] += "\n\n" + said.strip()
        else:
            turns.append({"role": ROLE[speaker], "content": said.strip()})
    return tuple(turns)


FORMAT = Format(
    name="hh",
    fits="Anthropic/hh-rlhf and its relatives: whole transcripts in chosen and rejected",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "chosen": "\n\nHuman: Is the sea blue?\n\nAssistant: Mostly, yes.",
        "rejected": "\n\nHuman: Is the sea blue?\n\nAssistant: No idea.",
    },
    is_text=True,
)
