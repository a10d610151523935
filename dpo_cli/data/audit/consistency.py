"""What rows say of each other: repeats, contradictions, cycles, prompts that are held out and trained on.

Texts are compared without case and runs of white space, by digest.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from dpo_cli.types import Example, Text

Places = tuple[str, ...]
Preferences = Mapping[tuple[bytes, bytes, bytes], list[str]]
"""(prompt, better completion, worse completion) -> places of the rows that say so."""


class Keyed(NamedTuple):
    """A row as digests of its texts."""

    place: str
    is_held_out: bool
    prompt: bytes
    completions: tuple[bytes, ...]
    """Best first."""
    better: tuple[tuple[int, int], ...]
    """Which completions the row prefers to which, by index; none for a single one."""
    label: bool | None


def keyed(example: Example, is_held_out: bool) -> Keyed:
    """Return what of a row is compared. A text without a prompt stands for its own."""
    completions = tuple(_digest(text) for text in example.completions)
    prompt = _digest(example.prompt) if example.prompt else completions[0]
    ratings = example.ratings or range(len(completions), 0, -1)
    better = tuple((i, j) for i, j in combinations(range(len(completions)), 2) if ratings[i] > ratings[j])
    return Keyed(example.source, is_held_out, prompt, completions, better, example.label)


def duplicates(rows: Iterable[Keyed]) -> list[Places]:
    """Return the place of each row that repeats an earlier one of its part, with the earlier one's."""
    first: dict[object, str] = {}
    found = list[Places]()
    for row in rows:
        earlier = first.setdefault((row.is_held_out, row.prompt, row.completions, row.label), row.place)
        if earlier != row.place:
            found.append((row.place, earlier))
    return found


def preferences(rows: Iterable[Keyed]) -> Preferences:
    """Return every preference that rows state, with their places."""
    stated: dict[tuple[bytes, bytes, bytes], list[str]] = defaultdict(list)
    for row in rows:
        for i, j in row.better:
            if row.completions[i] != row.completions[j]:
                stated[row.prompt, row.completions[i], row.completions[j]].append(row.place)
    return stated


def contradictions(stated: Preferences) -> list[Places]:
    """Return the places of each preference that stands in both orders."""
    found = dict[frozenset[bytes], Places]()
    for (prompt, better, worse), places in stated.items():
        if opposite := stated.get((prompt, worse, better)):
            found.setdefault(frozenset((prompt, better, worse)), (*places, *opposite))
    return [*found.values()]


def label_conflicts(rows: Iterable[Keyed]) -> list[Places]:
    """Return the places of each completion that is wanted in one row and unwanted in another."""
    labels: dict[tuple[bytes, bytes], dict[bool, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.label is not None:
            labels[row.prompt, row.completions[0]][row.label].append(row.place)
    return [(*both[True], *both[False]) for both in labels.values() if len(both) == 2]


def cycles(stated: Preferences) -> list[Places]:
    """Return the places of each set of preferences that goes in a circle of three or more: a > b > c > a.

    Preferences that stand in both orders are contradictions and count for no circle.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = [(p, better, worse) for p, better, worse in stated if (p, worse, better) not in stated]
    if not edges:
        return []
    nodes: dict[tuple[bytes, bytes], int] = {}
    ends = [
        (nodes.setdefault((p, better), len(nodes)), nodes.setdefault((p, worse), len(nodes)))
        for p, better, worse in edges
    ]
    start, end = np.array(ends, dtype=np.int32).T
    graph = coo_array((np.ones(len(ends), dtype=np.int8), (start, end)), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, connection="strong")
    found: dict[int, list[str]] = defaultdict(list)
    for k in np.flatnonzero(component[start] == component[end]):
        found[int(component[start[k]])] += stated[edges[k]]
    return [tuple(places) for places in found.values()]


def leaks(rows: Sequence[Keyed]) -> list[Places]:
    """Return the place of each held-out row whose prompt is also trained on, with those of the training rows."""
    trained: dict[bytes, list[str]] = defaultdict(list)
    for row in rows:
        if not row.is_held_out:
            trained[row.prompt].append(row.place)
    return [(row.place, *trained[row.prompt]) for row in rows if row.is_held_out and row.prompt in trained]


def _digest(text: Text) -> bytes:
    return hashlib.blake2b(plain(text).encode(), digest_size=16).digest()


def plain(text: Text) -> str:
    """Return a text without case and runs of white space; of messages also who says it and which tools are called."""
    if isinstance(text, str):
        return " ".join(text.casefold().split())
    return "\n".join(
        f"{turn['role']}\t{plain(turn['content'])}"
        + (json.dumps(turn["tool_calls"], default=str) if turn.get("tool_calls") else "")
        for turn in text
    )
