"""Two answers and a column that says which one is better."""

from __future__ import annotations

from dpo_cli.data.formats._base import BadRow, Format, Row, SkipRow
from dpo_cli.data.formats._pair import is_pair, pair
from dpo_cli.data.reasons import Reason
from dpo_cli.types import Example

COLUMNS = ("prompt", "answer_a", "answer_b", "winner")
WORDS = ("a", "b", "tie")
"""What `winner` says; a source's `labels` translates the file's own words into these."""


def matches(row: Row) -> bool:
    """Say whether two answers stand beside one of the three words."""
    return row.get("winner") in WORDS and is_pair(row, "answer_a", "answer_b")


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the winner as chosen, the other as rejected.

    Raises:
        BadRow: a field is absent or of another type, or the winner is another word.
        SkipRow: a tie.
    """
    winner = row.get("winner")
    if winner not in WORDS:
        raise BadRow(f'"winner" is {winner!r}, not one of: {", ".join(WORDS)}')
    if winner == "tie":
        raise SkipRow(Reason.TIE)
    chosen, rejected = ("answer_a", "answer_b") if winner == "a" else ("answer_b", "answer_a")
    return pair(row, chosen, rejected, source, chat)


FORMAT = Format(
    name="winner",
    fits="prompt, answer_a, answer_b and winner: a, b or tie (votes; text or lists of messages)",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "prompt": "Is the sea blue?",
        "answer_a": "No idea.",
        "answer_b": "Mostly, yes.",
        "winner": "b",
    },
    is_text=True,
)
