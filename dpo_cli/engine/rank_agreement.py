"""What the processes of a run must have in common, checked before the first step; and why the group ended, where one of them did.

A launcher's exit code is that of whoever died first or was asked to; the reason stands in another node's output. So a rank that fails
leaves a line in the run folder, and the main rank ends with that line in place of "connection closed by peer".
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from dpo_cli import __version__
from dpo_cli.engine.runtime import Runtime
from dpo_cli.errors import DistributedError, Problem, Stopped, StorageError, UserError
from dpo_cli.metrics.scrub import scrub
from dpo_cli.recipe.compare import deciding
from dpo_cli.recipe.schema import Recipe

WORDS = "rank-{}.failed"
TOKEN = ".token"
SEEN_WITHIN_S = 5.0
"""A network filesystem may show a new file that late."""
_LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Timed out waiting")


def facts_of(recipe: Recipe) -> dict[str, str]:
    """Return what every rank must have read alike: versions and the keys that decide a result, the seed among them.

    None of `data`: nodes may keep their copies where they like, and the rows themselves are compared.
    """
    versions = {"dpo-cli": __version__, "torch": torch.__version__}
    keys = {key: str(value) for key, value in deciding(recipe).items() if not key.startswith("data.")}
    return versions | keys


def agree(runtime: Runtime, facts: Mapping[str, str]) -> None:
    """Compare facts over ranks.

    Raises:
        DistributedError: they differ; on every rank alike, a line for each fact.
    """
    of_ranks = runtime.gather([dict(facts)])
    names = dict.fromkeys(name for each in of_ranks for name in each)
    problems = []
    for name in names:
        values = [each.get(name) for each in of_ranks]
        other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            what = f"rank 0 has {values[0]}, rank {other} has {values[other]}"
            problems.append(
                Problem(name, what, "the same recipe, files, environment and packages on every node")
            )
    if problems:
        raise DistributedError(problems)


def check_shared(runtime: Runtime, folder: Path) -> None:
    """See that every rank has the main rank's folder before it, and not one of the same name; what earlier ranks said there is removed.

    Raises:
        StorageError: one has not; on every rank alike.
    """
    if runtime.world == 1:
        return
    token = folder / TOKEN
    written = runtime.from_main(secrets.token_hex(8))
    if runtime.is_main:
        for old in folder.glob(WORDS.format("*")):
            old.unlink(missing_ok=True)
        token.write_text(written)
    runtime.wait()
    blind = [rank for rank, sees in enumerate(runtime.gather([_sees(token, written)])) if not sees]
    if runtime.is_main:
        token.unlink(missing_ok=True)
    if blind:
        ranks = f"rank{'s' if len(blind) > 1 else ''} {', '.join(map(str, blind))}"
        what = f"{ranks} cannot see this folder: it is not on a disk that all nodes share"
        raise StorageError.of(str(folder), what, "train.output_dir=<a folder on a shared disk>")


def leave_words(folder: Path, rank: int, error: BaseException) -> None:
    """Write down why this rank fails, for the main rank to tell; nothing where the group is what failed it."""
    if isinstance(error, Stopped) or is_lost(error):
        return
    message = "; ".join(error.lines()) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    try:
        (folder / WORDS.format(rank)).write_text(scrub(message))
    except OSError:
        return  # a folder that this rank cannot see; its own output has the reason


def is_lost(error: BaseException) -> bool:
    """Return whether an error is that of a group which another rank has left, or does not answer in."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST)


def cause(folder: Path, error: BaseException) -> DistributedError | None:
    """Return why the main rank really ends, where another rank's failure is why; None where the reason is its own.

    Args:
        folder: the run's.
        error: what ends the main rank: a collective that failed, or the launcher's signal to those that are left.
    """
    if not is_lost(error) and not isinstance(error, Stopped):
        return None
    said = sorted(folder.glob(WORDS.format("*")))
    fix = "fix that, then run the same command again"
    problems = [
        Problem(path.stem.replace("-", " "), f"ended the run: {path.read_text()}", fix) for path in said
    ]
    if problems:
        return DistributedError(problems)
    if isinstance(error, Stopped):
        return None
    timed_out = "imed out" in str(error)
    what = (
        "another rank does not answer"
        if timed_out
        else "another rank ended without a word (killed, or out of memory?)"
    )
    first_line = str(error).splitlines()[0][:200]
    return DistributedError([Problem("ranks", f"{what}: {first_line}", "look at the other ranks' output")])


def _sees(token: Path, written: str) -> bool:
    deadline = time.monotonic() + SEEN_WITHIN_S
    while True:
        try:
            os.listdir(token.parent)  # makes NFS look again
            if token.read_text() == written:
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
