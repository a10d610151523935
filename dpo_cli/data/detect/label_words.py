"""What the words of a label or winner column mean: as a source's `labels` say, and a guess for people to confirm."""

from __future__ import annotations

import json
import operator
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from dpo_cli.data.detect.verdicts import verdict_in
from dpo_cli.data.formats._base import Row, SkipRow
from dpo_cli.data.row_notes import Reason
from dpo_cli.errors import RecipeError

Labels = Mapping[str, Sequence[str]]

MEANINGS: dict[str, dict[str, object]] = {
    "label": {"wanted": True, "unwanted": False, "neither": None},
    "winner": {"a": "a", "b": "b", "tie": "tie"},
}
"""Column -> what `labels` may sort its words into, and what a format then finds in the column; None leaves the row out."""

BOUND = re.compile(r"(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)")
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
DECORATION = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")
"""Variation selectors and skin tones: the same thumb."""


class UnknownWord(Exception):
    """A value that `labels` do not name."""


def word(value: object) -> str:
    """Return what a value is compared by: its text without case, outer white space and an emoji's tone; 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return DECORATION.sub("", "null" if value is None else str(value)).strip().casefold()


@dataclass(frozen=True)
class Words:
    """A source's `labels`, ready to read rows with; without any, rows pass as they are."""

    column: str | None
    meanings: Mapping[str, object]
    bounds: Sequence[tuple[str, float, object]]

    def read(self, row: Row) -> Row:
        """Return the row with its word replaced by what it means.

        Raises:
            UnknownWord: `labels` do not name it.
            SkipRow: it means that the row states nothing.
        """
        if self.column is None or self.column not in row:
            return row
        value = row[self.column]
        if self.column == "winner" and isinstance(value, list):  # the votes of several people
            return {**row, self.column: [self._meaning(vote) for vote in value if vote is not None]}
        try:
            meaning = self._meaning(value)
        except UnknownWord:
            if self.column == "winner" and "name_a" in row:
                return row  # the name of one of the two
            raise
        if meaning is None:
            raise SkipRow(Reason.NEITHER)
        return {**row, self.column: meaning}

    def names(self, value: object) -> bool:
        """Return whether `labels` name a value."""
        try:
            self._meaning(value)
        except UnknownWord:
            return False
        return True

    def _meaning(self, value: object) -> object:
        known = word(value)
        if known in self.meanings:
            return self.meanings[known]
        number = as_number(known)
        for sign, bound, meaning in self.bounds:
            if number is not None and COMPARE[sign](number, bound):
                return meaning
        raise UnknownWord(known)


def read_labels(labels: Labels, key: str) -> Words:
    """Return a source's `labels` as a reader of rows.

    Raises:
        RecipeError: an unknown name, names of both columns, or a word that stands twice.
    """
    column = next((column for column, known in MEANINGS.items() if known.keys() >= labels.keys()), None)
    if column is None:
        known_words = " or ".join(f"{{{', '.join(known)}}}" for known in MEANINGS.values())
        raise RecipeError.of(
            f"{key}.labels", f"{{{', '.join(labels)}}} is not understood", f"names of {known_words}"
        )
    meanings: dict[str, object] = {}
    bounds = []
    for name, words in labels.items():
        for text in words:
            if bound := BOUND.fullmatch(text.strip()):
                bounds.append((bound[1], float(bound[2]), MEANINGS[column][name]))
            elif word(text) in meanings:
                raise RecipeError.of(f"{key}.labels", f"'{text}' stands twice", "one meaning a word")
            else:
                meanings[word(text)] = MEANINGS[column][name]
    return Words(column if labels else None, meanings, bounds)


def as_number(text: str) -> float | None:
    """Return the number that a text spells, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


_WANTED = (
    "up|thumbs up|thumbup|thumbsup|👍|+1|1|true|t|yes|y|like|liked|love|good|great|positive|pos|accept|accepted|approve|approved|"
    "helpful|correct|right|desirable|wanted|chosen|preferred|upvote|upvoted|✅|✔|❤|😀|🙂|😊"
)
_UNWANTED = (
    "down|thumbs down|thumbdown|thumbsdown|👎|-1|0|false|f|no|n|dislike|disliked|hate|bad|poor|negative|neg|reject|rejected|"
    "disapprove|disapproved|unhelpful|not helpful|incorrect|wrong|undesirable|unwanted|downvote|downvoted|❌|✖|😞|🙁|😠"
)
_NEITHER = "|neutral|none|null|nan|n/a|na|skip|skipped|unknown|unrated|unsure|no rating|-|😐"
_TIE = "tie|tied|draw|both|neither|equal|same|none|tie (bothbad)|both bad|bothbad||null"
TIE_WORDS = frozenset(_TIE.split("|"))
"""Words of a winner column that say that neither answer is better."""
_A = "a|answer a|model a|response a|completion a|option a|assistant a|first|left"
_B = "b|answer b|model b|response b|completion b|option b|assistant b|second|right"

MANY_WORDS = 20
"""More different numbers than this are distinguished by bounds, not one by one."""


def guess_labels(words: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return `labels` for the words of a label column as one would read them, and the words that nobody could place.

    Numbers that are not 0, 1 and -1 are ratings: the upper two fifths of their range are wanted, the lower two unwanted.
    """
    found = list(words)
    tables = {"wanted": _WANTED, "unwanted": _UNWANTED, "neither": _NEITHER}
    numbers = {text: number for text in found if (number := as_number(text)) is not None}
    if {-1.0, 0.0} <= set(numbers.values()) <= {-1.0, 0.0, 1.0}:
        tables = {"neither": f"0|{_NEITHER}", "wanted": _WANTED, "unwanted": _UNWANTED}
    elif not set(numbers.values()) <= {-1.0, 0.0, 1.0}:
        labels = _guess_ratings(numbers)
        rest, unknown = _sorted_into([text for text in found if text not in numbers], {"neither": _NEITHER})
        labels["neither"] += rest.get("neither", [])
        return {name: texts for name, texts in labels.items() if texts}, unknown
    return _sorted_into(found, tables)


def guess_winner(
    words: Iterable[str], names: tuple[str, str], stated: Iterable[str] = ()
) -> tuple[dict[str, list[str]], list[str]]:
    """Return `labels` for the words of a winner column, and the words that nobody could place.

    Args:
        words: what stands in the column.
        names: what the file calls the columns of the two answers.
        stated: words that are known to name an answer: of numbers the others are then counted with them.
    """
    found = list(words)
    numbers = {number for text in (*found, *stated) if (number := as_number(text)) is not None}
    # 1 alone may be the first or the second: only what stands beside it tells.
    first, second = ("1", "2") if numbers == {1.0, 2.0} else ("0", "1") if numbers == {0.0, 1.0} else ("", "")
    if first == "0" and names[0].endswith("1"):
        first = second = ""  # the 1 of response_1 and response_2, or the second of them
    tables = {
        "a": f"{_A}|{names[0].casefold()}|{first or 'a'}",
        "b": f"{_B}|{names[1].casefold()}|{second or 'b'}",
        "tie": _TIE,
    }
    labels, unknown = _sorted_into(found, tables)
    one, two = _numbers_of(names, first, second)
    said = {text: verdict_in(_plain(text), one, two) for text in unknown}
    for text, meaning in said.items():
        if meaning:
            labels.setdefault(meaning, []).append(text)
    return labels, [text for text in unknown if not said[text]]


def _numbers_of(names: tuple[str, str], first: str, second: str) -> tuple[str, str]:
    """Return the numbers by which sentences call two answers: those in their names, else what the numbers beside them say, else 1 and 2."""
    found = [re.findall(r"[012]", name)[-1:] for name in names]
    if found[0] and found[1] and found[0] != found[1]:
        return found[0][0], found[1][0]
    return (first, second) if first else ("1", "2")


def _sorted_into(words: Sequence[str], tables: Mapping[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    known = {_plain(text): name for name in reversed([*tables]) for text in tables[name].split("|")}
    labels: dict[str, list[str]] = {}
    for text in words:
        if _plain(text) in known:
            labels.setdefault(known[_plain(text)], []).append(text)
    return labels, [text for text in words if _plain(text) not in known]


def _plain(text: str) -> str:
    """Return a word with spaces for what joins its parts; a sign or an emoji stays as it is."""
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text)


def _guess_ratings(numbers: Mapping[str, float]) -> dict[str, list[str]]:
    low, high = min(numbers.values()), max(numbers.values())
    lower, upper = low + 0.4 * (high - low), low + 0.6 * (high - low)
    if len(numbers) > MANY_WORDS:
        least, most = (f"{Decimal(f'{bound:.6g}'):f}" for bound in (upper, lower))  # `BOUND` has no exponent
        return {"wanted": [f">={least}"], "unwanted": [f"<={most}"], "neither": [f"<{least}"]}
    order = sorted(numbers, key=lambda text: numbers[text])
    return {
        "wanted": [text for text in order if numbers[text] >= upper],
        "unwanted": [text for text in order if numbers[text] <= lower < upper],
        "neither": [text for text in order if lower < numbers[text] < upper],
    }


def spelled(labels: Labels) -> str:
    """Write `labels` as a recipe has them: `{wanted: ["up"], unwanted: ["down"]}`."""
    groups = (f"{name}: {json.dumps(list(texts), ensure_ascii=False)}" for name, texts in labels.items())
    return f"{{{', '.join(groups)}}}"


def counted(words: Counter[str], n: int = 6) -> str:
    """List the commonest words with their counts, for a message."""
    most = words.most_common(n)
    shown = [f"{json.dumps(text[:40], ensure_ascii=False)} ({count:,})" for text, count in most]
    return ", ".join(shown) + (", ..." if len(words) > n else "")
