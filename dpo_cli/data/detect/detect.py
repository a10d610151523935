"""Name the format of a source's rows: one pass over all of them, nothing held, no guess between two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dpo_cli.data import formats
from dpo_cli.data.detect.columns.profile import Look
from dpo_cli.data.detect.label_words import (
    MEANINGS,
    UnknownWord,
    counted,
    guess_labels,
    guess_winner,
    read_labels,
    spelled,
    word,
)
from dpo_cli.data.detect.reading import Reading, check_names, named_fields
from dpo_cli.data.formats._base import Format, Row, SkipRow, is_label
from dpo_cli.data.formats.pairs import FORMAT as PAIRS
from dpo_cli.data.formats.winner import WORDS
from dpo_cli.data.sources.placed_rows import PlacedRow
from dpo_cli.data.tokenize.turns import is_spelled
from dpo_cli.errors import DataError

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source

MANY = 256
"""Different words of a column that are distinguished; a column with more holds no words."""
MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")
TEXTS = ("prompt", "chosen", "rejected", "answer_a", "answer_b", "completion", "text")
"""Names of a format whose columns hold text or messages."""
SPELLED = 0.9
"""Share of a column's texts that are JSON lists or objects from which on it is taken for JSON spelled as text."""


@dataclass
class Scan:
    """What one pass over a source's rows shows."""

    n: int = 0
    first: str = ""
    """Place of the first row."""
    columns: set[str] = field(default_factory=set)
    shapes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Rows by the formats that fit them."""
    words: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in MEANINGS})
    """What the label and the winner column hold, where that is no format's own word."""
    has_own_words: set[str] = field(default_factory=set)
    """Of these columns those with at least one word that a format takes as it is."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Words that `labels` do not name."""
    first_unknown: str = ""
    nulls: Counter[str] = field(default_factory=Counter)
    """Rows in which a name of a format is null."""
    first_null: dict[str, str] = field(default_factory=dict)
    look: Look = field(default_factory=Look)
    """What the columns hold."""
    texts: Counter[str] = field(default_factory=Counter)
    """Rows in which a name of a format is text."""
    spelled: Counter[str] = field(default_factory=Counter)
    """Of these, rows in which the text is a JSON list or object."""


def detect(rows: Iterable[PlacedRow], source: Source, key: str) -> tuple[Scan, Reading] | None:
    """Return what the rows show and how to read them; None where there are none.

    Args:
        rows: rows as the files hold them, gathered where the source says so.
        source: its `format`, `columns`, `labels` and `better` are honoured.
        key: the source's place in the recipe, for messages.

    Raises:
        DataError: a column is missing everywhere, a word is unknown, no format or several fit, JSON spelled as text, or rows
            hold more than text.
        RecipeError: an unknown format, or a `columns` or `labels` key that means nothing.
    """
    check_names(source.columns, key)
    words = read_labels(source.labels, key)
    columns, unread = ({}, frozenset[str]()) if source.gather != "rows" else named_fields(source)
    plain = Reading(PAIRS, False, columns, words, source.better == "lower", unread)
    scan = _scan(rows, source, plain)
    if not scan.n:
        return None
    for name, each in columns.items():
        if missing := [column for column in each.columns if column not in scan.columns]:
            what = f'no "{missing[0]}"; found {sorted(scan.columns)}'
            raise DataError.of(scan.first, what, f"{key}.columns.{name}=<name>")
    _check_words(scan, source, key)
    present = (scan.columns | set(columns)) - unread
    if source.format != "auto":
        layout = formats.get(source.format)
    elif source.gather != "rows":
        layout = formats.get("ratings")
    else:
        layout = _choose(scan.shapes, present, key)
    needed = [name for name in layout.columns if name != "winner" or "wins_a" not in present]
    if missing := [column for column in needed if column not in present]:
        names = ", ".join(f'"{column}"' for column in missing)
        fix = " ".join(f"{key}.columns.{column}=<name>" for column in missing)
        what = f"no {names}; found {sorted(scan.columns)}"
        raise DataError.of(scan.first, what, f"{fix}, or `dpo init`, which knows other names")
    if "name_a" not in present:
        _check_own_words(scan, layout, source, key)
    if source.format == "auto" and layout.name == "ranking" and "best" not in present:
        what = "nothing says whether the first of the completions is the best"
        raise DataError.of(scan.first, what, f"{key}.format=ranking if it is")
    is_certain = source.format != "auto" or any(scan.shapes.keys() - {()})
    reading = Reading(layout, is_certain, columns, words, source.better == "lower", unread)
    _check_spelled(scan, reading, source, key)
    return scan, reading


def _scan(rows: Iterable[PlacedRow], source: Source, plain: Reading) -> Scan:
    known = [formats.get(name) for name in formats.names()] if source.format == "auto" else []
    scan = Scan()
    for values, place in rows:
        scan.first = scan.first or place
        scan.n += 1
        scan.columns |= values.keys()
        scan.look.add(values)
        _check_media(values, place)
        try:
            row = plain.read(values)
        except UnknownWord as unknown:
            scan.first_unknown = scan.first_unknown or place
            _count(scan.unknown, str(unknown))
            continue
        except SkipRow:
            continue
        scan.shapes[tuple(layout.name for layout in known if layout.matches(row))] += 1
        _look_at(scan, row, place)
    return scan


def _look_at(scan: Scan, row: Row, place: str) -> None:
    for column in scan.words:
        if column in row and _is_own_word(column, row[column]):
            scan.has_own_words.add(column)
        elif column in row:
            _count(scan.words[column], word(row[column]))
    for name in TEXTS:
        value = row.get(name)
        if isinstance(value, str):
            scan.texts[name] += 1
            scan.spelled[name] += is_spelled(value)
        elif value is None and name in row:
            scan.nulls[name] += 1
            scan.first_null.setdefault(name, place)


def _count(words: Counter[str], text: str) -> None:
    text = text[:80]
    if text in words or len(words) <= MANY:
        words[text] += 1


def _is_own_word(column: str, value: object) -> bool:
    if isinstance(value, list):
        return all(each in WORDS for each in value)
    return is_label(value) if column == "label" else value in WORDS


def _check_media(row: Row, place: str) -> None:
    if found := next((column for column in MEDIA_COLUMNS if row.get(column)), None):
        raise DataError.of(place, f'"{found}" is not empty: only text is trained on', "rows without it")


def _check_words(scan: Scan, source: Source, key: str) -> None:
    if not scan.unknown:
        return
    what = f"words that {key}.labels does not name: {counted(scan.unknown)}"
    name = "tie" if source.labels.keys() <= MEANINGS["winner"].keys() else "neither"
    raise DataError.of(
        scan.first_unknown, what, f'{key}.labels.{name}=["{next(iter(scan.unknown))}"], or fix them'
    )


def _check_own_words(scan: Scan, layout: Format, source: Source, key: str) -> None:
    """Refuse a column of words that no `labels` translate: one line that names the key, not one for each row."""
    column = next((column for column in MEANINGS if column in layout.columns), None)
    if column is None or source.labels or column in scan.has_own_words or not scan.words[column]:
        return
    words = scan.words[column]
    if column == "label":
        labels, unknown = guess_labels(words)
        own = "true or false"
    else:
        names = (source.columns.get("answer_a", "answer_a"), source.columns.get("answer_b", "answer_b"))
        labels, unknown = guess_winner(words, names)
        own = "a, b or tie"
    for text in unknown:
        labels.setdefault("...", []).append(text)
    raise DataError.of(
        scan.first, f'"{column}" holds {counted(words)}, not {own}', f"{key}.labels={spelled(labels)}"
    )


def _check_spelled(scan: Scan, reading: Reading, source: Source, key: str) -> None:
    """Refuse columns that hold JSON as text: trained on as it is, the answers would be brackets and quotes."""
    for name in (*reading.format.columns, *reading.format.optional):
        own = reading.columns[name].text if name in reading.columns else name
        if own.startswith(("json(", "text(")) or not scan.texts[name]:
            continue
        if scan.spelled[name] >= SPELLED * scan.texts[name]:
            what = f'{scan.spelled[name]:,} of {scan.n:,} rows have a JSON list or object, spelled as text, in "{own}"'
            fix = f"{key}.columns.{name}='json({own})' to read it, 'text({own})' if it is the answer as it should be"
            raise DataError.of(scan.first, what, fix)


def _choose(counts: Counter[tuple[str, ...]], present: set[str], key: str) -> Format:
    fitting = sorted({name for shape in counts for name in shape})
    if len(fitting) == 1:
        return formats.get(fitting[0])
    if not fitting:
        known = [formats.get(name) for name in formats.names()]
        near = [layout for layout in known if present & set(layout.columns)] or [PAIRS]
        # The layout that lacks the fewest columns is the one to name; one that is complete says what its rows break.
        return min(near, key=lambda f: (len(set(f.columns) - present), -len(f.columns), not f.is_text))
    shapes = ", ".join(f"{'/'.join(shape) or 'none'}: {n} rows" for shape, n in counts.most_common())
    is_unclear = any(len(shape) > 1 for shape in counts)
    what = "rows fit more than one format" if is_unclear else "rows of more than one layout"
    raise DataError.of(
        f"{key}.format", f"{what} ({shapes})", f"{key}.format={fitting[0]}, or one source a layout"
    )
