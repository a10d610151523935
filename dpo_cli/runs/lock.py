"""One process a run folder: the lock is the kernel's, so that one of a process that died is free."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpo_cli.errors import StorageError

FILE_NAME = "run.lock"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Make a run folder, if there is none, and keep it to this process; on a file system without locks, nothing is kept.

    Raises:
        StorageError: another process has it, or it cannot be written.
    """
    try:
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(run_dir / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError.of(
            str(run_dir), f"cannot be written: {error.strerror}", "train.output_dir=<a folder>"
        ) from None
    try:
        _take(handle, run_dir)
        yield
    finally:
        os.close(handle)


def _take(handle: int, run_dir: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return
        owner = os.read(handle, 500).decode(errors="replace").strip() or "another process"
        fix = "wait for it or stop it; train.resume=never starts another run beside it"
        raise StorageError.of(str(run_dir), f"in use by {owner}", fix) from None
    os.ftruncate(handle, 0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.pwrite(handle, f"{socket.gethostname()}:{os.getpid()} since {since}\n".encode(), 0)
