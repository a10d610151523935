"""Messages that answer one another: each names the one it answers, or holds the answers to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dpo_cli.data.detect.columns.names import LOW_WORDS, RANK_WORDS, RATING_WORDS, words_in
from dpo_cli.data.detect.columns.profile import Profile
from dpo_cli.data.detect.infer.candidate import Candidate, Names
from dpo_cli.data.detect.label_words import as_number, word
from dpo_cli.data.formats._base import Row
from dpo_cli.data.tokenize.turns import CONTENT_FIELDS, ROLES, SPEAKER_FIELDS

_IDS = ("message_id", "id", "node_id", "comment_id", "post_id", "uid")
_PARENTS = ("parent_id", "parent", "reply_to", "parent_message_id", "in_reply_to", "parent_node_id")
_ROLES = (*SPEAKER_FIELDS, "author", "author_role")
_TEXTS = (*CONTENT_FIELDS, "body")
_REPLIES = ("replies", "children", "responses", "answers")


def trees(profile: Profile, given: Names) -> Iterator[Candidate]:
    """Yield messages that name the one they answer, or hold the answers to it."""
    if given.keys() & {"chosen", "rejected", "answer_a", "answer_b", "completions", "completion", "messages"}:
        return
    flat = {**_named(profile.sample, given), **_links(profile.sample, given)}
    nested = {**_named(_below(profile.sample, given), given), **_replies(profile.sample, given)}
    for columns, gather in ((flat, "parent"), (nested, "tree")):
        needed = {"text", "role", "rating", *(("id", "parent") if gather == "parent" else ("replies",))}
        if columns.keys() < needed:
            continue
        yield from _directions(columns, gather)


def _directions(columns: Names, gather: str) -> Iterator[Candidate]:
    rating = columns["rating"]
    is_rank = bool(set(words_in(rating)) & (RANK_WORDS | LOW_WORDS))
    for better in ("lower", "higher") if is_rank else ("higher",):
        means = f"of the answers to a message the one with the {better[:-2]}est {rating!r} is the best"
        yield Candidate("ratings", columns, better=better, gather=gather, means=means, is_sure=not is_rank)


def _named(nodes: list[Row], given: Names) -> dict[str, str]:
    """Return where messages have their text, their role and what rates them."""
    found: dict[str, str] = {}
    names = list(dict.fromkeys(name for node in nodes for name in node))
    roles = [name for name in _ROLES if name in names and _all_roles(nodes, name)]
    texts = [name for name in _TEXTS if any(isinstance(node.get(name), str) for node in nodes)]
    words = RANK_WORDS | RATING_WORDS | LOW_WORDS
    rates = [name for name in names if set(words_in(name)) & words and _all_numbers(nodes, name)]
    for role, columns in (("text", texts), ("role", roles), ("rating", rates)):
        if role in given or columns:
            found[role] = given.get(role) or columns[0]
    return found


def _all_roles(nodes: list[Row], name: str) -> bool:
    said = [node[name] for node in nodes if node.get(name) is not None]
    return bool(said) and all(isinstance(each, str) and each.strip().casefold() in ROLES for each in said)


def _all_numbers(nodes: list[Row], name: str) -> bool:
    said = [node[name] for node in nodes if node.get(name) not in (None, "")]
    return bool(said) and all(
        not isinstance(each, bool) and as_number(word(each)) is not None for each in said
    )


def _links(rows: list[Row], given: Names) -> dict[str, str]:
    """Return where rows have their own name and that of the row they answer."""
    found = {}
    for role, names in (("id", _IDS), ("parent", _PARENTS)):
        there = [name for name in names if any(row.get(name) is not None for row in rows)]
        if role in given or there:
            found[role] = given.get(role) or there[0]
    return found


def _replies(rows: list[Row], given: Names) -> dict[str, str]:
    if "replies" in given:
        return {"replies": given["replies"]}
    name = next((name for name in _REPLIES if any(_root(row, name) for row in rows)), None)
    return {"replies": name} if name else {}


def _root(row: Row, replies: str) -> Row | None:
    """Return the first message of a row: itself, or what one of its columns holds."""
    nodes = [row, *(value for value in row.values() if isinstance(value, Mapping))]
    return next((node for node in nodes if _are_messages(node.get(replies))), None)


def _are_messages(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, Mapping) and any(name in each for name in _ROLES) for each in value)
    )


def _below(rows: list[Row], given: Names) -> list[Row]:
    """Return the messages of trees, each root with all below it."""
    names = _replies(rows, given)
    if not names:
        return []
    waiting = [root for row in rows if (root := _root(row, names["replies"])) is not None]
    found: list[Row] = []
    while waiting:
        node = waiting.pop()
        found.append(node)
        below = node.get(names["replies"])
        waiting += [each for each in below if isinstance(each, Mapping)] if isinstance(below, list) else []
    return found
