"""The training loop over steps: events between them, and half the token budget, once, where memory runs out."""

from __future__ import annotations

import logging

from dpo_cli.errors import OutOfMemoryError, Problem
from dpo_cli.modeling.oom import KNOB
from dpo_cli.train.loop import bins_of_step, optimizer_step
from dpo_cli.train.probe import release
from dpo_cli.train.state import Run

log = logging.getLogger("dpo_cli")


def fit(run: Run) -> None:
    """Train from `run.step` to the end.

    Raises:
        NumericsError: a loss or gradient was not finite (found at the next log step or checkpoint; the weights never saw it).
        OutOfMemoryError: a micro-batch does not fit, nor with half the token budget.
    """
    while not run.is_over:
        shortage = _try_step(run)
        if shortage is not None:
            _halve_budget(run, shortage)
            optimizer_step(run)
        run.step += 1
        for event in run.events:
            event.after_step(run)


def _try_step(run: Run) -> Problem | None:
    """Do a step; return what did not fit where memory ran out for the first time and smaller micro-batches exist.

    With several ranks the others wait in a collective: the error goes on.
    """
    try:
        optimizer_step(run)
    except OutOfMemoryError as error:
        if run.runtime.world > 1 or run.has_halved or all(len(members) == 1 for members in bins_of_step(run)):
            raise
        return error.problems[0]
    return None


def _halve_budget(run: Run, shortage: Problem) -> None:
    """Halve the token budget, once a run, and drop what the failed step left: no weight and no figure has seen it."""
    release(run.scorer, run.runtime.device)
    run.token_budget, run.has_halved = max(2, run.token_budget // 2), True
    log.warning("%s; going on with %s=%d", shortage, KNOB, run.token_budget)
    if run.resized is not None:
        run.resized(run.token_budget)
