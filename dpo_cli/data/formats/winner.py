"""Two answers, and columns that say which one is better."""

from __future__ import annotations

from typing import Any

from dpo_cli.data.formats._base import BadRow, Format, Row, SkipRow, number, present
from dpo_cli.data.formats._dialogue import are_answers, example_of
from dpo_cli.data.row_notes import Reason
from dpo_cli.types import Example

COLUMNS = ("answer_a", "answer_b", "winner")
WORDS = ("a", "b", "tie")
"""What `winner` says; a source's `labels` translates the file's own words into these."""
NAMES = ("name_a", "name_b")
WINS = ("wins_a", "wins_b")


def matches(row: Row) -> bool:
    """Return whether two answers stand beside one of the three words."""
    is_named = all(row.get(name) is not None for name in NAMES)
    is_judged = row.get("winner") in WORDS or all(column in row for column in WINS)
    is_judged = is_judged or (is_named and row.get("winner") in (row[NAMES[0]], row[NAMES[1]]))
    return is_judged and are_answers(row, [row.get("answer_a"), row.get("answer_b")])


def parse(row: Row, source: str, chat: bool) -> Example:
    """Return the winner as chosen, the other as rejected.

    Raises:
        BadRow: a field is absent or of another kind, or the winner is another word.
        SkipRow: a tie.
    """
    winner = _winner(row)
    if winner == "tie":
        raise SkipRow(Reason.TIE)
    order = ("answer_a", "answer_b") if winner == "a" else ("answer_b", "answer_a")
    return example_of(row, {column: present(row, column) for column in order}, source, chat)


def _winner(row: Row) -> str:
    if "winner" not in row and all(column in row for column in WINS):
        won = [number({column: _as_number(row[column])}, column) or 0.0 for column in WINS]
        return "tie" if won[0] == won[1] else "a" if won[0] > won[1] else "b"
    winner = present(row, "winner")
    if isinstance(winner, list):
        return _majority(row, winner)
    if "name_a" in row and "name_b" in row and winner != "tie":
        return _named(row, winner)
    if winner not in WORDS:
        raise BadRow(f" is {winner!r}, not one of: {', '.join(WORDS)}", "winner")
    return str(winner)


def _as_number(value: Any) -> Any:
    if isinstance(value, str) and value.strip().casefold() in ("true", "false"):
        return float(value.strip().casefold() == "true")
    return float(value) if isinstance(value, bool) else value


def _majority(row: Row, votes: list[Any]) -> str:
    """Return what most of several votes say; a row without votes, or with as many on either side, is a tie."""
    each = [_winner({**row, "winner": vote}) for vote in votes if vote is not None]
    lead = each.count("a") - each.count("b")
    return "a" if lead > 0 else "b" if lead < 0 else "tie"


def _named(row: Row, winner: Any) -> str:
    """Return whose name the winner is: of the models, or of the answers themselves."""
    first, second = (row[name] == winner for name in NAMES)
    if first == second:
        what = f" is {winner!r}, {'both' if first else 'neither'} of {row['name_a']!r} and {row['name_b']!r}"
        raise BadRow(what, "winner")
    return "a" if first else "b"


FORMAT = Format(
    name="winner",
    fits="prompt, answer_a, answer_b and winner: a, b or tie; or the name of one (name_a, name_b); or wins_a and wins_b, 0 or 1",
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
    optional=("prompt", *NAMES, *WINS),
)
