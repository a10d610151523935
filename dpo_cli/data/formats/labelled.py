"""One prompt, one answer, and whether it is wanted: thumbs."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, is_label, label, present
from dpo_cli.data.formats._dialogue import asks, example_of
from dpo_cli.data.tokenize.turns import is_conversation
from dpo_cli.types import Example

COLUMNS = ("prompt", "completion", "label")


def matches(row: Row) -> bool:
    """Return whether a label stands beside a prompt and its answer."""
    answer = row.get("completion")
    return asks(row) and (isinstance(answer, str) or is_conversation(answer)) and is_label(row.get("label"))


def parse(row: Row, source: str, chat: bool) -> Example:
    """Return the answer with its label; turns of users and tools inside it stay as context.

    Raises:
        BadRow: a field is absent, null or of another kind, or the answer does not start and end with the assistant.
    """
    wanted = label(row, "label")
    return example_of(row, {"completion": present(row, "completion")}, source, chat, label=wanted)


FORMAT = Format(
    name="labelled",
    fits="prompt, completion and label: true or false (thumbs up and down); text or messages",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={"prompt": "Is the sea blue?", "completion": "Mostly, yes.", "label": True},
    is_text=True,
    kind="labelled",
    sets=("trl-lib/kto-mix-14k",),
)
