"""Read JSON lines and JSON arrays, plain or gzipped, in bounded memory; errors name line and column."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from dpo_cli.data.rows import PlacedRow, Problems
from dpo_cli.errors import DataError

MAX_LINE_BYTES = 32 * 1024 * 1024
BOM = b"\xef\xbb\xbf"
ESCAPED = re.compile(rb"\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})")
"""Escapes that may stand for NUL or for half of a surrogate pair."""
BROKEN = re.compile("[\0\ud800-\udfff]")


def read(path: Path, problems: Problems) -> Iterator[PlacedRow]:
    """Give the rows of a file; lines that cannot be read go to `problems`. Blank lines, BOM and CRLF are fine.

    Raises:
        DataError: a line above 32 MiB, or a damaged gzip file.
    """
    try:
        with _open(path) as file:
            is_array = path.name.removesuffix(".gz").endswith(".json") and _starts_array(file)
            yield from _array(file, path, problems) if is_array else _lines(file, path, problems)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError.of(str(path), f"damaged gzip file: {error}", "get the file again") from error
    except OSError as error:
        raise DataError.of(str(path), f"cannot be read: {error.strerror}", "check its permissions") from error


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _starts_array(file: IO[bytes]) -> bool:
    start = file.read(64 * 1024).removeprefix(BOM).lstrip()
    file.seek(0)
    return start.startswith(b"[")


def _lines(file: IO[bytes], path: Path, problems: Problems) -> Iterator[PlacedRow]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        place = f"{path}:{number}"
        if len(line) > MAX_LINE_BYTES:
            limit = f"{MAX_LINE_BYTES // 2**20} MiB"
            raise DataError.of(
                place,
                f"the line is longer than {limit}",
                "one JSON object a line; a JSON array ends in .json",
            )
        if number == 1:
            line = line.removeprefix(BOM)
        decoded = _decode(line, place, problems)
        if decoded is None or not decoded.strip():
            continue
        try:
            value = json.loads(decoded)
        except json.JSONDecodeError as error:
            problems.add(f"{place}:{error.colno}", f"invalid JSON: {error.msg}")
        except RecursionError:
            problems.add(place, "invalid JSON: nested too deeply")
        else:
            if _is_object(value, place, problems) and _is_clean(value, line, place, problems):
                yield PlacedRow(value, place)


def _decode(line: bytes, place: str, problems: Problems) -> str | None:
    if (at := line.find(b"\0")) >= 0:
        problems.add(f"{place}, byte {at + 1}", "a NUL byte", "save the file as UTF-8 text")
        return None
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        what = f"not UTF-8: byte 0x{line[error.start]:02x}"
        problems.add(f"{place}, byte {error.start + 1}", what, "save the file as UTF-8 text")
        return None


def _is_object(value: object, place: str, problems: Problems) -> bool:
    if not isinstance(value, dict):
        problems.add(place, f"expected a JSON object, found {type(value).__name__}")
    return isinstance(value, dict)


def _is_clean(value: dict[str, Any], raw: bytes, place: str, problems: Problems) -> bool:
    """Refuse strings with NUL or half a surrogate pair: no tokenizer takes them. Only escapes can bring them in."""
    escape = ESCAPED.search(raw)
    if escape is None or not any(BROKEN.search(string) for string in _strings(value)):
        return True
    problems.add(f"{place}, byte {escape.start() + 1}", "a NUL or a lone surrogate (\\u escape)", "remove it")
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


def _array(file: IO[bytes], path: Path, problems: Problems) -> Iterator[PlacedRow]:
    raw = file.read().removeprefix(BOM)
    text = _decode(raw, str(path), problems)
    if text is None:
        return
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        problems.add(f"{path}:{error.lineno}:{error.colno}", f"invalid JSON: {error.msg}")
        return
    except RecursionError:
        problems.add(str(path), "invalid JSON: nested too deeply")
        return
    line, counted = 1, 0
    for value, start, end in _elements(text):
        line, counted = line + text.count("\n", counted, start), start
        place = f"{path}:{line}"
        if _is_object(value, place, problems) and _is_clean(value, text[start:end].encode(), place, problems):
            yield PlacedRow(value, place)


def _elements(text: str) -> Iterator[tuple[Any, int, int]]:
    """Give each element of a valid JSON array with its first and last position."""
    decoder, at = json.JSONDecoder(), text.index("[") + 1
    while text[start := _next_element(text, at)] != "]":
        value, at = decoder.raw_decode(text, start)
        yield value, start, at


def _next_element(text: str, at: int) -> int:
    while text[at] in " \t\r\n,":
        at += 1
    return at
