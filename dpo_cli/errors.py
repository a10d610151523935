"""What a user did that cannot work, with the place, the fix and the exit code.

A `UserError` is printed as one line a problem, without a traceback. Our own mistakes are plain exceptions: they crash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the place (`file:line`, a key, a path), what is wrong with which value, and the fix."""

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f". Fix: {self.fix}" if self.fix else "")


class UserError(Exception):
    """Problems that the user can fix; `code` is the process's exit code.

    Raise a subclass with everything that is wrong at once: `RecipeError.of(where, what, fix)` or `RecipeError(problems)`.
    """

    code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        assert self.problems, "a UserError names at least one problem"
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def of(cls, where: str, what: str, fix: str = "") -> UserError:
        """Build the error for a single problem."""
        return cls([Problem(where, what, fix)])

    def lines(self) -> list[str]:
        """Return the text for stderr, one line a problem."""
        return [f"dpo: error[{self.code}] {problem}" for problem in self.problems]


class RecipeError(UserError):
    """Wrong usage, recipe or override."""

    code = 2


class DataError(UserError):
    """A data file or row that cannot be used."""

    code = 3


class ModelError(UserError):
    """A model or tokenizer that cannot be used."""

    code = 4


class StorageError(UserError):
    """A run folder, checkpoint, cache or disk that cannot be used."""

    code = 5


class NumericsError(UserError):
    """A loss, gradient or log-probability that is not finite, or a self-test that failed."""

    code = 6


class OutOfMemoryError(UserError):
    """Not enough memory for a micro-batch."""

    code = 7


class DistributedError(UserError):
    """Processes that do not form the group that the launch promised."""

    code = 8


class Stopped(BaseException):
    """A process that was asked to stop by a signal, and that the same command continues.

    Not an `Exception`: like `KeyboardInterrupt`, it passes whoever catches what a service or a row did wrong.
    """

    code = 75

    def __init__(self, by: str, message: str = "") -> None:
        """Return which signal it was (`SIGTERM`) and what became of the work, in one line."""
        self.by = by
        self.message = message
        super().__init__(message or f"stopped by {by}")
