"""Name the format of a source's rows: one pass over all of them, nothing held, no guess between two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dpo_cli.data import formats
from dpo_cli.data.formats import strings
from dpo_cli.data.formats._base import SIDE_COLUMNS, Format, Row, SkipRow, is_label
from dpo_cli.data.formats.winner import WORDS
from dpo_cli.data.rows import PlacedRow
from dpo_cli.data.words import (
    MEANINGS,
    UnknownWord,
    Words,
    counted,
    guess_labels,
    guess_winner,
    read_labels,
    told,
    word,
)
from dpo_cli.errors import DataError, RecipeError

if TYPE_CHECKING:
    from dpo_cli.recipe.schema import Source

MANY = 256
"""Different words of a column that are told apart; a column with more holds no words."""
MEDIA_COLUMNS = ("image", "images", "video", "videos", "audio", "audios")


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


@dataclass(frozen=True)
class Reading:
    """How a source's rows become what its format reads."""

    format: Format
    is_certain: bool
    """Whether the recipe names the format, or rows fit it."""
    columns: Mapping[str, str]
    words: Words

    def read(self, row: Row) -> Row:
        """Give a row in the format's own column names and words.

        Raises:
            UnknownWord: `labels` do not name its word.
            SkipRow: its word means that it states nothing.
        """
        return self.words.read(with_names(row, self.columns))


def detect(rows: Iterable[PlacedRow], source: Source, key: str) -> tuple[Scan, Reading] | None:
    """Give what the rows show and how to read them; None where there are none.

    Args:
        rows: rows as the files hold them.
        source: its `format`, `columns` and `labels` are honoured.
        key: the source's place in the recipe, for messages.

    Raises:
        DataError: a column is missing everywhere, a word is unknown, no format or several fit, or rows hold more than text.
        RecipeError: an unknown format, or a `columns` or `labels` key that means nothing.
    """
    check_names(source.columns, key)
    words = read_labels(source.labels, key)
    scan = _scan(rows, source, words)
    if not scan.n:
        return None
    for name, column in source.columns.items():
        if column not in scan.columns:
            what = f'no "{column}"; found {sorted(scan.columns)}'
            raise DataError.of(scan.first, what, f"{key}.columns.{name}=<name>")
    _check_words(scan, source, key)
    present = scan.columns | set(source.columns)
    layout = formats.get(source.format) if source.format != "auto" else _choose(scan.shapes, present, key)
    if missing := [column for column in layout.columns if column not in present]:
        names = ", ".join(f'"{column}"' for column in missing)
        fix = " ".join(f"{key}.columns.{column}=<name>" for column in missing)
        what = f"no {names}; found {sorted(scan.columns)}"
        raise DataError.of(scan.first, what, f"{fix}, or `dpo init`, which knows other names")
    _check_own_words(scan, layout, source, key)
    is_certain = source.format != "auto" or any(scan.shapes.keys() - {()})
    return scan, Reading(layout, is_certain, source.columns, words)


def with_names(row: Row, columns: Mapping[str, str]) -> Row:
    """Give a row with the names of `columns` beside its own."""
    if not columns:
        return row
    return {**row, **{name: row[column] for name, column in columns.items() if column in row}}


def check_names(columns: Mapping[str, str], key: str) -> None:
    """Check that formats know every name that `columns` maps.

    Raises:
        RecipeError: an unknown name.
    """
    known = {
        *SIDE_COLUMNS,
        *(column for name in formats.names() for column in formats.get(name).columns),
    }
    if unknown := sorted(set(columns) - known):
        raise RecipeError.of(
            f"{key}.columns", f"unknown name '{unknown[0]}'", f"one of: {', '.join(sorted(known))}"
        )


def _scan(rows: Iterable[PlacedRow], source: Source, words: Words) -> Scan:
    known = [formats.get(name) for name in formats.names()] if source.format == "auto" else []
    scan = Scan()
    for values, place in rows:
        scan.first = scan.first or place
        scan.n += 1
        scan.columns |= values.keys()
        _check_media(values, place)
        row = with_names(values, source.columns)
        try:
            row = words.read(row)
        except UnknownWord as unknown:
            scan.first_unknown = scan.first_unknown or place
            _count(scan.unknown, str(unknown))
            continue
        except SkipRow:
            continue
        scan.shapes[tuple(layout.name for layout in known if layout.matches(row))] += 1
        for column in scan.words:
            if column in row and _is_own_word(column, row[column]):
                scan.has_own_words.add(column)
            elif column in row:
                _count(scan.words[column], word(row[column]))
    return scan


def _count(words: Counter[str], text: str) -> None:
    text = text[:80]
    if text in words or len(words) <= MANY:
        words[text] += 1


def _is_own_word(column: str, value: object) -> bool:
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
        scan.first_unknown, what, f'{key}.labels.{name}=["{next(iter(scan.unknown))}"], or mend them'
    )


def _check_own_words(scan: Scan, layout: Format, source: Source, key: str) -> None:
    """Refuse a column of words that no `labels` translate: one line that names the key, not one for each row."""
    column = next((column for column in MEANINGS if column in layout.columns), None)
    if column is None or source.labels or column in scan.has_own_words:
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
        scan.first, f'"{column}" holds {counted(words)}, not {own}', f"{key}.labels={told(labels)}"
    )


def _choose(counts: Counter[tuple[str, ...]], present: set[str], key: str) -> Format:
    fitting = sorted({name for shape in counts for name in shape})
    if len(fitting) == 1:
        return formats.get(fitting[0])
    if not fitting:
        known = [formats.get(name) for name in formats.names()]
        near = [layout for layout in known if present & set(layout.columns)] or [strings.FORMAT]
        # The layout that lacks the fewest columns is the one to name; one that is complete says what its rows break.
        return min(near, key=lambda f: (len(set(f.columns) - present), -len(f.columns), not f.is_text))
    shapes = ", ".join(f"{'/'.join(shape) or 'none'}: {n} rows" for shape, n in counts.most_common())
    is_unclear = any(len(shape) > 1 for shape in counts)
    what = "rows fit more than one format" if is_unclear else "rows of more than one layout"
    raise DataError.of(
        f"{key}.format", f"{what} ({shapes})", f"{key}.format={fitting[0]}, or one source a layout"
    )
