"""What a user, a scheduler or a launcher asks of a running process by signal.

SIGTERM, SIGINT and SIGHUP ask to stop: at once where nothing must be finished first, else at the next step boundary. A second SIGINT
leaves without a word to anybody. SIGUSR1 asks for a checkpoint. Does not save or exit itself, but for that second SIGINT.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType

from dpo_cli.errors import Stopped

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SHOW_CURSOR = b"\x1b[?25h"
_PR_SET_PDEATHSIG = 1


class Wish(IntEnum):
    """What is asked for; of several ranks' wishes, or several signals, the highest counts."""

    NONE = 0
    SAVE = 1
    STOP = 2


class Signals:
    """Remembers what was asked. A stop is raised as `Stopped` where it arrives, but inside `held` only kept."""

    def __init__(self) -> None:
        """Start with nothing asked."""
        self.wish = Wish.NONE
        self.by = ""
        """Name of the signal that asked to stop."""
        self.last_words: Callable[[], None] = lambda: None
        """Called before a second SIGINT ends the process; must not wait for anything."""
        self.is_leaving = False
        """Whether the process is on its way out: cleaning up is not to be interrupted, a second SIGINT excepted."""
        self._is_held = False
        self._interrupts = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep a stop until the block ends or asks for `wish` itself; raises `Stopped` after a block that ended well.

        Raises:
            Stopped: one was asked for meanwhile.
        """
        with self._holding(True):
            yield
        self.check()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let a stop interrupt this part of a held block.

        Raises:
            Stopped: one was asked for before or meanwhile.
        """
        with self._holding(False):
            self.check()
            yield

    def check(self) -> None:
        """Raise `Stopped` if that was asked for."""
        if self.wish is Wish.STOP:
            raise Stopped(self.by)

    def served(self) -> None:
        """Forget the wish for a checkpoint, which now exists."""
        if self.wish is Wish.SAVE:
            self.wish = Wish.NONE

    @contextmanager
    def _holding(self, is_held: bool) -> Iterator[None]:
        before, self._is_held = self._is_held, is_held
        try:
            yield
        finally:
            self._is_held = before

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal, between two bytecodes of the main thread."""
        name = signal.Signals(number).name
        if number == signal.SIGUSR1:
            self.wish = max(self.wish, Wish.SAVE)
            return
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                self._leave()
        if self.is_leaving:
            return
        self.wish, self.by = Wish.STOP, self.by or name
        if not self._is_held:
            self.is_leaving = True
            raise Stopped(self.by)
        again = "; once more leaves at once" if number == signal.SIGINT else ""
        _write(f"{name}: finishing this step, then saving{again}\n")

    def _leave(self) -> None:
        """End the process now; what is half written keeps its temporary name."""
        self.last_words()
        if sys.stderr is not None and os.isatty(2):
            _write(_SHOW_CURSOR.decode())
        _write("SIGINT again: left at once, nothing more was saved\n")
        os._exit(128 + signal.SIGINT)


@contextmanager
def listening() -> Iterator[Signals]:
    """Take the signals over while the block runs; outside the main thread, where Python allows none, nothing is taken.

    A process that a launcher started is asked to stop when the launcher dies: it would go on as an orphan.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    if is_launched(os.environ):
        _follow_parent()
    before = {number: signal.getsignal(number) for number in (*STOPPING, signal.SIGUSR1)}
    # nohup and a shell's `trap '' HUP` say that this signal is to be ignored.
    for number in [number for number, handler in before.items() if handler is not signal.SIG_IGN]:
        signal.signal(number, signals.on_signal)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def is_launched(environment: Mapping[str, str]) -> bool:
    """Return whether torchrun or `accelerate launch` started this process: both leave a variable that no user sets."""
    return "LOCAL_RANK" in environment or "ACCELERATE_DYNAMO_BACKEND" in environment


def _follow_parent() -> None:
    """Ask the kernel for a SIGTERM when the parent dies (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _write(text: str) -> None:
    """Write to stderr past Python's buffers, which may be in use where the signal arrived."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
