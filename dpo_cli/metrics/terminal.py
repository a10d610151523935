"""The one console for people, on stderr: a bar inside a live view nests only on the same console."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console


class _Stderr:
    """Today's `sys.stderr`, where a closed pipe or a hung-up terminal costs text and nothing else."""

    def write(self, text: str) -> int:
        try:
            return _target().write(text)
        except (OSError, ValueError):  # broken pipe; ValueError: closed file
            return len(text)

    def flush(self) -> None:
        try:
            _target().flush()
        except (OSError, ValueError):
            return

    def isatty(self) -> bool:
        return not _target().closed and _target().isatty()

    def fileno(self) -> int:
        return _target().fileno()

    @property
    def encoding(self) -> str:
        return _target().encoding or "utf-8"


def _target() -> TextIO:
    from rich.file_proxy import FileProxy

    # A live view puts a proxy there that prints through this console: writing to it would go in circles.
    shown = sys.stderr.rich_proxied_file if isinstance(sys.stderr, FileProxy) else sys.stderr
    return cast("TextIO", shown)


@functools.cache
def console() -> Console:
    """Return the console on stderr; it honours NO_COLOR, TERM=dumb and COLUMNS."""
    from rich.console import Console

    return Console(file=cast("TextIO", _Stderr()), highlight=False, markup=False, emoji=False)


def is_live(console: Console) -> bool:
    """Return whether things can be redrawn in place: a terminal, not dumb, that shows more than ASCII."""
    return console.is_interactive and not console.options.ascii_only


def say(console: Console, line: str) -> None:
    """Print a line as it is, unwrapped and without markup: names from data may hold brackets."""
    console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)
