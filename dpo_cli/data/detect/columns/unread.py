"""Columns that a reading leaves out: why each is harmless, and which of them may be a preference or context that would be lost."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from dpo_cli.data.detect.columns.names import (
    ANSWER_WORDS,
    CONTEXT_WORDS,
    JUDGE_WORDS,
    LOW_WORDS,
    NEGATIVE_WORDS,
    RANK_WORDS,
    RATING_WORDS,
    REMARK_WORDS,
    is_called,
    is_context,
    is_meta,
    words_in,
)
from dpo_cli.data.detect.columns.profile import MOST, Column, Profile, texts_in

FEW = 24
_ONE_ANSWER = ("plain_text", "targets", "conversation")
"""Formats that learn every answer they read: a label that is the same in all rows may say that none is wanted."""
LONG_CHARS = 16
SENTENCE_WORDS = 4
"""Words from which on a text may be a sentence, not a name or a kind."""
SENTENCES = 3
"""Different ones from which on they may be about their rows."""


@dataclass(frozen=True)
class Unread:
    """A column of the file that nothing reads."""

    column: str
    why: str
    """Why it is harmless, or what would be lost."""
    is_doubtful: bool = False
    """Whether it may be a preference or context."""
    is_context: bool = False
    """Whether it may be part of what is asked."""


def unread(
    profile: Profile, used: set[str], ignored: Sequence[str], layout: str, paths: Set[str] = frozenset()
) -> list[Unread]:
    """Return the columns that a reading does not use, each with the reason.

    Args:
        profile: the file.
        used: columns of the file that are read.
        ignored: columns that are known not to matter.
        layout: the format.
        paths: what is read of columns that hold objects: `info.post`. What they hold beside that is returned where it is doubtful.
    """
    read = [column for column in profile.columns.values() if column.top in used]
    found = []
    for top in profile.words:
        if top in used or not top:
            continue
        if top in ignored:
            found.append(Unread(top, "not needed"))
            continue
        parts = [column for column in profile.columns.values() if column.top == top]
        found.append(_look(top, parts, read, profile, layout))
    inner = [column for column in read if paths and "." in column.path and "[" not in column.path]
    known = [column for column in read if _is_read(column.path, paths)]
    for column in inner:
        is_known = (
            column in known
            or column.path in ignored
            or column.top not in {p.partition(".")[0] for p in paths}
        )
        if not is_known and (look := _look(column.path, [column], known, profile, layout)).is_doubtful:
            found.append(look)
    return found


def _is_read(path: str, paths: Set[str]) -> bool:
    """Return whether a path, what it is in, or what is in it, is read."""
    return any(path == each or path.startswith(f"{each}.") or each.startswith(f"{path}.") for each in paths)


def _look(top: str, parts: Sequence[Column], read: Sequence[Column], profile: Profile, layout: str) -> Unread:
    given = [column for column in parts if column.given]
    if not given:
        return Unread(top, "empty in all rows")
    if _is_known(given, read):
        return Unread(top, "its text is in the columns that are read")
    is_constant = len(profile.words_of(top)) == 1 and all(
        column.kind in ("text", "number", "flag") and column.path == top for column in given
    )
    if is_constant and layout not in _ONE_ANSWER and not any(is_context(column.path) for column in given):
        return Unread(top, "the same in all rows")
    if _is_judgement(given, top, layout):
        if layout == "pairs" and not any(_names_a_side(column, profile) for column in given):
            return Unread(top, "rates answers, which are ranked already")
        return Unread(top, "may say which answer is better", True)
    if any(is_context(column.path) for column in given) and any(
        column.kind in ("text", "turns", "exchanges", "texts") for column in given
    ):
        return Unread(top, "may be part of what is asked", True, True)
    if layout in _ONE_ANSWER and any(
        column.is_list and set(words_in(column.path)) & ANSWER_WORDS for column in given
    ):
        return Unread(top, "holds several answers, some of which may be better", True)
    if any(_is_prose(column, top, profile) for column in given) and layout != "plain_text":
        return Unread(top, "holds texts that may be part of what is asked", True, True)
    return Unread(top, "the same in all rows" if is_constant else _kind(given, profile))


def _is_prose(column: Column, top: str, profile: Profile) -> bool:
    """Return whether a column holds sentences, not the same few in many rows, that nothing says are about the data."""
    if (
        column.kind != "text"
        or column.path != top
        or set(words_in(top)) & (REMARK_WORDS | ANSWER_WORDS - CONTEXT_WORDS - {"text"})
    ):
        return False
    if is_meta(top):
        return False
    texts = [str(value) for value in column.given]
    has_sentences = sum(len(text.split()) >= SENTENCE_WORDS for text in texts) >= MOST * len(texts)
    return has_sentences and len(set(texts)) >= max(SENTENCES, len(texts) / 8)


def _is_judgement(parts: Sequence[Column], top: str, layout: str) -> bool:
    words = JUDGE_WORDS | RANK_WORDS | RATING_WORDS
    alone = LOW_WORDS | NEGATIVE_WORDS if layout in _ONE_ANSWER else set()
    return any(
        (
            (
                set(words_in(column.path)) & (words | alone if column.path == top else words)
                or _is_label(column, top)
            )
            and not is_meta(column.path)
            and (column.kind != "text" or column.length < 200)
        )
        or _is_other_answer(column)
        for column in parts
    )


def _is_label(column: Column, top: str) -> bool:
    """Return whether a column has a name of those that say which answer is better, or how good one is."""
    return column.path == top and (is_called(top, "label") or is_called(top, "winner"))


def _is_other_answer(column: Column) -> bool:
    """Return whether a column holds an answer that is called better or worse than another."""
    words = set(words_in(column.path))
    return (
        bool(words & {"chosen", "rejected", "dispreferred", "reject"})
        and not is_meta(column.path)
        and column.kind in ("text", "turns", "texts", "talks")
    )


def _names_a_side(column: Column, profile: Profile) -> bool:
    """Return whether a column beside a chosen and a rejected answer names one of two: it may say something else."""
    words = set(words_in(column.path))
    is_winner = (
        bool(
            words
            & {"winner", "preferred", "preference", "better", "choice", "vote", "verdict", "best", "label"}
        )
        and not words & LOW_WORDS
    )
    return (
        is_winner and column.kind in ("text", "number", "flag") and len(profile.words_of(column.path)) <= FEW
    ) or _is_other_answer(column)


def _is_known(parts: Sequence[Column], read: Sequence[Column]) -> bool:
    """Return whether nearly all longer texts in a column stand in columns that are read, in the same row."""
    rows = [
        (i, text)
        for column in parts
        for i, value in enumerate(column.values)
        for text in texts_in(value)
        if len(text) >= LONG_CHARS
    ]
    if not rows:
        return False
    whole = [
        "\n".join(text for column in read for text in texts_in(column.values[i]))
        for i in range(len(parts[0].values))
    ]
    return sum(text.strip() in whole[i] for i, text in rows) >= MOST * len(rows)


def _kind(parts: Sequence[Column], profile: Profile) -> str:
    kinds = {column.kind for column in parts}
    if len(parts) > 1 or parts[0].path not in profile.words or kinds & {"other", "texts", "talks"}:
        return "details"
    words = profile.words_of(parts[0].path)
    if kinds <= {"number", "flag", "numbers", "flags"}:
        return "numbers" if "number" in kinds or "numbers" in kinds else "true or false"
    if len(words) <= FEW and profile.n > 2 * len(words):
        return f"{len(words)} different words"
    return "short texts" if parts[0].length < 60 else "texts of its own"
