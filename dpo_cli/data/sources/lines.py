"""Open data files, plain or gzipped, and give their lines as text: UTF-8 only, in bounded memory."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

from dpo_cli.data.sources.placed_rows import Problems
from dpo_cli.errors import DataError, Problem

MAX_LINE_BYTES = 32 * 1024 * 1024
BOM = b"\xef\xbb\xbf"
OTHER_BOMS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


class Line(NamedTuple):
    """One line, its end included, and its number from 1."""

    number: int
    text: str


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Return a file to read, decompressed where its name ends in .gz.

    Raises:
        DataError: it cannot be read, is damaged, or starts with the mark of another encoding.
    """
    try:
        with cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as file:
            _check_start(file, path)
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError.of(str(path), f"damaged gzip file: {error}", "get the file again") from error
    except OSError as error:
        raise DataError.of(str(path), f"cannot be read: {error.strerror}", "check its permissions") from error


def text_lines(file: IO[bytes], path: Path, problems: Problems) -> Iterator[Line]:
    """Return a file's lines without its byte order mark; a line with a NUL byte goes to `problems`.

    Raises:
        DataError: a line above 32 MiB, or a byte that is not UTF-8. What single-byte encoding a file is in cannot be seen in
            its bytes, so none is guessed; and as one such byte means that the file is not UTF-8, only the first is reported.
    """
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        place = f"{path}:{number}"
        if len(raw) > MAX_LINE_BYTES:
            limit = f"{MAX_LINE_BYTES // 2**20} MiB"
            raise DataError.of(place, f"the line is longer than {limit}", "one row a line")
        if number == 1:
            raw = raw.removeprefix(BOM)
        if (at := raw.find(b"\0")) >= 0:
            problems.add(f"{place}, byte {at + 1}", "a NUL byte", "save the file as UTF-8 text")
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise not_utf8(place, raw, error.start) from error
        yield Line(number, text)


def not_utf8(place: str, raw: bytes, at: int) -> DataError:
    """Build the error for a byte that no UTF-8 text has, with what would convert the file."""
    byte = raw[at : at + 1]
    seen = f" ({byte.decode('cp1252', 'replace')!r} if the file is in Windows-1252)" if byte > b"\x80" else ""
    fix = "save the file as UTF-8, as in `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW`"
    return DataError([Problem(f"{place}, byte {at + 1}", f"not UTF-8: byte 0x{byte.hex()}{seen}", fix)])


def _check_start(file: IO[bytes], path: Path) -> None:
    start = file.read(2)
    file.seek(0)
    if start in OTHER_BOMS:
        name = OTHER_BOMS[start]
        fix = f"save the file as UTF-8, as in `iconv -f {name} -t UTF-8 OLD > NEW`"
        raise DataError.of(str(path), f"the file is {name}, not UTF-8", fix)
