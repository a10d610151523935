"""Read CSV and TSV with a header line, plain or gzipped, in bounded memory; a row is named by the line it starts on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpo_cli.data.sources import lines
from dpo_cli.data.sources.lines import Line, opened, text_lines
from dpo_cli.data.sources.placed_rows import PlacedRow, Problems
from dpo_cli.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
QUOTING_FIX = 'put text that holds separators, quotes or line ends in "..." and double each " in it'


def read(path: Path, problems: Problems) -> Iterator[PlacedRow]:
    """Return the rows of a file, every value as text; a cell that holds JSON messages gives the messages.

    The separator is the one that splits the header into most columns (a tab in .tsv). Columns without a name, such as the index that
    pandas writes, are left out. Quoting is strict: a lax reader would glue rows together.

    Raises:
        DataError: no UTF-8, a quote that is not closed or not doubled, a column name that stands twice, a header that two
            separators split alike, a damaged gzip file.
    """
    with opened(path) as file:
        source = _Lines(text_lines(file, path, problems))
        first = next(source, "")
        if not first.strip():
            return
        separator = _separator(first, path)
        header = _header(first, separator, path)
        yield from _rows(source, separator, header, path, problems)


class _Lines(Iterator[str]):
    """Lines as the csv module takes them, counted: a row may span many."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.number = 0

    def __next__(self) -> str:
        self.number, text = next(self._lines)
        return text


def _rows(
    source: _Lines, separator: str, header: list[str], path: Path, problems: Problems
) -> Iterator[PlacedRow]:
    csv.field_size_limit(lines.MAX_LINE_BYTES)  # where a quote is never closed, this is what bounds memory
    reader = csv.reader(source, delimiter=separator, strict=True)
    uneven, first_uneven, fields = 0, 0, list[str]()
    while True:
        start = source.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            what = f"broken quoting in the row that starts here: {error}"
            raise DataError.of(f"{path}:{start}", what, QUOTING_FIX) from error
        if len(fields) == len(header):
            values = {name: _cell(text) for name, text in zip(header, fields, strict=True) if name}
            yield PlacedRow(values, f"{path}:{start}")
        elif fields:
            first_uneven = first_uneven or start
            uneven += 1
    if uneven:
        others = f", and {uneven - 1:,} more rows like it" if uneven > 1 else ""
        what = f"the row has not as many fields as the header ({len(header)}){others}"
        problems.add(f"{path}:{first_uneven}", what, QUOTING_FIX)


def _separator(header: str, path: Path) -> str:
    if path.name.removesuffix(".gz").endswith(".tsv"):
        return "\t"
    counts = {separator: len(next(csv.reader([header], delimiter=separator))) for separator in SEPARATORS}
    best = [separator for separator, n in counts.items() if n == max(counts.values())]
    if len(best) > 1 and counts[best[0]] > 1:
        separators = " and ".join(repr(separator) for separator in best)
        raise DataError.of(f"{path}:1", f"{separators} split the header alike", 'put column names in "..."')
    return best[0]


def _header(line: str, separator: str, path: Path) -> list[str]:
    try:
        names = [name.strip() for name in next(csv.reader([line], delimiter=separator, strict=True))]
    except csv.Error as error:
        raise DataError.of(f"{path}:1", f"broken quoting in the header: {error}", QUOTING_FIX) from error
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise DataError.of(
            f"{path}:1", f'the column "{twice[0]}" stands twice', "another name for one of them"
        )
    return names


def _cell(text: str) -> Any:
    """Return a cell's text, or the messages that it spells: nothing else could stand for them in a table."""
    if not text.startswith("[{"):
        return text
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return text
    return value if all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in value) else text
