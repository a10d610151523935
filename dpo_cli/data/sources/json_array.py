"""The elements of a JSON array one by one, in bounded memory, each with its line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dpo_cli.data.sources import lines
from dpo_cli.data.sources.placed_rows import Problems

CHUNK_BYTES = 1024 * 1024
SPACES = tuple(" \t\r\n")
DECODER = json.JSONDecoder()


def elements(file: IO[bytes], path: Path, problems: Problems) -> Iterator[tuple[Any, str, str]]:
    """Return each element of a file that holds one array: value, `file:line`, and its text.

    The first syntax error goes to `problems` and ends the file: what comes after it cannot be parsed.

    Raises:
        DataError: a byte that is not UTF-8.
    """
    window = _Window(file, path)
    try:
        window.expect("[", "Expecting an array")
        is_first = True
        while window.next_char() != "]":
            if not is_first:
                window.expect(",", "Expecting ',' delimiter")
            is_first = False
            yield window.value()
        window.expect("]", "Expecting ',' delimiter")
        if window.next_char():
            raise _Broken(window.place, "Extra data")
    except _Broken as error:
        problems.add(error.place, f"invalid JSON: {error.what}")


class _Broken(Exception):
    """The text is no JSON from here on."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(what)
        self.place, self.what = place, what


class _Window:
    """The part of a file that is being parsed, and the line and column at which the rest of it starts."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text, self._at, self._has_ended = "", 0, False
        self._line, self._column = 1, 1

    @property
    def place(self) -> str:
        """`file:line:column` of what comes next."""
        return f"{self._path}:{self._line}:{self._column}"

    def next_char(self) -> str:
        """Skip white space and give the next character, or nothing at the end."""
        while True:
            while self._text[self._at : self._at + 1] in SPACES:
                self._step(1)
            if self._at < len(self._text) or not self._grow():
                return self._text[self._at : self._at + 1]

    def expect(self, char: str, what: str) -> None:
        """Step over a character."""
        if self.next_char() != char:
            raise _Broken(self.place, what)
        self._step(1)

    def value(self) -> tuple[Any, str, str]:
        """Return the next value with its line and its text; read on until it is whole."""
        self.next_char()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
                length = end - self._at
            except json.JSONDecodeError as error:
                length = error.pos - self._at
                # It may only be cut; one above the limit counts as broken, so that memory stays bounded.
                if len(self._text) - self._at > lines.MAX_LINE_BYTES or not self._grow():
                    self._step(length)
                    raise _Broken(self.place, error.msg) from error
            except RecursionError:
                raise _Broken(self.place, "nested too deeply") from None
            else:
                # A number that reaches the end may go on.
                if self._at + length < len(self._text) or not self._grow():
                    place, text = f"{self._path}:{self._line}", self._text[self._at : self._at + length]
                    self._step(length)
                    return value, place, text

    def _step(self, length: int) -> None:
        end = self._at + length
        if breaks := self._text.count("\n", self._at, end):
            self._line += breaks
            self._column = end - self._text.rfind("\n", self._at, end)
        else:
            self._column += length
        self._at = end

    def _grow(self) -> bool:
        """Drop what is parsed and read as much again as is left, at least a chunk; say whether there was more."""
        if self._has_ended:
            return False
        self._text, self._at = self._text[self._at :], 0
        raw = self._file.read(max(CHUNK_BYTES, len(self._text)))
        self._has_ended = not raw
        try:
            self._text += self._decode(raw, self._has_ended)
        except UnicodeDecodeError as error:
            start = error.object.rfind(b"\n", 0, error.start) + 1
            line = self._line + self._text.count("\n") + error.object.count(b"\n", 0, start)
            raise lines.not_utf8(f"{self._path}:{line}", error.object[start:], error.start - start) from error
        return not self._has_ended
