"""What a file asks: the columns that make up the prompt, together and in order, so that none of it is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dpo_cli.data.detect.columns.names import JOINED, by_name, is_context, is_meta, names_in, words_in
from dpo_cli.data.detect.columns.profile import MOST, Column, Profile, texts_in
from dpo_cli.data.detect.frames import HH
from dpo_cli.data.detect.infer.candidate import Candidate
from dpo_cli.data.tokenize.turns import ASKING, is_conversation, is_exchanges, is_turn, role_of

WHOLE = ("messages", "text", "id", "parent")
"""Names of formats whose columns hold the prompt themselves."""


@dataclass(frozen=True)
class Prompt:
    """Where a file has what is asked."""

    columns: dict[str, str] = field(default_factory=dict)
    """`prompt`, `history`, `system`, `tools`: where the file has them under other names."""
    options: Sequence[Mapping[str, str]] = ()
    """Where more than one reading is possible: the columns of each."""
    why: str = ""
    """What has to be chosen between."""
    is_missing: bool = False


def find_prompt(candidate: Candidate, profile: Profile, given: Mapping[str, str]) -> Prompt:
    """Return where a candidate's prompt is.

    Args:
        candidate: its answers are known.
        profile: the file.
        given: columns that are stated.
    """
    used = {path for path in candidate.columns.values()} | set(given.values())
    ignored = set(candidate.ignore)
    # What is in a list next to its answers belongs to them.
    lists = {path.partition("[")[0] for path in candidate.columns.values() if "[" in path}
    free = [
        p
        for p, c in profile.columns.items()
        if p not in used
        and not ("[" in p and p.partition("[")[0] in lists)
        and c.top not in ignored
        and not (is_meta(p) and "prompt" not in words_in(p))
    ]
    side = _side(profile, free, given)
    if any(name in candidate.columns for name in WHOLE):
        return Prompt(side)
    if "prompt" in given:
        return Prompt({**side, **_history(profile, free, given, given["prompt"])})
    answers = [
        profile.column(path)
        for name, path in candidate.columns.items()
        if name in ("chosen", "rejected", "answer_a", "answer_b", "completion", "completions")
    ]
    if _hold_prompt(answers):
        return _beside_conversations(profile, answers, side)
    asked = [
        p
        for p in _named(free)
        if profile.columns[p].kind in ("text", "turns", "exchanges", "texts") and p not in side.values()
    ]
    asked = _needed(asked, profile)
    if not asked:
        return _unnamed(profile, [path for path in free if path not in side.values()], side)
    return _of(asked, profile, free, side, given)


def _unnamed(profile: Profile, free: Sequence[str], side: dict[str, str]) -> Prompt:
    """Return what else may be the prompt, where no column is called so: turns, or any text, which then is a question."""
    turns = [path for path in free if profile.columns[path].kind in ("turns", "exchanges")]
    if turns:
        return Prompt({**side, "prompt": turns[0]})
    texts = [path for path in free if profile.columns[path].kind == "text" and not profile.is_word(path)]
    likely = [path for path in texts if is_context(path)] or texts
    options = [{**side, "prompt": path, **({"history": ""} if path == "history" else {})} for path in likely]
    names = " or ".join(map(repr, likely))
    return Prompt(side, options, f"the prompt may be {names}", is_missing=not options)


def completed(candidate: Candidate, profile: Profile, given: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield a candidate with its prompt: one, or each that it could be; one that is not whole where there is none.

    Args:
        candidate: its answers are known.
        profile: the file.
        given: columns that are stated.
    """
    prompt = find_prompt(candidate, profile, given)
    needs_one = not any(name in candidate.columns for name in WHOLE) and "prompt" not in given
    if prompt.is_missing and needs_one:
        yield replace(candidate, unknown=(), is_sure=False, is_whole=False)
        return
    if not prompt.options:
        yield replace(candidate, columns={**prompt.columns, **candidate.columns})
    for option in prompt.options:
        read = repr(option["prompt"]) if option.get("prompt") else "it is left unread"
        means = f"the prompt is {read}" if len(prompt.options) > 1 else prompt.why
        if candidate.means and not candidate.is_sure:
            means = f"{candidate.means}; {means}"
        yield replace(candidate, columns={**option, **candidate.columns}, is_sure=False, means=means)


def _named(free: Sequence[str]) -> list[str]:
    found = by_name("prompt", free)
    exact = [path for path in found if path in ("prompt", "json(prompt)")]
    return exact + [path for path in found if path not in exact]


def _of(
    asked: list[str], profile: Profile, free: Sequence[str], side: dict[str, str], given: Mapping[str, str]
) -> Prompt:
    """Return the prompt of one or more columns that are called so."""
    if len(asked) > 1:
        if joined := next((pair for pair in _joins(asked) if set(pair) == set(asked)), None):
            return Prompt({**side, "prompt": " + ".join(joined)})
        if len(asked) == 2 and (behind := _history_join(asked, profile)):
            return Prompt({**side, **behind})
        orders = ([*(p for p in asked if p != last), last] for last in asked)
        options = [{**side, "prompt": " + ".join(order)} for order in orders]
        names = " and ".join(map(repr, asked))
        return Prompt(side, options, f"the prompt may be made of {names}")
    (path,) = asked
    # A title goes with what it is the title of; an input that no name of a prompt stands beside is the prompt.
    titles = [
        p
        for p in free
        if names_in(p)[0] == "title" and profile.columns[p].kind == "text" and _parent(p) == _parent(path)
    ]
    titles = [p for p in titles if not _is_within(profile.columns[p], [profile.columns[path]])]
    before = titles[:1] or _document(path, profile, free, side)
    prompt = f"{before[0]} + {path}" if before and before[0] != path else path
    return Prompt({**side, "prompt": prompt, **_history(profile, free, given, path)})


def _document(path: str, profile: Profile, free: Sequence[str], side: Mapping[str, str]) -> list[str]:
    """Return the text that a question is about, where a column beside it is called so."""
    names = [first for first, second in JOINED if second == names_in(path)[0]]
    found = [
        p
        for p in free
        if names_in(p)[0] in names
        and p != path
        and p not in side.values()
        and profile.columns[p].kind == "text"
        and _parent(p) == _parent(path)
    ]
    return (
        found
        if len(found) == 1 and not _is_within(profile.columns[found[0]], [profile.columns[path]])
        else []
    )


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _joins(asked: Sequence[str]) -> list[tuple[str, str]]:
    by = {names_in(path)[0]: path for path in asked}
    return [(by[a], by[b]) for a, b in JOINED if a in by and b in by]


def _history_join(asked: Sequence[str], profile: Profile) -> dict[str, str] | None:
    """Return messages and a text after them as history and prompt."""
    turns = [path for path in asked if profile.columns[path].kind in ("turns", "exchanges")]
    texts = [path for path in asked if profile.columns[path].kind == "text"]
    if len(turns) == 1 and len(texts) == 1 and names_in(turns[0])[0] in ("context", "history", "messages"):
        return {"history": turns[0], "prompt": texts[0]}
    return None


def _history(profile: Profile, free: Sequence[str], given: Mapping[str, str], prompt: str) -> dict[str, str]:
    """Return the turns before the prompt, where a column has some that the prompt does not hold."""
    if "history" in given:
        return {}
    found = [
        p
        for p in by_name("history", free)
        if p != prompt and profile.columns[p].kind in ("turns", "exchanges")
    ]
    found = [p for p in found if not _is_within(profile.columns[p], [profile.column(prompt)])]
    return {"history": found[0]} if found else {}


def _side(profile: Profile, free: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the system prompt and the tools, where they are called so."""
    side: dict[str, str] = {}
    for role, kinds in (("system", ("text",)), ("tools", ("other", "text"))):
        found = [p for p in by_name(role, free) if profile.columns[p].kind in kinds]
        if found and role not in given:
            side[role] = found[0]
    return side


def _hold_prompt(answers: Sequence[Column]) -> bool:
    """Return whether answers are conversations that hold their own prompt, or transcripts."""
    values = [value for column in answers for value in column.given]
    flat = [
        item
        for value in values
        for item in (value if isinstance(value, list) and not is_conversation(value) else [value])
    ]
    if not flat:
        return False
    return sum(map(_is_whole, flat)) >= MOST * len(flat) or (
        # One whole conversation, and what stands in place of its last answer.
        len(answers) == 2 and any(column.given and all(map(_is_whole, column.given)) for column in answers)
    )


def _is_whole(value: object) -> bool:
    if isinstance(value, str):
        return HH.starts(value) and "\n\nAssistant:" in value
    first = value[0] if isinstance(value, list) and value else None
    if first is not None and not is_turn(first):
        return is_exchanges(value)
    return first is not None and role_of(first) in ASKING


def _beside_conversations(profile: Profile, answers: Sequence[Column], side: dict[str, str]) -> Prompt:
    """Return what to make of a column called prompt beside conversations: nothing where they hold it."""
    column = profile.columns.get("prompt")
    if column is None or not column.given:
        return Prompt(side)
    if _is_within(column, answers):
        # Transcripts hold all of the prompt, of which the column may have the first turn alone.
        is_text = any(each.kind == "text" for each in answers)
        return Prompt({**side, "prompt": ""} if is_text else side)
    return Prompt(side, [{**side, "prompt": ""}], "'prompt' is not in the conversations beside it")


def _needed(asked: list[str], profile: Profile) -> list[str]:
    """Return the columns without those whose text is within another one."""
    kept = list(asked)
    for path in reversed(asked):
        others = [profile.columns[each] for each in kept if each != path]
        if others and _is_within(profile.columns[path], others):
            kept.remove(path)
    return kept


def _is_within(column: Column, others: Sequence[Column]) -> bool:
    """Return whether nearly all of a column's texts are parts of other columns' texts in the same row."""
    rows = [(i, text) for i, value in enumerate(column.values) for text in texts_in(value)]
    if not rows:
        return True
    held = sum(
        any(text.strip() in part for other in others for part in _whole(other.values[i])) for i, text in rows
    )
    return held >= MOST * len(rows)


def _whole(value: object) -> list[str]:
    return ["\n".join(texts_in(value))]
