"""UltraFeedback as its authors publish it: an instruction, and completions with an overall score."""

from __future__ import annotations

from collections.abc import Mapping

from dpo_cli.data.formats._base import BadRow, Format, Row, number
from dpo_cli.data.formats._many import completions, ranked
from dpo_cli.types import Example

COLUMNS = ("instruction", "completions")


def matches(row: Row) -> bool:
    """Say whether the completions are objects with a response and a score."""
    found = row.get("completions")
    return (
        isinstance(row.get("instruction"), str)
        and isinstance(found, list)
        and bool(found)
        and all(isinstance(item, Mapping) and {"response", "overall_score"} <= item.keys() for item in found)
    )


def parse(row: Row, source: str, chat: bool) -> Example:
    """Give the responses from the best scored to the worst; equal scores make no pair, and one without a score is left out.

    Raises:
        BadRow: a field is absent or of another type.
        SkipRow: fewer than two scored responses.
    """
    found = completions(row, "completions")
    for item in found:
        if not isinstance(item, Mapping) or "response" not in item:
            raise BadRow('"completions" holds an item without "response"')
    scores = [number(item, "overall_score") for item in found if isinstance(item, Mapping)]
    answers = [item["response"] for item in found if isinstance(item, Mapping)]
    return ranked(row, "instruction", answers, scores, source, chat)


FORMAT = Format(
    name="ultrafeedback",
    fits="openbmb/UltraFeedback: instruction, and completions with response and overall_score",
    columns=COLUMNS,
    matches=matches,
    parse=parse,
    sample={
        "instruction": "Is the sea blue?",
        "completions": [
            {"response": "No idea.", "overall_score": 2.0},
            {"response": "Mostly, yes.", "overall_score": 8.5},
        ],
    },
    is_text=True,
)
