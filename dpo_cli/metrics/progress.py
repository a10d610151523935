"""Progress of what takes more than two seconds: a bar on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from dpo_cli.metrics import terminal

if TYPE_CHECKING:
    from rich.console import Console

QUIET_S = 2.0
"""What takes less is not worth a line."""
LINE_EVERY_S = 5.0


@contextmanager
def progress(
    label: str,
    total: int | None = None,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr while the block runs; call what it gives with the amount newly done.

    Args:
        label: what is done, such as `reference log-probs`.
        total: how much there is; None: unknown, only the time is shown.
        console: for tests.
        clock: for tests, seconds.
    """
    console = console or terminal.console()
    began = clock()
    if terminal.is_live(console):
        with _bar(label, total, console, clock) as advance:
            yield advance
    else:
        yield _lines(label, total, console, clock)
    if (seconds := clock() - began) > QUIET_S:
        count = "" if total is None else f" {total:,} in"
        terminal.say(console, f"{label}:{count} {duration(seconds)}")


def duration(seconds: float) -> str:
    """Return `h:mm:ss`."""
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def _bar(
    label: str, total: int | None, console: Console, clock: Callable[[], float]
) -> Iterator[Callable[[int], None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    rate = TextColumn("{task.fields[rate]}", markup=False)
    amount = [] if total is None else [MofNCompleteColumn(), rate]
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), *amount, TimeElapsedColumn()]
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, refresh_per_second=4
    ) as bar:
        task, done, began = bar.add_task(label, total=total, rate=""), 0, clock()

        def advance(amount: int) -> None:
            nonlocal done
            done += amount
            bar.update(task, completed=done, rate=_rate(done, clock() - began))

        yield advance


def _lines(
    label: str, total: int | None, console: Console, clock: Callable[[], float]
) -> Callable[[int], None]:
    done, began = 0, clock()
    next_line = began + LINE_EVERY_S

    def advance(amount: int) -> None:
        nonlocal done, next_line
        done += amount
        now = clock()
        if now < next_line:
            return
        next_line = now + LINE_EVERY_S
        if total is None:
            terminal.say(console, f"{label}: {done:,} after {duration(now - began)}")
            return
        eta = duration((now - began) / done * (total - done)) if done else "?"
        terminal.say(console, f"{label}: {done:,}/{total:,} {_rate(done, now - began)} eta={eta}")

    return advance


def _rate(done: int, seconds: float) -> str:
    return f"{done / seconds:.3g}/s" if seconds > 0 else ""
