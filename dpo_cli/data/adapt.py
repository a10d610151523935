"""From what a data file holds to what a method trains on: a pair is also two labelled completions, and one target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from dpo_cli import methods
from dpo_cli.methods._advice import Rows
from dpo_cli.types import DataKind, Example, TokenGroup

if TYPE_CHECKING:
    from dpo_cli.data.dataset import DataRow
    from dpo_cli.data.sources.placed_rows import Problems

FEEDS: dict[DataKind, tuple[DataKind, ...]] = {
    "pairs": ("pairs",),
    "rankings": ("pairs",),
    "labelled": ("labelled", "pairs"),
    "targets": ("targets", "pairs"),
}
"""What a method trains on -> what it can be made from."""

WORDS: dict[DataKind, str] = {
    "pairs": "pairs (chosen and rejected)",
    "rankings": "rankings (completions, best first) or pairs",
    "labelled": "labelled completions (label true or false)",
    "targets": "completions to imitate",
}

SHORT: dict[DataKind, str] = {
    "pairs": "pairs",
    "rankings": "rankings",
    "labelled": "labelled",
    "targets": "answers",
}


def data_of(kind: DataKind) -> str:
    """Say in short what rows a method of that kind takes."""
    return " or ".join(SHORT[source] for source in FEEDS[kind])


def check_kind(path: str, held: DataKind, key: str, kind: DataKind, problems: Problems) -> None:
    """Note a source that a method of that kind cannot use: `path` holds other rows, `key` is the recipe's name for it."""
    if held in FEEDS[kind]:
        return
    eaters = (name for name in methods.names() if held in FEEDS[methods.get(name).data])
    what = f"'{path}' holds {WORDS[held]}, the method takes {WORDS[kind]}"
    problems.add(f"{key}.path", what, f"method.name={' or '.join(eaters)}, or other rows")


def check_margins(examples: Sequence[Example], problems: Problems) -> None:
    """Note the rows that do not state by how much their chosen completion is better."""
    what = "no margin and no scores, which method.use_margin puts into the loss"
    fix = (
        "data.train[].columns for `margin`, for `score_chosen` and `score_rejected`, or with format rated_pair for `rating_a` and `rating_b`;"
        " or method.use_margin=false"
    )
    for example in examples:
        if example.margin is None and example.ratings is None:
            problems.add(example.source, what, fix)


def count_rows(rows: Sequence[DataRow]) -> Rows:
    """Count training rows by what the data say of them: a row that `weight` repeats, or that became two, once."""
    labels: dict[str, set[bool]] = {}
    distinct = {id(row.example): row for row in rows}.values()
    for row in distinct:
        if row.example.label is not None:
            labels.setdefault(row.prompt_key, set()).add(row.example.label)
    single = [row.example.label for row in distinct if len(row.example.completions) == 1]
    return Rows(
        pairs=len(distinct) - len(single),
        wanted=single.count(True),
        unwanted=single.count(False),
        targets=single.count(None),
        prompts_with_both=sum(len(each) == 2 for each in labels.values()),
        tokens=float(np.median([n for row in rows[:: 1 + len(rows) // 10_000] for n in row.group.scored])),
    )


def pairs_of_ranking(n: int, kind: DataKind, pairs: Literal["all", "best"]) -> list[tuple[int, int]]:
    """Return which of `n` completions, best first, are compared: (better, worse).

    A method of single completions takes the best and the worst: the others are neither to be imitated nor to be avoided.
    """
    if kind not in ("pairs", "rankings"):
        return [(0, n - 1)]
    return [(i, j) for i, j in combinations(range(n), 2) if pairs == "all" or i == 0]


def strict_ranking(group: TokenGroup, ratings: Sequence[float] | None, min_gap: float | None) -> TokenGroup:
    """Return a ranking, best first, without the completions that stand for no place of their own: repeated ones, and those that are rated as
    the one before them, or within `min_gap` of it.
    """
    kept = [0]
    for k in range(1, len(group.completions)):
        same = any(np.array_equal(group.completions[k], group.completions[j]) for j in kept)
        gap = None if ratings is None else ratings[kept[-1]] - ratings[k]
        if not same and (gap is None or (gap >= (min_gap or 0) and gap > 0)):
            kept.append(k)
    return group.only(kept)


def as_kind(group: TokenGroup, kind: DataKind, ranking: TokenGroup | None = None) -> list[TokenGroup]:
    """Return what a method trains on of one row: the same ids and masks, so that no reference log-prob is computed anew.

    A pair gives KTO the chosen completion as wanted and the rejected one as not, SFT the chosen one. Of a ranking's pairs the first gives the
    whole ranking, the others nothing.
    """
    if kind == "rankings" and ranking is not None:
        # By identity: a ranking may hold a text twice, and then two pairs of it are equal.
        leads = all(mine is its for mine, its in zip(group.completions, ranking.completions, strict=False))
        return [ranking] if leads else []
    if len(group.completions) < 2 or kind in ("pairs", "rankings"):
        return [group]
    if kind == "targets":
        return [group.only([0])]
    return [group.only([0], label=True), group.only([1], label=False)]


def last_turn(group: TokenGroup) -> TokenGroup:
    """Return the group with only the last answer of each completion scored: the same ids under other masks."""
    masks = [mask & (np.arange(len(mask)) >= last_answer(mask)) for mask in group.masks]
    return replace(group, masks=tuple(masks))


def last_answer(mask: np.ndarray) -> int:
    """Return where the last run of scored tokens begins; between two answers stands at least a turn's opening, which is not scored."""
    return int(np.flatnonzero(np.diff(mask, prepend=False) & mask)[-1])


def mismatched(groups: Sequence[TokenGroup], prompts: Sequence[str], max_length: int) -> list[TokenGroup]:
    """Return for each group its prompt with the completion of another prompt: what estimates KTO's KL.

    The partner is the next row in the order of keys that has another prompt, so it is fixed by the data: not by seed, order or
    batch size. Where no other prompt exists, the group's own completion stays.

    Args:
        groups: one completion each, (n,).
        prompts: a digest of each group's prompt, (n,).
        max_length: prompt and completion together; a longer completion is cut.
    """
    order = sorted(range(len(groups)), key=lambda i: groups[i].keys)
    partner = _next_with_another_prompt(order, prompts)
    return [_with_completion(group, groups[j], max_length) for group, j in zip(groups, partner, strict=True)]


def _next_with_another_prompt(order: Sequence[int], prompts: Sequence[str]) -> list[int]:
    """Return for each row the next one in a circle that asks something else, in one walk backwards."""
    partner = list(range(len(order)))
    ahead = None  # the nearest row ahead that has another prompt than the one at hand
    circle = [*order, *order]
    for here, there in zip(reversed(circle[:-1]), reversed(circle[1:]), strict=True):
        if prompts[there] != prompts[here]:
            ahead = there
        if ahead is not None and prompts[ahead] != prompts[here]:
            partner[here] = ahead
    return partner


def _with_completion(group: TokenGroup, other: TokenGroup, max_length: int) -> TokenGroup:
    room = max(max_length - len(group.prompt), 1)
    ids, mask = other.completions[0][:room], other.masks[0][:room]
    if not mask.any():
        ids, mask = other.completions[0], other.masks[0]
    return TokenGroup(group.prompt, (ids,), (mask,), group.source, group.label)
