"""Weights & Biases, on a thread of its own: a slow or dead server costs its curves, not a step.

Sends the recipe and numbers; no code, no command line, no machine facts, no texts. Never asks for a login.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dpo_cli.metrics.scrub import scrub_values
from dpo_cli.metrics.sinks import RunInfo

if TYPE_CHECKING:
    from wandb import Run, Settings

log = logging.getLogger("dpo_cli")

ID_FILE = "wandb-id"
"""In the run folder: a resumed run continues its curves instead of opening new ones."""
DEFAULT_PROJECT = "dpo"
CONNECT_S = 20.0
FINISH_S = 30.0


class WandbSink:
    """Sends values to W&B; what the recipe leaves unset, WANDB_* variables decide."""

    def __init__(
        self,
        project: str = DEFAULT_PROJECT,
        entity: str | None = None,
        mode: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        """Take `log.wandb` of the recipe; WANDB_PROJECT goes before the default project."""
        self._project, self._entity, self._mode, self._tags = project, entity, mode, list(tags)
        self._queue: queue.SimpleQueue[tuple[int, dict[str, float]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_dead = False
        self.offline_dir: str | None = None
        """After `close`: the folder to upload with `wandb sync`; None for an online run."""

    def start(self, info: RunInfo) -> None:
        """Begin to connect; values wait in a queue until then."""
        self._thread = threading.Thread(target=self._work, args=(info,), name="wandb", daemon=True)
        self._thread.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the values of a step."""
        if not self._is_dead:
            self._queue.put((step, dict(values)))

    def close(self) -> None:
        """Send what is queued, for at most `CONNECT_S + FINISH_S` seconds."""
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(CONNECT_S + FINISH_S + 5)
        if self._thread.is_alive():
            log.warning("W&B did not finish in time; metrics.jsonl is complete")

    def _work(self, info: RunInfo) -> None:
        try:
            run = self._open(info)
            while (item := self._queue.get()) is not None:
                step, values = item
                # A value, not wandb's own step: that drops rows below the highest one sent before a resume.
                run.log({**values, "train/global_step": step})
            run.finish()
        except Exception as error:  # a client of a remote service: whatever it raises, training goes on
            self._is_dead = True
            log.warning(
                "W&B stopped (%s: %s); metrics.jsonl goes on", type(error).__name__, _first_line(error)
            )
            _give_up()

    def _open(self, info: RunInfo) -> Run:
        import wandb

        arguments = self._arguments(info)
        settings = _settings()
        try:
            if self._needs_login() and not wandb.login(prompt=False):
                log.warning("W&B has no login (`wandb login`); this run is recorded offline")
                arguments["mode"] = "offline"
            run = wandb.init(**arguments, settings=settings)
        except (wandb.Error, OSError) as error:
            log.warning("W&B cannot be reached (%s); this run is recorded offline", _first_line(error))
            run = wandb.init(**{**arguments, "mode": "offline"}, settings=settings)
        if run.offline:
            self.offline_dir = run.settings.sync_dir
        run.define_metric("train/global_step")
        run.define_metric("*", step_metric="train/global_step")
        run.define_metric("eval/rewards/accuracies", step_metric="train/global_step", summary="max")
        run.define_metric("eval/loss", step_metric="train/global_step", summary="min")
        return run

    def _needs_login(self) -> bool:
        return (self._mode or os.environ.get("WANDB_MODE") or "online") == "online"

    def _arguments(self, info: RunInfo) -> dict[str, Any]:
        by_variable = self._project == DEFAULT_PROJECT and "WANDB_PROJECT" in os.environ
        tags = self._tags or (
            None if "WANDB_TAGS" in os.environ else [info.recipe.get("method", {}).get("name", "dpo")]
        )
        return {
            "project": None if by_variable else self._project,
            "entity": self._entity,
            "mode": self._mode,
            "tags": tags,
            "name": info.name,
            "id": _run_id(info),
            "resume": "allow",
            "job_type": "train",
            "dir": str(info.run_dir),
            "config": scrub_values(dict(info.recipe)),
        }


def _give_up() -> None:
    """End the client now: when the process exits it would try again, and fail with a traceback."""
    import wandb

    with suppress(Exception):
        wandb.teardown()


def _settings() -> Settings:
    import wandb

    return wandb.Settings(
        disable_code=True,
        disable_git=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_save_requirements=False,
        console="off",
        host="-",
        silent=True,
        init_timeout=CONNECT_S,
        finish_timeout=FINISH_S,
    )


def _run_id(info: RunInfo) -> str:
    path = info.run_dir / ID_FILE
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    run_id = secrets.token_hex(4)
    path.write_text(run_id + "\n", encoding="utf-8")
    return run_id


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
