"""A tiny run to be killed, and what must come out of it all the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_cli.metrics.sinks.jsonl import read_metrics
from tests.fakes import pair_rows, write_jsonl, write_model

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12

TEXT = """\
model: {name: ./tiny}
data: {train: [{path: rows.jsonl}], split: {eval: 0.2}, cache: tokens}
optim: {lr: 1e-3, schedule: cosine, warmup: 0.2}
reference: {store: store}
train:
  {batch_size: 8, max_steps: 12, epochs: 9, precision: fp32, dropout: true, max_tokens_per_micro_batch: 300, samples: 0,
  eval_every: 5, save_every: 1}
log: {every: 2}
"""


def write_faulty_recipe(folder: Path, n: int = 40) -> Path:
    """Write a tiny model with dropout, n pairs and a recipe of twelve steps that saves after each."""
    write_model(folder / "tiny", attention_dropout=0.2)
    write_jsonl(folder / "rows.jsonl", pair_rows(n))
    path = folder / "tiny.yaml"
    path.write_text(TEXT)
    return path


@dataclass(frozen=True)
class Done:
    """How a process ended; `rc` is minus the signal that killed it."""

    rc: int
    out: str
    err: str


class Dpo:
    """Runs `dpo` in forks of one warm process."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()
        self._count = 0

    def __call__(
        self,
        *argv: str,
        cwd: Path,
        at: Sequence[tuple[str, int, str]] = (),
        limits: Mapping[str, int] | None = None,
        env: Mapping[str, str] | None = None,
        offline: bool = False,
    ) -> Done:
        """Run to the end.

        Args:
            argv: after `dpo`.
            cwd: working directory.
            at: (function, n, signal or errno): what happens just before the n-th call; see `zygote.happen_at`.
            limits: RLIMIT_* and their values; RLIMIT_AS counts from what the warm process has.
            env: more environment.
            offline: without a network.
        """
        self._count += 1
        out = self._scratch / str(self._count)
        request = {"argv": argv, "cwd": str(cwd), "out": str(out), "at": list(at)}
        self._ask({**request, "limits": dict(limits or {}), "env": dict(env or {}), "offline": offline})
        self._answer()
        rc = self._answer()["rc"]
        return Done(rc, *(Path(f"{out}.{name}").read_text() for name in ("out", "err")))

    def close(self) -> None:
        """End the warm process."""
        assert self._zygote.stdin is not None and self._zygote.stdout is not None
        self._zygote.stdin.close()
        self._zygote.kill()
        self._zygote.wait()
        self._zygote.stdout.close()

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(request) + "\n")
        self._zygote.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._zygote.stdout is not None
        line = self._zygote.stdout.readline()
        assert line, "the warm process died"
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True)
class Outcome:
    """What a faulted run must share with the uninterrupted one, to the last bit."""

    weights: str
    """sha256 of the saved model."""
    metrics: tuple[tuple[tuple[str, Any], ...], ...]
    """Everything that was logged, but times and speeds."""


def outcome(run_dir: Path) -> Outcome:
    """Give a finished run's outcome."""
    weights = hashlib.sha256((run_dir / "model" / "model.safetensors").read_bytes()).hexdigest()
    rows = read_metrics(run_dir / "metrics.jsonl")
    kept = [
        tuple(sorted((k, v) for k, v in row.items() if k not in ("time", "attempt") and k[:5] != "perf/"))
        for row in rows
    ]
    return Outcome(weights, tuple(kept))


def only_run(output: Path) -> Path:
    """Give the one run folder."""
    (path,) = output.iterdir()
    return path


def status_of(output: Path) -> dict[str, Any]:
    """Give the status of the one run."""
    status: dict[str, Any] = json.loads((only_run(output) / "status.json").read_text())
    return status


def flip_a_bit(path: Path, bit: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def committed(run_dir: Path) -> list[int]:
    """Give the steps of the checkpoints."""
    return sorted(int(path.parent.name[5:]) for path in run_dir.glob("checkpoints/step-*/MANIFEST.json"))
