"""Texts of data and models on a page: nothing in them is markup, and nothing moves what stands beside them."""

from __future__ import annotations

import html

BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c")
"""Marks that turn the order of what follows them."""


def plain(text: object) -> str:
    r"""Return text in which control characters, marks of direction and halves of characters are spelled (`\x1b`); lines stay lines."""
    return "".join(letter if _is_plain(letter) else repr(letter)[1:-1] for letter in str(text))


def _is_plain(letter: str) -> bool:
    if letter in "\n\t":
        return True
    code = ord(letter)
    return not (code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000 or letter in BIDI)


def short(text: object, most: int) -> str:
    """Return text of at most so many characters, on one line, an ellipsis where something is missing."""
    line = " ".join(plain(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def escaped(text: object) -> str:
    """Return text for markup."""
    return html.escape(plain(text), quote=True)
