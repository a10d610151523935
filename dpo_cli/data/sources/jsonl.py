"""Read JSON lines and JSON arrays, plain or gzipped, in bounded memory; errors name line and column."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dpo_cli.data.sources import json_array
from dpo_cli.data.sources.lines import BOM, opened, text_lines
from dpo_cli.data.sources.placed_rows import PlacedRow, Problems
from dpo_cli.errors import DataError

ESCAPED = re.compile(r"\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})")
"""Escapes that may stand for NUL or for half of a surrogate pair."""
BROKEN = re.compile("[\0\ud800-\udfff]")


def read(path: Path, problems: Problems) -> Iterator[PlacedRow]:
    """Return the rows of a file; lines that cannot be read go to `problems`. Blank lines, BOM and CRLF are fine.

    A file that starts with "[" is read as an array, whatever its name: no row of JSON lines starts so.

    Raises:
        DataError: a line or an element above 32 MiB, a byte that is not UTF-8, a damaged gzip file.
    """
    with opened(path) as file:
        read_file = json_array.elements if _start(file).startswith(b"[") else _lines
        for value, place, raw in read_file(file, path, problems):
            if _is_object(value, place, problems) and _is_clean(value, raw, place, problems):
                yield PlacedRow(value, place)


def _start(file: IO[bytes]) -> bytes:
    start = file.read(64 * 1024).removeprefix(BOM).lstrip()
    file.seek(0)
    return start


def _lines(file: IO[bytes], path: Path, problems: Problems) -> Iterator[tuple[Any, str, str]]:
    for number, text in text_lines(file, path, problems):
        place = f"{path}:{number}"
        if not text.strip():
            continue
        try:
            yield json.loads(text), place, text
        except json.JSONDecodeError as error:
            if number == 1 and text.strip() == "{" and ".json" in path.suffixes:
                what = "one JSON object over many lines"
                raise DataError.of(place, what, "an array of rows, or one object a line") from error
            problems.add(f"{place}:{error.colno}", f"invalid JSON: {error.msg}")
        except RecursionError:
            problems.add(place, "invalid JSON: nested too deeply")


def _is_object(value: object, place: str, problems: Problems) -> bool:
    if not isinstance(value, dict):
        problems.add(place, f"expected a JSON object, found {type(value).__name__}")
    return isinstance(value, dict)


def _is_clean(value: dict[str, Any], raw: str, place: str, problems: Problems) -> bool:
    """Refuse strings with NUL or half a surrogate pair: no tokenizer takes them. Only escapes can bring them in."""
    escape = ESCAPED.search(raw)
    if escape is None or not any(BROKEN.search(string) for string in _strings(value)):
        return True
    byte = len(raw[: escape.start()].encode()) + 1
    problems.add(f"{place}, byte {byte}", "a NUL or a lone surrogate (\\u escape)", "remove it")
    return False


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *_strings(item))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
