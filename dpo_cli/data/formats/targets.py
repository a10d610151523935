"""One prompt and the answer to imitate."""

from __future__ import annotations

from dpo_cli.data.formats._base import Format, Row, present
from dpo_cli.data.formats._dialogue import asks, example_of
from dpo_cli.data.tokenize.turns import is_conversation
from dpo_cli.types import Example

COLUMNS = ("prompt", "completion")


def matches(row: Row) -> bool:
    """Return whether there are a prompt and an answer that nothing judges."""
    answer = row.get("completion")
    return asks(row) and (isinstance(answer, str) or is_conversation(answer)) and "label" not in row


def parse(row: Row, source: str, chat: bool) -> Example:
    """Return the answer as text, or as an assistant's turn after a user's.

    Raises:
        BadRow: a field is absent, null or of another kind.
    """
    return example_of(row, {"completion": present(row, "completion")}, source, chat)


FORMAT = Format(
    name="targets",
    fits="prompt and completion: text or messages (instruction data)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={"prompt": "Is the sea blue?", "completion": "Mostly, yes."},
    is_text=True,
    kind="targets",
    sets=("trl-lib/tldr",),
)
