"""Where a file has answers, and every way in which they could be ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dpo_cli.data.detect.columns.names import (
    are_opposites,
    by_name,
    couple_of,
    is_answer,
    is_called,
    is_meta,
    names_in,
    words_in,
)
from dpo_cli.data.detect.columns.profile import Column, Profile
from dpo_cli.data.detect.infer.candidate import Candidate, Names
from dpo_cli.data.detect.infer.couples import find_couple, judged
from dpo_cli.data.detect.infer.judges import judges, labelled
from dpo_cli.data.detect.infer.lists import lists
from dpo_cli.data.detect.infer.trees import trees
from dpo_cli.data.detect.infer.winners import says_side
from dpo_cli.data.tokenize.turns import is_turns, role_of

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source

SHORT_CHARS = 24
_BETTER = {"chosen", "preferred", "accepted"}
_WORSE = {"rejected", "dispreferred", "reject", "nonpreferred"}
_ORDERED = {"ranking", "ranked", "ranked_responses"}


def candidates(profile: Profile, given: Names) -> list[Candidate]:
    """Return the readings of a file, the surest kind of answers first: as soon as one kind is there, the others are not looked for."""
    for find in (_pairs, trees, _couples, lists, _half_pairs, _singles, _conversations, _documents):
        if found := list(find(profile, given)):
            return found
    return []


def _pairs(profile: Profile, given: Names) -> Iterator[Candidate]:
    """Yield a chosen answer beside a rejected one, by their names."""
    chosen, rejected = (_side(role, profile, given) for role in ("chosen", "rejected"))
    couple = find_couple(profile, given)
    if couple is not None:  # what says which of two is better is neither of them
        chosen, rejected = (
            [p for p in side if p in given.values() or not says_side(p, couple, profile)]
            for side in (chosen, rejected)
        )
    if not (chosen and rejected) and (opposites := _opposites(profile, given)):
        chosen, rejected = [opposites[0]], [opposites[1]]
    if not rejected:
        return
    if not chosen:
        # A conversation whose last answer is the better one.
        talks = [
            p
            for p in by_name("messages", profile.free(given))
            if profile.columns[p].kind in ("turns", "exchanges")
        ]
        chosen = [path for path in talks if _ends_with_answer(profile.columns[path])]
        single = [p for p in by_name("completion", profile.free(given)) if profile.columns[p].is_answer]
        is_sure = bool(chosen)
        for path in (chosen or single)[:1]:
            columns = {"chosen": path, "rejected": rejected[0]}
            yield Candidate(
                "pairs",
                columns,
                means=f"{path!r} is the better answer, {rejected[0]!r} the worse",
                is_sure=is_sure,
            )
        return
    best = [(a, b) for a in chosen for b in rejected if couple_of(a, b) == ("chosen", "rejected")]
    first, second = (
        best[0]
        if best and given.get("chosen") is None and given.get("rejected") is None
        else (chosen[0], rejected[0])
    )
    yield Candidate("pairs", {"chosen": first, "rejected": second})


def _opposites(profile: Profile, given: Names) -> tuple[str, str] | None:
    """Return two answers whose names differ in a word that says which is better."""
    free = [p for p in profile.free(given) if _can_answer(p, "", profile) and not is_meta(p)]
    return next(((a, b) for a in free for b in free if are_opposites(a, b)), None)


def _half_pairs(profile: Profile, given: Names) -> Iterator[Candidate]:
    """Yield a chosen answer that stands alone, with all that may be the other one."""
    chosen = _side("chosen", profile, given)
    if chosen and not _side("rejected", profile, given) and names_in(chosen[0])[0] in _BETTER:
        yield from _unnamed(chosen[0], profile, given)


def _unnamed(chosen: str, profile: Profile, given: Names) -> Iterator[Candidate]:
    """Yield every other text as the answer that is worse than one that is called the better."""
    for path in profile.free(given):
        is_text = profile.columns[path].kind == profile.columns[chosen].kind and not profile.is_word(path)
        if path != chosen and is_text and not is_meta(path) and not is_called(path, "prompt"):
            means = f"no column for rejected of pairs: {path!r} may be it"
            yield Candidate("pairs", {"chosen": chosen, "rejected": path}, means=means, is_sure=False)


def _side(role: str, profile: Profile, given: Names) -> list[str]:
    """Return the columns that may be the chosen or the rejected answer, the likeliest first."""
    if role in given:
        return [given[role]] if given[role] else []
    free = [path for path in profile.free(given) if _can_answer(path, role, profile)]
    words = _BETTER if role == "chosen" else _WORSE
    exact = [path for path in by_name(role, free) if path == role or names_in(path)[0] == role]
    named = [path for path in by_name(role, free) if path not in exact and not is_meta(path)]
    others = [
        path
        for path in free
        if path not in (*exact, *named) and set(words_in(path)) & words and not is_meta(path)
    ]
    return [*exact, *named, *others]


def _can_answer(path: str, role: str, profile: Profile) -> bool:
    """Return whether a column can be an answer; one that has the very name of a role is, whatever is wrong with its values."""
    column = profile.columns[path]
    if path == role:
        return column.kind not in ("number", "flag", "numbers", "flags")
    return (column.is_answer or column.is_list) and not profile.is_word(path)


def _ends_with_answer(column: Column) -> bool:
    talks = [value for value in column.given if is_turns(value)]
    last = [role_of(talk[-1]) for talk in talks]
    return not last or last.count("assistant") > len(last) / 2


def _couples(profile: Profile, given: Names) -> Iterator[Candidate]:
    """Yield two answers that are numbered, with all that may judge them."""
    couple = find_couple(profile, given)
    if couple is None:
        return
    found = judged(couple, profile, given)
    yield from found
    if not found:
        for chosen, rejected in ((couple.first, couple.second), (couple.second, couple.first)):
            means = f"{chosen!r} is the better answer in every row"
            yield Candidate("pairs", {"chosen": chosen, "rejected": rejected}, means=means, is_sure=False)


def _singles(profile: Profile, given: Names) -> Iterator[Candidate]:
    """Yield one answer a row, with all that may judge it."""
    free = [p for p in profile.free(given) if _can_answer(p, "completion", profile)]
    named = by_name("completion", free) or [p for p in free if is_answer(p)]
    found = [given["completion"]] if "completion" in given else named
    if not found:
        return
    base = {"completion": found[0]}
    all_judges = list(judges(profile, given, found[0]))
    for path in all_judges:
        is_alone = (
            len(all_judges) == 1 or path == "label" or path in (given.get("label"), given.get("rating"))
        )
        yield from labelled("labelled", base, path, profile, alone=is_alone)
    if not all_judges:
        yield Candidate("targets", base)


def _conversations(profile: Profile, given: Names) -> Iterator[Candidate]:
    """Yield whole conversations."""
    found = [given["messages"]] if "messages" in given else [
        p for p in by_name("messages", profile.free(given)) if profile.columns[p].kind in ("turns", "exchanges")
    ]  # fmt: skip
    others = [
        p
        for p, column in profile.columns.items()
        if column.kind in ("turns", "exchanges") and p not in given.values()
    ]
    for path in (found or others)[:1]:
        all_judges = list(judges(profile, given, path))
        for judge in all_judges:
            yield from labelled(
                "labelled_conversation", {"messages": path}, judge, profile, alone=len(all_judges) == 1
            )
        if not all_judges:
            yield Candidate("conversation", {"messages": path})


def _documents(profile: Profile, given: Names) -> Iterator[Candidate]:
    """Yield plain text."""
    found = (
        [given["text"]]
        if "text" in given
        else by_name("text", [p for p in profile.columns if profile.columns[p].kind == "text"])
    )
    for path in found[:1]:
        yield Candidate("plain_text", {"text": path})


def restricted(found: Sequence[Candidate], given: Source) -> list[Candidate]:
    """Return the candidates that have what is stated: format, gathering and direction."""
    kept = [each for each in found if given.format in ("auto", each.format)]
    kept = [each for each in kept if given.gather in ("rows", each.gather)]
    kept = [each for each in kept if each.better is None or given.better in (None, each.better)]
    return [replace(each, is_sure=True) if _is_stated(each, given) else each for each in kept]


def _is_stated(candidate: Candidate, given: Source) -> bool:
    """Return whether all that decides a reading is stated, or called as the format calls it."""
    if given.format != candidate.format or candidate.better != given.better:
        return False
    if candidate.labels and not given.labels:
        return False
    return all(given.columns.get(name, name) == path for name, path in candidate.columns.items())
