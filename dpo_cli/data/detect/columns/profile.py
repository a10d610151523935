"""One pass over a file of any size: its columns, what is nested in them, the words in them, and a sample of its rows."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpo_cli.data.detect.fields import decoded, field_of
from dpo_cli.data.detect.label_words import as_number, word
from dpo_cli.data.formats._base import Row
from dpo_cli.data.sources.placed_rows import PlacedRow
from dpo_cli.data.tokenize.turns import is_conversation, is_exchanges, is_spelled, is_turn, is_turns

SAMPLED = 256
MANY = 256
"""Different words of a column that are counted: one with so many holds texts or numbers."""
LONG = 40
"""Characters from which on a text is no word and no number."""
MOST = 0.9
"""Share of a column's values that must be of a kind for it to be the column's."""
DEEPEST = 4
WHOLE = ("tools", "functions", "tool_calls", "chat_template_kwargs")
"""Names whose values are taken as they are, however deep."""


@dataclass
class Column:
    """A column, or what a path leads to in one."""

    path: str
    """As a recipe names it."""
    top: str
    """The column of the file."""
    values: list[Any]
    """In the sampled rows; None where a row has none."""

    def __post_init__(self) -> None:
        self.given = [value for value in self.values if value not in (None, "", [], {})]
        self.kind = _kind_of(self.given)

    @property
    def is_answer(self) -> bool:
        """Whether it can be an answer: text or messages."""
        return self.kind in ("text", "turns", "texts")

    @property
    def is_list(self) -> bool:
        """Whether it holds a list of answers."""
        return self.kind in ("texts", "talks")

    @property
    def numbers(self) -> list[float | None]:
        """The values as numbers."""
        return [None if value is None else as_number(word(value)) for value in self.values]

    @property
    def length(self) -> float:
        """Mean length of its texts."""
        texts = [str(value) for value in self.given]
        return sum(map(len, texts)) / max(1, len(texts))


@dataclass
class Profile:
    """What one pass over a file shows."""

    n: int = 0
    words: dict[str, Counter[str]] = field(default_factory=dict)
    """Column of the file -> its values as words, the first `MANY` different ones."""
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Column of the file -> the lowest and the highest number in it."""
    sample: list[Row] = field(default_factory=list)
    """Of all rows."""
    columns: dict[str, Column] = field(default_factory=dict)
    """Path -> what is there in the sample; a column whose values are nested is there by its parts."""

    def column(self, path: str) -> Column:
        """Return what any path leads to in the sample."""
        if path in self.columns:
            return self.columns[path]
        names = frozenset(self.words)
        each = field_of(path, names)
        return Column(
            path, each.columns[0] if each.columns else path, [each.read(row) for row in self.sample]
        )

    def free(self, given: Mapping[str, str]) -> list[str]:
        """Return the paths that are not stated already."""
        return [path for path in self.columns if path not in given.values()]

    def is_word(self, path: str) -> bool:
        """Return whether a column's texts are a few words, as of a vote: no answers."""
        column = self.columns[path]
        is_short = column.kind == "text" and column.length < 24
        return is_short and len(self.words_of(path)) <= 6 and self.n > 12

    def words_of(self, path: str) -> Counter[str]:
        """Return the words of a column: of all rows where it is a column of the file, else of the sample."""
        if path in self.words:
            ends = map(word, self.ranges.get(path, ()))
            return self.words[path] + Counter(end for end in ends if end not in self.words[path])
        found: Counter[str] = Counter()
        for value in self.column(path).values:
            found.update(map(word, value if isinstance(value, list) else [value]))
        return found


class Look:
    """Takes rows one by one and draws a sample of them, the same of the same rows."""

    def __init__(self) -> None:
        self._profile, self._draw = Profile(), random.Random(0)

    def add(self, values: Row) -> None:
        """Take a row."""
        profile = self._profile
        profile.n += 1
        for column, value in values.items():
            words = profile.words.setdefault(column, Counter())
            for item in value if isinstance(value, list) else (value,):
                self._count(column, words, item)
        if len(profile.sample) < SAMPLED:
            profile.sample.append(values)
        elif (at := self._draw.randrange(profile.n)) < SAMPLED:
            profile.sample[at] = values

    def _count(self, column: str, words: Counter[str], value: object) -> None:
        if isinstance(value, str):
            if len(words) >= MANY and len(value) > LONG:
                return  # one of many texts
            value = value[:80]
        text = "" if isinstance(value, list | dict) else word(value)
        if text in words or len(words) < MANY or text in ("", "null"):
            words[text] += 1
        elif (number := as_number(text)) is not None:
            low, high = self._profile.ranges.get(column, (number, number))
            self._profile.ranges[column] = (min(low, number), max(high, number))

    def profile(self) -> Profile:
        """Return what the rows show."""
        self._profile.columns = _columns(self._profile)
        return self._profile


def look_at(rows: Iterable[PlacedRow]) -> Profile:
    """Return what rows show, the same for the same rows."""
    look = Look()
    for values, _ in rows:
        look.add(values)
    return look.profile()


def _columns(profile: Profile) -> dict[str, Column]:
    found: dict[str, Column] = {}
    for top in profile.words:
        values = [row.get(top) for row in profile.sample]
        root = top
        if _is_spelled(values):
            read = [decoded(value) for value in values]
            kinds = {Column("", top, each).kind for _, each in _parts(top, read, DEEPEST)}
            if kinds & {"turns", "exchanges", "texts", "talks", "numbers", "flags"}:
                root, values = f"json({top})", read
        for path, each in _parts(root, values, DEEPEST):
            found[path] = Column(path, top, each)
            is_two = found[path].kind == "texts" and all(len(value) == 2 for value in found[path].given)
            if is_two and "[]" not in path:
                for at in (0, 1):
                    item = f"{path}[{at}]"
                    found[item] = Column(item, top, [value[at] if value else None for value in each])
    return found


def _is_spelled(values: Sequence[Any]) -> bool:
    """Return whether a column's texts are JSON lists or objects."""
    given = [value for value in values if value not in (None, "")]
    texts = [value for value in given if isinstance(value, str)]
    return bool(texts) and len(texts) == len(given) and sum(map(is_spelled, texts)) >= MOST * len(texts)


def _parts(path: str, values: Sequence[Any], depth: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield the paths below a column's values, with what each leads to."""
    given = [value for value in values if value not in (None, "", [], {})]
    if re.split(r"[.\]]", path)[-1] in WHOLE:
        yield path, list(values)
        return
    objects = [value for value in given if isinstance(value, Mapping) and not is_turn(value)]
    lists = [value for value in given if isinstance(value, list) and not is_conversation(value)]
    if given and len(objects) >= MOST * len(given) and depth:
        for key in dict.fromkeys(key for value in objects for key in value):
            if isinstance(key, str):
                below = [value.get(key) if isinstance(value, Mapping) else None for value in values]
                yield from _parts(f"{path}.{key}", below, depth - 1)
        return
    items = [item for value in lists for item in value if item is not None]
    is_nested = bool(items) and sum(
        isinstance(item, Mapping) and not is_turn(item) for item in items
    ) >= MOST * len(items)
    if given and len(lists) >= MOST * len(given) and is_nested and depth:
        yield from _below_list(path, values, depth)
        return
    yield path, list(values)


def _below_list(path: str, values: Sequence[Any], depth: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield what the objects of a list have, as lists, and apart where there are always two."""
    objects = [
        item for value in values if isinstance(value, list) for item in value if isinstance(item, Mapping)
    ]
    keys = [key for key in dict.fromkeys(key for item in objects for key in item) if isinstance(key, str)]
    for key in keys:
        rest = [item.get(key) for item in objects]
        for below, _ in _parts(key, rest, depth - 1):
            tail = f"[].{below}"
            steps = field_of("x" + tail)
            yield path + tail, [None if value is None else steps.read({"x": value}) for value in values]
    given = [value for value in values if value]
    if given and all(isinstance(value, list) and len(value) == 2 for value in given):
        for at in (0, 1):
            for key in keys:
                each = [
                    value[at].get(key) if value and isinstance(value[at], Mapping) else None
                    for value in values
                ]
                if all(value is None or isinstance(value, str | int | float) for value in each):
                    yield f"{path}[{at}].{key}", each


def _kind_of(values: Sequence[Any]) -> str:
    """Return what nearly all values are: text, number, flag, turns, exchanges, texts, talks, numbers, flags, or other."""
    if not values:
        return "empty"
    counts = Counter(map(_kind, values))
    kind, n = counts.most_common(1)[0]
    if n >= MOST * len(values):
        return kind
    if set(counts) <= {"text", "turns"}:
        return "turns"  # an answer may be either
    return "number" if set(counts) <= {"number", "flag"} else "other"


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        if value.strip().casefold() in ("true", "false"):
            return "flag"
        return "number" if as_number(value) is not None else "text"
    if is_turn(value) or is_turns(value):
        return "turns"
    if not isinstance(value, list):
        return "other"
    items = [item for item in value if item is not None]
    if items and all(isinstance(item, str) for item in items):
        return "texts"
    if items and all(isinstance(item, bool) for item in items):
        return "flags"
    if items and all(isinstance(item, int | float) for item in items):
        return "numbers"
    if is_exchanges(value):
        return "exchanges"
    if items and all(map(is_conversation, items)):
        return "talks"
    return "other"


def texts_in(value: object) -> list[str]:
    """Return all texts within a value, but for roles and the like."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, Mapping):
        return [
            text
            for key, item in value.items()
            if key not in ("role", "from", "type", "id")
            for text in texts_in(item)
        ]
    if isinstance(value, list):
        return [text for item in value for text in texts_in(item)]
    return []
