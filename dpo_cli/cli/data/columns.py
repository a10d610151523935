"""A table for terminals of any width: what does not fit stands under its row."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

GAP = "  "


def width() -> int | None:
    """Return the columns of the terminal, or what COLUMNS says; None where a file or a pipe takes any line."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return None


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], columns: int | None
) -> list[str]:
    """Return the lines of a table with a note under each row.

    Args:
        heads: a name for each column, the most important first.
        rows: as many cells each.
        notes: one for each row.
        columns: what a line may hold; columns that do not fit go before the note, the last ones first.
    """
    sizes = [max(map(len, cells)) for cells in zip(heads, *rows, strict=True)]
    n = len(heads)
    while n > 1 and columns is not None and sum(sizes[:n]) + len(GAP) * (n - 1) > columns:
        n -= 1
    lines = [_line(heads[:n], sizes)]
    for row, note in zip(rows, notes, strict=True):
        lines += [_line(row[:n], sizes), *wrapped("; ".join([*row[n:], note]), columns, GAP)]
    return lines


def wrapped(text: str, columns: int | None, indent: str = "") -> list[str]:
    """Return text as lines that fit, broken between words only: names and commands stay whole."""
    if columns is None:
        return [f"{indent}{text}"]
    return textwrap.wrap(
        text,
        max(columns, 20),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _line(cells: Sequence[str], sizes: Sequence[int]) -> str:
    return GAP.join(f"{cell:<{size}}" for cell, size in zip(cells, sizes, strict=False)).rstrip()
