"""How a run that did not finish ends: `status.json` says what a launcher's exit code hides, the user gets the command that goes on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from dpo_cli.engine.rank_agreement import cause, leave_words
from dpo_cli.engine.runtime import Runtime
from dpo_cli.errors import Stopped, UserError
from dpo_cli.metrics.scrub import scrub
from dpo_cli.recipe.load import Loaded
from dpo_cli.runs.folder import Folder, put_back
from dpo_cli.runs.status import Status
from dpo_cli.train.signals import Signals


@contextmanager
def recorded(
    runtime: Runtime, folder: Folder, loaded: Loaded, command: str, signals: Signals
) -> Iterator[None]:
    """Write to the run's status how the block ended, if not well, before anything else is closed: a tracker may take a minute."""
    status = folder.status
    going_on = resume_command(loaded, folder, command)
    if runtime.is_main:
        signals.last_words = lambda: _write(status, "stopped", 130, "SIGINT twice", going_on)
    try:
        yield
    except BaseException as error:
        signals.is_leaving = True
        if isinstance(error, Stopped) and status.state == "finished":
            if runtime.is_main:
                status.write()  # it came too late to stop anything but the writing of this
            return
        if not runtime.is_main:
            leave_words(folder.path, runtime.rank, error)
            raise
        lost = cause(folder.path, error) if runtime.world > 1 else None
        _record(status, lost or error, going_on, runtime.world)
        put_back(folder)
        if lost is not None:
            raise lost from error
        raise


def resume_command(loaded: Loaded, folder: Folder, command: str) -> str:
    """Return the command that continues the run: the same one, unless that starts another run each time."""
    if loaded.recipe.train.resume != "never":
        return command
    words = [word for word in shlex.split(command) if not word.startswith("train.resume=")]
    return shlex.join([*words, f"train.resume={folder.path}"])


def _record(status: Status, error: BaseException, going_on: str, world: int) -> None:
    if isinstance(error, Stopped):
        _write(status, "stopped", Stopped.code, _stopped(status, error), going_on)
        launcher = ", under the same launcher" if world > 1 else ""
        error.message = f"{status.run_dir}: {status.message}. Continue{launcher}: {going_on}"
        return
    is_interrupt = isinstance(error, KeyboardInterrupt)
    code = error.code if isinstance(error, UserError) else 130 if is_interrupt else 1
    message = str(error) or type(error).__name__
    _write(
        status, "stopped" if is_interrupt else "failed", code, message, going_on if status.resumable else ""
    )


def _stopped(status: Status, error: Stopped) -> str:
    if not status.steps:
        return f"{error.by} while it was starting"
    saved = "saved" if status.resumable else "nothing was saved yet"
    return f"{error.by} after step {status.step} of {status.steps}, {saved}"


def _write(status: Status, state: str, code: int, message: str, resume: str) -> None:
    status.state, status.code, status.message, status.resume = state, code, scrub(message), resume  # type: ignore[assignment]
    status.write()
