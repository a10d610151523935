"""More than one way to read a file: what must be chosen between, what each would make of the same row, and the line to paste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpo_cli.errors import DataError, Problem


@dataclass(frozen=True)
class Option:
    """One reading that is offered."""

    means: str
    """What is taken for what."""
    shown: str
    """What it makes of a row; empty where there is nothing to show."""
    command: str
    """The whole line that chooses it; it was checked on all rows."""


class Question(DataError):
    """The rows can be read in several ways, or in one that is not certain."""

    def __init__(self, where: str, what: str, options: Sequence[Option]) -> None:
        """Take the place, what is not certain, and the readings."""
        self.options = tuple(options)
        fix = "paste the line that is right" if len(options) > 1 else "paste this line if it is right"
        fix = f"{fix}: " + " OR ".join(option.command for option in options)
        super().__init__([Problem(where, what, fix)])
        self._where, self._what = where, what

    def lines(self) -> list[str]:
        """Return the question and, for each reading, what it means, what it makes of a row and the line to paste; in one line where there is one."""
        start = f"dpo: error[{self.code}] {self._where}: {self._what}"
        if len(self.options) == 1:
            (option,) = self.options
            seen = f" ({option.shown})" if option.shown else ""
            return [f"{start}{seen}. Fix: paste this line if it is right: {option.command}"]
        lines = [f"{start}. Fix: paste the line that is right"]
        for option in self.options:
            lines.append(f"  {option.means}" + (f": {option.shown}" if option.shown else ""))
            lines.append(f"    {option.command}")
        return lines
