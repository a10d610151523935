"""What single texts show: marks of a chat template, speakers' names, echoes, refusals, pairs that hardly differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection

from dpo_cli.types import Example, Text

CONTROL = re.compile(
    r"<\|(?:im_start|im_end|im_sep|begin_of_text|end_of_text|endoftext|eot_id|eom_id|start_header_id|end_header_id|python_tag|"
    r"user|assistant|system|end|prompter|startoftext|endofprompt)\|>"
    r"|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk)>|<\uff5c[^<>]{1,30}\uff5c>"
)
"""Control tokens of the templates in use, spelled out: in a file they are nearly always a template applied too early."""
SPEAKER = re.compile(
    r"\s*(?:#{2,3} ?)?(?:Assistant|AI|Bot|GPT|ChatGPT|Response|Human|User|Instruction)\s*:", re.IGNORECASE
)
NEXT_TURN = re.compile(r"\n\s*(?:Human|User|### ?(?:Instruction|Response|Input|Human|Assistant|User))\s*:")
OPEN_TURN = re.compile(r"(?:^|\n)\s*(?:### ?)?(?:Assistant|Response|AI|Bot)\s*:\s*$")

_SORRY = r"(?:(?:i'm|i am|we're|we are) )?(?:very |so |really )?(?:sorry|afraid)\b"
_MACHINE = r"(?:unfortunately,? )?as an? (?:ai|artificial|(?:large )?language model)\b"
_CANNOT = r"(?:can't|cannot|can not|unable|not able|won't|don't)\b"
_DECLINE = r"(?:i|we) (?:can't|cannot|can not|won't|will not|am unable|am not able|must decline|refuse)\b"
REFUSAL = re.compile(
    rf"\s*(?:(?:{_SORRY}|{_MACHINE}).{{0,80}}?\b{_CANNOT}|{_DECLINE})", re.IGNORECASE | re.DOTALL
)

ECHO_CHARS = 24
"""A shorter prompt may well be repeated on purpose."""
LONG_WORDS = 50
SAME_WORDS = 0.98


Spelled = Callable[[str], Collection[str]]
"""Text -> the control tokens of the model's tokenizer that it spells, where a tokenizer is known."""


def template_fault(
    example: Example, spelled: Spelled = lambda text: (), meant: Collection[str] = ()
) -> str | None:
    """Return which mark of a template is in a row's texts; None where there is none.

    Args:
        example: the row.
        spelled: control tokens that are not meant.
        meant: those that are (`data.control_tokens`).
    """
    prompts, answers = contents(example.prompt), [contents(text) for text in example.completions]
    for text in (*prompts, *(part for parts in answers for part in parts)):
        if "<" in text or "[" in text:
            marks = (found.group() for found in CONTROL.finditer(text))
            if (mark := next((mark for mark in marks if mark not in meant), None)) is not None:
                return f"spells {mark}"
        if tokens := spelled(text):
            return f"spells {min(tokens)}"
    if prompts and OPEN_TURN.search(prompts[-1]):
        return "the prompt opens the assistant's turn in words"
    for parts in answers:
        if SPEAKER.match(parts[0]):
            return "the completion starts with a speaker's name"
        if any(NEXT_TURN.search(part) for part in parts):
            return "the completion holds the next turn"
        if prompts and len(prompts[-1]) >= ECHO_CHARS and parts[0].startswith(prompts[-1]):
            return "the completion starts with the whole prompt"
    return None


def contents(text: Text) -> list[str]:
    """Return the texts of messages, or the one text; nothing for an empty one."""
    if isinstance(text, str):
        return [text] if text else []
    return [turn["content"] for turn in text]


def is_refusal(text: Text) -> bool:
    """Return whether a completion opens like a refusal, in English."""
    parts = contents(text)
    return bool(parts) and REFUSAL.match(parts[0][:200].replace("\u2019", "'")) is not None


def opening(text: str) -> str:
    """Return the first three words, without case."""
    return " ".join(text[:200].casefold().split()[:3])


def nearly_same(one: Text, other: Text) -> bool:
    """Return whether two texts differ in nothing but case, white space and punctuation, or, being long, in hardly a word."""
    first, second = "\n".join(contents(one)), "\n".join(contents(other))
    if abs(len(first) - len(second)) > 8 + 0.03 * len(first):
        return False
    words, others = re.findall(r"\w+", first.casefold()), re.findall(r"\w+", second.casefold())
    if words == others:
        return bool(words)
    if min(len(words), len(others)) < LONG_WORDS:
        return False
    shared = (Counter(words) & Counter(others)).total()
    return shared >= SAME_WORDS * max(len(words), len(others))
